//! A whole root file system of the distribution, there and back, and run in between.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write as _};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::UtilityVm;
use tempfile::TempDir;
use vmtest::tree::Tree;
use vmtest::{debian, odd};

use crate::fixture::{said, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![shared(
        "roots::a_distribution_comes_back_whole_and_runs",
        distribution,
    )]
}

/// Everything essential, and apt: what `debootstrap` begins with, in the packages' own archives.
async fn distribution(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let cache = opengcs::Environment::process()
        .data_dir()
        .join("cache/packages");
    let names = debian::closure(&["?essential", "apt"])?;
    ensure!(names.len() > 40, "only {} packages", names.len());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let packages = debian::download(&names, &cache)?;

    let mut tar = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(folder.path().join("root.tar"))?;
    let mut out = BufWriter::new(&tar);
    debian::write_data_archives(&packages, &mut out)?;
    odd::write_odd_entries(&mut out)?;
    out.flush()?;
    drop(out);
    tar.rewind()?;
    let given = Tree::from_tar(BufReader::new(&tar))?;
    ensure!(given.len() > 3000, "only {} paths", given.len());

    tar.rewind()?;
    let disk = folder.path().join("root.vhd");
    opengcs::tar_to_vhd(&disk, &tar)?;
    let back = opengcs::vhd_to_tar(&disk, false, None)?;
    given.must_equal(&Tree::from_tar(BufReader::new(back))?)?;

    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("e2fsck")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .arg("-fn")
        .arg(&disk)
        .output()
        .context("cannot run e2fsck")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "e2fsck: {text}");

    vm.hot_add_vhd(&disk, "/mnt/root", true, true).await?;
    // Its own programs, on its own libraries: bash, and find, a dot for each path that it sees.
    let ran = said(
        &vm,
        "set -e; cd /mnt/root; b=/bin/bash; [ -x bin/bash ] || b=/usr/bin/bash; \
         chroot . $b -c 'echo $((6 * 7))'; \
         exec chroot . /usr/bin/find / -mindepth 1 -printf .",
    )
    .await;
    vm.hot_remove_vhd(&disk).await?;
    let ran = ran?;
    let (answer, dots) = ran.split_once('\n').context("bash printed no line")?;
    ensure!(answer == "42", "bash printed {answer}");
    // The empty `lost+found` is in no tar, the root in none that packages have.
    let lost_found = 1;
    ensure!(
        dots.len() + 1 >= given.len() && dots.len() <= given.len() + lost_found,
        "find saw {} paths of {}",
        dots.len(),
        given.len()
    );
    Ok(())
}
