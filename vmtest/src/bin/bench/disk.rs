//! The road of bytes: which rows there are, and the files that they share.

mod extremes;
mod read;
mod write;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::pairs::{remove, settle};
use crate::row::{Table, mib};
use crate::scale::Scale;
use crate::{child, corpus, peer};

/// Measures every row that needs no VM and is asked for.
pub(crate) fn measure(scale: &Scale, target: &Path, table: &mut Table) -> Result<()> {
    let bench = Bench::new(scale, target)?;
    let layer = [
        "cp", "mkfs", "arcbox", "gzip", "zstd", "export", "mount", "rdump",
    ];
    if scale.wants_any(&layer) {
        let tar = bench.layer()?;
        write::measure(&bench, &tar, table)?;
        write::measure_compressed(&bench, &tar, table)?;
        read::measure(&bench, &tar, table)?;
        remove(&tar)?;
    }
    extremes::measure(&bench, table)
}

/// What all rows have in common.
struct Bench<'a> {
    scale: &'a Scale,
    folder: TempDir,
}

impl<'a> Bench<'a> {
    fn new(scale: &'a Scale, target: &Path) -> Result<Self> {
        let (needs, free) = (needs(scale), peer::df(target, "avail")?.parse()?);
        ensure!(
            needs <= free,
            "{} has {} free and {} are needed; a smaller --mib or --small needs less",
            target.display(),
            mib(free),
            mib(needs)
        );
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(target)
            .with_context(|| format!("cannot make a folder in {}", target.display()))?;
        Ok(Self { scale, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The synthetic layer.
    fn layer(&self) -> Result<PathBuf> {
        let Scale { files, mib, .. } = self.scale;
        eprintln!("writing a layer of {files} files, {mib} MiB");
        let tar = self.path("layer.tar");
        corpus::layer(&tar, *files, *mib)?;
        Ok(tar)
    }

    /// The disk that `tar` becomes, once, and judged: a fast way to a bad image is worth nothing.
    fn disk(&self, tar: &Path) -> Result<PathBuf> {
        let disk = self.path("input.vhd");
        child::run("to-disk", &[tar, &disk])?;
        settle(&disk)?;
        peer::is_clean(&disk).context("our own image is not clean")?;
        Ok(disk)
    }

    /// `tar` compressed as registries have it.
    fn gzip(&self, tar: &Path) -> Result<PathBuf> {
        eprintln!("compressing it with gzip");
        let path = self.path("layer.tar.gz");
        let out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut encoder = GzEncoder::new(out, Compression::default());
        std::io::copy(&mut File::open(tar)?, &mut encoder)?;
        encoder.finish()?.flush()?;
        Ok(path)
    }

    /// The same with zstd, at the level that its program takes by itself.
    fn zstd(&self, tar: &Path) -> Result<PathBuf> {
        eprintln!("compressing it with zstd");
        let path = self.path("layer.tar.zst");
        peer::run(
            peer::program("zstd")
                .args(["-q", "-T0", "-o"])
                .args([&*path, tar]),
        )?;
        Ok(path)
    }
}

/// The most bytes that lie on the disk at one time: a layer five times (itself, unpacked, as a disk
/// file, and what both sides write), or six KiB for each small file (a header, a block).
fn needs(scale: &Scale) -> u64 {
    let layer = (u64::from(scale.mib) << 20) + u64::from(scale.files) * 4096;
    (layer * 5).max(u64::from(scale.small) * 6144) + (512 << 20)
}
