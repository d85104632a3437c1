//! Decides what a disk file is: by its name when one is created, by its content when one is opened.

use std::fmt;
use std::str::FromStr;

use crate::vhd::{self, DiskType, Footer};
use crate::{Error, Result, Storage, vhdx};

/// What a disk file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// VHD, with all bytes in place. The one kind of VHD that is created.
    FixedVhd,
    /// VHD, dynamic or differencing.
    DynamicVhd,
    /// VHDX.
    Vhdx,
    /// The disk's bytes and nothing else.
    Raw,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FixedVhd => "vhd",
            Self::DynamicVhd => "dynamic vhd",
            Self::Vhdx => "vhdx",
            Self::Raw => "raw",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Reads the name of a format that can be created, in either case.
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "vhd" => Ok(Self::FixedVhd),
            "vhdx" => Ok(Self::Vhdx),
            "raw" => Ok(Self::Raw),
            _ => Err(Error::invalid(format!(
                "unknown disk format {text:?}: expected vhd, vhdx or raw"
            ))),
        }
    }
}

/// Finds the format of a disk file by its content.
///
/// ```
/// use opengcs_vhd::testing::MemoryFile;
/// use opengcs_vhd::{Disk, DiskOptions, Format, Guid, detect};
/// let options = DiskOptions::new(Format::FixedVhd, Some(1 << 20), Guid::from_u128(1));
/// let file = Disk::create(MemoryFile::new(), &options)?.finish()?;
/// assert_eq!(detect(&file)?, Format::FixedVhd);
/// assert_eq!(detect(&MemoryFile::from(&b"anything"[..]))?, Format::Raw);
/// assert_eq!("VHDX".parse::<Format>()?.to_string(), "vhdx");
/// # Ok::<(), opengcs_vhd::Error>(())
/// ```
///
/// # Errors
///
/// [`Corrupt`](crate::ErrorKind::Corrupt) when there is a VHD footer and it is broken;
/// those of the storage.
pub fn detect(storage: &(impl Storage + ?Sized)) -> Result<Format> {
    if vhdx::is_vhdx(storage)? {
        return Ok(Format::Vhdx);
    }
    Ok(match find_footer(storage)? {
        Some((footer, _)) if footer.disk_type == DiskType::Fixed => Format::FixedVhd,
        Some(_) => Format::DynamicVhd,
        None => Format::Raw,
    })
}

/// The VHD footer and where the data before it ends.
pub(super) fn find_footer(storage: &(impl Storage + ?Sized)) -> Result<Option<(Footer, u64)>> {
    match vhd::read_footer(storage) {
        Ok(Some(found)) => Ok(Some(found)),
        // A dynamic disk has a copy in front for when the last write was torn.
        other => match vhd::dynamic::leading_footer(storage) {
            Some(footer) => {
                let length = storage
                    .length()
                    .map_err(|error| Error::io("cannot find the length", 0, error))?;
                Ok(Some((footer, length)))
            }
            None => other,
        },
    }
}
