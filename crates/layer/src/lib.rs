//! Container layers: tar streams to ext4 in disk files and back.

mod control;
mod decompress;
mod details;
mod error;
mod export;
mod ext4_source;
#[cfg(unix)]
mod folder;
mod path;
mod pipeline;
pub mod publish;
mod tar;
mod unpack;
mod warning;
mod whiteout;

pub use control::{Control, Progress};
pub use decompress::Compression;
pub use details::{LAYER_FILE, LayerVhdDetails, SANDBOX_FILE, layer_vhd_details};
pub use error::{Error, ErrorKind, Result};
pub use export::DiskWhiteouts;
pub use publish::{Existing, NewFile};
pub use unpack::TarWhiteouts;
pub use warning::{Warning, Warnings};
