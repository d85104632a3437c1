//! The guest's kernel panics while the VM works.

use anyhow::{Result, ensure};
use opengcs::Stopped;

use super::end_by;
use crate::fixture::{nothing_stays_in, own_vm};

pub(super) async fn panics() -> Result<()> {
    let (vm, runtime) = own_vm().await?;
    let mut process = vm.run_process("sleep 1000").await?;
    let script = "echo c > /proc/sysrq-trigger";
    let told = end_by(&vm, &mut process, script).await?;
    ensure!(
        told.contains("panicked") && told.contains("sysrq"),
        "{told}"
    );
    let recorded = vm.diagnostics();
    ensure!(recorded.console.contains("Call Trace"), "{recorded}");
    ensure!(vm.stop().await? == Stopped::Already);
    drop((process, vm));
    nothing_stays_in(runtime.path()).await
}
