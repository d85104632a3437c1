//! In which order a VM comes up, and what is told when it does not.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use opengcs_bridge::{BRIDGE_PORT, ENTROPY_PORT, FIRST_STDIO_PORT, LOG_PORT};
use opengcs_machine::{ErrorKind as MachineError, Machine, MachineConfig, Port};

use super::disks::Disks;
use super::link::{self, Link, LinkState};
use super::record::{AGENT_LOG, KERNEL_LOG, Recorder};
use super::services::Logs;
use super::timeline::Marks;
use super::{Inner, UtilityVm, command_line, machine_error, services};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime_dir::RuntimeDir;

impl UtilityVm {
    /// Starts a VM and returns when its agent answers and the configured disks are there.
    ///
    /// The configuration is validated first. The guest has the configured timeout to come up; a
    /// machine that ends before that fails the start at once.
    ///
    /// ```no_run
    /// # async fn example() -> opengcs::Result<()> {
    /// use opengcs::{Config, UtilityVm};
    ///
    /// let vm = UtilityVm::start(Config::generate_default(["lcow.timeout=60"])?).await?;
    /// let said = vm.output("uname -r", 1 << 10).await?;
    /// println!("{}", String::from_utf8_lossy(&said.stdout));
    /// vm.stop().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What does not fit in the configuration; no hypervisor; a guest that ends or stays silent: its
    /// console and logs are then the error's [`detail`](Error::detail). Nothing is left running, and
    /// no file remains.
    #[doc(alias = "StartUtilityVM")]
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_on(config, default_machine).await
    }

    /// [`start`](Self::start) on a machine of the caller's making.
    ///
    /// # Errors
    /// As there.
    pub async fn start_on(
        mut config: Config,
        make: impl FnOnce(MachineConfig) -> opengcs_machine::Result<Arc<dyn Machine>>,
    ) -> Result<Self> {
        let marks = Arc::new(Marks::begin());
        let mode = config.validate()?;
        let parent = config.environment.runtime_parent();
        let runtime_dir = RuntimeDir::create(&parent)
            .map_err(|error| Error::io("create a folder in", &parent, error))?;
        let machine_config = command_line::machine_config(&config, mode, runtime_dir.path())?;
        let name = config.name.clone();
        let failed = move |error| machine_error(format!("cannot start the VM {name}"), error);
        let machine = make(machine_config).map_err(&failed)?;
        let agent_log = Recorder::new(AGENT_LOG, config.agent_log_path.clone())
            .map(Arc::new)
            .map_err(|error| {
                let path = config.agent_log_path.clone().unwrap_or_default();
                Error::io("create the agent's log", &path, error)
            })?;
        let kernel_log = Recorder::new(KERNEL_LOG, None)
            .map(Arc::new)
            .map_err(|error| Error::io("create the kernel's log", Path::new(""), error))?;
        let link = Link::new(Arc::clone(&marks));
        let vm = Self {
            inner: Arc::new(Inner {
                config,
                mode,
                machine,
                link,
                disks: Disks::default(),
                logs: Logs {
                    agent: agent_log,
                    kernel: kernel_log,
                },
                tasks: Mutex::new(Vec::new()),
                marks,
                boot_console: OnceLock::new(),
                came_up: AtomicBool::new(false),
                stop_asked: AtomicBool::new(false),
                next_port: AtomicU32::new(FIRST_STDIO_PORT),
                _runtime_dir: runtime_dir,
            }),
        };
        // From here on a return, or a dropped future, ends the machine by dropping `vm`.
        vm.serve().map_err(&failed)?;
        let powered_on = match vm.inner.machine.power_on().await {
            // Nothing has run, so nothing is recorded that says more.
            Err(error)
                if matches!(
                    error.kind(),
                    MachineError::NotInstalled | MachineError::NoFirmware
                ) =>
            {
                return Err(failed(error));
            }
            other => other.map_err(&failed),
        };
        let came_up = async {
            powered_on?;
            vm.inner.marks.mark("machine up");
            vm.connected().await?;
            vm.add_configured_disks().await
        };
        match came_up.await {
            Ok(()) => {
                vm.inner.marks.mark("ready");
                let _ = vm.inner.boot_console.set(vm.inner.machine.console_tail());
                vm.inner.came_up.store(true, Ordering::Relaxed);
                Ok(vm)
            }
            Err(error) => {
                vm.inner.machine.terminate().await;
                let recorded = vm.diagnostics();
                let error = match &vm.inner.config.bundle_dir {
                    Some(folder) => recorded.point_to_bundle(error, folder),
                    None => error,
                };
                Err(error.with_detail(recorded.to_string()))
            }
        }
    }

    /// Listens before the guest's first instruction, so that no dial of its is refused.
    fn serve(&self) -> opengcs_machine::Result<()> {
        let inner = &self.inner;
        let entropy = inner.machine.listen(Port(ENTROPY_PORT))?;
        let log = inner.machine.listen(Port(LOG_PORT))?;
        let bridge = inner.machine.listen(Port(BRIDGE_PORT))?;
        for task in [
            tokio::spawn(services::seed(entropy)),
            tokio::spawn(services::record(log, inner.logs.clone())),
            tokio::spawn(link::run(
                inner.link.clone(),
                bridge,
                Arc::clone(&inner.machine),
            )),
        ] {
            inner.keep(task.abort_handle());
        }
        Ok(())
    }

    async fn connected(&self) -> Result<()> {
        let limit = self.inner.timeout();
        let mut state = self.inner.link.state();
        let mut trouble = None;
        let up = async {
            loop {
                match &*state.borrow_and_update() {
                    LinkState::Up => return Ok(()),
                    LinkState::Ended(reason) => return Err(reason.clone()),
                    LinkState::Down(reason) => {
                        trouble = reason.clone().or(trouble.take());
                    }
                }
                if state.changed().await.is_err() {
                    return Err("its owner has dropped it".into());
                }
            }
        };
        let outcome = tokio::time::timeout(limit, up).await;
        let name = &self.inner.config.name;
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Error::new(
                ErrorKind::MachineEnded,
                format!(
                    "the VM {name} ended before its agent answered: {reason}{}",
                    self.last_console_line()
                ),
            )),
            Err(_) => {
                let why = match trouble {
                    Some(trouble) => format!("its last connection failed: {trouble}"),
                    None => "the agent never dialled the host".to_owned(),
                };
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "the VM {name} did not come up within {} s: {why}{}",
                        limit.as_secs(),
                        self.last_console_line()
                    ),
                )
                .hint("lcow.timeout=SECONDS gives it longer"))
            }
        }
    }

    async fn add_configured_disks(&self) -> Result<()> {
        for disk in &self.inner.config.mapped_virtual_disks {
            self.hot_add_vhd(
                &disk.host_path,
                &disk.container_path,
                disk.read_only,
                !disk.attach_only,
            )
            .await?;
        }
        Ok(())
    }

    /// The console's last words, which often are the reason.
    fn last_console_line(&self) -> String {
        match telling_line(&self.inner.machine.console_tail()) {
            Some(line) => format!("; the console's last line is {line:?}"),
            None => String::new(),
        }
    }
}

/// The line that most likely says what went wrong: the last, or the last before a panic, behind which
/// the kernel prints only where it was.
fn telling_line(console: &str) -> Option<String> {
    let before_panic = match console.find("Kernel panic") {
        Some(at) => {
            let start = console.get(..at)?.rfind('\n').unwrap_or(0);
            console.get(..start)?
        }
        None => console,
    };
    let line = before_panic
        .lines()
        .map(|line| line.replace(char::is_control, ""))
        .rfind(|line| !line.trim().is_empty())?;
    Some(super::shortened(line.trim()))
}

#[cfg(target_os = "linux")]
fn default_machine(config: MachineConfig) -> opengcs_machine::Result<Arc<dyn Machine>> {
    Ok(Arc::new(opengcs_machine::qemu::Qemu::create(config)?))
}

#[cfg(windows)]
fn default_machine(config: MachineConfig) -> opengcs_machine::Result<Arc<dyn Machine>> {
    use opengcs_machine::hcs::{Hcs, Host};
    Ok(Arc::new(Hcs::create(config, Host::new())?))
}
