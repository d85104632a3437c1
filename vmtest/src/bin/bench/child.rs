//! Jobs that run in a process of their own, so that each has its own peak of memory and pays for its start.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use opengcs::layer::{
    DiskToTarOptions, Existing, ScratchOptions, TarToDiskOptions, create_scratch, disk_to_tar,
    tar_to_disk,
};

use crate::pairs::Turn;

/// The first word on the command line of such a process.
pub(crate) const WORD: &str = "child";

/// What a process did, seen from both sides.
pub(crate) struct Report {
    /// From its start to its end.
    pub(crate) whole: Turn,
    /// The job alone.
    pub(crate) inner: Duration,
}

/// Runs a job in a new process.
pub(crate) fn run(job: &str, paths: &[&Path]) -> Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(WORD).arg(job).args(paths);
    let started = Instant::now();
    let output = command.output()?;
    let time = started.elapsed();
    ensure!(
        output.status.success(),
        "{job}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || {
        numbers
            .next()
            .context("a number is missing")?
            .context(job.to_owned())
    };
    let inner = Duration::from_nanos(next()?);
    let peak = Some(next()?);
    Ok(Report {
        whole: Turn { time, peak },
        inner,
    })
}

/// Does the job that the words tell, in the process that was started for it, and prints how long it
/// took in nanoseconds and the peak of memory in bytes.
pub(crate) fn main(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = Instant::now();
    match words[..] {
        ["to-disk", tar, disk] => to_disk(tar, disk)?,
        ["to-tar", disk, tar] => to_tar(disk, tar, false)?,
        ["to-sparse-tar", disk, tar] => to_tar(disk, tar, true)?,
        ["inflate", gzip] => inflate(gzip)?,
        ["scratch", disk] => scratch(disk)?,
        #[cfg(feature = "peers")]
        ["arcbox", tar, image] => arcbox(tar, image)?,
        _ => bail!("no job: {words:?}"),
    }
    println!("{} {}", started.elapsed().as_nanos(), peak_memory()?);
    Ok(())
}

fn to_disk(tar: &str, disk: &str) -> Result<()> {
    let options = TarToDiskOptions {
        existing: Existing::Keep,
        sync: false,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(File::open(tar)?, Path::new(disk), &options)?;
    Ok(())
}

fn to_tar(disk: &str, tar: &str, sparse: bool) -> Result<()> {
    let options = DiskToTarOptions {
        sparse,
        ..DiskToTarOptions::default()
    };
    disk_to_tar(Path::new(disk), File::create_new(tar)?, &options)?;
    Ok(())
}

/// What must be done at least to read a tar.gz, with the library that the converter has too.
fn inflate(gzip: &str) -> Result<()> {
    let file = BufReader::with_capacity(1 << 20, File::open(gzip)?);
    let mut decoder = MultiGzDecoder::new(file);
    let mut buffer = vec![0; 1 << 18];
    while decoder.read(&mut buffer)? > 0 {}
    Ok(())
}

fn scratch(disk: &str) -> Result<()> {
    let options = ScratchOptions {
        existing: Existing::Keep,
        ..ScratchOptions::default()
    };
    create_scratch(Path::new(disk), &options)?;
    Ok(())
}

/// The same conversion by the crate `arcbox-ext4`, which wants to know a size; it makes the image
/// as large as it must be.
#[cfg(feature = "peers")]
fn arcbox(tar: &str, image: &str) -> Result<()> {
    let file = File::open(tar)?;
    let size = file.metadata()?.len();
    let mut formatter = arcbox_ext4::Formatter::new(Path::new(image), 4096, size)?;
    formatter.unpack_tar(BufReader::with_capacity(1 << 20, file))?;
    formatter.close()?;
    Ok(())
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no VmHWM in /proc/self/status")?.parse()?;
    Ok(kib * 1024)
}
