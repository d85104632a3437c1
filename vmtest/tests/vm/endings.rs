//! VMs that end on the way: everybody who waits is told at once, and nothing outlives its owner.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{ScratchOptions, create_scratch};
use opengcs::{ErrorKind, Stopped};
use tempfile::TempDir;

use crate::faults::{AT_ONCE, is_gone, pid, send};
use crate::fixture::{error_of, nothing_stays_in, own_vm, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "endings::a_vm_that_dies_ends_its_processes_and_requests",
            dies,
        ),
        test(
            "endings::a_vm_that_dies_in_a_hot_add_fails_it",
            dies_in_hot_add,
        ),
        test(
            "endings::a_guest_that_powers_itself_off_is_noticed",
            powers_off,
        ),
        test("endings::a_dropped_vm_leaves_nothing", dropped),
        test(
            "endings::a_stopped_hypervisor_is_stopped_all_the_same",
            hangs,
        ),
    ]
}

async fn dies() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let mut process = vm.run_process("sleep 1000").await?;
    send("-KILL", pid(&vm)?)?;
    let error = error_of(tokio::time::timeout(AT_ONCE, process.wait()).await?)?;
    ensure!(
        error.kind() == ErrorKind::MachineEnded,
        "{}",
        error.report()
    );
    let next = tokio::time::timeout(AT_ONCE, vm.output("true", 16)).await?;
    ensure!(error_of(next)?.kind() == ErrorKind::MachineEnded);
    ensure!(vm.stop().await? == Stopped::Already);
    drop(vm);
    nothing_stays_in(runtime.path()).await
}

async fn dies_in_hot_add() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let folder = TempDir::new()?;
    let disk = folder.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 64 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&disk, &options)?;
    let qemu = pid(&vm)?;
    // The guest cannot answer while its machine is stopped, so the request is under way for sure.
    send("-STOP", qemu)?;
    let kill = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        send("-KILL", qemu)
    };
    let add = vm.hot_add_vhd(&disk, "/mnt/x", false, true);
    let (added, killed) = tokio::time::timeout(AT_ONCE, async { tokio::join!(add, kill) }).await?;
    killed?;
    let error = error_of(added)?;
    ensure!(
        error.kind() == ErrorKind::MachineEnded,
        "{}",
        error.report()
    );
    ensure!(
        error.report().contains("scratch.vhdx"),
        "{}",
        error.report()
    );
    drop(vm);
    nothing_stays_in(runtime.path()).await
}

async fn powers_off() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let mut process = vm.run_process("sleep 1000").await?;
    let _running = vm
        .run_process(["sh", "-c", "echo o > /proc/sysrq-trigger"])
        .await;
    tokio::time::timeout(AT_ONCE, vm.wait()).await?;
    ensure!(error_of(process.wait().await)?.kind() == ErrorKind::MachineEnded);
    drop((process, vm));
    nothing_stays_in(runtime.path()).await
}

async fn dropped() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let qemu = pid(&vm)?;
    drop(vm);
    is_gone(qemu).await?;
    nothing_stays_in(runtime.path()).await
}

async fn hangs() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let qemu = pid(&vm)?;
    send("-STOP", qemu)?;
    let how = tokio::time::timeout(AT_ONCE, vm.stop()).await??;
    ensure!(how == Stopped::Killed, "{how:?}");
    is_gone(qemu).await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
