//! Container layers: tar streams to ext4 in disk files and back, without root, a loop device or a VM.
//!
//! ```text
//!  tar ──► decompress ──► tar::Decoder ──► unpack ──► ext4 writer ──► disk file
//!         (gzip zstd xz)                  (whiteouts)                (VHD VHDX raw)
//!
//!  tar ◄── compress ◄──── tar::Encoder ◄── export ◄─┬─ ext4 reader ◄── disk file
//!         (gzip zstd)                     (whiteouts)└─ a live folder
//! ```
//!
//! Everything is a stream: memory does not grow with the size of files. Input
//! or output, with its compression, runs in the caller's thread and the work on
//! trees in a second one; a plain tar is unpacked in the caller's, and the second
//! one writes. The same tar and options give the same bytes on every
//! machine, however the stream arrives. A dm-verity tree can follow the file
//! system in its disk (`TarToDiskOptions::verity`).
//!
//! What comes in is hostile. Nothing is followed or placed outside the root;
//! what is damaged, cut short or not understood is one [`Error`] that names the
//! tar's entry and byte, and leaves no file behind.
//!
//! [`plan_tar`] tells what a conversion would make of a tar, [`Receipt`] what it has made, and [`squash`]
//! makes one image of a chain of layers.
//!
//! Refused: paths that climb above the root; entries below something that is no
//! directory; hard links to what is not there; multi-volume tars and unknown
//! entry types; owners beyond 32 bits; device numbers beyond 12 and 20 bits;
//! names of more than 255 bytes. Told with a [`Warning`]: sockets are left out
//! (tar has none), so are access control lists in text form that name someone
//! without a number, attributes of other systems, and what follows a tar's end;
//! times before December 1901 and after May 2446 become the nearest.
//!
//! ```
//! use opengcs_layer::{DiskToTarOptions, TarToDiskOptions, disk_to_tar, tar_to_disk};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let disk = folder.path().join("layer.vhd");
//! let tar = [0; 1024]; // an empty tar; may be compressed
//! let converted = tar_to_disk(&tar[..], &disk, &TarToDiskOptions::default())?;
//! assert_eq!(converted.entries, 0);
//!
//! let mut tar = Vec::new();
//! let exported = disk_to_tar(&disk, &mut tar, &DiskToTarOptions::default())?;
//! assert_eq!(exported.entries, 1); // the root
//! # Ok(())
//! # }
//! ```

mod behind;
mod buffer;
mod chain;
mod content;
mod control;
mod copy;
mod counting;
mod decompress;
mod details;
mod digest;
mod disk_file;
mod error;
mod export;
mod ext4_source;
mod filesystem;
#[cfg(unix)]
mod folder;
mod hold;
mod image;
mod inspect;
mod path;
mod pipeline;
mod plan;
mod problem;
pub mod publish;
mod receipt;
mod reclaim;
mod scratch;
mod squash;
#[cfg(windows)]
mod sys;
mod tar;
mod to_disk;
mod to_tar;
mod unpack;
mod verity;
mod warning;
mod whiteout;

pub use chain::describe;
pub use control::{Control, Progress};
pub use copy::{CopyOptions, copy_file, copy_file_with};
pub use decompress::Compression;
pub use details::{LAYER_FILE, LayerVhdDetails, SANDBOX_FILE, layer_vhd_details};
pub use disk_file::DiskFile;
pub use error::{Error, ErrorKind, Result};
pub use export::DiskWhiteouts;
pub use filesystem::{DEFAULT_UUID, FilesystemOptions};
pub use inspect::{
    DiskInspection, FilesystemInspection, InspectOptions, Inspection, ParentInspection,
    RegionInspection, inspect, inspect_with,
};
pub use opengcs_vhd::{Disk, DiskOptions, Format, Guid, Summary, detect};
pub use plan::{Plan, PlannedImage, plan_tar};
pub use problem::{Problem, ProblemKind, Problems, Severity};
pub use publish::{Existing, NewFile};
pub use receipt::{Difference, Receipt, verify_image, verify_tar};
pub use reclaim::{ReclaimOptions, Reclaimed, reclaim};
pub use scratch::{DEFAULT_SCRATCH_SIZE, Scratch, ScratchOptions, create_scratch};
pub use squash::{SquashOptions, Squashed, squash};
pub use to_disk::{
    Converted, Digests, TarToDiskOptions, TarToExt4Options, tar_to_disk, tar_to_ext4,
};
#[cfg(unix)]
pub use to_tar::folder_to_tar;
pub use to_tar::{DiskToTarOptions, Exported, disk_to_tar, ext4_to_tar};
pub use unpack::TarWhiteouts;
pub use verity::Verity;
pub use warning::{Warning, Warnings};
