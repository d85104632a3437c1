//! The steps that need no VM: a real layer, a scratch disk, and both back to tar streams.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use vmtest::tree::Tree;
use vmtest::{debian, odd};

use crate::report::{Report, mib};

/// The layer, as a compressed tar and as a disk.
pub(crate) struct Layer {
    tar: PathBuf,
    /// The fixed VHD.
    pub(crate) vhd: PathBuf,
}

/// Makes the tar stream of a real layer and converts it.
pub(crate) fn make_layer(report: &mut Report, folder: &Path) -> Result<Layer> {
    report.step("a real layer: packages of this distribution, and odd entries, as one .tar.gz");
    let cache = opengcs::Environment::process()
        .data_dir()
        .join("cache/packages");
    let packages = debian::download(debian::PACKAGES, &cache)?;
    report.result(&format!(
        "{} packages downloaded, or there already",
        packages.len()
    ));
    let tar = folder.join("layer.tar.gz");
    let mut gzip = GzEncoder::new(File::create(&tar)?, Compression::fast());
    debian::write_data_archives(&packages, &mut gzip)?;
    odd::write_odd_entries(&mut gzip)?;
    gzip.finish()?.flush()?;
    report.result(&format!(
        "layer.tar.gz written, {}",
        mib(std::fs::metadata(&tar)?.len())
    ));

    let layer_folder = folder.join("layer");
    std::fs::create_dir(&layer_folder)?;
    let vhd = layer_folder.join("layer.vhd");
    let size = opengcs::tar_to_vhd(&vhd, BufReader::new(File::open(&tar)?))?;
    report.result(&format!("tar_to_vhd: layer.vhd, {}", mib(size)));
    clean(&vhd)?;
    report.result("e2fsck -fn: clean");
    let details = opengcs::layer_vhd_details(&layer_folder)?;
    ensure!(details.path == vhd && details.size == size && !details.is_sandbox);
    Ok(Layer { tar, vhd })
}

/// Makes the sandbox twice: the second time it comes from the cache.
pub(crate) fn make_sandbox(report: &mut Report, folder: &Path) -> Result<PathBuf> {
    report.step("a 20 GB ext4 sandbox");
    let cache = folder.join("cache.vhdx");
    let size = opengcs::DEFAULT_VHDX_SIZE_GB;
    opengcs::create_ext4_vhdx(folder.join("first.vhdx"), size, Some(&cache))?;
    report.result("create_ext4_vhdx: first.vhdx, made");
    let sandbox = folder.join("sandbox.vhdx");
    opengcs::create_ext4_vhdx(&sandbox, size, Some(&cache))?;
    let bytes = std::fs::metadata(&sandbox)?.len();
    report.result(&format!(
        "create_ext4_vhdx: sandbox.vhdx, from cache, {}",
        mib(bytes)
    ));
    Ok(sandbox)
}

/// Exports the sandbox without a VM and compares it with what the live VM gave.
pub(crate) fn export_sandbox(report: &mut Report, sandbox: &Path, live: &Tree) -> Result<()> {
    report.step("the sandbox again, natively, after the VM has stopped");
    let native = Tree::from_tar(opengcs::vhd_to_tar(sandbox, true, None)?)?;
    show_differences(report, live, &native)?;
    report.result(&format!(
        "vhd_to_tar: the same {} entries as live",
        native.len()
    ));
    Ok(())
}

/// Exports the layer and compares it with the tar that it was made from.
pub(crate) fn compare_layer(report: &mut Report, layer: &Layer) -> Result<()> {
    report.step("the layer back to a tar, against the one it was made from");
    let input = GzDecoder::new(BufReader::new(File::open(&layer.tar)?));
    let given = Tree::from_tar(input)?;
    report.result(&format!("the input has {} paths", given.len()));
    let mut back = Tree::from_tar(opengcs::vhd_to_tar(&layer.vhd, false, None)?)?;
    if given.at("").is_none() {
        // A tar need not speak of the root; an image always has one.
        back.forget("");
    }
    show_differences(report, &given, &back)?;
    report.result(&format!("vhd_to_tar: {} paths, no difference", back.len()));
    Ok(())
}

fn show_differences(report: &Report, left: &Tree, right: &Tree) -> Result<()> {
    let differences = left.differences(right);
    report.note(&format!("differences: {}", differences.len()));
    for difference in differences.iter().take(40) {
        report.note(&difference.to_string());
    }
    ensure!(differences.is_empty(), "the trees differ");
    Ok(())
}

/// Fails when something stands in `folder` that no step left there on purpose.
pub(crate) fn only_results_remain(folder: &Path) -> Result<()> {
    let expected = [
        "cache.vhdx",
        "first.vhdx",
        "layer",
        "layer.tar.gz",
        "sandbox.vhdx",
    ];
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        ensure!(
            expected.iter().any(|known| name == *known),
            "left behind: {name:?}"
        );
    }
    Ok(())
}

fn clean(image: &Path) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(image)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .context("cannot run e2fsck")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "e2fsck is not content:\n{said}");
    Ok(())
}
