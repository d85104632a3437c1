//! The file identifier and the two headers ([MS-VHDX] 2.2.1, 2.2.2): which header counts, and how one is replaced.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::number::MIB;
use crate::{Error, Guid, Result};

/// What the file begins with.
pub(crate) const FILE_SIGNATURE: &[u8; 8] = b"vhdxfile";
/// How long the identifier is: the signature and 256 UTF-16 units.
pub(crate) const IDENTIFIER_SIZE: usize = 8 + 512;
/// Where the two headers lie.
pub(crate) const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
pub(crate) const HEADER_SIZE: usize = 4096;
const CHECKSUM_AT: usize = 4;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    signature: [u8; 4],
    checksum: U32,
    sequence_number: U64,
    file_write_guid: [u8; 16],
    data_write_guid: [u8; 16],
    log_guid: [u8; 16],
    log_version: U16,
    version: U16,
    log_length: U32,
    log_offset: U64,
    reserved: [u8; 4016],
}

const _: () = assert!(size_of::<Raw>() == HEADER_SIZE);

/// One header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The greater one counts.
    pub(crate) sequence_number: u64,
    /// Changes whenever the file is opened and changed.
    pub(crate) file_write_guid: Guid,
    /// Changes whenever what a reader of the disk sees may change.
    pub(crate) data_write_guid: Guid,
    /// Which log entries count; nil when the log is empty.
    pub(crate) log_guid: Guid,
    /// Where the log lies, in bytes, a multiple of 1 MiB.
    pub(crate) log_offset: u64,
    /// How long the log is, in bytes, a multiple of 1 MiB.
    pub(crate) log_length: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut raw = Raw::new_zeroed();
        raw.signature = *b"head";
        raw.sequence_number = self.sequence_number.into();
        raw.file_write_guid = self.file_write_guid.to_windows();
        raw.data_write_guid = self.data_write_guid.to_windows();
        raw.log_guid = self.log_guid.to_windows();
        raw.version = 1.into();
        raw.log_length = self.log_length.into();
        raw.log_offset = self.log_offset.into();
        raw.checksum = checksum(raw.as_bytes(), CHECKSUM_AT).into();
        zerocopy::transmute!(raw)
    }

    /// Reads one header; none when its signature or checksum is wrong, which a
    /// torn write leaves behind.
    fn parse(bytes: &[u8; HEADER_SIZE]) -> Option<Raw> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        (raw.signature == *b"head" && raw.checksum.get() == checksum(bytes, CHECKSUM_AT))
            .then_some(raw)
    }

    /// Chooses the header that counts, and tells which of the two it is.
    pub(crate) fn choose(copies: &[[u8; HEADER_SIZE]; 2]) -> Result<(Self, usize)> {
        let [first, second] = copies.each_ref().map(Self::parse);
        let (raw, slot) = match (first, second) {
            (Some(a), Some(b)) => {
                let (x, y) = (a.sequence_number.get(), b.sequence_number.get());
                if x == y && a.as_bytes() != b.as_bytes() {
                    return Err(Error::corrupt(
                        "both VHDX headers have the same sequence number and differ",
                    ));
                }
                if x >= y { (a, 0) } else { (b, 1) }
            }
            (Some(a), None) => (a, 0),
            (None, Some(b)) => (b, 1),
            (None, None) => return Err(Error::corrupt("neither VHDX header is valid")),
        };
        let version = raw.version.get();
        if version != 1 {
            return Err(Error::unsupported(format!(
                "VHDX version {version} is not supported"
            )));
        }
        let log_guid = Guid::from_windows(raw.log_guid);
        if raw.log_version.get() != 0 && !log_guid.is_nil() {
            return Err(Error::unsupported(format!(
                "VHDX log version {} is not supported",
                raw.log_version.get()
            )));
        }
        let log_offset = raw.log_offset.get();
        let log_length = raw.log_length.get();
        if log_length == 0
            || !u64::from(log_length).is_multiple_of(MIB)
            || !log_offset.is_multiple_of(MIB)
            || log_offset < MIB
        {
            return Err(Error::corrupt("the VHDX log is misplaced").at(log_offset));
        }
        let header = Self {
            sequence_number: raw.sequence_number.get(),
            file_write_guid: Guid::from_windows(raw.file_write_guid),
            data_write_guid: Guid::from_windows(raw.data_write_guid),
            log_guid,
            log_offset,
            log_length,
        };
        Ok((header, slot))
    }
}

/// CRC-32C of `bytes` with the four bytes at `at`, the checksum's own, as zeros.
pub(crate) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let (before, rest) = bytes.split_at(at.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    let sum = crc32c::crc32c(before);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, after)
}

/// The bytes that start the file.
pub(crate) fn encode_identifier(creator: &str) -> [u8; IDENTIFIER_SIZE] {
    let mut bytes = [0; IDENTIFIER_SIZE];
    let units = creator.encode_utf16().take(255).flat_map(u16::to_le_bytes);
    let all = FILE_SIGNATURE.iter().copied().chain(units);
    for (to, from) in bytes.iter_mut().zip(all) {
        *to = from;
    }
    bytes
}

/// Who made the file, for people.
pub(crate) fn parse_creator(identifier: &[u8; IDENTIFIER_SIZE]) -> String {
    let (units, _) = identifier.as_chunks::<2>();
    let units = units.iter().skip(4).map(|unit| u16::from_le_bytes(*unit));
    crate::vhd::dynamic::utf16(units)
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence_number: u64) -> Header {
        Header {
            sequence_number,
            file_write_guid: Guid::from_u128(1),
            data_write_guid: Guid::from_u128(2),
            log_guid: Guid::NIL,
            log_offset: MIB,
            log_length: 1 << 20,
        }
    }

    #[test]
    fn greater_sequence_number_counts_and_a_torn_header_does_not() {
        let (old, new) = (header(7).encode(), header(8).encode());
        assert_eq!(Header::choose(&[old, new]).unwrap(), (header(8), 1));
        assert_eq!(Header::choose(&[new, old]).unwrap(), (header(8), 0));
        for length in 0..80 {
            let mut torn = old;
            torn[..length].copy_from_slice(&new[..length]);
            let (found, _) = Header::choose(&[header(6).encode(), torn]).unwrap();
            assert!([6, 7, 8].contains(&found.sequence_number));
        }
    }

    #[test]
    fn any_flipped_bit_invalidates_a_header() {
        for bit in 0..100 * 8 {
            let mut bytes = header(7).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::choose(&[bytes, [0; HEADER_SIZE]]).is_err());
        }
    }
}
