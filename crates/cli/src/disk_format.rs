//! Which kinds of disk files can be made, and which one a file's name asks for.

use std::path::Path;

use clap::ValueEnum;
use opengcs::layer::Format;
use uuid::Uuid;

use crate::failure::Failure;

/// A kind of disk file that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiskFormat {
    /// Fixed VHD: the disk's bytes and a footer
    Vhd,
    /// VHDX: grows as it is written to
    Vhdx,
    /// The disk's bytes and nothing else
    Raw,
}

impl DiskFormat {
    /// The kind that was asked for, or that the file's name asks for.
    ///
    /// # Errors
    /// The name asks for one that is not made here.
    pub(crate) fn chosen(asked: Option<Self>, path: &Path) -> Result<Option<Self>, Failure> {
        const OTHERS: [&str; 5] = ["qcow2", "qcow", "vmdk", "vdi", "avhdx"];
        if asked.is_some() {
            return Ok(asked);
        }
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        if OTHERS.iter().any(|other| ending == *other) {
            let line = format!(
                "{} has the name of a format that is not made here",
                path.display()
            );
            let hint = "name it .vhd, .vhdx or .img, or say with --format what it is to be";
            return Err(Failure::usage(line).hint(hint));
        }
        Ok(Self::named(path))
    }

    /// The kind that a file of this name is expected to be, if it says so.
    fn named(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "vhd" => Some(Self::Vhd),
            "vhdx" => Some(Self::Vhdx),
            "img" | "raw" | "ext4" => Some(Self::Raw),
            _ => None,
        }
    }
}

impl From<DiskFormat> for Format {
    fn from(format: DiskFormat) -> Self {
        match format {
            DiskFormat::Vhd => Self::FixedVhd,
            DiskFormat::Vhdx => Self::Vhdx,
            DiskFormat::Raw => Self::Raw,
        }
    }
}

/// A UUID as it is given on the command line.
pub(crate) fn uuid(text: &str) -> Result<Uuid, String> {
    if text.eq_ignore_ascii_case("random") {
        return Ok(Uuid::new_v4());
    }
    text.parse()
        .map_err(|_| "write 32 hexadecimal digits as 8-4-4-4-12, or random".to_owned())
}
