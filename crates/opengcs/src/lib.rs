//! Linux utility VMs for container hosts.
//!
//! A *utility VM* is a small Linux VM that a container engine boots to work on Linux file systems and
//! to run Linux processes. This crate starts one, adds disks to it and takes them away, runs processes
//! in it; and it turns container layers (tar streams) into ext4 disk files and back, which needs no VM.
//!
//! ```text
//!   tar(.gz .zst .xz) ──► tar_to_vhd ──► layer.vhd      create_ext4_vhdx ──► sandbox.vhdx
//!   tar ◄── vhd_to_tar ◄────────┘  │                                             │
//!                                  └─────────── hot_add_vhd ◄────────────────────┘
//!                                                    ▼
//!   Options ─► Config ─► UtilityVm::start ─► a VM ─► run_process ─► stdin, stdout, stderr, exit code
//! ```
//!
//! Every function of the Go package `github.com/Microsoft/opengcs/client` has its counterpart here
//! under its Rust-cased name; its Go name finds it in the search.
//!
//! What it refuses: a configuration that cannot work, before anything is started; tars, disks and
//! agents that are damaged or lie, with an error that names the place. A failure leaves no partial
//! file under a final name, no machine and no socket.
//!
//! ```
//! use std::io::Read;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (layer, tar) = (folder.path().join("layer.vhd"), vec![0; 10240]);
//! let size = opengcs::tar_to_vhd(&layer, tar.as_slice())?;
//!
//! let found = opengcs::layer_vhd_details(folder.path())?;
//! assert_eq!((found.size, found.is_sandbox), (size, false));
//!
//! let mut back = Vec::new();
//! opengcs::vhd_to_tar(&found.path, found.is_sandbox, Some(found.size))?.read_to_end(&mut back)?;
//! # Ok(()) }
//! ```
//!
//! With a VM, which [`guest::kernel`] and [`guest::initrd`] prepare once:
//!
//! ```no_run
//! use opengcs::{Config, UtilityVm};
//!
//! # async fn example() -> opengcs::Result<()> {
//! let vm = UtilityVm::start(Config::generate_default(["lcow.timeout=60"])?).await?;
//! vm.hot_add_vhd("layer.vhd", "/mnt/layer", true, true).await?;
//! let listed = vm.output("ls /mnt/layer", 1 << 20).await?;
//! assert!(listed.status.success());
//! vm.stop().await?;
//! # Ok(()) }
//! ```

mod config;
mod convert;
pub mod doctor;
mod environment;
mod error;
pub mod guest;
mod options;
mod runtime_dir;
mod sys;
mod uvm;

pub use config::{
    Acceleration, BootMode, Chipset, Config, DEFAULT_UVM_TIMEOUT, DEFAULT_VHDX_SIZE_GB,
    MappedVirtualDisk, RequestedMode, TIMEOUT_VARIABLE,
};
pub use convert::{
    LayerVhdDetails, Plan, TarReader, copy_file, create_ext4_vhdx, layer_vhd_details,
    plan_tar_to_vhd, tar_to_vhd, vhd_to_tar,
};
pub use environment::Environment;
pub use error::{Error, ErrorKind, Result};
pub use options::{
    DEFAULT_INITRD_FILE, DEFAULT_KERNEL_FILE, DEFAULT_VHDX_FILE, OptionWarning, Options,
};
pub use uvm::{
    Attachment, Container, ContainerExit, ContainerSpec, DEBUG_COMMAND_VARIABLE, DEBUG_VARIABLE,
    Diagnostics, ExitStatus, GuestPlace, HotAdd, LOG_VARIABLE, Output, OverlaySpec, Process,
    ProcessHandle, ProcessInput, ProcessOutput, ProcessSpec, Signal, Stage, Stopped, TarStream,
    Timeline, UtilityVm, write_bundle,
};

/// What a container or the VM has used.
pub use opengcs_bridge::message::GuestMetrics;

/// Conversions with all their options; receipts and what verifies them; chains of layers squashed.
pub use opengcs_layer as layer;
/// Machines as hardware, for callers that bring their own.
pub use opengcs_machine as machine;
