//! The footer that ends every VHD ("Hard Disk Footer Format"): what is written, and what is accepted.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Geometry, checksum};
use crate::{Error, Guid, Result};

/// The length of a footer in bytes.
pub const FOOTER_SIZE: usize = 512;
/// What every footer begins with.
pub const COOKIE: &[u8] = b"conectix";

const CHECKSUM_AT: usize = 64;
/// The bit of `Features` that is always set.
const FEATURE_RESERVED: u32 = 2;
const VERSION: u32 = 0x0001_0000;
const NO_DATA_OFFSET: u64 = u64::MAX;

/// The footer as it lies in the file; all numbers are big-endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    cookie: [u8; 8],
    features: U32,
    file_format_version: U32,
    data_offset: U64,
    /// Seconds since 2000-01-01 00:00:00 UTC.
    time_stamp: U32,
    creator_application: [u8; 4],
    creator_version: U32,
    creator_host_os: [u8; 4],
    original_size: U64,
    current_size: U64,
    cylinder: U16,
    heads: u8,
    sectors_per_track: u8,
    disk_type: U32,
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

const _: () = assert!(size_of::<Raw>() == FOOTER_SIZE);

/// What a VHD is, from the footer's `Disk Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskType {
    /// All blocks are in the file, in order.
    Fixed,
    /// Blocks are in the file once they have been written.
    Dynamic,
    /// Sectors are in the file once they differ from the parent's.
    Differencing,
}

/// A VHD's footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// What the VHD is.
    pub disk_type: DiskType,
    /// The virtual size in bytes.
    pub size: u64,
    /// The size when it was created, in bytes.
    pub original_size: u64,
    /// The geometry.
    pub geometry: Geometry,
    /// Where the dynamic header lies; none for a fixed disk.
    pub data_offset: Option<u64>,
    /// The identifier of the disk.
    pub unique_id: Guid,
    /// When it was created, in seconds since 2000-01-01 00:00:00 UTC.
    pub time_stamp: u32,
    /// The tool that created it. Readers that know the tool take the size from
    /// the footer, others from the geometry.
    pub creator_application: [u8; 4],
    /// The version of that tool: major in the high half, minor in the low.
    pub creator_version: u32,
    /// The system it ran on.
    pub creator_host_os: [u8; 4],
    /// Whether the disk belongs to a machine that is saved.
    pub saved_state: bool,
}

impl Footer {
    /// Seconds from 1970-01-01 to 2000-01-01, both 00:00:00 UTC.
    pub const EPOCH: u64 = 946_684_800;

    /// The footer of a fixed disk. Creator fields are those of Windows
    /// (`win `, 10.0, `Wi2k`): readers such as QEMU take the exact size from
    /// such a footer, and round to the geometry for creators they do not know.
    ///
    /// ```
    /// use opengcs_vhd::Guid;
    /// use opengcs_vhd::vhd::Footer;
    /// let unix_time = 1_700_000_000;
    /// let time_stamp = u32::try_from(unix_time - Footer::EPOCH)?;
    /// let footer = Footer::fixed(20 << 30, Guid::from_u128(1), time_stamp);
    /// assert_eq!(Footer::parse(&footer.encode())?, footer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fixed(size: u64, unique_id: Guid, time_stamp: u32) -> Self {
        Self {
            disk_type: DiskType::Fixed,
            size,
            original_size: size,
            geometry: Geometry::of(size),
            data_offset: None,
            unique_id,
            time_stamp,
            creator_application: *b"win ",
            creator_version: 0x000a_0000,
            creator_host_os: *b"Wi2k",
            saved_state: false,
        }
    }

    /// The footer's 512 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FOOTER_SIZE] {
        let mut raw = Raw::new_zeroed();
        raw.cookie.copy_from_slice(COOKIE);
        raw.features = FEATURE_RESERVED.into();
        raw.file_format_version = VERSION.into();
        raw.data_offset = self.data_offset.unwrap_or(NO_DATA_OFFSET).into();
        raw.time_stamp = self.time_stamp.into();
        raw.creator_application = self.creator_application;
        raw.creator_version = self.creator_version.into();
        raw.creator_host_os = self.creator_host_os;
        raw.original_size = self.original_size.into();
        raw.current_size = self.size.into();
        raw.cylinder = self.geometry.cylinders.into();
        raw.heads = self.geometry.heads;
        raw.sectors_per_track = self.geometry.sectors;
        raw.disk_type = match self.disk_type {
            DiskType::Fixed => 2,
            DiskType::Dynamic => 3,
            DiskType::Differencing => 4,
        }
        .into();
        raw.unique_id = self.unique_id.to_bytes();
        raw.saved_state = u8::from(self.saved_state);
        raw.checksum = checksum(raw.as_bytes(), CHECKSUM_AT).into();
        zerocopy::transmute!(raw)
    }

    /// Reads a footer. Fields that do not change where the data lies are taken
    /// as they are: the geometry may be missing, the creator anything, feature
    /// bits unknown.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a wrong cookie or checksum;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for another major
    /// version or an unknown disk type.
    pub fn parse(bytes: &[u8; FOOTER_SIZE]) -> Result<Self> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.cookie != COOKIE {
            return Err(Error::corrupt("not a VHD footer"));
        }
        if raw.checksum.get() != checksum(bytes, CHECKSUM_AT) {
            return Err(Error::corrupt("the VHD footer's checksum is wrong"));
        }
        let version = raw.file_format_version.get();
        if version >> 16 != VERSION >> 16 {
            return Err(Error::unsupported(format!(
                "VHD format version {}.{} is not supported",
                version >> 16,
                version & 0xffff
            )));
        }
        let disk_type = match raw.disk_type.get() {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => {
                return Err(Error::unsupported(format!(
                    "VHD disk type {other} is not supported"
                )));
            }
        };
        Ok(Self {
            disk_type,
            size: raw.current_size.get(),
            original_size: raw.original_size.get(),
            geometry: Geometry {
                cylinders: raw.cylinder.get(),
                heads: raw.heads,
                sectors: raw.sectors_per_track,
            },
            data_offset: Some(raw.data_offset.get())
                .filter(|at| *at != NO_DATA_OFFSET && disk_type != DiskType::Fixed),
            unique_id: Guid::from_bytes(raw.unique_id),
            time_stamp: raw.time_stamp.get(),
            creator_application: raw.creator_application,
            creator_version: raw.creator_version.get(),
            creator_host_os: raw.creator_host_os,
            saved_state: raw.saved_state != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer::fixed(
            20 << 20,
            Guid::from_bytes(*b"0123456789abcdef"),
            0x1122_3344,
        )
    }

    #[test]
    fn fields_lie_where_the_specification_says() {
        let bytes = footer().encode();
        assert_eq!(&bytes[0..8], b"conectix");
        assert_eq!(bytes[8..12], [0, 0, 0, 2]);
        assert_eq!(bytes[12..16], [0, 1, 0, 0]);
        assert_eq!(bytes[16..24], [0xff; 8]);
        assert_eq!(bytes[24..28], [0x11, 0x22, 0x33, 0x44]);
        assert_eq!(&bytes[28..32], b"win ");
        assert_eq!(bytes[32..36], [0, 10, 0, 0]);
        assert_eq!(&bytes[36..40], b"Wi2k");
        assert_eq!(bytes[40..48], [0, 0, 0, 0, 1, 0x40, 0, 0]);
        assert_eq!(bytes[48..56], [0, 0, 0, 0, 1, 0x40, 0, 0]);
        assert_eq!(bytes[56..60], [0x02, 0x5a, 4, 17]);
        assert_eq!(bytes[60..64], [0, 0, 0, 2]);
        assert_eq!(&bytes[68..84], b"0123456789abcdef");
        assert!(bytes[84..].iter().all(|byte| *byte == 0));
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .filter(|(at, _)| !(64..68).contains(at))
            .map(|(_, byte)| u32::from(*byte))
            .sum();
        assert_eq!(bytes[64..68], (!sum).to_be_bytes());
    }

    #[test]
    fn encode_then_parse_is_equal() {
        assert_eq!(Footer::parse(&footer().encode()).unwrap(), footer());
    }

    #[test]
    fn any_flipped_bit_is_an_error() {
        let good = footer().encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::parse(&bytes).is_err(), "bit {bit}");
        }
    }
}
