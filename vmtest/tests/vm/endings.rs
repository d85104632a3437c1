//! VMs that end on the way: everybody who waits is told at once, and nothing outlives its owner.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{ScratchOptions, create_scratch};
use opengcs::{ErrorKind, Stopped, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{error_of, nothing_stays_in, own_vm, test};

/// Far longer than any of these takes, far shorter than the VM's own timeout.
const AT_ONCE: Duration = Duration::from_secs(30);

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
        test(
            "endings::the_hypervisor_does_not_outlive_a_killed_owner",
            owner_killed,
        ),
    ]
}

fn pid(vm: &UtilityVm) -> Result<u32> {
    vm.describe().process_id.context("the VM has a process")
}

fn send(signal: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill")
        .arg(signal)
        .arg(pid.to_string())
        .status()?;
    ensure!(status.success(), "kill {signal} {pid}: {status}");
    Ok(())
}

fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        // A zombie has ended; only its parent has not looked yet.
        .is_ok_and(|stat| !stat.contains(") Z "))
}

async fn is_gone(pid: u32) -> Result<()> {
    for _ in 0..200 {
        if !runs(pid) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("process {pid} still runs");
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
    let _ = vm
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

/// The program `hold` of this package starts a VM and waits; it is killed without a warning.
async fn owner_killed() -> Result<()> {
    let runtime = TempDir::new()?;
    let mut owner = Command::new(Path::new(env!("CARGO_BIN_EXE_hold")))
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = owner.stdout.take().context("the owner has an output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let qemu: u32 = line
        .trim()
        .parse()
        .with_context(|| format!("the owner said {line:?}"))?;
    ensure!(runs(qemu));
    owner.kill()?;
    owner.wait()?;
    is_gone(qemu).await
}
