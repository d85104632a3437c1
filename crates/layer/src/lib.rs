//! Container layers: tar streams to ext4 in disk files and back.

mod details;
mod error;
pub mod publish;

pub use details::{LAYER_FILE, LayerVhdDetails, SANDBOX_FILE, layer_vhd_details};
pub use error::{Error, ErrorKind, Result};
pub use publish::{Existing, NewFile};
