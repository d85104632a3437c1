//! Linux utility VMs for container hosts.

mod config;
mod convert;
mod environment;
mod error;
pub mod guest;
mod options;
mod sys;
mod uvm;

pub use config::{
    Acceleration, BootMode, Chipset, Config, DEFAULT_UVM_TIMEOUT, DEFAULT_VHDX_SIZE_GB,
    MappedVirtualDisk, RequestedMode, TIMEOUT_VARIABLE,
};
pub use convert::{
    LayerVhdDetails, TarReader, copy_file, create_ext4_vhdx, layer_vhd_details, tar_to_vhd,
    vhd_to_tar,
};
pub use environment::Environment;
pub use error::{Error, ErrorKind, Result};
pub use options::{
    DEFAULT_INITRD_FILE, DEFAULT_KERNEL_FILE, DEFAULT_VHDX_FILE, OptionWarning, Options,
};
pub use uvm::{
    Attachment, DEBUG_COMMAND_VARIABLE, DEBUG_VARIABLE, Diagnostics, ExitStatus, GuestPlace,
    OverlaySpec, Output, Process, ProcessInput, ProcessOutput, ProcessSpec, Stopped, TarStream,
    UtilityVm,
};

/// Conversions with all their options.
pub use opengcs_layer as layer;
/// Machines as hardware, for callers that bring their own.
pub use opengcs_machine as machine;
