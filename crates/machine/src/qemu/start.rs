//! Decides how a machine comes up: what is looked at first, and what a failure leaves behind (nothing).

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::disks::{self, Disks};
use super::process::Process;
use super::qmp::Qmp;
use super::{Inner, Live, PROGRAM, command_line, stop, tsc_khz};
use crate::config::Boot;
use crate::console::ConsoleFile;
use crate::disk::DiskSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::life::{OnDrop, check_boot_files, readable};
use crate::state::{Event, State};

/// How long QEMU may take until its monitor answers. A busy host without KVM needs a second or two.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where distributions put firmware that boots disks.
pub(super) const FIRMWARE: [&str; 8] = [
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF.fd",
    "/usr/share/edk2-ovmf/x64/OVMF.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
];

impl Inner {
    pub(super) async fn power_on(self: &Arc<Self>) -> Result<()> {
        self.life.power_on()?;
        // Should the caller give up, what was begun is undone by dropping it.
        let failed = OnDrop::new(|| {
            self.vsock.stop();
            self.config.remove_files();
            self.life
                .end(self.exit_report(None, None, true), Event::StartFailed);
        });
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
        let _ = self.life.advance(Event::Up);
        tokio::spawn(stop::watch_end(Arc::clone(self)));
        if self.life.state() == State::Stopping {
            // Somebody ended it while it came up: there was no process to end then.
            if let Some(live) = self.live.get() {
                live.process.signal(Signal::KILL);
            }
            self.life.wait().await;
            return Err(self.life.died());
        }
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
        tracing::debug!(program = %program.display(), ?arguments, "the hypervisor is started");
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
        check_boot_files(&self.config)?;
        match &self.config.boot {
            Boot::LinuxKernel { .. } => Ok((None, None)),
            Boot::Disk { disk, firmware } => {
                let disk = disks::complete(disk)?.0;
                let firmware = match firmware {
                    Some(firmware) => {
                        readable("firmware", firmware)?;
                        firmware.clone()
                    }
                    None => super::firmware()?,
                };
                Ok((Some(disk), Some(firmware)))
            }
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
        None => missing(format!("{PROGRAM} not found in PATH")),
    }
}

/// The first of the usual places that has firmware.
pub(super) fn find_firmware(places: &[&str]) -> Result<PathBuf> {
    let found = places.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::NoFirmware,
            "no UEFI firmware found to boot a disk with",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_firmware_is_told_as_such() {
        let error = find_firmware(&["/no/such/OVMF.fd"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoFirmware);
        let there = tempfile::NamedTempFile::new().unwrap();
        let name = there.path().to_str().unwrap();
        assert_eq!(find_firmware(&["/no/such", name]).unwrap(), there.path());
    }
}
