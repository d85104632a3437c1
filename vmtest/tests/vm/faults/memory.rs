//! The guest's memory runs out.

use anyhow::{Result, ensure};
use opengcs::{Stopped, UtilityVm};
use tempfile::TempDir;

use super::AT_ONCE;
use crate::fixture::{config, nothing_stays_in, said, sh};

/// The process that took it is killed; the agent and what else runs stay.
pub(super) async fn runs_out() -> Result<()> {
    let runtime = TempDir::new()?;
    let mut config = config(runtime.path())?;
    config.memory_mib = 128;
    let vm = UtilityVm::start(config).await?;
    let mut bystander = vm.run_process("sleep 1000").await?;
    // It keeps its whole input until the first line ends, which is never.
    let output = tokio::time::timeout(AT_ONCE, sh(&vm, "exec tail /dev/zero")).await??;
    ensure!(output.status.signal() == Some(9), "{output:?}");
    ensure!(bystander.try_wait()?.is_none());
    let log = said(&vm, "dmesg | grep -i 'out of memory'").await?;
    ensure!(log.contains("tail"), "{log}");
    // The host has recorded it too, with all that the kernel said before.
    let recorded = async {
        loop {
            let log = vm.diagnostics().kernel_log;
            if log.contains("Linux version") && log.contains("Out of memory") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(AT_ONCE, recorded).await?;
    ensure!(vm.stop().await? == Stopped::Gracefully);
    drop((bystander, vm));
    nothing_stays_in(runtime.path()).await
}
