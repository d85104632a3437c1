//! How VMs, their disks and their processes are shown.

use std::path::PathBuf;
use std::time::Duration;

use opengcs_monitor::proto::{self, vm::State};
use opengcs_monitor::{Ended, now_ms};
use serde::Serialize;

/// A VM; these names are what programs read.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Vm {
    pub(crate) name: String,
    /// `starting`, `running`, `stopping`, `ended`, or `silent` when its monitor does not answer.
    pub(crate) state: &'static str,
    /// Milliseconds since 1970, UTC.
    pub(crate) started_ms: Option<u64>,
    pub(crate) ended_ms: Option<u64>,
    /// Why it has ended.
    pub(crate) reason: Option<String>,
    /// The file with what was recorded of its end.
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) monitor_pid: Option<u32>,
    pub(crate) hypervisor_pid: Option<u32>,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) controllers: u32,
    pub(crate) boot: String,
    pub(crate) hypervisor: String,
    pub(crate) chipset: String,
    pub(crate) acceleration: String,
    pub(crate) acceleration_reason: String,
    pub(crate) command_line: Vec<String>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) processes: Vec<Process>,
    /// Where its socket and its logs are.
    pub(crate) folder: PathBuf,
    pub(crate) version: String,
}

/// A disk; these names are what programs read.
#[derive(Debug, Serialize)]
pub(crate) struct Disk {
    pub(crate) controller: u32,
    pub(crate) lun: u32,
    pub(crate) file: String,
    pub(crate) guest_path: String,
    pub(crate) mounted: bool,
    pub(crate) read_only: bool,
    /// 0 is the whole disk.
    pub(crate) partition: u64,
    pub(crate) size: Option<u64>,
    pub(crate) verity_root: Option<String>,
}

/// A process that `opengcs exec` has started.
#[derive(Debug, Serialize)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) command: String,
    pub(crate) terminal: bool,
    pub(crate) detached: bool,
}

impl Vm {
    /// One whose monitor has answered.
    pub(crate) fn living(vm: proto::Vm, folder: PathBuf) -> Self {
        let state = match vm.state() {
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Unspecified => "unknown",
        };
        Self {
            name: vm.name,
            state,
            started_ms: Some(vm.started_ms),
            monitor_pid: Some(vm.monitor_pid),
            hypervisor_pid: Some(vm.hypervisor_pid).filter(|pid| *pid > 0),
            memory_mib: vm.memory_mib,
            cpus: vm.processors,
            controllers: vm.scsi_controllers,
            boot: vm.boot,
            hypervisor: vm.hypervisor,
            chipset: vm.chipset,
            acceleration: vm.acceleration,
            acceleration_reason: vm.acceleration_reason,
            command_line: vm.command_line,
            disks: vm.disks.into_iter().map(Disk::from).collect(),
            processes: vm.processes.into_iter().map(Process::from).collect(),
            folder,
            version: vm.version,
            ..Self::default()
        }
    }

    /// One that has ended by itself.
    pub(crate) fn ended(record: Ended, folder: PathBuf) -> Self {
        Self {
            name: record.name.to_string(),
            state: "ended",
            started_ms: Some(record.started_ms),
            ended_ms: Some(record.ended_ms),
            reason: Some(record.reason),
            bundle: record.bundle,
            folder,
            ..Self::default()
        }
    }

    /// One whose monitor does not answer.
    pub(crate) fn silent(name: &str, folder: PathBuf, monitor_pid: Option<u32>) -> Self {
        Self {
            monitor_pid,
            name: name.to_owned(),
            state: "silent",
            folder,
            ..Self::default()
        }
    }
}

impl From<proto::Disk> for Disk {
    fn from(disk: proto::Disk) -> Self {
        Self {
            controller: disk.controller,
            lun: disk.lun,
            file: disk.file,
            guest_path: disk.guest_path,
            mounted: disk.mounted,
            read_only: disk.read_only,
            partition: disk.partition,
            size: Some(disk.size).filter(|size| *size > 0),
            verity_root: Some(disk.verity_root).filter(|root| !root.is_empty()),
        }
    }
}

impl From<proto::Process> for Process {
    fn from(process: proto::Process) -> Self {
        Self {
            id: process.id,
            command: process.command,
            terminal: process.terminal,
            detached: process.detached,
        }
    }
}

/// How long ago it was, as in "5 min".
pub(crate) fn ago(at_ms: u64) -> String {
    span(Duration::from_millis(now_ms().saturating_sub(at_ms)))
}

/// A time in its largest unit, as in "5 min".
pub(crate) fn span(time: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let seconds = time.as_secs();
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_in_their_largest_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7199, "1 h"),
            (200_000, "2 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
