//! What the guest's kernel says of our images, and we of the kernel's.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{FilesystemOptions, ScratchOptions, create_scratch};
use opengcs::{OverlaySpec, UtilityVm};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use vmtest::debian;
use vmtest::tree::Tree;

use crate::fixture::{odd_tar, own_vm, said, shared, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("exports::the_kernel_reads_what_was_written", kernel_reads),
        shared("exports::a_live_sandbox_and_its_disk_say_the_same", sandbox),
        test(
            "exports::a_disk_of_a_killed_vm_reads_as_e2fsck_mends_it",
            dirty,
        ),
    ]
}

/// GNU tar in the guest walks the mounted layer: a foreign reader of a foreign driver's view.
async fn kernel_reads(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let cache = opengcs::Environment::process()
        .data_dir()
        .join("cache/packages");
    // The last one links /lib64, where libc6 has its loader below /usr alone.
    let packages = [
        "tar",
        "libacl1",
        "libselinux1",
        "libpcre2-8-0",
        "libc6",
        "base-files",
    ];
    let packages = debian::download(&packages, &cache)?;
    let mut tar = Vec::new();
    debian::write_data_archives(&packages, &mut tar)?;
    tar.extend(odd_tar()?);
    let layer = folder.path().join("layer.vhd");
    opengcs::tar_to_vhd(&layer, tar.as_slice())?;

    vm.hot_add_vhd(&layer, "/mnt/judged", true, true).await?;
    let script = "t=tar; [ -x /mnt/judged/usr/bin/tar ] && t=/usr/bin/tar || t=/bin/tar; \
         exec chroot /mnt/judged $t --create --format=pax --numeric-owner \
         --xattrs --xattrs-include='*' --exclude=./lost+found --directory=/ .";
    let mut walked = Vec::new();
    let mut stderr = Vec::new();
    let status = vm
        .run_process_with(
            ["sh", "-c", script],
            tokio::io::empty(),
            &mut walked,
            &mut stderr,
        )
        .await?;
    vm.hot_remove_vhd(&layer).await?;
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "GNU tar: {status}: {stderr}");

    let given = Tree::from_tar(tar.as_slice())?;
    same(&given, &Tree::from_tar(walked.as_slice())?)
}

async fn sandbox(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let layer = folder.path().join("layer.vhd");
    opengcs::tar_to_vhd(&layer, odd_tar()?.as_slice())?;
    let sandbox = folder.path().join("sandbox.vhdx");
    vm.create_ext4_vhdx(&sandbox, 1, None).await?;
    vm.hot_add_vhd(&layer, "/mnt/lower", true, true).await?;
    vm.hot_add_vhd(&sandbox, "/mnt/sand", false, true).await?;
    let overlay = OverlaySpec::new("/mnt/stack")
        .layer("/mnt/lower")
        .scratch("/mnt/sand");
    vm.combine_layers(&overlay).await?;
    said(
        &vm,
        "cd /mnt/stack/odd; echo new > new; echo more >> 'before 1970'; rm empty null; \
         rm -r folder; mkdir folder; touch folder/new; ln new 'new link'; mkfifo pipe; \
         chmod 640 capable; ln -s nowhere dangling",
    )
    .await?;
    let mut live = Vec::new();
    vm.vhd_to_tar(&sandbox, Some("/mnt/sand"), true, None)
        .await?
        .read_to_end(&mut live)
        .await?;
    vm.uncombine_layers("/mnt/stack").await?;
    vm.hot_remove_vhd(&sandbox).await?;
    vm.hot_remove_vhd(&layer).await?;
    let live = Tree::from_tar(live.as_slice())?;
    for path in [
        "odd/.wh.empty",
        "odd/.wh.null",
        "odd/folder/.wh..wh..opq",
        "odd/new link",
    ] {
        ensure!(live.at(path).is_some(), "{path} is not in the export");
    }
    same(
        &live,
        &Tree::from_tar(opengcs::vhd_to_tar(&sandbox, true, None)?)?,
    )
}

/// A VM is killed while its kernel writes; our replay must see what e2fsck makes of a copy.
async fn dirty() -> Result<()> {
    let folder = TempDir::new()?;
    let disk = folder.path().join("scratch.vhdx");
    let options = ScratchOptions {
        size: 512 << 20,
        filesystem: FilesystemOptions {
            journal: Some(16 << 20),
            ..FilesystemOptions::default()
        },
        ..ScratchOptions::default()
    };
    create_scratch(&disk, &options)?;
    let (vm, _runtime) = own_vm().await?;
    vm.hot_add_vhd(&disk, "/mnt/d", false, true).await?;
    let script = "cd /mnt/d; for i in $(seq 300); do mkdir d$i; \
         for j in 1 2 3; do echo $i $j > d$i/f$j; done; done; sync; \
         for i in $(seq 1 3 300); do rm -r d$i; done; \
         for i in $(seq 2 3 300); do mv d$i/f1 d$i/renamed; echo more >> d$i/f2; done; sync -f .";
    said(&vm, script).await?;
    // Not told to stop: the power goes.
    vm.terminate().await;
    drop(vm);
    ensure!(
        summary(&disk)?.contains("replayed"),
        "the journal was clean: the test proves nothing"
    );

    let ours = Tree::from_tar(opengcs::vhd_to_tar(&disk, false, None)?)?;
    let copy = folder.path().join("copy.img");
    run(
        Command::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .arg(&disk)
            .arg(&copy),
        &[0],
    )?;
    run(Command::new("e2fsck").arg("-fy").arg(&copy), &[0, 1])?;
    ensure!(ours.len() > 600, "only {} paths", ours.len());
    same(
        &ours,
        &Tree::from_tar(opengcs::vhd_to_tar(&copy, false, None)?)?,
    )
}

pub(crate) fn summary(disk: &Path) -> Result<String> {
    Ok(format!("{:?}", opengcs::layer::inspect(disk)?).to_lowercase())
}

pub(crate) fn run(command: &mut Command, good: &[i32]) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code().unwrap_or(-1);
    ensure!(
        good.contains(&code),
        "{command:?} ended with {code}: {text}"
    );
    Ok(())
}

pub(crate) fn same(left: &Tree, right: &Tree) -> Result<()> {
    let (mut left, mut right) = (left.clone(), right.clone());
    // Only one side may speak of the root.
    left.forget("");
    right.forget("");
    let found = left.differences(&right);
    let lines: Vec<_> = found.iter().take(30).map(ToString::to_string).collect();
    ensure!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        lines.join("\n")
    );
    Ok(())
}
