//! Decides what a machine of Hyper-V's is to its owner: its state, its end, and what each request comes to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::console::Console;
use super::disks::{self, Disks};
use super::document::{self, LinuxBoot};
use super::outcome::{self, HResult};
use super::ports::Ports;
use super::sys::library::Library;
use super::sys::process;
use super::sys::socket::{self, Family, StandIn};
use super::sys::system::{self, Ask, News, System};
use crate::config::{Boot, MachineConfig};
use crate::console::panic_message;
use crate::disk::{DiskSpec, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::life::Life;
use crate::machine::{BoxFuture, Description, Exit, ExitReason, Machine, Port};
use crate::state::{Event, State};
use crate::stream::{Listener, Stream, StreamStatus};

/// How long Hyper-V may take over one request. It needs a second or two; a busy host takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// How long an end may take until we no longer wait for it.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection to the guest may take to be answered.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The first build of Windows whose hypervisor takes kernels directly.
const KERNEL_DIRECT_BUILD: u32 = 18286;

/// Bytes kept of what the service says of the guest's crashes.
const NOTES: usize = 16 * 1024;

/// What the backend takes from the host it is on; [`new`](Self::new) is this very host.
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) library: Option<PathBuf>,
    pub(super) family: Family,
    pub(super) linux_boot: LinuxBoot,
    pub(super) limit: Duration,
}

/// How long Hyper-V may take to say whether it is there.
const EXAMINATION: Duration = Duration::from_secs(10);

impl Host {
    /// This Windows: its `computecore.dll`, its Hyper-V sockets, and the way of booting that its build has.
    #[must_use]
    pub fn new() -> Self {
        Self {
            library: None,
            family: Family::HyperV,
            linux_boot: if process::windows_build() >= KERNEL_DIRECT_BUILD {
                LinuxBoot::KernelDirect
            } else {
                LinuxBoot::Uefi
            },
            limit: LIMIT,
        }
    }

    /// Looks whether machines can be run here, and says what was found. Hyper-V is asked for a list of its
    /// machines, which tells whether its service is there and may be asked at all.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] and [`ErrorKind::Refused`], with what to do about it.
    pub fn examine(&self) -> Result<String> {
        let library = Library::load(self.library.as_deref())?;
        let query = document::list_machines().to_string();
        system::enumerate(&library, &query, EXAMINATION)?;
        let boot = match self.linux_boot {
            LinuxBoot::KernelDirect => "takes kernels directly",
            LinuxBoot::Uefi => "boots kernels through UEFI",
        };
        let build = process::windows_build();
        Ok(format!("Hyper-V of Windows build {build}, which {boot}"))
    }

    /// Calls this library instead of the system's `computecore.dll`. The path is absolute.
    #[must_use]
    pub fn library(mut self, path: impl Into<PathBuf>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// Lets loopback sockets stand in for Hyper-V's.
    #[must_use]
    pub fn stand_in(mut self, sockets: Arc<StandIn>) -> Self {
        self.family = Family::StandIn(sockets);
        self
    }

    /// Boots kernels this way.
    #[must_use]
    pub fn linux_boot(mut self, linux_boot: LinuxBoot) -> Self {
        self.linux_boot = linux_boot;
        self
    }

    /// Gives each request this long.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: MachineConfig,
    pub(super) host: Host,
    /// The id is a GUID of ours, new for each machine.
    pub(super) id: String,
    pub(super) console_path: PathBuf,
    pub(super) console: Console,
    pub(super) ports: Arc<Ports>,
    pub(super) disks: Disks,
    pub(super) system: Mutex<Option<Arc<System>>>,
    pub(super) life: Life,
    library: OnceLock<Arc<Library>>,
    notes: Mutex<String>,
}

/// A machine run by Hyper-V.
///
/// ```no_run
/// # async fn example(config: opengcs_machine::MachineConfig) -> opengcs_machine::Result<()> {
/// use opengcs_machine::hcs::{Hcs, Host};
/// use opengcs_machine::{Machine, Port};
///
/// let machine = Hcs::create(config, Host::new())?;
/// let mut bridge = machine.listen(Port(0x4000_0000))?; // before the guest's first instruction
/// machine.power_on().await?;
/// let connection = bridge.accept().await;
/// machine.terminate().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Hcs {
    inner: Arc<Inner>,
}

impl Hcs {
    /// Makes a machine that does not run yet: ports can be listened on. Hyper-V is not asked for anything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`].
    pub fn create(config: MachineConfig, host: Host) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            inner: Arc::new(Inner {
                id: Uuid::new_v4().to_string(),
                console_path: config.console_file(),
                console: Console::new(),
                ports: Arc::new(Ports::new(host.family.clone())),
                disks: Disks::new(config.scsi_controllers),
                system: Mutex::new(None),
                life: Life::new(&config.name),
                library: OnceLock::new(),
                notes: Mutex::default(),
                config,
                host,
            }),
        })
    }
}

impl Inner {
    /// The library, loaded when it is first needed.
    pub(super) fn library(&self) -> Result<Arc<Library>> {
        if let Some(library) = self.library.get() {
            return Ok(Arc::clone(library));
        }
        let library = Arc::new(Library::load(self.host.library.as_deref())?);
        Ok(Arc::clone(self.library.get_or_init(|| library)))
    }

    pub(super) fn slot(&self) -> MutexGuard<'_, Option<Arc<System>>> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running system.
    pub(super) fn system(&self) -> Result<Arc<System>> {
        self.life.while_running(self.slot().clone())
    }

    /// Does something with the running system, on a thread that may wait; the machine's end ends our wait.
    pub(super) async fn operate<T: Send + 'static>(
        &self,
        work: impl FnOnce(&System) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let system = self.system()?;
        self.work_on(system, work).await
    }

    pub(super) async fn work_on<T: Send + 'static>(
        &self,
        system: Arc<System>,
        work: impl FnOnce(&System) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let task = tokio::task::spawn_blocking(move || work(&system));
        tokio::select! {
            biased;
            done = task => done.unwrap_or_else(|_| Err(self.life.died())),
            _ = self.life.wait() => Err(self.life.died()),
        }
    }

    /// What the service tells, on a thread of its own.
    pub(super) fn heard(&self, news: News) {
        let asked = self.life.state() == State::Stopping;
        match news {
            News::Crashed(report) => self.note(&report),
            News::Exited(document) => {
                self.note(&document);
                self.ended(outcome::exit_reason(&document, asked));
            }
            News::Disconnected => {
                self.note("the host compute service has gone away");
                self.ended(ExitReason::Crashed(HResult::from_code(0x8037_011E).0));
            }
        }
    }

    fn note(&self, text: &str) {
        let mut notes = self.notes();
        if notes.len() < NOTES {
            notes.extend(text.chars().take(NOTES));
            notes.push('\n');
        }
    }

    fn notes(&self) -> MutexGuard<'_, String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the end, which happens once.
    pub(super) fn ended(&self, reason: ExitReason) {
        let reason = match (reason, panic_message(&self.console.tail())) {
            (ExitReason::Reset | ExitReason::Crashed(_), Some(panic)) => {
                ExitReason::Panicked(panic)
            }
            (reason, _) => reason,
        };
        let stderr = self.notes().clone();
        let first = self.life.end(Exit { reason, stderr }, Event::ProcessEnded);
        if first {
            if let Some(system) = &*self.slot() {
                system.give_up();
            }
            self.ports.close();
        }
    }

    async fn terminate(&self) -> Exit {
        if let Ok(State::Created) = self.life.advance(Event::StopAsked) {
            self.ended(ExitReason::Terminated);
            return self.life.wait().await;
        }
        let system = self.slot().clone();
        let ended = self.life.has_ended();
        let (Some(system), false) = (system, ended) else {
            // It is starting, never came up, or has ended: the report is there or on its way.
            return self.life.wait().await;
        };
        let limit = self.host.limit.min(END_LIMIT);
        let ask = move || system.ask(Ask::Terminate, None, "cannot end the machine", limit);
        match tokio::task::spawn_blocking(ask).await {
            // Hyper-V calls while it ends: this thread need not be the first to know.
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error),
            Err(error) => tracing::warn!(%error),
        }
        if let Ok(exit) = tokio::time::timeout(limit, self.life.wait()).await {
            return exit;
        }
        // Nothing was heard of it: with the last handle closed it ends all the same.
        self.ended(ExitReason::Terminated);
        self.life.wait().await
    }

    async fn connect(&self, port: Port) -> Result<Stream> {
        self.system()?;
        let what = format!("cannot connect to port {port} of the guest");
        let Some(vm) = self.ports.vm() else {
            return Err(self.life.died());
        };
        let family = self.ports.family.clone();
        let dial = move || socket::dial(&family, vm, port, CONNECT_LIMIT);
        let dialled = tokio::task::spawn_blocking(dial).await;
        let socket = match dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())) {
            Ok(socket) => socket,
            Err(error) => {
                let (kind, why) = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => {
                        (ErrorKind::ConnectionRefused, "nobody listens there")
                    }
                    std::io::ErrorKind::TimedOut => (ErrorKind::TimedOut, "no answer"),
                    _ => return Err(Error::io(what, error)),
                };
                return Err(Error::new(kind, format!("{what}: {why}")));
            }
        };
        Stream::new(socket, Arc::new(StreamStatus::default()))
            .map_err(|error| Error::io(what, error))
    }

    /// Takes what the machine had of this host: its handle, its rights on files, its console.
    pub(super) fn release(&self) {
        let system = self.slot().take();
        if let Some(system) = system {
            // Whoever recorded the end may find nothing in the slot now: nobody is to wait for the rest of
            // his limit.
            system.give_up();
        }
        if let Some(library) = self.library.get() {
            for path in self.disks.paths().into_iter().chain(self.boot_files()) {
                let _ = system::access(library, &self.id, &path, false);
            }
        }
    }

    /// The kernel and the initrd, which the machine was given access to.
    pub(super) fn boot_files(&self) -> Vec<PathBuf> {
        match &self.config.boot {
            Boot::LinuxKernel { kernel, initrd, .. } => {
                let files = [Some(kernel), initrd.as_ref()].into_iter().flatten();
                files
                    .filter_map(|path| disks::absolute(path).ok())
                    .collect()
            }
            Boot::Disk { .. } => Vec::new(),
        }
    }
}

impl Drop for Hcs {
    fn drop(&mut self) {
        let _ = self.inner.life.advance(Event::StopAsked);
        let system = self.inner.slot().clone();
        if let Some(system) = system {
            if !self.inner.life.has_ended() {
                system.terminate_now();
            }
            self.inner.ended(ExitReason::Terminated);
            drop(system);
            self.inner.release();
        }
        self.inner.ports.close();
        self.inner.config.remove_files();
    }
}

impl Machine for Hcs {
    fn power_on(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.inner.power_on())
    }

    fn attach(&self, disk: DiskSpec) -> BoxFuture<'_, Result<Slot>> {
        Box::pin(disks::attach(&self.inner, disk))
    }

    fn detach(&self, slot: Slot) -> BoxFuture<'_, Result<()>> {
        Box::pin(disks::detach(&self.inner, slot))
    }

    fn listen(&self, port: Port) -> Result<Listener> {
        self.inner.ports.listen(port)
    }

    fn connect(&self, port: Port) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(self.inner.connect(port))
    }

    fn power_off(&self) -> BoxFuture<'_, Result<()>> {
        let limit = self.inner.host.limit;
        let work = move |system: &System| {
            let what = "cannot press the power button";
            system.ask(Ask::ShutDown, None, what, limit).map(drop)
        };
        Box::pin(self.inner.operate(work))
    }

    fn terminate(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.inner.terminate())
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.inner.life.wait())
    }

    fn state(&self) -> State {
        self.inner.life.state()
    }

    fn console(&self) -> PathBuf {
        self.inner.console_path.clone()
    }

    fn console_tail(&self) -> String {
        self.inner.console.tail()
    }

    fn stderr_tail(&self) -> String {
        self.inner.notes().clone()
    }

    fn describe(&self) -> Description {
        let inner = &self.inner;
        let boot = match (&inner.config.boot, inner.host.linux_boot) {
            (Boot::LinuxKernel { .. }, LinuxBoot::KernelDirect) => "kernel-direct",
            _ => "uefi",
        };
        let build = process::windows_build();
        Description::new("hcs", "hyper-v", format!("Windows build {build}"), boot)
    }
}
