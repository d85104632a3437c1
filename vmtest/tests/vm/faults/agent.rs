//! The agent dies, or answers no more.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use opengcs::Stopped;

use super::{AT_ONCE, end_by, is_gone, pid};
use crate::fixture::{nothing_stays_in, own_vm};

/// PID 1 powers off behind it, so that the host need not wait for a timeout.
pub(super) async fn killed() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let mut process = vm.run_process("sleep 1000").await?;
    let told = end_by(&vm, &mut process, "kill -KILL $PPID").await?;
    ensure!(told.contains("agent died (signal 9)"), "{told}");
    ensure!(vm.stop().await? == Stopped::Already);
    drop((process, vm));
    nothing_stays_in(runtime.path()).await
}

pub(super) async fn hangs() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let qemu = pid(&vm)?;
    // Started or not, it is told to nobody once the agent hangs: only the console can say that it does.
    let script = "kill -STOP $PPID && echo the agent is stopped > /dev/console";
    let started = vm.run_process(["sh", "-c", script]);
    let how = tokio::select! {
        biased;
        seen = on_console(runtime.path(), "the agent is stopped") => {
            seen?;
            tokio::time::timeout(AT_ONCE, vm.stop()).await??
        }
        process = started => {
            let _running = process?;
            on_console(runtime.path(), "the agent is stopped").await?;
            tokio::time::timeout(AT_ONCE, vm.stop()).await??
        }
    };
    ensure!(how == Stopped::Killed, "{how:?}");
    is_gone(qemu).await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}

/// Waits until the console of the VM whose folder is in `runtime` has shown `words`.
async fn on_console(runtime: &Path, words: &str) -> Result<()> {
    let seen = async {
        loop {
            for folder in std::fs::read_dir(runtime)? {
                let console = std::fs::read(folder?.path().join("console.log"));
                if console.is_ok_and(|text| String::from_utf8_lossy(&text).contains(words)) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(AT_ONCE, seen).await?
}
