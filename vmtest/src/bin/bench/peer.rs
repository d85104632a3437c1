//! Programs that do the same work, or a part that cannot be left out: whether they are there, and how
//! they are called.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::pairs::Turn;

/// Where programs for administrators are, which is not in everybody's `PATH`.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The path of `program`, or the words for a row that is left out.
fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{program} is not installed"))
}

/// Why one of `programs` cannot be run, if so.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    programs.iter().find_map(|program| find(program).err())
}

/// Whether this process may mount.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// A program with its path.
pub(crate) fn program(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|_| name.into()))
}

/// Runs a program and takes the time of its whole life.
pub(crate) fn time(command: &mut Command) -> Result<Turn> {
    let started = Instant::now();
    run(command)?;
    Ok(Turn {
        time: started.elapsed(),
        peak: None,
    })
}

/// Runs a program that must succeed. Its output goes nowhere.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Copies a file byte by byte; holes stay holes.
pub(crate) fn cp(from: &Path, to: &Path) -> Result<Turn> {
    time(program("cp").arg("--reflink=never").arg(from).arg(to))
}

/// Makes an image without a journal, as ours is, of what `tree` holds.
pub(crate) fn mkfs(tree: &Path, image: &Path, needs: &Needs) -> Result<Turn> {
    time(
        program("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal"])
            .args(["-E", "lazy_itable_init=1,nodiscard"])
            .args(["-N", &needs.inodes.to_string(), "-d"])
            .args([tree, image])
            .arg(format!("{}k", needs.kib)),
    )
}

/// How large an image must be for a tree.
#[derive(Default)]
pub(crate) struct Needs {
    kib: u64,
    inodes: u64,
}

impl Needs {
    /// Walks `tree`.
    pub(crate) fn of(tree: &Path) -> Result<Self> {
        let mut blocks = 0;
        let mut needs = Self::default();
        let mut left = vec![tree.to_owned()];
        while let Some(path) = left.pop() {
            let found = std::fs::symlink_metadata(&path)?;
            needs.inodes += 1;
            blocks += found.len().div_ceil(4096);
            if found.is_dir() {
                for entry in std::fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            }
        }
        needs.inodes += 1024;
        // A sixteenth and 64 MiB for tables, bitmaps, and what does not fit between them.
        needs.kib = (blocks * 4 + needs.inodes / 4) / 16 * 17 + (64 << 10);
        Ok(needs)
    }
}

/// Lets GNU tar unpack `tar` into a new folder.
pub(crate) fn unpack(tar: &Path, tree: &Path) -> Result<()> {
    std::fs::create_dir(tree)?;
    run(program("tar").arg("-xf").arg(tar).arg("-C").arg(tree))
}

/// Decompresses to nowhere.
pub(crate) fn zstd(file: &Path) -> Result<Turn> {
    time(program("zstd").arg("-dcq").arg(file))
}

/// Lets `debugfs` write everything into a new folder.
pub(crate) fn rdump(image: &Path, tree: &Path) -> Result<Turn> {
    std::fs::create_dir(tree)?;
    let request = format!("rdump / {}", tree.display());
    time(program("debugfs").arg("-R").arg(request).arg(image))
}

/// Lets the kernel mount `image` and GNU tar write what it sees; mounting is part of the time.
pub(crate) fn mount_and_tar(image: &Path, folder: &Path, tar: &Path) -> Result<Turn> {
    let started = Instant::now();
    run(program("mount")
        .args(["-t", "ext4", "-o", "ro,loop"])
        .args([image, folder]))?;
    let packed = run(program("tar")
        .args(["--xattrs", "--xattrs-include=*", "-cf"])
        .arg(tar)
        .arg("-C")
        .args([folder, Path::new(".")]));
    // Whatever became of it, the mount must go.
    run(program("umount").arg(folder))?;
    packed?;
    Ok(Turn {
        time: started.elapsed(),
        peak: None,
    })
}

/// Whether `e2fsck` finds nothing wrong with an image.
pub(crate) fn is_clean(image: &Path) -> Result<()> {
    run(program("e2fsck").arg("-fn").arg(image))
}

/// What `df` says of the file system that `folder` is on: the column of that name.
pub(crate) fn df(folder: &Path, column: &str) -> Result<String> {
    let output = program("df")
        .arg("-B1")
        .arg(format!("--output={column}"))
        .arg(folder)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let value = text.lines().nth(1).context("df prints nothing")?;
    Ok(value.trim().to_owned())
}
