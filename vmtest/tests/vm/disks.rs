//! Hot-added disks: every format, every refusal, and what the guest's kernel makes of them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{Format, ScratchOptions, TarToDiskOptions, create_scratch, tar_to_disk};
use opengcs::{ErrorKind, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{config, error_of, nothing_stays_in, odd_tar, own_vm, said, sh, shared, test};

mod other_size;

/// How many disks one VM has at once; `cargo xtask test --long` makes it all 256.
const DISKS_VARIABLE: &str = "OPENGCS_TEST_DISKS";
const DISKS: u32 = 68;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("disks::every_format_mounts_and_reads", every_format),
        shared("disks::read_only_holds_for_mount_and_device", read_only),
        shared("disks::what_is_written_is_there_afterwards", written),
        shared("disks::attached_only_is_a_device", attached_only),
        shared("disks::a_disk_cannot_be_added_twice", twice),
        shared(
            "disks::a_disk_that_was_never_added_cannot_be_removed",
            never_added,
        ),
        shared("disks::a_missing_file_is_named", missing),
        shared(
            "disks::what_the_guest_cannot_mount_is_detached_again",
            no_file_system,
        ),
        shared("disks::a_busy_disk_stays_and_its_holder_is_named", busy),
        test("disks::many_read_one_disk_and_one_writes", locked),
        test("disks::a_disk_that_the_kernel_missed_is_found", missed),
        test(
            "disks::a_disk_of_another_size_is_refused",
            other_size::refused,
        ),
        test("disks::many_at_once_have_a_place_each", many),
    ]
}

fn disk(folder: &TempDir, name: &str, format: Format) -> Result<PathBuf> {
    let path = folder.path().join(name);
    let options = TarToDiskOptions {
        format,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(odd_tar()?.as_slice(), &path, &options)?;
    Ok(path)
}

fn scratch(folder: &TempDir) -> Result<PathBuf> {
    let path = folder.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 256 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&path, &options)?;
    Ok(path)
}

async fn every_format(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    for format in [Format::FixedVhd, Format::Vhdx, Format::Raw] {
        // The name says nothing: what counts is the content.
        let path = disk(&folder, &format!("{format}.disk"), format)?;
        let place = format!("/mnt/format-{format}");
        vm.hot_add_vhd(&path, &place, true, true).await?;
        let text = said(
            &vm,
            &format!("cat '{place}/odd/before 1970'; ls {place}/odd | wc -l"),
        )
        .await?;
        vm.hot_remove_vhd(&path).await?;
        ensure!(text.starts_with("old"), "{format}: {text}");
        let gone = sh(&vm, &format!("test -e {place}")).await?;
        ensure!(
            !gone.status.success(),
            "the mount point of {format} is still there"
        );
    }
    Ok(())
}

async fn read_only(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = disk(&folder, "layer.vhd", Format::FixedVhd)?;
    let before = std::fs::read(&path)?;
    vm.hot_add_vhd(&path, "/mnt/ro", true, true).await?;
    let write = sh(&vm, "echo x > /mnt/ro/file").await?;
    let flags = said(&vm, "for d in /sys/block/sd*; do cat $d/ro; done").await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(!write.status.success());
    let text = String::from_utf8_lossy(&write.stderr).to_lowercase();
    ensure!(text.contains("read-only"), "{text}");
    ensure!(
        flags.lines().any(|flag| flag == "1"),
        "no read-only device: {flags}"
    );
    ensure!(std::fs::read(&path)? == before, "the file has changed");
    Ok(())
}

async fn written(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = scratch(&folder)?;
    vm.hot_add_vhd(&path, "/mnt/rw", false, true).await?;
    said(&vm, "mkdir /mnt/rw/upper; echo kept > /mnt/rw/upper/file").await?;
    vm.hot_remove_vhd(&path).await?;
    // Removed means that the host may read it at once, and that another mount sees the same.
    let tree = vmtest::tree::Tree::from_tar(opengcs::vhd_to_tar(&path, true, None)?)?;
    ensure!(
        tree.at("file").is_some(),
        "{:?}",
        tree.paths().collect::<Vec<_>>()
    );
    vm.hot_add_vhd(&path, "/mnt/again", true, true).await?;
    let text = said(&vm, "cat /mnt/again/upper/file").await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(text == "kept\n", "{text}");
    Ok(())
}

async fn attached_only(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = disk(&folder, "layer.vhdx", Format::Vhdx)?;
    let added = vm.hot_add_vhd(&path, "/run/the-disk", true, false).await?;
    let place = added.place.path().to_owned();
    let sectors = said(
        &vm,
        &format!("blockdev --getsize64 {place} || cat {place} | wc -c"),
    )
    .await?;
    vm.hot_remove_vhd(&path).await?;
    let bytes: u64 = sectors.trim().parse()?;
    ensure!(bytes > 0 && bytes.is_multiple_of(512), "{sectors}");
    Ok(())
}

async fn twice(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = disk(&folder, "layer.vhd", Format::FixedVhd)?;
    vm.hot_add_vhd(&path, "/mnt/once", true, true).await?;
    let again = vm.hot_add_vhd(&path, "/mnt/twice", true, true).await;
    let other = disk(&folder, "other.vhd", Format::FixedVhd)?;
    let taken = vm.hot_add_vhd(&other, "/mnt/once", true, true).await;
    vm.hot_remove_vhd(&path).await?;
    for error in [error_of(again)?, error_of(taken)?] {
        ensure!(
            error.kind() == ErrorKind::AlreadyAttached,
            "{}",
            error.report()
        );
        ensure!(!error.report().contains('\n'), "{}", error.report());
    }
    Ok(())
}

async fn never_added(vm: Arc<UtilityVm>) -> Result<()> {
    let error = error_of(vm.hot_remove_vhd("/no/such/layer.vhd").await)?;
    ensure!(error.kind() == ErrorKind::NotAttached, "{:?}", error.kind());
    ensure!(error.to_string().contains("/no/such/layer.vhd"), "{error}");
    Ok(())
}

async fn missing(vm: Arc<UtilityVm>) -> Result<()> {
    let path = Path::new("/no/such/layer.vhd");
    let error = error_of(vm.hot_add_vhd(path, "/mnt/x", true, true).await)?;
    ensure!(error.kind() == ErrorKind::NotFound, "{:?}", error.kind());
    ensure!(
        error.report().contains("/no/such/layer.vhd"),
        "{}",
        error.report()
    );
    Ok(())
}

async fn no_file_system(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = folder.path().join("noise.img");
    std::fs::write(&path, vec![0x5a; 1 << 20])?;
    for _ in 0..2 {
        let error = error_of(vm.hot_add_vhd(&path, "/mnt/noise", false, true).await)?;
        ensure!(
            error.kind() == ErrorKind::GuestRefused,
            "{}",
            error.report()
        );
        ensure!(error.report().contains("noise.img"), "{}", error.report());
    }
    ensure!(vm.disks().iter().all(|disk| disk.host_path != path));
    Ok(())
}

async fn busy(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let path = disk(&folder, "layer.vhd", Format::FixedVhd)?;
    vm.hot_add_vhd(&path, "/mnt/busy", true, true).await?;
    let holder = opengcs::ProcessSpec::new(["sleep", "1000"]).current_dir("/mnt/busy");
    let mut holder = vm.run_process(holder).await?;
    let error = error_of(vm.hot_remove_vhd(&path).await)?.report();
    let still = sh(&vm, "test -d /mnt/busy/odd").await?.status.success();
    holder.kill().await?;
    holder.wait().await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(still, "the disk was taken away under a process");
    ensure!(error.contains("sleep"), "{error}");
    Ok(())
}

async fn locked() -> Result<()> {
    let folder = TempDir::new()?;
    let path = scratch(&folder)?;
    let ((one, _one), (two, _two)) = tokio::try_join!(own_vm(), own_vm())?;
    one.hot_add_vhd(&path, "/mnt/mine", false, true).await?;
    for read_only in [false, true] {
        let error = error_of(two.hot_add_vhd(&path, "/mnt/mine", read_only, true).await)?;
        locks_out(&error)?;
    }
    // A conversion in this process, or in any other, is held off in the same way.
    let error = opengcs::vhd_to_tar(&path, false, None)?
        .read_to_end(&mut Vec::new())
        .expect_err("a disk was read while a VM wrote to it");
    let error = error.downcast::<opengcs::Error>()?;
    locks_out(&error)?;
    locks_out(&error_of(opengcs::copy_file(
        &path,
        folder.path().join("copy"),
        false,
    ))?)?;
    one.hot_remove_vhd(&path).await?;

    one.hot_add_vhd(&path, "/mnt/mine", true, true).await?;
    two.hot_add_vhd(&path, "/mnt/mine", true, true).await?;
    opengcs::vhd_to_tar(&path, false, None)?.read_to_end(&mut Vec::new())?;
    one.hot_remove_vhd(&path).await?;
    locks_out(&error_of(
        one.hot_add_vhd(&path, "/mnt/mine", false, true).await,
    )?)?;
    two.hot_remove_vhd(&path).await?;
    one.hot_add_vhd(&path, "/mnt/mine", false, true).await?;
    one.stop().await?;
    // Nothing of a VM that has stopped holds the file.
    two.hot_add_vhd(&path, "/mnt/mine", false, true).await?;
    two.stop().await?;
    Ok(())
}

/// A kernel that is told to take no news of disks finds one only when it is asked to look.
async fn missed() -> Result<()> {
    let folder = TempDir::new()?;
    let path = disk(&folder, "layer.vhd", Format::FixedVhd)?;
    let (vm, _runtime) = own_vm().await?;
    said(&vm, "echo none > /sys/module/scsi_mod/parameters/scan").await?;
    let begun = std::time::Instant::now();
    vm.hot_add_vhd(&path, "/mnt/missed", true, true).await?;
    let waited = begun.elapsed();
    let text = said(&vm, "cat '/mnt/missed/odd/before 1970'").await?;
    vm.hot_remove_vhd(&path).await?;
    vm.stop().await?;
    // The agent asks after a second. Sooner, the news has come all the same.
    ensure!(waited.as_millis() > 900, "it was not missed: {waited:?}");
    ensure!(text.starts_with("old"), "{text}");
    Ok(())
}

fn locks_out(error: &opengcs::Error) -> Result<()> {
    ensure!(error.kind() == ErrorKind::Locked, "{}", error.report());
    ensure!(
        error.report().contains("scratch.vhdx"),
        "{}",
        error.report()
    );
    Ok(())
}

/// More than a controller has places for, each with content of its own; they come from several tasks at once.
async fn many() -> Result<()> {
    let count = match std::env::var(DISKS_VARIABLE) {
        Ok(told) => told
            .parse()
            .with_context(|| format!("{DISKS_VARIABLE}={told} is no number of disks"))?,
        Err(_) => DISKS,
    };
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let mut config = config(runtime.path())?;
    config.scsi_controllers = u8::try_from(count.div_ceil(64))?;
    let vm = Arc::new(UtilityVm::start(config).await?);
    let path = |number: u32| folder.path().join(format!("{number}.img"));
    let mut adding = tokio::task::JoinSet::new();
    for number in 0..count {
        let mut content = format!("disk {number:03}\n").into_bytes();
        // No two of them have the same size.
        content.resize(4096 + 512 * usize::try_from(number)?, 0);
        std::fs::write(path(number), content)?;
    }
    for number in 0..count {
        let (vm, path) = (Arc::clone(&vm), path(number));
        if adding.len() == 4 {
            adding.join_next().await.context("some are added")???;
        }
        let link = format!("/run/many/{number:03}");
        adding.spawn(async move { vm.hot_add_vhd(&path, &link, true, false).await });
    }
    while let Some(added) = adding.join_next().await {
        added??;
    }
    let disks = vm.disks();
    let places: BTreeSet<_> = disks
        .iter()
        .map(|disk| (disk.controller, disk.lun))
        .collect();
    ensure!(places.len() == usize::try_from(count)?, "{places:?}");
    let script = "for d in /run/many/*; do head -c 9 $d; done";
    let expected: String = (0..count)
        .map(|number| format!("disk {number:03}\n"))
        .collect();
    ensure!(said(&vm, script).await? == expected);
    if count == 256 {
        std::fs::write(path(count), [0; 4096])?;
        let error = error_of(vm.hot_add_vhd(path(count), "", true, false).await)?;
        ensure!(error.kind() == ErrorKind::NoFreeSlot, "{}", error.report());
    }
    // Each other one goes, and its place is free.
    for number in (0..count).step_by(2) {
        vm.hot_remove_vhd(path(number)).await?;
    }
    let kept: String = (1..count)
        .step_by(2)
        .map(|number| format!("disk {number:03}\n"))
        .collect();
    ensure!(said(&vm, script).await? == kept);
    let again = vm
        .hot_add_vhd(path(0), "/run/many/000", true, false)
        .await?;
    ensure!(places.contains(&(again.controller, again.lun)));
    ensure!(said(&vm, script).await?.starts_with("disk 000\n"));
    vm.stop().await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
