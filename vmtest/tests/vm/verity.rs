//! Disks that the guest's kernel holds to a root hash.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{Format, TarToDiskOptions, Verity, tar_to_disk};
use opengcs::{ErrorKind, HotAdd, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{error_of, odd_tar, said, sh, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("verity::a_disk_that_agrees_is_mounted", agrees),
        shared("verity::another_root_hash_is_refused", another_root),
        shared("verity::a_flipped_byte_is_an_error_to_its_reader", flipped),
        shared("verity::a_disk_without_a_tree_is_refused", no_tree),
    ]
}

/// One after the other, for they look at all of dm-verity in the guest.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const MARK: &[u8] = b"the content that is to be found in the image";

/// A layer with a tree, and a file of some blocks in it.
fn protected(folder: &TempDir, format: Format) -> Result<(PathBuf, Verity)> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    let content = MARK.repeat(1000);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "marked", content.as_slice())?;
    let mut tar = tar.into_inner()?;
    // The rest of it: the end of the first tar is cut off.
    tar.truncate(tar.len() - 1024);
    tar.extend(odd_tar()?);
    let path = folder.path().join(format!("layer.{format}"));
    let options = TarToDiskOptions {
        format,
        verity: true,
        ..TarToDiskOptions::default()
    };
    let made = tar_to_disk(tar.as_slice(), &path, &options)?;
    Ok((path, made.verity.context("no tree was made")?))
}

/// No device of dm-verity is left in the guest.
async fn none_left(vm: &UtilityVm) -> Result<()> {
    let left = said(vm, "ls /dev/mapper /sys/block").await?;
    ensure!(
        !left.contains("dm-") && !left.contains("verity"),
        "left: {left}"
    );
    Ok(())
}

async fn agrees(vm: Arc<UtilityVm>) -> Result<()> {
    let _turn = TURN.lock().await;
    let folder = TempDir::new()?;
    for format in [Format::FixedVhd, Format::Vhdx] {
        let (path, tree) = protected(&folder, format)?;
        let disk = HotAdd::new(&path).mount("/mnt/verity");
        let added = vm.hot_add(disk.verity_root(&tree.root_hash)).await?;
        let said = said(
            &vm,
            "grep ' /mnt/verity ' /proc/mounts; cat '/mnt/verity/odd/before 1970'; \
             find /mnt/verity -type f -exec cat {} + | wc -c",
        )
        .await?;
        let write = sh(&vm, "echo > /mnt/verity/x").await?;
        vm.hot_remove_vhd(&path).await?;
        ensure!(said.starts_with("/dev/dm-"), "{said}");
        ensure!(said.contains("\nold"), "{said}");
        ensure!(!write.status.success());
        ensure!(added.read_only && added.verity_root.as_ref() == Some(&tree.root_hash));
        none_left(&vm).await?;
    }
    // Attached only: the link leads to the device that checks.
    let (path, tree) = protected(&folder, Format::Raw)?;
    let disk = HotAdd::new(&path).link("/run/protected").verity(tree);
    vm.hot_add(disk).await?;
    let device = said(&vm, "readlink /run/protected; cat /run/protected | wc -c").await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(device.starts_with("/dev/dm-"), "{device}");
    none_left(&vm).await
}

async fn another_root(vm: Arc<UtilityVm>) -> Result<()> {
    let _turn = TURN.lock().await;
    let folder = TempDir::new()?;
    let (path, tree) = protected(&folder, Format::FixedVhd)?;
    let other = tree.root_hash.replace(['0', '1', '2', '3'], "f");
    ensure!(other != tree.root_hash);
    for _again in 0..2 {
        let disk = HotAdd::new(&path).mount("/mnt/verity").verity_root(&other);
        let error = error_of(vm.hot_add(disk).await)?;
        ensure!(
            error.kind() == ErrorKind::GuestRefused,
            "{}",
            error.report()
        );
        for word in ["root digest", other.as_str(), "layer.vhd"] {
            ensure!(error.report().contains(word), "{}", error.report());
        }
        none_left(&vm).await?;
    }
    ensure!(vm.disks().iter().all(|disk| disk.host_path != path));
    Ok(())
}

async fn flipped(vm: Arc<UtilityVm>) -> Result<()> {
    let _turn = TURN.lock().await;
    let folder = TempDir::new()?;
    let (path, tree) = protected(&folder, Format::FixedVhd)?;
    let at = find(&path)?;
    let file = std::fs::File::options().write(true).open(&path)?;
    file.write_all_at(b"THE", at)?;
    drop(file);
    let disk = HotAdd::new(&path).mount("/mnt/verity");
    vm.hot_add(disk.verity_root(&tree.root_hash)).await?;
    let whole = said(&vm, "cat '/mnt/verity/odd/before 1970'").await?;
    let cut = sh(&vm, "cat /mnt/verity/marked").await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(whole.starts_with("old"), "{whole}");
    let error = String::from_utf8_lossy(&cut.stderr);
    ensure!(!cut.status.success(), "the changed file was read");
    ensure!(error.contains("Input/output error"), "{error}");
    ensure!(
        !cut.stdout.starts_with(b"THE"),
        "what was changed was shown"
    );
    none_left(&vm).await
}

/// Where the marked file begins in the image.
fn find(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path)?;
    let at = bytes
        .windows(MARK.len())
        .position(|window| window == MARK)
        .context("the mark is not in the image")?;
    Ok(u64::try_from(at)?)
}

async fn no_tree(vm: Arc<UtilityVm>) -> Result<()> {
    let _turn = TURN.lock().await;
    let folder = TempDir::new()?;
    let path = folder.path().join("plain.vhd");
    opengcs::tar_to_vhd(&path, odd_tar()?.as_slice())?;
    let disk = HotAdd::new(&path).mount("/mnt/verity");
    let error = error_of(vm.hot_add(disk.verity_root("00".repeat(32))).await)?;
    ensure!(
        error.kind() == ErrorKind::InvalidInput,
        "{}",
        error.report()
    );
    ensure!(
        error.report().contains("no hash tree"),
        "{}",
        error.report()
    );
    Ok(())
}
