//! The road of bytes: conversions against copies of the same bytes.

use std::fs::File;
use std::io::{BufReader, copy, sink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use opengcs::layer::{
    DiskToTarOptions, Existing, ScratchOptions, TarToDiskOptions, create_scratch, disk_to_tar,
    tar_to_disk,
};

use crate::row::{Row, Table, alternate, quantile, ratio};
use crate::{Scale, corpus};

/// Measures every row that needs no VM. Nothing is synced on either side.
pub(crate) fn measure(scale: &Scale, table: &mut Table) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in("target")?;
    let at = |name: &str| folder.path().join(name);
    let (tar, gzip, vhd, copied) = (
        at("layer.tar"),
        at("layer.tar.gz"),
        at("layer.vhd"),
        at("copy"),
    );
    eprintln!(
        "writing a layer of {} files, {} MiB",
        scale.files, scale.mib
    );
    corpus::write(&tar, scale.files, scale.mib)?;

    let (ours, theirs) = alternate(
        scale.pairs,
        || to_disk(File::open(&tar)?, &vhd),
        || cp(&tar, &copied),
    )?;
    table.add(row("tar → VHD", ours, "cp of the tar", theirs, "≤ 1.25"));

    reset_peak_memory()?;
    to_disk(File::open(&tar)?, &vhd)?;
    table.add(Row {
        what: "tar → VHD, peak memory".into(),
        ours: peak_memory()?,
        against: "-".into(),
        ratio: None,
        aim: "≤ 64 MiB + 512 B a file",
    });

    let (ours, theirs) = alternate(
        scale.pairs,
        || from_disk(&vhd, &at("back.tar")),
        || cp(&vhd, &copied),
    )?;
    table.add(row("VHD → tar", ours, "cp of the image", theirs, "≤ 1.25"));

    let mut encoder = GzEncoder::new(File::create(&gzip)?, Compression::fast());
    copy(&mut File::open(&tar)?, &mut encoder)?;
    encoder.finish()?;
    let (ours, theirs) = alternate(
        scale.pairs,
        || to_disk(File::open(&gzip)?, &vhd),
        || {
            copy(
                &mut GzDecoder::new(BufReader::with_capacity(1 << 20, File::open(&gzip)?)),
                &mut sink(),
            )?;
            Ok(())
        },
    )?;
    table.add(row(
        "tar.gz → VHD",
        ours,
        "inflating to nowhere",
        theirs,
        "≤ 1.05",
    ));

    let scratch = at("scratch.vhdx");
    let mut times = Vec::new();
    for _ in 0..scale.pairs.max(1) {
        let options = ScratchOptions {
            existing: Existing::Replace,
            ..ScratchOptions::default()
        };
        let started = Instant::now();
        create_scratch(&scratch, &options)?;
        times.push(started.elapsed());
    }
    let bytes = allocated(&scratch)?;
    table.add(Row {
        what: "20 GB scratch VHDX".into(),
        ours: format!(
            "{:.1} ms, {:.1} MiB",
            millis(quantile(&mut times, 50)),
            mib(bytes)
        ),
        against: "-".into(),
        ratio: None,
        aim: "≤ 5 ms, ≤ 4 MiB",
    });
    Ok(())
}

fn row(what: &str, ours: Duration, name: &str, theirs: Duration, aim: &'static str) -> Row {
    Row {
        what: what.into(),
        ours: format!("{:.2} s", ours.as_secs_f64()),
        against: format!("{name}, {:.2} s", theirs.as_secs_f64()),
        ratio: ratio(ours, theirs),
        aim,
    }
}

fn to_disk(tar: File, vhd: &Path) -> Result<()> {
    let options = TarToDiskOptions {
        existing: Existing::Replace,
        sync: false,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(tar, vhd, &options)?;
    Ok(())
}

fn from_disk(vhd: &Path, tar: &Path) -> Result<()> {
    disk_to_tar(vhd, File::create(tar)?, &DiskToTarOptions::default())?;
    Ok(())
}

fn cp(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--reflink=never"])
        .arg(from)
        .arg(to)
        .status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

/// Bytes that a file takes on the disk.
fn allocated(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

/// Lets the kernel count this process's peak memory anew.
fn reset_peak_memory() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn peak_memory() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or_default().trim().to_owned())
}

/// Milliseconds with their fraction.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
