//! VMs that boot from a disk through UEFI: they do what the others do, and nobody writes to the disk.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{ScratchOptions, create_scratch};
use opengcs::{BootMode, Config, RequestedMode, Stopped, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{config, in_full, nothing_stays_in, said, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![test(
        "boot_disk::two_vms_boot_from_one_disk_and_leave_it_as_it_was",
        two_from_one,
    )]
}

/// Automatic mode, with a disk: it is taken before kernel and initrd, which are there too.
fn from_disk(runtime: &TempDir, disk: PathBuf) -> Result<Config> {
    let mut config = config(runtime.path())?;
    config.requested_mode = RequestedMode::Auto;
    config.options.vhdx = disk;
    Ok(config)
}

async fn two_from_one() -> Result<()> {
    let disk = std::env::var_os("OPENGCS_TEST_VHDX")
        .context("OPENGCS_TEST_VHDX is not set: run these tests with `cargo xtask test`")?;
    let before = std::fs::read(&disk)?;
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let start = || async {
        let config = from_disk(&runtime, PathBuf::from(&disk))?;
        UtilityVm::start(config).await.map_err(in_full)
    };
    let (first, second) = tokio::join!(start(), start());
    let (first, second) = (first?, second?);
    ensure!(first.boot_mode() == BootMode::Vhdx);
    let mounts = said(&first, "cat /proc/mounts").await?;
    ensure!(mounts.contains("overlay / overlay"), "{mounts}");

    let scratch = folder.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 64 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&scratch, &options)?;
    first.hot_add_vhd(&scratch, "/mnt/x", false, true).await?;
    let script = "echo kept > /mnt/x/file && echo gone > /root/file && cat /mnt/x/file /root/file";
    ensure!(said(&first, script).await? == "kept\ngone\n");
    first.hot_remove_vhd(&scratch).await?;
    ensure!(said(&second, "ls /root").await?.is_empty());

    ensure!(first.stop().await? == Stopped::Gracefully);
    ensure!(second.stop().await? == Stopped::Gracefully);
    drop((first, second));
    ensure!(
        std::fs::read(&disk)? == before,
        "the boot disk was written to"
    );
    nothing_stays_in(runtime.path()).await
}
