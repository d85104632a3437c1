//! Decides where the parents of a differencing disk are looked for, and opens the chain.
//!
//! A disk file names its parent by paths, and a disk file is not trusted: one
//! that names another's disk must not show its content. So a parent is only
//! opened when it lies in a folder that may hold parents (the disk's own, and
//! those that the caller names), links followed; when it is a regular file; and
//! when it has the identifier that the child gives.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use opengcs_vhd::{Disk, ParentSummary, Summary};

use crate::hold::Use;
use crate::image::from_vhd;
use crate::{Error, ErrorKind, Result};

mod sys;

/// A disk that is open for reading, with the files of its parents, the nearest first.
pub(crate) struct Chain {
    pub(crate) disk: Disk<File>,
    pub(crate) parents: Vec<PathBuf>,
}

/// Opens a disk file of any format for reading, with its parents, which lie
/// beside it or in one of `folders`.
pub(crate) fn open(path: &Path, folders: &[PathBuf]) -> Result<Chain> {
    open_as(path, folders, Use::Glance)
}

/// The same for what takes a while and must not change meanwhile. It fails when a machine is writing
/// to one of the files.
pub(crate) fn open_still(path: &Path, folders: &[PathBuf]) -> Result<Chain> {
    open_as(path, folders, Use::Still)
}

fn open_as(path: &Path, folders: &[PathBuf], what_for: Use) -> Result<Chain> {
    let file = open_file(path, what_for)?;
    what_for.hold(&file, path)?;
    sys::read_ahead(&file);
    let mut search = Search::new(path, folders, what_for)?;
    // A failure to find a parent says more than what can travel through the disk.
    let mut failure = None;
    let opened = Disk::open_chain(file, |parent| {
        search.next(parent).map_err(|error| {
            failure = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    match (opened, failure) {
        (Ok(disk), _) => Ok(Chain {
            disk,
            parents: search.files.split_off(1),
        }),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => {
            let error = from_vhd(error);
            match search.files.as_slice() {
                [_, .., last] => Err(Error::new(
                    error.kind(),
                    format!("the parent disk {} cannot be used", last.display()),
                )
                .with_path(path)
                .with_source(error)),
                _ => Err(error.with_path(path)),
            }
        }
    }
}

/// What a disk file says of itself. The parents of a differencing disk are not looked for.
///
/// # Errors
///
/// It cannot be read, or breaks its format's rules.
pub fn describe(path: &Path) -> Result<Summary> {
    Disk::describe(open_file(path, Use::Glance)?).map_err(|error| from_vhd(error).with_path(path))
}

/// Opens a disk file for reading and writing. A device must not be in use by the system.
pub(crate) fn open_to_change(path: &Path) -> Result<File> {
    // It says what is wrong with one that is no disk.
    let is_file = open_file(path, Use::Glance)?
        .metadata()
        .is_ok_and(|found| found.is_file());
    sys::open_to_change(path, !is_file).map_err(|error| {
        if error.kind() == io::ErrorKind::ResourceBusy {
            Error::new(ErrorKind::Locked, "the system is using the device")
                .with_hint("unmount it first")
                .with_path(path)
        } else {
            Error::io_at("cannot open for writing", path, error)
        }
    })
}

fn open_file(path: &Path, what_for: Use) -> Result<File> {
    // A pipe would keep whoever opens it waiting, so it is looked at before.
    let metadata = fs::metadata(path).map_err(|error| Error::io_at("cannot open", path, error))?;
    if let Some(what) = sys::no_disk(metadata.file_type()) {
        return Err(Error::invalid(format!("it is {what}, not a disk")).with_path(path));
    }
    // Windows opens no folder as a file, and says only that access is denied.
    if metadata.is_dir() && cfg!(windows) {
        return Err(Error::invalid("it is a folder, not a disk file").with_path(path));
    }
    let file = what_for
        .options()
        .open(path)
        .map_err(|error| Error::io_at("cannot open", path, error))?;
    if metadata.is_dir() {
        return Err(Error::invalid("it is a folder, not a disk file").with_path(path));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(Error::corrupt("the file is empty, not a disk file").with_path(path));
    }
    Ok(file)
}

/// The search for one parent after the other.
struct Search {
    /// The files of the chain so far, by their real paths where they have one.
    files: Vec<PathBuf>,
    /// Folders that may hold parents, by their real paths.
    folders: Vec<PathBuf>,
    what_for: Use,
}

impl Search {
    fn new(path: &Path, folders: &[PathBuf], what_for: Use) -> Result<Self> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let own = match real.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut all = vec![own];
        for folder in folders {
            let real = fs::canonicalize(folder)
                .map_err(|error| Error::io_at("cannot look for parent disks in", folder, error))?;
            all.push(real);
        }
        Ok(Self {
            files: vec![real],
            folders: all,
            what_for,
        })
    }

    /// Opens the parent of the last file of the chain.
    fn next(&mut self, parent: &ParentSummary) -> Result<File> {
        let child = self.files.last().cloned().unwrap_or_default();
        let named = parent.paths.first().map_or("", String::as_str);
        let mut missing: Vec<PathBuf> = Vec::new();
        // The most telling reason why a candidate was not taken.
        let mut refused = None;
        for candidate in self.candidates(&child, parent) {
            let (path, file) = match self.examine(&candidate) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    missing.push(candidate);
                    continue;
                }
                Err(error) => {
                    refused.get_or_insert(error);
                    continue;
                }
            };
            if self.files.contains(&path) {
                refused = Some(Error::corrupt(format!(
                    "{} is its own parent, by way of {}: the chain of disks has no end",
                    path.display(),
                    child.display()
                )));
                continue;
            }
            match file.try_clone().map(Disk::describe) {
                Ok(Ok(summary)) if parent.is(&summary) => {
                    self.what_for.hold(&file, &path)?;
                    self.files.push(path);
                    return Ok(file);
                }
                Ok(Ok(summary)) => {
                    let error = changed(&path, &child, parent, &summary);
                    refused = Some(error);
                }
                Ok(Err(error)) => {
                    let message = format!("the parent disk {} cannot be read", path.display());
                    let error = from_vhd(error);
                    refused.get_or_insert(Error::new(error.kind(), message).with_source(error));
                }
                Err(error) => return Err(Error::io_at("cannot open", &path, error)),
            }
        }
        Err(refused
            .unwrap_or_else(|| absent(named, &missing))
            .with_path(&child))
    }

    /// Where the parent of `child` may be, the likeliest first.
    fn candidates(&self, child: &Path, parent: &ParentSummary) -> Vec<PathBuf> {
        let beside = child.parent().unwrap_or(Path::new(""));
        let mut all: Vec<PathBuf> = Vec::new();
        let mut add = |path: PathBuf| {
            if !all.contains(&path) {
                all.push(path);
            }
        };
        for named in &parent.paths {
            match place(named) {
                Some(Place::Relative(path)) => add(lexical(&beside.join(path))),
                Some(Place::Absolute(path)) if path.is_absolute() => add(lexical(&path)),
                Some(Place::Absolute(_)) | None => {}
            }
        }
        // Chains are moved together, and to other systems.
        let names = parent.paths.iter().filter_map(|named| file_name(named));
        for name in names {
            add(beside.join(name));
            for folder in &self.folders {
                add(folder.join(name));
            }
        }
        all
    }

    /// Opens a candidate; none when there is no such file.
    fn examine(&self, candidate: &Path) -> Result<Option<(PathBuf, File)>> {
        // Before anything is asked of the system: the path may lead to a
        // machine elsewhere, or to a device that does something when looked at.
        self.check(candidate, candidate)?;
        let real = match fs::canonicalize(candidate) {
            Ok(real) => real,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(cannot_open(candidate, error)),
        };
        self.check(&real, candidate)?;
        let odd = || {
            Error::new(
                ErrorKind::InvalidInput,
                format!("its parent disk {} is no regular file", real.display()),
            )
        };
        let found = fs::metadata(&real).map_err(|error| cannot_open(&real, error))?;
        if !found.is_file() {
            return Err(odd());
        }
        let file = sys::open(&real, self.what_for).map_err(|error| cannot_open(&real, error))?;
        match file.metadata() {
            Ok(found) if found.is_file() => Ok(Some((real, file))),
            Ok(_) => Err(odd()),
            Err(error) => Err(cannot_open(&real, error)),
        }
    }

    /// Refuses a file outside of the folders that may hold parents.
    fn check(&self, path: &Path, named: &Path) -> Result<()> {
        let like_real = sys::like_real(path);
        if self
            .folders
            .iter()
            .any(|folder| like_real.starts_with(folder))
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "its parent disk {} lies outside of its folder, where a disk file may not lead",
                named.display()
            ),
        )
        .with_hint("name the parent's folder (--parents) to allow it"))
    }
}

fn cannot_open(path: &Path, error: io::Error) -> Error {
    Error::io(
        format!("cannot open the parent disk {}", path.display()),
        error,
    )
}

fn absent(named: &str, missing: &[PathBuf]) -> Error {
    let places: Vec<String> = missing
        .iter()
        .take(8)
        .map(|path| path.display().to_string())
        .collect();
    if places.is_empty() {
        return Error::new(
            ErrorKind::NotFound,
            "a differencing disk that does not say where its parent disk is",
        );
    }
    let message = format!(
        "its parent disk {named:?} is not there (looked for: {})",
        places.join(", ")
    );
    Error::new(ErrorKind::NotFound, message)
        .with_hint("put it beside the disk, or name its folder (--parents)")
}

fn changed(path: &Path, child: &Path, parent: &ParentSummary, found: &Summary) -> Error {
    let shown = |ids: Vec<String>| match ids.is_empty() {
        true => "none".to_owned(),
        false => ids.join(" or "),
    };
    let wanted = parent.ids.iter().map(ToString::to_string).collect();
    let has = found.content_id.iter().map(ToString::to_string).collect();
    Error::corrupt(format!(
        "the parent disk {} is not as it was when {} was made from it: its identifier is {}, and \
         should be {}; it was changed or replaced since",
        path.display(),
        child.display(),
        shown(has),
        shown(wanted)
    ))
}

/// A path in a parent locator.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// To be taken from the child's folder.
    Relative(PathBuf),
    /// To be taken as it is.
    Absolute(PathBuf),
}

/// Reads a path as Windows writes them, or a URL of a file. None for nothing.
fn place(named: &str) -> Option<Place> {
    let named = named.trim();
    if named.is_empty() || named.contains('\0') {
        return None;
    }
    if let Some(url) = named.strip_prefix("file://") {
        let path = url.strip_prefix("localhost").unwrap_or(url);
        return Some(Place::Absolute(PathBuf::from(path)));
    }
    let mut letters = named.chars();
    let has_drive =
        letters.next().is_some_and(|c| c.is_ascii_alphabetic()) && letters.next() == Some(':');
    if has_drive || named.starts_with(['/', '\\']) {
        return Some(Place::Absolute(PathBuf::from(named)));
    }
    let parts = named.split(['/', '\\']).filter(|part| !part.is_empty());
    Some(Place::Relative(parts.collect()))
}

/// The name of the file that a path of any system leads to.
fn file_name(named: &str) -> Option<&str> {
    let name = named.trim().rsplit(['/', '\\', ':']).next()?;
    (!matches!(name, "" | "." | "..") && !name.contains('\0')).then_some(name)
}

/// Takes `.` and `..` out of a path without asking the system.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_windows_are_understood() {
        let relative = |path: &str| Some(Place::Relative(path.split('/').collect()));
        assert_eq!(place(r".\base.vhdx"), relative("./base.vhdx"));
        assert_eq!(place(r"..\a b\base.vhdx"), relative("../a b/base.vhdx"));
        assert_eq!(place("base.vhdx"), relative("base.vhdx"));
        for absolute in [
            r"C:\disks\base.vhdx",
            r"c:base.vhdx",
            r"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx",
            r"\\server\share\base.vhdx",
            "/dev/sda",
        ] {
            assert!(
                matches!(place(absolute), Some(Place::Absolute(_))),
                "{absolute}"
            );
        }
        assert_eq!(
            place("file:///disks/base.vhd"),
            Some(Place::Absolute("/disks/base.vhd".into()))
        );
        assert_eq!(place(""), None);
        assert_eq!(file_name(r"C:\disks\base.vhdx"), Some("base.vhdx"));
        assert_eq!(file_name(r"c:base.vhdx"), Some("base.vhdx"));
        assert_eq!(file_name(r"..\.."), None);
    }
}
