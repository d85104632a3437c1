//! Starts a VM, with a disk if one is named, prints the id of its hypervisor's process, and waits to be killed.
#![allow(clippy::print_stdout, reason = "its output is what the test reads")]

use anyhow::{Context, Result};
use opengcs::{Config, RequestedMode, UtilityVm};

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::generate_default(["lcow.timeout=120"])?;
    config.requested_mode = RequestedMode::KernelInitrd;
    let vm = UtilityVm::start(config).await?;
    if let Some(disk) = std::env::args_os().nth(1) {
        vm.hot_add_vhd(disk, "/mnt/held", false, true).await?;
    }
    println!("{}", vm.describe().process_id.context("no process")?);
    vm.wait().await;
    Ok(())
}
