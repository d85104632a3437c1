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
mod disk_errors;
mod disks;
mod output;
mod process;
mod qmp;
mod start;
mod stop;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;

use crate::acceleration::{self, Choice};
use crate::config::{Acceleration, MachineConfig};
use crate::disk::{DiskSpec, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::life::Life;
use crate::machine::{BoxFuture, Description, Exit, Machine, Port};
use crate::state::{Event, State};
use crate::stream::{Listener, Stream};
use crate::vsock::Vsock;
use disks::Disks;
use output::Output;
use process::Process;
use qmp::{Failure, Qmp};

/// The program, as looked for in `PATH`.
const PROGRAM: &str = "qemu-system-x86_64";

/// How long a connection to the guest may take to be answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The firmware that boots disks on this host.
///
/// # Errors
/// [`ErrorKind::NoFirmware`] where none is in the usual places.
pub fn firmware() -> Result<PathBuf> {
    start::find_firmware(&start::FIRMWARE)
}

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
    life: Life,
    vsock: Vsock,
    output: Output,
    live: OnceLock<Live>,
    arguments: OnceLock<Vec<OsString>>,
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
        let host = acceleration::Host::probe();
        if config.acceleration == Acceleration::Kvm
            && let Err(error) = &host.kvm_device
        {
            let what = format!("KVM was asked for, and /dev/kvm does not open: {error}");
            return Err(Error::new(ErrorKind::InvalidConfig, what));
        }
        let choice = acceleration::choose(config.acceleration, &host);
        Ok(Self {
            inner: Arc::new(Inner {
                console: config.console_file(),
                choice,
                life: Life::new(&config.name),
                vsock: Vsock::new()?,
                output: Output::new(),
                live: OnceLock::new(),
                arguments: OnceLock::new(),
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
    fn live(&self) -> Result<&Live> {
        let live = self.live.get();
        self.life
            .while_running(live.filter(|live| !live.process.has_ended()))
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
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.inner.life.advance(Event::StopAsked);
        if let Some(live) = self.inner.live.get()
            && !live.process.has_ended()
        {
            live.process.kill_now();
        }
        self.inner.vsock.stop();
        self.inner.config.remove_files();
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
        Box::pin(self.inner.life.wait())
    }

    fn state(&self) -> State {
        self.inner.life.state()
    }

    fn console(&self) -> PathBuf {
        self.inner.console.clone()
    }

    fn console_tail(&self) -> String {
        self.inner.output.console()
    }

    fn stderr_tail(&self) -> String {
        let mut text = self.inner.output.stderr();
        if let Some(live) = self.inner.live.get() {
            text.push_str(&live.qmp.disk_errors());
        }
        text
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
