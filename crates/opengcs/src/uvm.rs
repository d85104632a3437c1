//! A running utility VM: what it owns, and that all of it ends with it.
//!
//! ```text
//!   Config ──► UtilityVm::start ──► machine powered on ──► guest dials: entropy, log, bridge
//!                                                              │
//!   run_process, hot_add_vhd, … ──► link ──► request ──► agent ┘   stdio: a port for each stream
//!                                     ▲
//!                                     └── the bridge breaks: the guest dials again
//!   the machine ends ──► every request fails at once, with the machine's reason
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use opengcs_bridge::message::{
    Capabilities, GuestMetrics, Nested, PlainRequest, PropertiesRequest, PropertyQuery, Request,
    RequestBase, Response,
};
use opengcs_machine::{Description, Machine, State};
use tokio::task::AbortHandle;

use crate::config::{BootMode, Config};
use crate::doctor::{INSTALL_FIRMWARE, INSTALL_QEMU};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime_dir::RuntimeDir;

mod bundle;
mod command_line;
mod container;
mod copy;
mod debug;
mod disks;
mod export;
mod layers;
mod life;
mod link;
mod process;
mod record;
mod services;
mod start;
mod stop;
#[cfg(test)]
mod tests;
mod timeline;

pub use bundle::write_bundle;
pub use container::{Container, ContainerExit, ContainerSpec};
pub use debug::{DEBUG_COMMAND_VARIABLE, DEBUG_VARIABLE, Diagnostics};
pub use disks::{Attachment, GuestPlace, HotAdd};
pub use export::TarStream;
pub use layers::OverlaySpec;
pub use process::{
    ExitStatus, Output, Process, ProcessHandle, ProcessInput, ProcessOutput, ProcessSpec, Signal,
};
pub use stop::Stopped;
pub use timeline::{Stage, Timeline};

pub(crate) use copy::DataLog;
pub use copy::LOG_VARIABLE;
use disks::Disks;
use link::Link;
use services::Logs;
use timeline::Marks;

/// A utility VM that runs.
///
/// Its methods take `&self` and may be called from several tasks at once. An operation that changes
/// the VM (adding or removing a disk) runs to its end even when its future is dropped, so that host
/// and guest agree on the outcome. Dropping the `UtilityVm` ends the machine at once, without asking
/// the guest: [`stop`](Self::stop) is the gentle way.
#[doc(alias = "Uvm")]
pub struct UtilityVm {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    mode: BootMode,
    machine: Arc<dyn Machine>,
    link: Link,
    disks: Disks,
    logs: Logs,
    tasks: Mutex<Vec<AbortHandle>>,
    /// When the stages of the start were reached.
    marks: Arc<Marks>,
    /// The console as it was when the VM had come up: what follows may push its stages out.
    boot_console: OnceLock<String>,
    /// The agent has answered and the configured disks are there.
    came_up: AtomicBool,
    /// Somebody wants the end.
    stop_asked: AtomicBool,
    /// The next port for a process's stream.
    next_port: AtomicU32,
    /// Last: it goes when the machine is gone.
    _runtime_dir: RuntimeDir,
}

impl UtilityVm {
    /// What it was started from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// How it was booted.
    #[must_use]
    pub fn boot_mode(&self) -> BootMode {
        self.inner.mode
    }

    /// How the machine is run: hypervisor, acceleration and why that one, command line.
    #[must_use]
    pub fn describe(&self) -> Description {
        self.inner.machine.describe()
    }

    /// Where in its life the VM is. It is running once its agent has answered, stopping as soon as a
    /// stop is asked for, failed if it ended before it was running.
    #[must_use]
    pub fn state(&self) -> State {
        let inner = &self.inner;
        life::state(
            inner.machine.state(),
            inner.came_up.load(Ordering::Relaxed),
            inner.stop_asked.load(Ordering::Relaxed),
        )
    }

    /// What the agent said it can do; `None` while it is not connected.
    #[must_use]
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.inner.link.capabilities()
    }

    /// When each stage of the start was reached.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let inner = &self.inner;
        let kept = inner
            .boot_console
            .get()
            .map(|console| inner.marks.timeline(console));
        // What was kept may have been read before the last stage's line had come.
        kept.filter(|timeline| timeline.aligned)
            .unwrap_or_else(|| inner.marks.timeline(&inner.machine.console_tail()))
    }

    /// Waits until the machine has ended, and says why it did.
    pub async fn wait(&self) -> String {
        self.inner.machine.wait().await.to_string()
    }

    /// What the whole guest uses: bytes of memory, nanoseconds of processor time, processes. `None` from an
    /// agent that does not count.
    ///
    /// # Errors
    /// The agent does not serve that, or the VM has ended.
    pub async fn statistics(&self) -> Result<Option<GuestMetrics>> {
        let request = Request::GetProperties(PropertiesRequest {
            base: RequestBase::utility_vm(),
            query: Nested(PropertyQuery {
                property_types: vec!["Statistics".to_owned()],
            }),
        });
        let limit = Some(self.inner.timeout());
        match self.inner.link.request(&request, limit).await? {
            Response::Properties(response) => Ok(response.properties.0.metrics),
            _ => Err(unexpected("GetProperties")),
        }
    }

    /// The agent's own stacks, as text.
    ///
    /// # Errors
    /// The agent does not serve that, or the VM has ended.
    pub async fn stacks(&self) -> Result<String> {
        let request = Request::DumpStacks(PlainRequest {
            base: RequestBase::utility_vm(),
        });
        match self
            .inner
            .link
            .request(&request, Some(self.inner.timeout()))
            .await?
        {
            Response::Stacks(stacks) => Ok(stacks.guest_stacks),
            _ => Err(unexpected("DumpStacks")),
        }
    }
}

impl Inner {
    fn timeout(&self) -> Duration {
        self.config.uvm_timeout
    }

    fn keep(&self, task: AbortHandle) {
        let mut tasks = self
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

impl Drop for UtilityVm {
    fn drop(&mut self) {
        let tasks = std::mem::take(
            &mut *self
                .inner
                .tasks
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        self.inner.stop_asked.store(true, Ordering::Relaxed);
        self.inner.link.end("the VM was dropped by its owner");
        for task in tasks {
            task.abort();
        }
        // Whatever still runs may hold the machine for a moment: it must not live on for that.
        if !self.inner.machine.state().is_end()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let inner = Arc::clone(&self.inner);
            runtime.spawn(async move {
                inner.machine.terminate().await;
            });
        }
    }
}

impl fmt::Debug for UtilityVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UtilityVm")
            .field("name", &self.inner.config.name)
            .field("machine", &self.inner.machine)
            .finish_non_exhaustive()
    }
}

/// A failure of the machine, with what was being done.
fn machine_error(what: impl Into<String>, error: opengcs_machine::Error) -> Error {
    use opengcs_machine::ErrorKind as Machine;
    let kind = match error.kind() {
        Machine::NotInstalled | Machine::NoFirmware | Machine::NotFound => ErrorKind::NotFound,
        Machine::InvalidConfig => ErrorKind::InvalidInput,
        Machine::StartFailed | Machine::GuestDied | Machine::WrongState => ErrorKind::MachineEnded,
        Machine::DiskInUse => ErrorKind::AlreadyAttached,
        Machine::DiskLocked => ErrorKind::Locked,
        Machine::NoFreeSlot => ErrorKind::NoFreeSlot,
        Machine::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Io,
    };
    let to_install = match error.kind() {
        // Hyper-V's own errors say what to enable.
        Machine::NotInstalled if !cfg!(windows) => Some(INSTALL_QEMU),
        Machine::NoFirmware => Some(INSTALL_FIRMWARE),
        _ => None,
    };
    let error = Error::new(kind, what).caused_by(error);
    match to_install {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What a refusal comes to, by the code that the agent gave.
fn kind_of_refusal(error: &Error) -> ErrorKind {
    use opengcs_bridge::{Failure, HResult};
    let failure =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<Failure>());
    match failure.map(|failure| failure.result) {
        Some(HResult::NOT_FOUND) => ErrorKind::NotFound,
        // An agent that knows no processes of the VM itself says that there is no such container.
        Some(HResult::NOT_IMPLEMENTED | HResult::UNKNOWN_MESSAGE | HResult::SYSTEM_NOT_FOUND) => {
            ErrorKind::Unsupported
        }
        _ => error.kind(),
    }
}

/// A foreign text as part of a message: its first 200 characters.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

fn unexpected(request: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the agent answered {request} with something else"),
    )
}
