//! Starts a VM, prints the id of its hypervisor's process, and waits to be killed.
#![allow(clippy::print_stdout, reason = "its output is what the test reads")]

use anyhow::{Context, Result};
use opengcs::{Config, RequestedMode, UtilityVm};

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::generate_default(["lcow.timeout=120"])?;
    config.requested_mode = RequestedMode::KernelInitrd;
    let vm = UtilityVm::start(config).await?;
    println!("{}", vm.describe().process_id.context("no process")?);
    vm.wait().await;
    Ok(())
}
