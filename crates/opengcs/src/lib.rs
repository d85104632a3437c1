//! Linux utility VMs for container hosts.

mod environment;
mod error;
pub mod guest;
mod options;
mod sys;

pub use environment::Environment;
pub use error::{Error, ErrorKind, Result};
/// Conversions between tar and disk files, with all their options.
pub use opengcs_layer as layer;
pub use options::{
    DEFAULT_INITRD_FILE, DEFAULT_KERNEL_FILE, DEFAULT_VHDX_FILE, OptionWarning, Options,
};
