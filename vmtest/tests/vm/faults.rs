//! Faults of life and death: each ends in a clear error, in bounded time, with nothing left behind.

mod agent;
mod full_disk;
mod memory;
mod owners;
mod panic;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use opengcs::{ErrorKind, Process, UtilityVm};

use crate::fixture::{error_of, test};

/// Far longer than any of these takes, far shorter than the VM's own timeout.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(45);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "faults::a_killed_agent_is_told_as_the_reason",
            agent::killed,
        ),
        test(
            "faults::an_agent_that_hangs_does_not_hold_a_stop",
            agent::hangs,
        ),
        test(
            "faults::a_kernel_that_panics_is_told_with_its_message",
            panic::panics,
        ),
        test(
            "faults::memory_that_runs_out_ends_the_process_and_not_the_vm",
            memory::runs_out,
        ),
        test(
            "faults::a_full_host_disk_is_an_error_in_the_guest_and_holds_nothing",
            full_disk::fills_up,
        ),
        test(
            "faults::a_file_system_without_room_is_an_error_in_the_guest_and_holds_nothing",
            full_disk::has_no_room,
        )
        .with_ignored_flag(!full_disk::can_mount()),
        test(
            "faults::two_owners_share_no_writable_disk_and_a_killed_one_leaves_nothing",
            owners::two,
        ),
    ]
}

pub(crate) fn pid(vm: &UtilityVm) -> Result<u32> {
    vm.describe().process_id.context("the VM has a process")
}

pub(crate) fn send(signal: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill")
        .arg(signal)
        .arg(pid.to_string())
        .status()?;
    ensure!(status.success(), "kill {signal} {pid}: {status}");
    Ok(())
}

/// Whether any thread of it runs: the first may have ended while another still holds its files.
pub(crate) fn runs(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().any(|thread| {
        std::fs::read_to_string(thread.path().join("stat"))
            // A zombie has ended; only its parent has not looked yet.
            .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    })
}

pub(crate) async fn is_gone(pid: u32) -> Result<()> {
    for _ in 0..200 {
        if !runs(pid) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("process {pid} still runs");
}

/// Runs a script that ends the VM, and gives what a process that was waited for is told then.
async fn end_by(vm: &UtilityVm, waiting: &mut Process, script: &str) -> Result<String> {
    // It may be answered or not: what it does takes the answer's way. Dropped, it would be ended.
    let _running = vm.run_process(["sh", "-c", script]).await;
    let error = error_of(tokio::time::timeout(AT_ONCE, waiting.wait()).await?)?;
    ensure!(
        error.kind() == ErrorKind::MachineEnded,
        "{}",
        error.report()
    );
    let next = tokio::time::timeout(AT_ONCE, vm.output("true", 16)).await?;
    ensure!(error_of(next)?.kind() == ErrorKind::MachineEnded);
    Ok(error.report())
}
