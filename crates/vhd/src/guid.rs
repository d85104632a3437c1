//! Decides how a 128-bit identifier is laid out on disk and shown.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A GUID (UUID), held in the byte order of RFC 4122.
///
/// ```
/// use opengcs_vhd::Guid;
/// let guid: Guid = "{2DC27766-F623-4200-9D64-115E9BFD4A08}".parse()?;
/// assert_eq!(guid.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
/// assert_eq!(guid, Guid::from_u128(0x2dc27766_f623_4200_9d64_115e9bfd4a08));
/// # Ok::<(), opengcs_vhd::Error>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

impl Guid {
    /// The GUID of all zeros.
    pub const NIL: Self = Self([0; 16]);

    /// From the 16 bytes in the order they are written in text (RFC 4122).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From the 32 hexadecimal digits as a number.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// The 16 bytes in the order they are written in text.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether all bytes are zero.
    #[must_use]
    pub fn is_nil(self) -> bool {
        self == Self::NIL
    }

    /// From the layout Windows writes: the first three fields are little-endian.
    pub(crate) const fn from_windows(bytes: [u8; 16]) -> Self {
        Self(swap(bytes))
    }

    /// To the layout Windows writes.
    pub(crate) const fn to_windows(self) -> [u8; 16] {
        swap(self.0)
    }

    /// Another GUID that depends on this one and on `salt` alone: the last
    /// eight bytes are mixed, so equal salts give equal GUIDs and different
    /// salts different ones.
    pub(crate) fn derive(self, salt: u64) -> Self {
        Self::from_u128(u128::from_be_bytes(self.0) ^ u128::from(salt))
    }
}

const fn swap(b: [u8; 16]) -> [u8; 16] {
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = Error;

    /// Reads the usual text form, with or without braces, in either case.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("not a GUID: {text:?}"));
        let inner = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(text);
        let parts: Vec<&str> = inner.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        if lengths != [8, 4, 4, 4, 12] || !inner.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
        {
            return Err(bad());
        }
        u128::from_str_radix(&parts.concat(), 16)
            .map(Self::from_u128)
            .map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_layout_swaps_the_first_three_fields() {
        let guid: Guid = "{2DC27766-F623-4200-9D64-115E9BFD4A08}".parse().unwrap();
        assert_eq!(
            guid.to_windows(),
            [
                0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd,
                0x4a, 0x08
            ]
        );
        assert_eq!(Guid::from_windows(guid.to_windows()), guid);
        assert_eq!(guid.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
        assert!("2DC27766F62342009D64115E9BFD4A08".parse::<Guid>().is_err());
        assert!(
            "+DC27766-F623-4200-9D64-115E9BFD4A08"
                .parse::<Guid>()
                .is_err()
        );
    }
}
