//! How two sides are compared: in turns, each from the same state of the machine.
//!
//! Before each turn what that side writes is removed, so that both make new files; the file system
//! is synced, so that no side waits for the other's pages; and the input is read, so that it comes
//! from memory. None of this is timed. Who begins changes with every pair.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// One turn: how long it took, and the most memory that it had where that is known.
pub(crate) struct Turn {
    pub(crate) time: Duration,
    pub(crate) peak: Option<u64>,
}

/// What one side reads, writes and does.
pub(crate) struct Contender<'a> {
    /// Read before each turn: a file or a folder.
    pub(crate) input: &'a Path,
    /// Removed before and after each turn: a file or a folder.
    pub(crate) output: Option<&'a Path>,
    /// The turn.
    pub(crate) run: &'a dyn Fn() -> Result<Turn>,
}

/// Every turn of one side.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) times: Vec<Duration>,
    peaks: Vec<u64>,
}

/// Both sides.
#[derive(Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Side,
    pub(crate) theirs: Side,
}

impl Side {
    pub(crate) fn median(&self) -> Duration {
        quantile(&mut self.times.clone(), 50)
    }

    /// The most memory that any turn had, in bytes.
    pub(crate) fn peak(&self) -> Option<u64> {
        self.peaks.iter().max().copied()
    }

    pub(crate) fn add(&mut self, turn: &Turn) {
        self.times.push(turn.time);
        self.peaks.extend(turn.peak);
    }
}

/// Lets both sides have `pairs` turns each.
pub(crate) fn alternate(pairs: u32, ours: &Contender<'_>, theirs: &Contender<'_>) -> Result<Pairs> {
    let mut taken = Pairs::default();
    for pair in 0..pairs.max(1) {
        if pair % 2 == 0 {
            taken.ours.add(&turn(ours)?);
            taken.theirs.add(&turn(theirs)?);
        } else {
            taken.theirs.add(&turn(theirs)?);
            taken.ours.add(&turn(ours)?);
        }
    }
    Ok(taken)
}

/// One turn from the common state. What was not written back when it ends never is.
pub(crate) fn turn(side: &Contender<'_>) -> Result<Turn> {
    let clear = || side.output.map_or(Ok(()), remove);
    clear()?;
    settle(side.input)?;
    warm(side.input)?;
    let turn = (side.run)()?;
    clear()?;
    Ok(turn)
}

/// Removes a file or a folder that may not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// Waits until the file system that `path` is on has nothing to write.
pub(crate) fn settle(path: &Path) -> Result<()> {
    let status = Command::new("sync").arg("-f").arg(path).status();
    ensure!(status.context("cannot run sync")?.success(), "sync failed");
    Ok(())
}

/// Reads a file, or all files of a folder.
fn warm(path: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut left: Vec<PathBuf> = vec![path.into()];
    while let Some(path) = left.pop() {
        let found = std::fs::symlink_metadata(&path)?;
        if found.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else if found.is_file() {
            let mut file = File::open(&path)?;
            while file.read(&mut buffer)? > 0 {}
        }
    }
    Ok(())
}

/// The value below which `percent` of the others lie.
pub(crate) fn quantile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
