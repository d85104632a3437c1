//! A virtual machine as hardware: QEMU, its disks and its vsock device.

pub mod acceleration;
pub mod config;
pub mod disk;
pub mod error;
pub mod local;
pub mod machine;
#[cfg(target_os = "linux")]
pub mod qemu;
pub mod state;
pub mod stream;
mod sys;
#[cfg(target_os = "linux")]
mod vsock;

pub use config::{
    Acceleration, Boot, Chipset, LUNS_PER_CONTROLLER, MAX_CONTROLLERS, MachineConfig,
};
pub use disk::{DiskFormat, DiskSpec, Slot};
pub use error::{Error, ErrorKind, Result};
pub use machine::{BoxFuture, Description, Exit, ExitReason, Machine, Port};
pub use state::State;
pub use stream::{Listener, Stream};
