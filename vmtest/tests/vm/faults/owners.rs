//! Two owners at once, and one that is killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use opengcs::layer::{ScratchOptions, create_scratch};
use opengcs::{ErrorKind, UtilityVm};
use tempfile::TempDir;

use super::{is_gone, runs};
use crate::fixture::{config, error_of, nothing_stays_in, said};

/// The program `hold` of this package starts a VM with a disk and waits; it is killed without a
/// warning. Its VM ends with it, its folder is cleared away by the next start, its disk is free.
pub(super) async fn two() -> Result<()> {
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let disk = folder.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 64 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&disk, &options)?;
    let mut owner = Command::new(Path::new(env!("CARGO_BIN_EXE_hold")))
        .arg(&disk)
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

    let vm = UtilityVm::start(config(runtime.path())?).await?;
    let folders = || std::fs::read_dir(runtime.path()).map(Iterator::count);
    ensure!(folders()? == 2, "each owner has a folder of its own");
    let error = error_of(vm.hot_add_vhd(&disk, "/mnt/x", false, true).await)?;
    ensure!(error.kind() == ErrorKind::Locked, "{}", error.report());
    ensure!(
        error.report().contains("scratch.vhdx"),
        "{}",
        error.report()
    );

    owner.kill()?;
    owner.wait()?;
    is_gone(qemu).await?;
    ensure!(
        folders()? == 2,
        "nobody could clear up behind the killed owner"
    );
    // A start that gets no further than its folder is enough.
    let mut next = config(runtime.path())?;
    next.hypervisor = Some("/no/such/qemu".into());
    error_of(UtilityVm::start(next).await)?;
    ensure!(folders()? == 1, "the next start clears up");

    // The hypervisor's threads end one after the other, and the last one closes the disk.
    let mut added = vm.hot_add_vhd(&disk, "/mnt/x", false, true).await;
    for _ in 0..200 {
        if !matches!(&added, Err(error) if error.kind() == ErrorKind::Locked) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        added = vm.hot_add_vhd(&disk, "/mnt/x", false, true).await;
    }
    added?;
    ensure!(said(&vm, "ls /mnt/x").await?.contains("lost+found"));
    vm.hot_remove_vhd(&disk).await?;
    vm.stop().await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
