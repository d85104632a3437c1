//! The host has no more room under a disk that the guest writes to.

use std::fs::{File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use opengcs::layer::{ScratchOptions, create_scratch};
use opengcs::{Config, UtilityVm};
use tempfile::TempDir;

use super::AT_ONCE;
use crate::fixture::{config, error_of, nothing_stays_in, said, sh};

/// No file of the hypervisor's may be larger than this; it must hold the guest's memory.
const LARGEST_MIB: u64 = 160;

pub(super) async fn fills_up() -> Result<()> {
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let hypervisor = folder.path().join("qemu");
    // A limit that every user can set stands for a file system that is full.
    let script = format!(
        "#!/bin/sh\ntrap '' XFSZ\nulimit -f {}\nexec qemu-system-x86_64 \"$@\"\n",
        LARGEST_MIB * 2048
    );
    std::fs::write(&hypervisor, script)?;
    std::fs::set_permissions(&hypervisor, Permissions::from_mode(0o755))?;
    let disk = folder.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 256 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&disk, &options)?;
    // New blocks of a VHDX come behind its end: a hole there leaves room for few of them.
    File::options()
        .write(true)
        .open(&disk)?
        .set_len((LARGEST_MIB - 4) << 20)?;

    let mut config = config(runtime.path())?;
    config.memory_mib = 128;
    config.hypervisor = Some(hypervisor);
    fill(config, &runtime, &disk).await
}

/// Whether this process may mount, as it needs to for a file system that is really full.
pub(super) fn can_mount() -> bool {
    SmallFileSystem::mount().is_ok()
}

/// A file system of 16 MiB. A VHDX grows beyond that.
struct SmallFileSystem(TempDir);

impl SmallFileSystem {
    fn mount() -> Result<Self> {
        let folder = TempDir::new()?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "opengcs-full"])
            .arg(folder.path())
            .output()?;
        ensure!(mount.status.success(), "mount: {}", mount.status);
        Ok(Self(folder))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

pub(super) async fn has_no_room() -> Result<()> {
    let (runtime, small) = (TempDir::new()?, SmallFileSystem::mount()?);
    let disk = small.0.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 256 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&disk, &options)?;
    let mut config = config(runtime.path())?;
    config.memory_mib = 128;
    fill(config, &runtime, &disk).await?;
    // Nobody holds the file any more, and it is a whole VHDX. What the guest's file system has lost depends on its
    // kernel: without a journal, what points to a block may be on the disk and the block may not.
    let found = opengcs::layer::inspect(&disk)?;
    ensure!(found.filesystem.is_some(), "{found:?}");
    let read = opengcs::vhd_to_tar(&disk, false, None)?.read_to_end(&mut Vec::new());
    if let Err(error) = read {
        let told = format!("{:#}", anyhow::Error::new(error));
        ensure!(told.contains("corrupt file system"), "{told}");
    }
    Ok(())
}

/// Writes more to the disk than the host has room for.
async fn fill(config: Config, runtime: &TempDir, disk: &Path) -> Result<()> {
    let vm = UtilityVm::start(config).await?;
    vm.hot_add_vhd(disk, "/mnt/full", false, true).await?;
    let write = "dd if=/dev/zero of=/mnt/full/file bs=1M count=32 conv=fsync";
    let output = tokio::time::timeout(AT_ONCE, sh(&vm, write)).await??;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "32 MiB were written: {stderr}");
    // Newer kernels hand the disk's own reason on.
    let told = ["Input/output error", "Read-only", "No space left"];
    ensure!(told.iter().any(|words| stderr.contains(words)), "{stderr}");
    // The VM works on, and what the host met is recorded.
    ensure!(said(&vm, "echo on").await? == "on\n");
    let recorded = vm.diagnostics().hypervisor_messages;
    ensure!(recorded.contains("write failed on the host"), "{recorded}");
    // The removal does not hide that something is lost; the next one frees the file.
    let error = error_of(tokio::time::timeout(AT_ONCE, vm.hot_remove_vhd(disk)).await?)?;
    let report = error.report();
    ensure!(report.contains("written last is lost"), "{report}");
    tokio::time::timeout(AT_ONCE, vm.hot_remove_vhd(disk)).await??;
    ensure!(vm.disks().is_empty(), "{:?}", vm.disks());
    tokio::time::timeout(AT_ONCE, vm.stop()).await??;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
