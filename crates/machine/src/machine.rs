//! Decides what every hypervisor's machine can be asked: the [`Machine`] trait and its plain types.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use crate::disk::{DiskSpec, Slot};
use crate::error::Result;
use crate::state::State;
use crate::stream::{Listener, Stream};

/// What an asynchronous method of a `dyn Machine` returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A vsock port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u32);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why a machine is no longer running.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest's kernel panicked; the message is the console's.
    Panicked(String),
    /// The guest reset itself. Machines do not start again on their own, so this ends them.
    Reset,
    /// We ended it, at the owner's wish.
    Terminated,
    /// The hypervisor's process was killed by a signal that was not ours.
    Killed(i32),
    /// The hypervisor's process ended on its own with this exit code.
    Crashed(i32),
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => write!(f, "the guest powered off"),
            Self::Panicked(message) => write!(f, "the guest's kernel panicked: {message}"),
            Self::Reset => write!(f, "the guest reset itself"),
            Self::Terminated => write!(f, "the machine was terminated"),
            Self::Killed(signal) => write!(f, "the hypervisor was killed by signal {signal}"),
            Self::Crashed(code) => write!(f, "the hypervisor ended with exit code {code}"),
        }
    }
}

/// The report of a machine's end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Why it ended.
    pub reason: ExitReason,
    /// The last lines the hypervisor wrote to its standard error, at most 16 KiB.
    pub stderr: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        let unasked = matches!(
            self.reason,
            ExitReason::Killed(_) | ExitReason::Crashed(_) | ExitReason::Reset
        );
        match self.stderr.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) if unasked => write!(f, ": {}", crate::error::one_line(line)),
            _ => Ok(()),
        }
    }
}

/// How a machine is run, for people and for bundles of evidence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Description {
    /// The hypervisor, `qemu` or `hcs`.
    pub hypervisor: String,
    /// `kvm` or `tcg` (QEMU), `hyper-v` (HCS).
    pub acceleration: String,
    /// Why that acceleration was taken.
    pub acceleration_reason: String,
    /// The machine type, `q35` or `microvm`.
    pub chipset: String,
    /// The hypervisor's command line; empty where there is none.
    pub command_line: Vec<String>,
    /// The hypervisor's process, while there is one.
    pub process_id: Option<u32>,
}

/// A virtual machine as hardware. It knows memory, disks, ports and power; it knows no message.
///
/// A machine is made *created*: ports can be listened on before the guest runs its first instruction, so
/// that no early dial is refused. [`power_on`](Machine::power_on) starts it. It cannot be started again.
/// Dropping it kills it. See [`State`] for the life cycle.
pub trait Machine: Send + Sync + fmt::Debug {
    /// Starts the machine and returns when the hypervisor has it running (the guest's own start-up is just
    /// beginning then). On failure everything that was made is removed.
    fn power_on(&self) -> BoxFuture<'_, Result<()>>;

    /// Attaches a disk and returns its slot once the hypervisor has it. The guest may need a moment more.
    fn attach(&self, disk: DiskSpec) -> BoxFuture<'_, Result<Slot>>;

    /// Detaches the disk in `slot` and returns when its file is closed.
    fn detach(&self, slot: Slot) -> BoxFuture<'_, Result<()>>;

    /// Listens for the guest's connections to `port` of the host. May be called before `power_on`.
    ///
    /// # Errors
    /// [`PortInUse`](crate::ErrorKind::PortInUse) if this machine has a listener there.
    fn listen(&self, port: Port) -> Result<Listener>;

    /// Connects to `port` of the guest.
    fn connect(&self, port: Port) -> BoxFuture<'_, Result<Stream>>;

    /// Presses the power button. Whether and when the guest powers off is the guest's matter.
    fn power_off(&self) -> BoxFuture<'_, Result<()>>;

    /// Ends the machine, gently if the hypervisor still answers and by force otherwise, within seconds.
    /// Returns when its process is gone. Ending an ended machine is no error.
    fn terminate(&self) -> BoxFuture<'_, Exit>;

    /// Waits for the machine's end, for as long as it takes.
    fn wait(&self) -> BoxFuture<'_, Exit>;

    /// Where in its life the machine is.
    fn state(&self) -> State;

    /// The file in which the console is recorded (bounded; what it had before is in the same path with
    /// `.1` appended).
    fn console(&self) -> PathBuf;

    /// The last bytes of the console, for messages.
    fn console_tail(&self) -> String;

    /// The last lines the hypervisor wrote to its standard error, and the errors of its disks.
    fn stderr_tail(&self) -> String;

    /// How the machine is run, and why so.
    fn describe(&self) -> Description;
}
