//! The agent dies, or answers no more.

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
    let _running = tokio::time::timeout(
        std::time::Duration::from_secs(2),
        vm.run_process(["sh", "-c", "kill -STOP $PPID"]),
    )
    .await;
    let how = tokio::time::timeout(AT_ONCE, vm.stop()).await??;
    ensure!(how == Stopped::Killed, "{how:?}");
    is_gone(qemu).await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
