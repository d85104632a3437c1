//! A virtual machine as hardware: start, attach, detach, listen, stop.
//!
//! ```text
//!                 ┌─ MachineConfig: kernel or disk, memory, processors, controllers
//!                 ▼
//!  create ──► Machine ──► power_on ──► attach(DiskSpec) ─► Slot     terminate ──► Exit
//!                │                     detach(Slot)
//!                ├─ listen(Port) ─► Listener ─► Stream      (before the guest runs, too)
//!                └─ connect(Port) ────────────► Stream
//! ```
//!
//! [`Machine`] is what every hypervisor offers; [`qemu::Qemu`] is it on Linux, with KVM or emulation. The
//! crate knows no message: what goes through a [`Stream`] is its user's.
//!
//! It refuses to guess a disk's format, to let a machine outlive its owner, to let a guest make it hold more
//! than a bounded amount of memory, and to start a machine twice.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use opengcs_machine::qemu::Qemu;
//! use opengcs_machine::{Boot, DiskFormat, DiskSpec, Machine, MachineConfig, Port};
//!
//! let boot = Boot::LinuxKernel {
//!     kernel: "bootx64.efi".into(),
//!     initrd: Some("initrd.img".into()),
//!     command_line: "quiet".into(),
//! };
//! let machine = Qemu::create(MachineConfig::new("uvm", "/run/uvm", boot))?;
//! let mut bridge = machine.listen(Port(0x4000_0000))?;
//! machine.power_on().await?;
//! let _connection = bridge.accept().await?;
//! let slot = machine
//!     .attach(DiskSpec::new("layer.vhd", DiskFormat::FixedVhd, true))
//!     .await?;
//! machine.detach(slot).await?;
//! println!("{}", machine.terminate().await);
//! # Ok(()) }
//! ```

pub mod acceleration;
pub mod config;
mod console;
pub mod disk;
pub mod error;
pub mod hcs;
#[cfg(any(target_os = "linux", windows))]
mod life;
pub mod local;
pub mod machine;
#[cfg(target_os = "linux")]
pub mod qemu;
pub mod state;
pub mod stream;
mod sys;
#[cfg(all(target_os = "linux", any(test, feature = "testing")))]
pub mod testing;
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
