//! How a disk is seen in the guest: options, partitions, types of file system, links.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{Format, TarToDiskOptions, tar_to_disk};
use opengcs::{ErrorKind, HotAdd, ProcessSpec, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{error_of, odd_tar, said, sh, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("mounts::options_reach_the_kernel", options),
        shared("mounts::what_the_kernel_refuses_is_detached", refused),
        shared("mounts::a_partition_is_found_by_its_number", partition),
        shared("mounts::a_link_is_named_after_the_slot", links),
        shared("mounts::an_open_device_names_its_holder", open_device),
    ]
}

fn raw(folder: &TempDir, name: &str) -> Result<PathBuf> {
    let path = folder.path().join(name);
    let mut options = TarToDiskOptions {
        format: Format::Raw,
        ..TarToDiskOptions::default()
    };
    options.ext4.filesystem.size = Some(16 << 20);
    tar_to_disk(odd_tar()?.as_slice(), &path, &options)?;
    Ok(path)
}

async fn options(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = raw(&folder, "a.img")?;
    let disk = HotAdd::new(&path)
        .mount("/mnt/options")
        .option("noexec,nodev")
        .option("noatime")
        .option("stripe=16");
    vm.hot_add(disk).await?;
    let line = said(&vm, "grep ' /mnt/options ' /proc/mounts").await?;
    let run = sh(&vm, "cp /bin/busybox /mnt/options/b && /mnt/options/b true").await?;
    vm.hot_remove_vhd(&path).await?;
    for option in ["rw", "noexec", "nodev", "noatime", "stripe=16"] {
        ensure!(
            line.split([',', ' ']).any(|word| word == option),
            "{option}: {line}"
        );
    }
    let error = String::from_utf8_lossy(&run.stderr);
    ensure!(
        !run.status.success() && error.contains("Permission denied"),
        "a program ran, or was not there to run: {error}"
    );
    Ok(())
}

async fn refused(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = raw(&folder, "a.img")?;
    let disk = || HotAdd::new(&path).mount("/mnt/refused");
    for (disk, words) in [
        (disk().filesystem("nosuchfs"), "nosuchfs"),
        (disk().filesystem("../x"), "name of a file system"),
        (disk().option("nosuchoption"), "Invalid argument"),
        (disk().partition(3), "partition 3"),
    ] {
        let error = error_of(vm.hot_add(disk).await)?;
        ensure!(
            error.kind() == ErrorKind::GuestRefused && error.report().contains(words),
            "{words}: {}",
            error.report()
        );
    }
    ensure!(vm.disks().iter().all(|disk| disk.host_path != path));
    // Nothing of it is in the way.
    vm.hot_add(disk()).await?;
    vm.hot_remove_vhd(&path).await?;
    Ok(())
}

/// A disk with a table of partitions, of which the second is a layer.
async fn partition(vm: Arc<UtilityVm>) -> Result<()> {
    const START: usize = 2048;
    let folder = TempDir::new()?;
    let layer = std::fs::read(raw(&folder, "layer.img")?)?;
    let sectors = layer.len().div_ceil(512);
    let mut disk = vec![0; START * 512];
    for (entry, kind, first, count) in [(0, 0xda, 1, 1024), (1, 0x83, START, sectors)] {
        let entry = &mut disk[446 + entry * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&u32::try_from(first)?.to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(count)?.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(&layer);
    let path = folder.path().join("partitioned.img");
    std::fs::write(&path, &disk)?;

    let second = HotAdd::new(&path).mount("/mnt/partition").partition(2);
    let added = vm.hot_add(second.read_only(true)).await?;
    let text = said(&vm, "cat '/mnt/partition/odd/before 1970'").await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(text.starts_with("old"), "{text}");
    ensure!(added.partition == 2 && added.size == Some(u64::try_from(disk.len())?));

    let second = HotAdd::new(&path).link("/run/second").partition(2);
    vm.hot_add(second.read_only(true)).await?;
    let device = said(&vm, "readlink /run/second; cat /run/second | wc -c").await?;
    vm.hot_remove_vhd(&path).await?;
    let (name, bytes) = device.trim().split_once('\n').unwrap_or_default();
    ensure!(name.ends_with('2'), "{device}");
    ensure!(bytes.trim() == (sectors * 512).to_string(), "{device}");
    Ok(())
}

async fn links(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = raw(&folder, "a.img")?;
    let added = vm.hot_add(HotAdd::new(&path)).await?;
    let place = added.place.path().to_owned();
    let seen = said(&vm, &format!("readlink {place}; cat {place} | wc -c")).await?;
    vm.hot_remove_vhd(&path).await?;
    let gone = sh(&vm, &format!("test -L {place}")).await?;
    ensure!(
        place == format!("/run/opengcs/disks/{}-{}", added.controller, added.lun),
        "{place}"
    );
    let size = std::fs::metadata(&path)?.len().to_string();
    ensure!(seen.starts_with("/dev/sd"), "{seen}");
    ensure!(seen.trim().ends_with(&size), "{seen}, not {size}");
    ensure!(!gone.status.success(), "the link is still there");
    Ok(())
}

async fn open_device(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = raw(&folder, "a.img")?;
    vm.hot_add(HotAdd::new(&path).link("/run/opened")).await?;
    let script = "exec sleep 1000 < /run/opened";
    let mut holder = vm
        .run_process(ProcessSpec::new(["sh", "-c", script]))
        .await?;
    // The shell needs a moment to become the program that has it open.
    let wait = "until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' /dev/sd'; do :; done";
    said(&vm, wait).await?;
    let error = error_of(vm.hot_remove_vhd(&path).await)?.report();
    holder.kill().await?;
    holder.wait().await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(error.contains("in use by process"), "{error}");
    Ok(())
}
