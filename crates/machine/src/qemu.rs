//! Decides how a machine is run by QEMU: starting, watching, stopping, and what is left behind (nothing).
//!
//! ```text
//!           ┌────────────── this process ──────────────┐        ┌──── QEMU ────┐
//! Machine ──┤ QMP client ══════════ socket pair ═══════╪════════╡ monitor      │
//!           │ vsock device ════════ vhost-user, memory ╪════════╡ vhost-user   │
//!           │ recorder ◄═══════════ socket pair, pipe ═╪════════╡ serial, err  │
//!           │ owner thread ──────── pidfd, wait ───────╪────────┤ process      │
//!           └──────────────────────────────────────────┘        └──────────────┘
//! ```
//!
//! Every connection with QEMU is a descriptor that it inherits, so no other process can find a socket to
//! talk to, and none is left behind. Why QEMU cannot outlive us stands in
//! `qemu/process.rs`.

mod blockdev;
mod command_line;
mod disks;
mod output;
mod process;
mod qmp;

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;

use crate::acceleration::{self, Choice};
use crate::config::{Boot, MachineConfig};
use crate::disk::{DiskSpec, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::{BoxFuture, Description, Exit, ExitReason, Machine, Port};
use crate::state::{Event, State};
use crate::stream::{Listener, Stream};
use crate::vsock::Vsock;
use disks::Disks;
use output::{ConsoleFile, Output};
use process::Process;
use qmp::{Failure, Qmp};

/// The program, as looked for in `PATH`.
const PROGRAM: &str = "qemu-system-x86_64";

/// How long QEMU may take until its monitor answers. A busy host without KVM needs a second or two.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection to the guest may take to be answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The steps of an end: asked over QMP, by SIGTERM, by SIGKILL. Together they stay under ten seconds.
const QUIT_TIMEOUT: Duration = Duration::from_secs(3);
const TERM_TIMEOUT: Duration = Duration::from_secs(2);
const KILL_TIMEOUT: Duration = Duration::from_secs(4);

/// Where distributions put firmware that boots disks.
const FIRMWARE: [&str; 4] = [
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF.fd",
    "/usr/share/edk2-ovmf/x64/OVMF.fd",
];

/// What there is once the process runs.
#[derive(Debug)]
struct Live {
    process: Process,
    qmp: Qmp,
    disks: Disks,
}

#[derive(Debug)]
struct Inner {
    config: MachineConfig,
    console: PathBuf,
    choice: Choice,
    state: Mutex<State>,
    vsock: Vsock,
    output: Output,
    live: OnceLock<Live>,
    arguments: OnceLock<Vec<OsString>>,
    exit: watch::Sender<Option<Exit>>,
}

/// A machine run by QEMU.
///
/// ```no_run
/// # async fn example(config: opengcs_machine::MachineConfig) -> opengcs_machine::Result<()> {
/// use opengcs_machine::qemu::Qemu;
/// use opengcs_machine::{Machine, Port};
///
/// let machine = Qemu::create(config)?;
/// let mut bridge = machine.listen(Port(0x4000_0000))?; // before the guest's first instruction
/// machine.power_on().await?;
/// let connection = bridge.accept().await;
/// machine.terminate().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Qemu {
    inner: Arc<Inner>,
}

impl Qemu {
    /// Makes a machine that does not run yet: ports can be listened on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`]; [`ErrorKind::Io`] if this process is out of descriptors.
    pub fn create(config: MachineConfig) -> Result<Self> {
        config.validate()?;
        let console = config
            .console_path
            .clone()
            .unwrap_or_else(|| config.runtime_dir.join("console.log"));
        let choice = acceleration::choose(config.acceleration, &acceleration::Host::probe());
        Ok(Self {
            inner: Arc::new(Inner {
                console,
                choice,
                state: Mutex::new(State::Created),
                vsock: Vsock::new()?,
                output: Output::new(),
                live: OnceLock::new(),
                arguments: OnceLock::new(),
                exit: watch::Sender::new(None),
                config,
            }),
        })
    }

    /// [Creates](Self::create) a machine and [powers it on](Machine::power_on). Ports listened on
    /// afterwards may refuse an early dial of the guest's.
    ///
    /// # Errors
    /// Those of the two.
    pub async fn start(config: MachineConfig) -> Result<Self> {
        let machine = Self::create(config)?;
        machine.power_on().await?;
        Ok(machine)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on if the event fits; gives the state it left.
    fn advance(&self, event: Event) -> std::result::Result<State, State> {
        let mut state = self.state();
        let before = *state;
        match before.after(event) {
            Some(after) => {
                *state = after;
                Ok(before)
            }
            None => Err(before),
        }
    }

    fn live(&self) -> Result<&Live> {
        match (self.live.get(), *self.state()) {
            (Some(live), State::Running | State::Stopping) if !live.process.has_ended() => Ok(live),
            (_, state @ (State::Created | State::Starting)) => Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "machine {} is not running yet: it is {state}",
                    self.config.name
                ),
            )),
            _ => Err(self.died()),
        }
    }

    /// The error of an operation that the machine's end came before.
    fn died(&self) -> Error {
        let how = self
            .exit
            .borrow()
            .as_ref()
            .map_or_else(|| "its process is gone".to_owned(), Exit::to_string);
        Error::new(
            ErrorKind::GuestDied,
            format!("machine {} has ended: {how}", self.config.name),
        )
    }

    async fn power_on(self: &Arc<Self>) -> Result<()> {
        if let Err(state) = self.advance(Event::PowerOn) {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "machine {} cannot be started: it is {state}",
                    self.config.name
                ),
            ));
        }
        // Should the caller give up, what was begun is undone by dropping it.
        let failed = OnDrop(Some(|| {
            let _ = self.advance(Event::StartFailed);
            self.vsock.stop();
            self.remove_files();
            let exit = self.exit_report(None, None, true);
            self.exit
                .send_if_modified(|slot| slot.is_none() && slot.replace(exit).is_none());
        }));
        let live = tokio::time::timeout(START_TIMEOUT, self.bring_up()).await;
        let live = live.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::TimedOut,
                format!(
                    "qemu's monitor did not answer within {} s",
                    START_TIMEOUT.as_secs()
                ),
            ))
        })?;
        failed.disarm();
        if self.live.set(live).is_err() {
            unreachable!("a machine is started once");
        }
        let _ = self.advance(Event::Up);
        tokio::spawn(watch_end(Arc::clone(self)));
        Ok(())
    }

    async fn bring_up(&self) -> Result<Live> {
        let config = &self.config;
        let program = find_program(config.qemu.as_deref())?;
        let (disk, firmware) = self.check_files()?;
        let pair = || UnixStream::pair().map_err(|error| Error::io("cannot make a socket", error));
        let (qmp, qemu_qmp) = pair()?;
        let (console, qemu_console) = pair()?;
        let file = ConsoleFile::create(&self.console)
            .map_err(|error| Error::path("record the console in", &self.console, error))?;
        let qemu_vsock = self.vsock.start(&config.runtime_dir)?;
        let host = command_line::Host {
            kvm: self.choice.kvm,
            tsc_khz: tsc_khz(),
            firmware,
            qmp: qemu_qmp.as_raw_fd(),
            console: qemu_console.as_raw_fd(),
            vsock: qemu_vsock.as_raw_fd(),
        };
        let mut effective = config.clone();
        if let (Boot::Disk { disk: slot, .. }, Some(disk)) = (&mut effective.boot, disk.clone()) {
            *slot = disk;
        }
        let arguments = command_line::arguments(&effective, &host)?;
        let _ = self.arguments.set(arguments.clone());
        let mut command = Command::new(&program);
        command.args(&arguments);
        let inherited: Vec<OwnedFd> = vec![qemu_qmp.into(), qemu_console.into(), qemu_vsock.into()];
        let process = Process::spawn(command, inherited, self.output.clone(), console, file)
            .await
            .map_err(|error| {
                Error::caused(
                    ErrorKind::StartFailed,
                    format!("cannot start {}", program.display()),
                    error,
                )
            })?;
        let greeted = async {
            qmp.set_nonblocking(true)?;
            Qmp::open(tokio::net::UnixStream::from_std(qmp)?).await
        };
        let qmp = match greeted.await {
            Ok(qmp) => qmp,
            Err(error) => return Err(self.start_failed(&process, error).await),
        };
        let disks = Disks::new(config.scsi_controllers);
        if let Some(disk) = disk {
            disks.booted_from(&disk)?;
        }
        Ok(Live {
            process,
            qmp,
            disks,
        })
    }

    /// QEMU hung up before its monitor answered: its own last words say why.
    async fn start_failed(&self, process: &Process, error: std::io::Error) -> Error {
        let Some(status) = process.wait_for(Duration::from_secs(2)).await else {
            return Error::caused(ErrorKind::StartFailed, "qemu does not answer", error);
        };
        let stderr = self.output.stderr();
        let words = stderr
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("it said nothing");
        Error::new(
            ErrorKind::StartFailed,
            format!("qemu did not start ({status}): {words}"),
        )
    }

    /// Finds out now what QEMU would say less clearly. Gives the disk to boot, completed, and the firmware.
    fn check_files(&self) -> Result<(Option<DiskSpec>, Option<PathBuf>)> {
        let dir = &self.config.runtime_dir;
        if !dir.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("runtime folder {} does not exist", dir.display()),
            ));
        }
        let readable = |what: &str, path: &Path| {
            std::fs::File::open(path)
                .and_then(|file| file.metadata())
                .and_then(|metadata| match metadata.is_file() {
                    true if metadata.len() == 0 => Err(std::io::Error::other("it is empty")),
                    true => Ok(()),
                    false => Err(std::io::Error::other("it is not a file")),
                })
                .map_err(|error| Error::path(&format!("open {what}"), path, error))
        };
        match &self.config.boot {
            Boot::LinuxKernel { kernel, initrd, .. } => {
                readable("kernel", kernel)?;
                if let Some(initrd) = initrd {
                    readable("initrd", initrd)?;
                }
                Ok((None, None))
            }
            Boot::Disk { disk, firmware } => {
                let disk = disks::complete(disk)?.0;
                let firmware = match firmware {
                    Some(firmware) => {
                        readable("firmware", firmware)?;
                        firmware.clone()
                    }
                    None => FIRMWARE
                        .iter()
                        .map(PathBuf::from)
                        .find(|path| path.is_file())
                        .ok_or_else(|| {
                            Error::new(
                                ErrorKind::NotInstalled,
                                "no uefi firmware found to boot a disk: install it with \
                                 `apt-get install ovmf`",
                            )
                        })?,
                };
                Ok((Some(disk), Some(firmware)))
            }
        }
    }

    /// What the end was, from the exit status and what QEMU and the guest said before.
    fn exit_report(&self, status: Option<ExitStatus>, shutdown: Option<&str>, asked: bool) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let panic = output::panic_message(&self.output.console());
        let reason = match (shutdown, status.and_then(|status| status.signal())) {
            (Some("guest-shutdown"), _) => ExitReason::PoweredOff,
            (Some("guest-reset" | "guest-panic"), _) => {
                panic.map_or(ExitReason::Reset, ExitReason::Panicked)
            }
            _ if asked => ExitReason::Terminated,
            (_, Some(signal)) => ExitReason::Killed(signal),
            _ => ExitReason::Crashed(status.and_then(|status| status.code()).unwrap_or(-1)),
        };
        Exit {
            reason,
            stderr: self.output.stderr(),
        }
    }

    async fn terminate(self: &Arc<Self>) -> Exit {
        if let Ok(State::Created) = self.advance(Event::StopAsked) {
            let exit = self.exit_report(None, None, true);
            self.exit.send_replace(Some(exit.clone()));
            self.vsock.stop();
            return exit;
        }
        let Some(live) = self.live.get() else {
            // It is starting, or never came up: either way the report is on its way.
            return self.wait().await;
        };
        if !live.process.is_stopped() {
            let quit = async {
                let _ = live.qmp.execute("quit", Value::Null).await;
                live.process.wait().await;
            };
            let _ = tokio::time::timeout(QUIT_TIMEOUT, quit).await;
        }
        if !live.process.has_ended() && !live.process.is_stopped() {
            live.process.signal(Signal::TERM);
            live.process.wait_for(TERM_TIMEOUT).await;
        }
        if !live.process.has_ended() {
            live.process.signal(Signal::KILL);
        }
        match tokio::time::timeout(KILL_TIMEOUT, self.wait()).await {
            Ok(exit) => exit,
            // The kernel holds it (a disk on a dead network share); it is killed, and we are not held.
            Err(_) => self.exit_report(None, None, true),
        }
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit
                .clone()
                .unwrap_or_else(|| self.exit_report(None, None, true)),
            Err(_) => self.exit_report(None, None, true),
        }
    }

    async fn connect(&self, port: Port) -> Result<Stream> {
        self.live()?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.vsock.connect(port)).await;
        connected.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::TimedOut,
                format!(
                    "cannot connect to port {port} of the guest: no answer within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ),
            ))
        })
    }

    /// A command of QEMU's, its failure told as `what` and why.
    async fn execute(&self, what: &str, command: &str, arguments: Value) -> Result<Value> {
        let live = self.live()?;
        let reply = live.qmp.execute(command, arguments).await;
        reply.map_err(|failure| match failure {
            Failure::Refused(words) => Error::new(ErrorKind::Refused, format!("{what}: {words}")),
            Failure::Lost => Error::new(
                ErrorKind::GuestDied,
                format!("{what}: machine {} ended", self.config.name),
            ),
        })
    }

    fn remove_files(&self) {
        if self.config.console_path.is_none() {
            let _ = std::fs::remove_file(&self.console);
            let _ = std::fs::remove_file(output::older(&self.console));
        }
    }
}

/// Reports the end once the process, its last words and its device are through.
async fn watch_end(inner: Arc<Inner>) {
    let Some(live) = inner.live.get() else { return };
    let status = live.process.wait().await;
    // The monitor's last event may still be on its way.
    let _ = tokio::time::timeout(Duration::from_secs(1), live.qmp.ended()).await;
    let device = Arc::clone(&inner);
    let _ = tokio::task::spawn_blocking(move || device.vsock.stop()).await;
    let asked = *inner.state() == State::Stopping;
    let exit = inner.exit_report(Some(status), live.qmp.shutdown_reason().as_deref(), asked);
    let _ = inner.advance(Event::ProcessEnded);
    tracing::debug!(machine = %inner.config.name, %exit, "the machine has ended");
    inner.exit.send_replace(Some(exit));
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.inner.advance(Event::StopAsked);
        if let Some(live) = self.inner.live.get()
            && !live.process.has_ended()
        {
            live.process.kill_now();
        }
        self.inner.vsock.stop();
        self.inner.remove_files();
    }
}

impl Machine for Qemu {
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
        self.inner.vsock.listen(port)
    }

    fn connect(&self, port: Port) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(self.inner.connect(port))
    }

    fn power_off(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let what = "cannot press the power button";
            let pressed = self
                .inner
                .execute(what, "system_powerdown", Value::Null)
                .await;
            pressed.map(drop)
        })
    }

    fn terminate(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.inner.terminate())
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.inner.wait())
    }

    fn state(&self) -> State {
        *self.inner.state()
    }

    fn console(&self) -> PathBuf {
        self.inner.console.clone()
    }

    fn console_tail(&self) -> String {
        self.inner.output.console()
    }

    fn stderr_tail(&self) -> String {
        self.inner.output.stderr()
    }

    fn describe(&self) -> Description {
        let inner = &self.inner;
        let chipset = command_line::chipset(&inner.config, inner.choice.kvm, tsc_khz());
        let mut command_line = Vec::new();
        if let Some(arguments) = inner.arguments.get() {
            let program = inner.config.qemu.clone().unwrap_or_else(|| PROGRAM.into());
            command_line.push(program.to_string_lossy().into_owned());
            command_line.extend(
                arguments
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned()),
            );
        }
        Description {
            hypervisor: "qemu".to_owned(),
            acceleration: if inner.choice.kvm { "kvm" } else { "tcg" }.to_owned(),
            acceleration_reason: inner.choice.reason.clone(),
            chipset: command_line::chipset_name(chipset).to_owned(),
            command_line,
            process_id: inner
                .live
                .get()
                .filter(|live| !live.process.has_ended())
                .map(|live| live.process.id),
        }
    }
}

/// The program's path, looked up here so that its absence is told as such.
fn find_program(given: Option<&Path>) -> Result<PathBuf> {
    let missing = |message: String| Err(Error::new(ErrorKind::NotInstalled, message));
    if let Some(program) = given {
        if program.is_file() {
            return Ok(program.to_owned());
        }
        return missing(format!("qemu program {} does not exist", program.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path)
        .map(|dir| dir.join(PROGRAM))
        .find(|program| program.is_file())
    {
        Some(program) => Ok(program),
        None => missing(format!(
            "{PROGRAM} not found in PATH: install it with `apt-get install qemu-system-x86`"
        )),
    }
}

fn tsc_khz() -> Option<u32> {
    #[cfg(target_arch = "x86_64")]
    {
        crate::sys::tsc::khz()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        None
    }
}

/// Runs its action when dropped, unless disarmed.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}
