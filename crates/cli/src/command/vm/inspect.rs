//! `opengcs vm inspect`: what a VM is and has.

use anyhow::Result;
use clap::Args;
use opengcs_monitor::{Client, Folders, Looked, Name};

use super::view::{self, Vm};
use crate::context::Context;
use crate::output;
use crate::report;
use crate::size::Size;

/// Show what a VM is and has: machine, disks, processes, files
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm inspect build
  opengcs vm inspect build --json

JSON: {name, state: starting, running, stopping, ended or silent, started_ms, ended_ms, reason, bundle,
monitor_pid, hypervisor_pid, memory_mib, cpus, controllers, boot, hypervisor, chipset, acceleration,
acceleration_reason, command_line, disks: [as `opengcs disk ls --json`], processes: [{id, command,
terminal, detached}], folder, version}. Times are milliseconds since 1970, UTC; what is not known is
null, or empty.")]
pub(super) struct Inspect {
    /// The VM's name
    name: Name,
}

impl Inspect {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        let vm = match Client::look_for(&folders, &self.name).await? {
            Looked::Living(mut client) => {
                let folder = folders.path().join(self.name.as_str());
                Vm::living(client.inspect().await?, folder)
            }
            Looked::Ended(record, folder) => Vm::ended(record, folder),
        };
        if context.json {
            output::json(&vm)?;
        } else {
            print(&vm)?;
        }
        Ok(0)
    }
}

fn print(vm: &Vm) -> Result<()> {
    let mut table = report::table(&[]);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            table.add_row([name.to_owned(), value]);
        }
    };
    row("name", vm.name.clone());
    row("state", vm.state.to_owned());
    row(
        "started",
        vm.started_ms
            .map_or_else(String::new, |at| format!("{} ago", view::ago(at))),
    );
    row(
        "ended",
        vm.ended_ms
            .map_or_else(String::new, |at| format!("{} ago", view::ago(at))),
    );
    row("reason", vm.reason.clone().unwrap_or_default());
    let path = |path: &std::path::Path| path.display().to_string();
    row(
        "bundle",
        vm.bundle.as_deref().map_or_else(String::new, path),
    );
    if vm.memory_mib > 0 {
        row("memory", Size(u64::from(vm.memory_mib) << 20).to_string());
        row("processors", vm.cpus.to_string());
        row("controllers", vm.controllers.to_string());
    }
    if !vm.hypervisor.is_empty() {
        row("booted from", vm.boot.clone());
        row("machine", format!("{} {}", vm.hypervisor, vm.chipset));
        row(
            "acceleration",
            format!("{}: {}", vm.acceleration, vm.acceleration_reason),
        );
    }
    let pid = |pid: Option<u32>| pid.map_or_else(String::new, |pid| pid.to_string());
    row("monitor", pid(vm.monitor_pid));
    row("hypervisor", pid(vm.hypervisor_pid));
    row("folder", path(&vm.folder));
    for disk in &vm.disks {
        let access = if disk.read_only { ", read-only" } else { "" };
        row(
            "disk",
            format!("{} at {}{access}", disk.file, disk.guest_path),
        );
    }
    for process in &vm.processes {
        let detached = if process.detached { " (detached)" } else { "" };
        row(
            "process",
            format!("{} {}{detached}", process.id, process.command),
        );
    }
    report::print_table(&table)
}
