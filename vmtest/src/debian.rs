//! Real input: the data archives of the distribution's packages as one tar stream.

use std::io::{Read, Write, copy};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Packages that together make a small root file system whose programs run.
pub const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "coreutils",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "hostname",
    "libacl1",
    "libattr1",
    "libc-bin",
    "libc6",
    "libgcc-s1",
    "libgmp10",
    "libpcre2-8-0",
    "libselinux1",
    "libtinfo6",
    "ncurses-base",
    "perl-base",
    "sed",
    "tar",
];

/// Every package that a machine with nothing on it needs for `wanted`, which may be patterns of
/// apt (`?essential`): a whole root file system.
///
/// # Errors
/// When `apt-get` is missing or cannot resolve them.
pub fn closure(wanted: &[&str]) -> Result<Vec<String>> {
    // To apt, a machine without a status file has nothing installed.
    let status = tempfile::NamedTempFile::new()?;
    let output = Command::new("apt-get")
        .arg("-o")
        .arg(format!("Dir::State::status={}", status.path().display()))
        .args([
            "-o",
            "Debug::NoLocking=true",
            "-o",
            "APT::Install-Recommends=false",
        ])
        .args(["--print-uris", "-qq", "-y", "install"])
        .args(wanted)
        .output()
        .context("cannot run apt-get")?;
    if !output.status.success() {
        bail!(
            "apt-get cannot resolve {wanted:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // A line is `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SUM`.
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| Some(line.split(' ').nth(1)?.split_once('_')?.0.to_owned()))
        .collect();
    // Links from /bin and its like to /usr come last: nothing is unpacked below a link.
    names.sort_by_key(|name| name == "base-files");
    Ok(names)
}

/// Downloads `packages` into `folder` (those that are not there yet) and returns their files.
///
/// # Errors
/// When `apt-get` is missing or does not find a package.
pub fn download(packages: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|name| matching(name, folder).is_none())
        .collect();
    if !missing.is_empty() {
        let output = Command::new("apt-get")
            .args(["download", "-qq"])
            .args(&missing)
            .current_dir(folder)
            .output()
            .context("cannot run apt-get")?;
        if !output.status.success() {
            bail!(
                "apt-get download failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    packages
        .iter()
        .map(|name| matching(name, folder).with_context(|| format!("{name} was not downloaded")))
        .collect()
}

fn matching(package: &str, folder: &Path) -> Option<PathBuf> {
    let prefix = format!("{package}_");
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".deb")
        })
}

/// Writes the data archives of `packages` one after the other as a single tar stream, without the
/// end-of-archive mark, so that more entries can follow.
///
/// # Errors
/// When `dpkg-deb` fails or `out` does not take the bytes.
pub fn write_data_archives(packages: &[PathBuf], out: &mut impl Write) -> Result<()> {
    for package in packages {
        let mut child = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(package)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run dpkg-deb")?;
        let mut archive = Vec::new();
        let mut stdout = child.stdout.take().context("dpkg-deb has no output")?;
        stdout.read_to_end(&mut archive)?;
        if !child.wait()?.success() {
            bail!("dpkg-deb cannot read {}", package.display());
        }
        copy(&mut without_end(&archive)?, out)?;
    }
    Ok(())
}

/// An archive up to the end of its last entry: the zero blocks that end it are left out.
fn without_end(archive: &[u8]) -> Result<&[u8]> {
    let mut end = 0;
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        end = entry.raw_file_position() + entry.header().entry_size()?.next_multiple_of(512);
    }
    Ok(&archive[..usize::try_from(end)?])
}
