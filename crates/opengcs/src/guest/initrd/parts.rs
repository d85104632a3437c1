//! Where the agent and busybox are found, and whether they could run in the guest.

use std::fs;
use std::path::{Path, PathBuf};

use super::Elf;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::guest::package;

/// The agent's file name.
const AGENT: &str = "gcs";

/// Finds the agent: the given path, else `gcs` beside this program, else `../lib/opengcs/gcs` from there
/// (where packages put it), else `gcs` in the data folder.
///
/// # Errors
/// It is in none of them.
pub fn agent_path(given: Option<&Path>, data_dir: &Path) -> Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(Error::not_found(format!(
                "there is no agent {}",
                path.display()
            )))
        };
    }
    let program = std::env::current_exe().ok();
    let places = agent_places(program.as_deref(), data_dir);
    // A debug build beside this program is linked dynamically: only one that could run counts.
    if let Some(found) = places
        .iter()
        .find(|path| path.is_file() && read_static(path, "the agent").is_ok())
    {
        return Ok(found.clone());
    }
    Err(Error::not_found(format!(
        "no static agent is at {}",
        places
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(" or ")
    ))
    .hint(
        "build it with `cargo build -p opengcs-agent --profile agent --target \
         x86_64-unknown-linux-musl` and give its path",
    ))
}

/// Where the agent is looked for, for a program at this path.
fn agent_places(program: Option<&Path>, data_dir: &Path) -> Vec<PathBuf> {
    let folder = program.and_then(Path::parent);
    let beside = folder.map(|folder| folder.join(AGENT));
    let installed = folder
        .and_then(Path::parent)
        .map(|prefix| prefix.join("lib/opengcs").join(AGENT));
    beside
        .into_iter()
        .chain(installed)
        .chain([data_dir.join(AGENT)])
        .collect()
}

/// Finds a static busybox: the given path, else the data folder's, else the host's, else the
/// package `busybox-static` is downloaded and its program kept in the data folder.
///
/// # Errors
/// None is to be had.
pub fn busybox_path(
    given: Option<&Path>,
    data_dir: &Path,
    environment: &Environment,
) -> Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(Error::not_found(format!(
                "there is no busybox {}",
                path.display()
            )))
        };
    }
    let kept = data_dir.join("busybox");
    let host = environment
        .get("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        .chain(["/bin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .flat_map(|folder| [folder.join("busybox"), folder.join("busybox.static")]);
    for path in [kept.clone()].into_iter().chain(host) {
        if path.is_file() && read_static(&path, "busybox").is_ok() {
            return Ok(path);
        }
    }
    download(data_dir, &kept).map_err(|error| {
        Error::new(error.kind(), "no static busybox is to be had")
            .caused_by(error)
            .hint("install the package busybox-static, or give a busybox by its path")
    })?;
    Ok(kept)
}

fn download(data_dir: &Path, to: &Path) -> Result<()> {
    download_file(
        "busybox-static",
        &["bin/busybox", "usr/bin/busybox"],
        data_dir,
        to,
    )
}

/// Takes one file out of a package of the distribution: the first of `paths` that it has.
pub(in crate::guest) fn download_file(
    name: &str,
    paths: &[&str],
    data_dir: &Path,
    to: &Path,
) -> Result<()> {
    let found = package::look_up(name)?
        .ok_or_else(|| Error::not_found(format!("apt knows no package {name}")))?;
    fs::create_dir_all(data_dir).map_err(|error| Error::io("create", data_dir, error))?;
    let staging = tempfile::Builder::new()
        .prefix(".package-")
        .tempdir_in(data_dir)
        .map_err(|error| Error::io("create a folder in", data_dir, error))?;
    let tree = staging.path().join("tree");
    for file in package::download(&[found], staging.path())? {
        package::unpack(&file, &tree)?;
    }
    let wanted = paths
        .iter()
        .map(|path| tree.join(path))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::not_found(format!("the package {name} has no {paths:?}")))?;
    fs::rename(&wanted, to).map_err(|error| Error::io("create", to, error))
}

/// Reads a program that must run in a guest where there is nothing else.
pub(super) fn read_static(path: &Path, what: &str) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(|error| Error::io("read", path, error))?;
    match Elf::parse(&bytes).and_then(|elf| elf.is_static()) {
        Some(true) => Ok(bytes),
        Some(false) => Err(Error::invalid(format!(
            "{what} at {} is linked dynamically and cannot run in the VM",
            path.display()
        ))
        .hint("give a static build")),
        None => Err(Error::invalid(format!(
            "{what} at {} is not a 64-bit Linux program",
            path.display()
        ))),
    }
}

/// The names that a busybox answers to: it is asked; when it cannot run here, the usual ones.
pub(super) fn applets(busybox: &Path) -> Vec<String> {
    if let Ok(list) = package::run(&busybox.to_string_lossy(), ["--list"], None, "") {
        let names: Vec<String> = String::from_utf8_lossy(&list)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if names.iter().any(|name| name == "sh") {
            return names;
        }
    }
    USUAL.iter().map(|name| (*name).to_owned()).collect()
}

const USUAL: &[&str] = &[
    "[",
    "ash",
    "awk",
    "base64",
    "basename",
    "blkid",
    "blockdev",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "cksum",
    "clear",
    "cmp",
    "cp",
    "cpio",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "killall",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mount",
    "mv",
    "nproc",
    "od",
    "ping",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "rmmod",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "truncate",
    "tty",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "wc",
    "which",
    "xargs",
    "yes",
    "zcat",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_finds_the_agent_of_its_package() {
        let places = agent_places(Some(Path::new("/usr/bin/opengcs")), Path::new("/data"));
        let wanted = ["/usr/bin/gcs", "/usr/lib/opengcs/gcs", "/data/gcs"].map(PathBuf::from);
        assert_eq!(places, wanted);
        assert_eq!(
            agent_places(None, Path::new("/data")),
            [PathBuf::from("/data/gcs")]
        );
    }
}
