//! Container layers: tar streams to ext4 in disk files and back.

mod control;
mod copy;
mod decompress;
mod details;
mod error;
mod export;
mod ext4_source;
mod filesystem;
#[cfg(unix)]
mod folder;
mod inspect;
mod path;
mod pipeline;
pub mod publish;
mod scratch;
mod tar;
mod to_disk;
mod to_tar;
mod unpack;
mod warning;
mod whiteout;

pub use control::{Control, Progress};
pub use copy::copy_file;
pub use decompress::Compression;
pub use details::{LAYER_FILE, LayerVhdDetails, SANDBOX_FILE, layer_vhd_details};
pub use error::{Error, ErrorKind, Result};
pub use export::DiskWhiteouts;
pub use filesystem::{DEFAULT_UUID, FilesystemOptions};
pub use inspect::{DiskInspection, FilesystemInspection, Inspection, inspect};
pub use opengcs_vhd::{Format, detect};
pub use publish::{Existing, NewFile};
pub use scratch::{DEFAULT_SCRATCH_SIZE, Scratch, ScratchOptions, create_scratch};
pub use to_disk::{Converted, TarToDiskOptions, TarToExt4Options, tar_to_disk, tar_to_ext4};
#[cfg(unix)]
pub use to_tar::folder_to_tar;
pub use to_tar::{DiskToTarOptions, Exported, disk_to_tar, ext4_to_tar};
pub use unpack::TarWhiteouts;
pub use warning::{Warning, Warnings};
