//! Power cuts: what a killed VM's kernel has left on its disks, of every kind of journal, reads as
//! recovery leaves it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::UtilityVm;
use tempfile::TempDir;
use vmtest::tree::{Tree, digest};

use crate::exports::{run, same, summary};
use crate::fixture::{own_vm, said, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![test(
        "dirty::disks_of_a_killed_vm_read_as_recovery_leaves_them",
        power_cut,
    )]
}

/// A kind of file system: how it is made, and how mounted.
struct Kind {
    name: &'static str,
    make: &'static str,
    mount: &'static str,
}

const fn kind(name: &'static str, make: &'static str, mount: &'static str) -> Kind {
    Kind { name, make, mount }
}

/// Judged by `e2fsck` and `debugfs`.
const KINDS: &[Kind] = &[
    kind("default", "-t ext4", "rw"),
    kind("small", "-t ext4 -b 1024 -J size=2", "rw"),
    kind("narrow", "-t ext4 -O ^64bit,^metadata_csum", "rw"),
    kind("v1", "-t ext4 -O ^metadata_csum", "journal_checksum"),
    kind(
        "async",
        "-t ext4 -b 1024 -J size=2",
        "journal_async_commit,data=writeback",
    ),
    kind("data", "-t ext4 -J size=4", "data=journal"),
    kind("old", "-t ext3 -b 1024 -J size=2", "rw"),
    kind("inline", "-t ext4 -O inline_data,orphan_file", "rw"),
];

/// Judged by the guest's kernel: e2fsck 1.47.0 loses what a transaction and fast commits behind it
/// have both changed.
const FAST: Kind = kind("fast", "-t ext4 -O fast_commit -J size=16", "rw");

/// As long are all small files with inline data to debugfs 1.47.0, which fills them with zeros.
const INLINE: usize = 60;
/// One transaction in the log and not yet written home, and then writing without an end.
const WORK: &str = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir d$i; \
     for j in 1 2 3; do echo $i $j > d$i/f$j; done; done; \
     dd if=/bin/busybox of=large bs=1000 count=300 2>/dev/null; ln large d1/linked; ln -s d1/f1 soft; \
     sync -f .; \
     rm -r d2 d5; mv d3/f1 d3/renamed; echo more >> d4/f2; truncate -s 100000 large; \
     mkdir -p d6/deep/er; mknod pipe p; \
     dd if=/bin/busybox of=large bs=1000 seek=50 count=20 conv=notrunc 2>/dev/null; \
     mkdir d7/d2; mv d8/f1 d7/d2; sync -f .; ";
const ENDLESS: &str = "i=0; while :; do i=$((i+1)); echo $i > d9/n$((i%50)); \
     echo $i >> d10/log; mv d9/n$((i%50)) d11/m$((i%20)); rm -f d11/m$((i%7)); \
     [ $((i%40)) = 0 ] && sync -f .; done";
/// Files that are synced one by one.
const SYNCED: &str = "echo first > first; sync first; sync -f .; \
     for i in 1 2 3 4 5 6; do echo $i > s$i; sync s$i; done; mkdir made; echo in > made/in; \
     sync s1; mv s2 moved; rm s3; echo longer >> s4; ln s5 linked; truncate -s 1 s6; sync s4; \
     dd if=/bin/busybox of=large bs=4096 count=40 2>/dev/null; sync large; \
     truncate -s 50000 large; sync large";

fn make(folder: &Path, kind: &Kind) -> Result<PathBuf> {
    let image = folder.join(kind.name);
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F"]).args(kind.make.split(' '));
    run(command.arg(&image).arg("64M"), &[0])?;
    Ok(image)
}

/// Hot-adds an image as a device and mounts it in the guest.
async fn mount(vm: &UtilityVm, image: &Path, name: &str, options: &str) -> Result<()> {
    let device = format!("/run/disk-{name}");
    vm.hot_add_vhd(image, &device, false, false).await?;
    let script = format!(
        "mkdir -p /mnt/{name} && mount -t ext4 -o {options} $(readlink -f {device}) /mnt/{name}"
    );
    said(vm, &script).await.map(drop)
}

async fn power_cut() -> Result<()> {
    let folder = TempDir::new()?;
    let (vm, _runtime) = own_vm().await?;
    let mut script = String::new();
    let mut images = Vec::new();
    for kind in KINDS {
        let image = make(folder.path(), kind)?;
        mount(&vm, &image, kind.name, kind.mount).await?;
        script += &format!("(cd /mnt/{} && {WORK} touch /tmp/{0}) & ", kind.name);
        images.push((kind, image));
    }
    said(&vm, &format!("{script} wait")).await?;
    let fast = fast_commits(&vm, folder.path()).await?;
    for kind in KINDS {
        said(&vm, &format!("test -e /tmp/{}", kind.name)).await?;
    }
    let endless = KINDS
        .iter()
        .map(|kind| format!("(cd /mnt/{} && {ENDLESS}) & ", kind.name));
    let writing = vm
        .run_process(["sh", "-c", &(endless.collect::<String>() + "wait")])
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Not told to stop: the power goes.
    vm.terminate().await;
    drop((writing, vm));
    for (kind, image) in &images {
        judge(image).with_context(|| format!("{} ({}, {})", kind.name, kind.make, kind.mount))?;
    }
    fast.judge()
}

/// Holds a dirty image against what `e2fsck` makes of a copy, and `debugfs` finds in it.
fn judge(image: &Path) -> Result<()> {
    let said = summary(image)?;
    ensure!(
        said.contains("replayed") && !said.contains("replayed 0 transactions"),
        "the journal was clean: the test proves nothing"
    );
    let ours = Tree::from_tar(opengcs::vhd_to_tar(image, false, None)?)?;
    ensure!(ours.len() > 40, "only {} paths", ours.len());
    let copy = image.with_extension("copy");
    std::fs::copy(image, &copy)?;
    run(Command::new("e2fsck").arg("-fy").arg(&copy), &[0, 1])?;
    run(Command::new("e2fsck").arg("-fn").arg(&copy), &[0])?;
    same(
        &ours,
        &Tree::from_tar(opengcs::vhd_to_tar(&copy, false, None)?)?,
    )?;
    let dumped = image.with_extension("dumped");
    std::fs::create_dir(&dumped)?;
    let command = format!("rdump / {}", dumped.display());
    run(
        Command::new("debugfs").arg("-R").arg(command).arg(&copy),
        &[0],
    )?;
    let mut files = 0;
    for path in ours.paths() {
        let node = ours.at(&path).context("it is among the paths")?;
        if node.kind == "file" {
            let mut bytes = std::fs::read(dumped.join(&path)).with_context(|| path.clone())?;
            if bytes.len() == INLINE {
                let end = bytes.iter().rposition(|&byte| byte != 0);
                bytes.truncate(end.map_or(0, |last| last + 1));
            }
            ensure!(
                digest(&mut bytes.as_slice())? == node.content,
                "{path} differs"
            );
            files += 1;
        }
    }
    ensure!(files > 20, "only {files} files");
    Ok(())
}

/// A disk with fast commits, cut off, and the same after the kernel has replayed it.
struct Fast {
    cut: PathBuf,
    replayed: PathBuf,
}

/// Copies a disk while it is mounted, as a power cut would leave it, and lets the kernel recover
/// one of the copies.
async fn fast_commits(vm: &UtilityVm, folder: &Path) -> Result<Fast> {
    let image = make(folder, &FAST)?;
    mount(vm, &image, FAST.name, FAST.mount).await?;
    said(vm, &format!("cd /mnt/{} && {SYNCED}", FAST.name)).await?;
    let (cut, replayed) = (folder.join("cut"), folder.join("replayed"));
    std::fs::copy(&image, &cut)?;
    std::fs::copy(&image, &replayed)?;
    mount(vm, &replayed, "replayed", "rw").await?;
    said(vm, "umount /mnt/replayed").await?;
    vm.hot_remove_vhd(&replayed).await?;
    Ok(Fast { cut, replayed })
}

impl Fast {
    fn judge(&self) -> Result<()> {
        let said = summary(&self.cut)?;
        ensure!(said.contains("fast commits"), "no fast commits: {said}");
        let mut ours = Tree::from_tar(opengcs::vhd_to_tar(&self.cut, false, None)?)?;
        for path in ["s1", "made/in", "moved", "linked", "large"] {
            ensure!(ours.at(path).is_some(), "{path} was synced and is lost");
        }
        ensure!(ours.at("s3").is_none(), "s3 was removed");
        let mut kernels = Tree::from_tar(opengcs::vhd_to_tar(&self.replayed, false, None)?)?;
        // Replaying a name sets its directory's time to the present.
        ours.forget_directory_times();
        kernels.forget_directory_times();
        same(&ours, &kernels)
    }
}
