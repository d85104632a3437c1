//! One 512-byte tar header: where its fields are and what numbers in them mean.

/// The unit that tar is made of, in bytes.
pub(crate) const BLOCK: usize = 512;

/// A header as it stands in the tar.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

/// Which extension of the V7 header this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Gnu,
}

/// A number that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadNumber;

impl Header {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the checksum fits, as unsigned bytes or, as some old tars did, signed.
    pub(super) fn checksum_fits(&self) -> bool {
        let Ok(told) = number(&self.0[148..156]) else {
            return false;
        };
        told == self.sum() || told == self.signed_sum()
    }

    /// The sum of all bytes, those of the checksum taken as spaces.
    fn sum(&self) -> i64 {
        // Two plain sums, which compilers make few instructions of.
        let add = |bytes: &[u8]| -> u32 { bytes.iter().map(|byte| u32::from(*byte)).sum() };
        i64::from(add(&self.0) - add(&self.0[148..156]) + 8 * u32::from(b' '))
    }

    /// The same of bytes with a sign.
    fn signed_sum(&self) -> i64 {
        let high = |bytes: &[u8]| -> u32 { bytes.iter().map(|byte| u32::from(*byte >> 7)).sum() };
        self.sum() - 256 * i64::from(high(&self.0) - high(&self.0[148..156]))
    }

    pub(super) fn set_checksum(&mut self) {
        self.0[148..156].copy_from_slice(b"        ");
        let sum = self.sum();
        let text = format!("{sum:06o}\0 ");
        self.0[148..156].copy_from_slice(text.as_bytes());
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar") => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The path, with ustar's prefix before it.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // star leaves times behind a shorter prefix; its trailer tells it apart.
        let prefix = if &self.0[508..512] == b"tar\0" {
            text(&self.0[345..476])
        } else {
            prefix
        };
        if self.dialect() != Dialect::Ustar || prefix.is_empty() {
            return name.to_vec();
        }
        let mut path = Vec::with_capacity(prefix.len() + 1 + name.len());
        path.extend_from_slice(prefix);
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    pub(super) fn link(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<i64, BadNumber> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Result<i64, BadNumber> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<i64, BadNumber> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Result<i64, BadNumber> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Result<i64, BadNumber> {
        number(&self.0[136..148])
    }

    /// A device's major and minor number.
    pub(super) fn device(&self) -> (Result<i64, BadNumber>, Result<i64, BadNumber>) {
        (number(&self.0[329..337]), number(&self.0[337..345]))
    }

    /// GNU's access and change time, where set.
    pub(super) fn gnu_times(&self) -> (Option<i64>, Option<i64>) {
        let time = |field: &[u8]| number(field).ok().filter(|time| *time != 0);
        if self.dialect() == Dialect::Gnu {
            (time(&self.0[345..357]), time(&self.0[357..369]))
        } else {
            (None, None)
        }
    }
}

/// A field's bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    field.get(..end).unwrap_or(field)
}

/// Reads octal digits, padded with spaces or NULs on either side, or a
/// base-256 number (two's complement behind a set first bit). Blank is 0.
pub(super) fn number(field: &[u8]) -> Result<i64, BadNumber> {
    let (first, rest) = field.split_first().ok_or(BadNumber)?;
    if *first & 0x80 == 0 {
        return octal(field);
    }
    // The first byte holds the marker, the sign and six bits.
    let negative = *first & 0x40 != 0;
    let mut value = i64::from(*first & 0x3f) - if negative { 0x40 } else { 0 };
    for byte in rest {
        value = value
            .checked_mul(256)
            .and_then(|value| value.checked_add(i64::from(*byte)))
            .ok_or(BadNumber)?;
    }
    Ok(value)
}

fn octal(field: &[u8]) -> Result<i64, BadNumber> {
    let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t' | 0);
    let mut value: i64 = 0;
    let mut rest = field.iter().skip_while(blank);
    for byte in rest.by_ref() {
        match byte {
            b'0'..=b'7' => {
                value = value
                    .checked_mul(8)
                    .and_then(|value| value.checked_add(i64::from(*byte - b'0')))
                    .ok_or(BadNumber)?;
            }
            b' ' | 0 => break,
            _ => return Err(BadNumber),
        }
    }
    Ok(value)
}

/// Writes `value` as octal digits and a NUL, or as base-256 where it does not fit.
pub(super) fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if digits * 3 >= 64 || value >> (digits * 3) == 0 {
        let text = format!("{value:0digits$o}\0");
        field.copy_from_slice(text.as_bytes());
    } else {
        field.fill(0);
        let bytes = value.to_be_bytes();
        let start = field.len().saturating_sub(bytes.len());
        let skipped = bytes.len().saturating_sub(field.len());
        field[start..].copy_from_slice(&bytes[skipped..]);
        field[0] |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"00000644"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(b"        "), Ok(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Ok(256));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\x00"), Ok(-256));
        assert_eq!(
            number(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            Ok(i64::MAX)
        );
        assert_eq!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), Err(BadNumber));
        assert_eq!(number(b"00000a4\0"), Err(BadNumber));
        assert_eq!(number(b"-000644\0"), Err(BadNumber));
    }

    #[test]
    fn numbers_round_trip() {
        for value in [0, 1, 0o777_7777, 0o1000_0000, u64::from(u32::MAX), 1 << 40] {
            let mut field = [0; 8];
            put_number(&mut field, value);
            assert_eq!(number(&field), Ok(i64::try_from(value).unwrap()));
            let mut field = [0; 12];
            put_number(&mut field, value);
            assert_eq!(number(&field), Ok(i64::try_from(value).unwrap()));
        }
    }

    #[test]
    fn signed_checksum_fits_too() {
        let mut header = Header([0; BLOCK]);
        header.0[..3].copy_from_slice(b"a\xff\xfe");
        header.set_checksum();
        assert!(header.checksum_fits());
        let signed = header.signed_sum();
        header.0[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
        assert!(header.checksum_fits());
        header.0[0] = b'b';
        assert!(!header.checksum_fits());
    }
}
