//! How a Debian package is found, fetched and unpacked to a private folder, without installing it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cancel;
use crate::error::{Error, ErrorKind, Result};

/// What apt's lists say of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Names of what it depends on; the first of each choice.
    pub(super) depends: Vec<String>,
}

/// Runs a program and gives its standard output; its failure is one line with the program's own
/// last words.
pub(super) fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    folder: Option<&Path>,
    missing: &str,
) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    cancel::check()?;
    let output = cancel::output(&mut command).map_err(|error| {
        let hint = if cfg!(windows) {
            "make kernel and initrd on a Linux host, and copy them here"
        } else {
            missing
        };
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::not_found(format!("there is no program {program} on this host")).hint(hint)
            }
            _ => Error::new(ErrorKind::HostTool, format!("cannot run {program}")).caused_by(error),
        }
    })?;
    let output = output.ok_or_else(|| Error::new(ErrorKind::Cancelled, "cancelled"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::new(
        ErrorKind::HostTool,
        format!(
            "{program} failed ({}): {}",
            output.status,
            last_words(&output.stderr)
        ),
    ))
}

/// The line of a program's messages that most likely says why it failed.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| line.starts_with("E:") || line.to_lowercase().contains("error"))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing")
        .to_owned()
}

/// What apt knows of `name`; `None` when its lists do not have it.
pub(super) fn look_up(name: &str) -> Result<Option<Package>> {
    const NO_APT: &str = "this host has no apt; give a kernel file or a .deb file instead";
    match run(
        "apt-cache",
        ["show", "--no-all-versions", "--", name],
        None,
        NO_APT,
    ) {
        Ok(text) => Ok(parse_show(&String::from_utf8_lossy(&text), name)),
        // apt-cache fails for a name that it does not know, and for nothing else of interest.
        Err(error) if error.kind() == ErrorKind::HostTool => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first stanza of `apt-cache show`'s answer.
fn parse_show(text: &str, name: &str) -> Option<Package> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().take_while(|line| !line.trim().is_empty()) {
        if line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some((key, value)) = line.split_once(':') {
            fields.insert(key, value.trim());
        }
    }
    if fields.get("Package") != Some(&name) {
        return None;
    }
    let depends = fields
        .get("Depends")
        .map(|list| {
            list.split(',')
                .filter_map(|choice| {
                    let first = choice.split('|').next()?.trim();
                    let word = first.split([' ', '(', ':']).next()?;
                    (!word.is_empty()).then(|| word.to_owned())
                })
                .collect()
        })
        .unwrap_or_default();
    Some(Package {
        name: name.to_owned(),
        version: fields.get("Version")?.to_string(),
        depends,
    })
}

/// Downloads `packages` into `folder` and gives the files, in name order.
pub(super) fn download(packages: &[Package], folder: &Path) -> Result<Vec<PathBuf>> {
    // Else apt, run as root, complains that its own user may not write to our private folder.
    let mut arguments: Vec<String> = ["-q", "-o", "APT::Sandbox::User=root", "download", "--"]
        .map(str::to_owned)
        .into();
    arguments.extend(
        packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version)),
    );
    run(
        "apt-get",
        arguments,
        Some(folder),
        "this host has no apt; give a kernel file or a .deb file instead",
    )
    .map_err(|error| {
        if error.kind() == ErrorKind::HostTool {
            error.hint("run `apt-get update` as root and try again; the lists may be out of date")
        } else {
            error
        }
    })?;
    let mut files = Vec::new();
    let list = std::fs::read_dir(folder).map_err(|error| Error::io("list", folder, error))?;
    for entry in list {
        let path = entry
            .map_err(|error| Error::io("list", folder, error))?
            .path();
        if path.extension().is_some_and(|end| end == "deb") {
            files.push(path);
        }
    }
    files.sort();
    if files.len() < packages.len() {
        return Err(Error::new(
            ErrorKind::HostTool,
            "apt-get download brought fewer packages than asked for",
        ));
    }
    Ok(files)
}

/// Unpacks a package's files below `folder`.
pub(super) fn unpack(package: &Path, folder: &Path) -> Result<()> {
    run(
        "dpkg-deb",
        [OsStr::new("-x"), package.as_os_str(), folder.as_os_str()],
        None,
        "install dpkg, which unpacks .deb files",
    )
    .map(drop)
    .map_err(|error| {
        if error.kind() == ErrorKind::HostTool {
            Error::new(
                ErrorKind::HostTool,
                format!("cannot unpack {}", package.display()),
            )
            .caused_by(error)
        } else {
            error
        }
    })
}

/// One field of a package's own control file.
pub(super) fn control_field(package: &Path, field: &str) -> Result<String> {
    run(
        "dpkg-deb",
        [OsStr::new("-f"), package.as_os_str(), OsStr::new(field)],
        None,
        "install dpkg, which unpacks .deb files",
    )
    .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: &str = "Package: linux-image-virtual\nVersion: 6.8.0.45.45\n\
        Depends: linux-image-6.8.0-45-generic (= 1) | other, wireless-regdb:any,  kmod\n\
        Description: x\n more: text\n\nPackage: linux-image-virtual\nVersion: 1\n";

    #[test]
    fn the_newest_version_and_first_choices_are_read() {
        let package = parse_show(SHOW, "linux-image-virtual").unwrap();
        assert_eq!(package.version, "6.8.0.45.45");
        assert_eq!(
            package.depends,
            ["linux-image-6.8.0-45-generic", "wireless-regdb", "kmod"]
        );
        assert_eq!(parse_show(SHOW, "else"), None);
        assert_eq!(parse_show("", "x"), None);
    }

    #[test]
    fn a_program_that_is_not_there_says_what_to_do() {
        let error = run("no-such-program-here", ["x"], None, "install it").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // Windows has none of these programs.
        let hint = if cfg!(windows) {
            "copy them here"
        } else {
            "install it"
        };
        assert!(error.to_string().contains(hint), "{error}");
    }

    #[test]
    fn the_reason_is_taken_from_the_programs_messages() {
        assert_eq!(last_words(b"W: a\nE: b\nc\n"), "E: b");
        assert_eq!(last_words(b"first\n last \n\n"), "last");
        assert_eq!(last_words(b""), "it said nothing");
    }
}
