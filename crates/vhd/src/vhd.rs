//! VHD files (Microsoft Virtual Hard Disk Image Format Specification 1.0): the
//! footer that ends each of them, fixed disks, and reading of dynamic and
//! differencing disks.

pub mod dynamic;
pub mod footer;
pub mod geometry;

pub use dynamic::{DynamicVhd, ParentLocator, ParentName};
pub use footer::{DiskType, FOOTER_SIZE, Footer};
pub use geometry::Geometry;

use crate::{Error, Result, Storage};

/// The largest VHD that Hyper-V opens: 2040 GiB.
pub const MAX_SIZE: u64 = 2040 << 30;
/// The unit of a VHD's size, in bytes.
pub const SECTOR_SIZE: u64 = 512;

/// Finds and reads the footer that ends a VHD, if there is one.
///
/// Footers of 511 bytes, which tools before Virtual PC 2004 wrote, are read too.
/// Given beside the footer is where it begins.
///
/// ```
/// use opengcs_vhd::testing::MemoryFile;
/// use opengcs_vhd::vhd::{self, Footer};
/// use opengcs_vhd::{Guid, Storage};
/// let file = MemoryFile::new();
/// file.resize(1 << 20)?;
/// assert_eq!(vhd::read_footer(&file)?, None);
/// let footer = Footer::fixed(1 << 20, Guid::from_u128(1), 0);
/// vhd::append_footer(&file, &footer)?;
/// assert_eq!(vhd::read_footer(&file)?, Some((footer, 1 << 20)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Corrupt`](crate::ErrorKind::Corrupt) when there is a footer that breaks
/// the format's rules; those of the storage.
pub fn read_footer(storage: &(impl Storage + ?Sized)) -> Result<Option<(Footer, u64)>> {
    let length = storage
        .length()
        .map_err(|error| Error::io("cannot find the length", 0, error))?;
    for size in [512_usize, 511] {
        let Some(at) = length.checked_sub(crate::number::wide(size)) else {
            continue;
        };
        let mut bytes = [0; FOOTER_SIZE];
        let Some(found) = bytes.get_mut(..size) else {
            continue;
        };
        storage
            .read_exact_at(at, found)
            .map_err(|error| Error::io("cannot read the VHD footer", at, error))?;
        if bytes.starts_with(footer::COOKIE) {
            return match Footer::parse(&bytes) {
                Ok(footer) => Ok(Some((footer, at))),
                Err(error) => Err(error.at(at)),
            };
        }
    }
    Ok(None)
}

/// Makes the first `footer.size` bytes of `storage` a fixed VHD, by writing the
/// footer behind them. What lies beyond is cut off.
///
/// ```
/// use opengcs_vhd::vhd::{self, Footer};
/// use opengcs_vhd::{Format, Guid, detect};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("disk");
/// std::fs::write(&path, vec![7; 1 << 20])?;
/// let file = std::fs::File::options().read(true).write(true).open(&path)?;
/// let seconds_since_2000 = 0;
/// let footer = Footer::fixed(1 << 20, Guid::from_u128(1), seconds_since_2000);
/// vhd::append_footer(&file, &footer)?;
/// assert_eq!(detect(&file)?, Format::FixedVhd);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the size is no
/// multiple of 512, is zero or exceeds [`MAX_SIZE`]; those of the storage.
pub fn append_footer(storage: &(impl Storage + ?Sized), footer: &Footer) -> Result<()> {
    check_size(footer.size)?;
    let io = |error| Error::io("cannot write the VHD footer", footer.size, error);
    storage.resize(footer.size).map_err(io)?;
    storage.store_at(footer.size, &footer.encode()).map_err(io)
}

/// Whether a VHD of this size can be made.
pub(crate) fn check_size(size: u64) -> Result<()> {
    if size == 0 {
        return Err(Error::invalid("a VHD cannot be empty"));
    }
    if !size.is_multiple_of(SECTOR_SIZE) {
        return Err(Error::invalid(format!(
            "a VHD's size must be a multiple of 512 bytes, not {size}"
        )));
    }
    if size > MAX_SIZE {
        return Err(Error::invalid(format!(
            "a VHD cannot be larger than 2040 GiB (asked: {size} bytes); use VHDX"
        )));
    }
    Ok(())
}

/// The ones' complement of the sum of all bytes but those of the checksum
/// itself, at `at` ("Checksum" in the specification).
pub(crate) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let own = at..at.saturating_add(4);
    !bytes
        .iter()
        .enumerate()
        .filter(|(index, _)| !own.contains(index))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}
