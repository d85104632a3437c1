//! Decides how a file comes to its final name: whole and on the disk, or not at all.
//!
//! A [`NewFile`] is written without a name where the system can do that
//! (`O_TMPFILE`: nothing is left even after SIGKILL), else under a temporary
//! name in the target's own folder, readable by nobody else, and removed when
//! the value is dropped, also by a panic. [`NewFile::publish`] flushes it to
//! the disk, gives it the final name in one step, and flushes the folder.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result, hold};

mod names;
mod sys;

/// What stands between the final name and the random part of a temporary name.
pub const TEMPORARY_MARK: &str = ".opengcs-";

/// The longest file name that common file systems take, in bytes.
const NAME_MAX: usize = 255;
/// How many names are tried before giving up.
const ATTEMPTS: u32 = 64;

/// What happens to a file that has the final name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Existing {
    /// It is replaced, in one step.
    Replace,
    /// It stays, and publishing fails with [`ErrorKind::AlreadyExists`].
    Keep,
}

/// A file under construction; dropping it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// The temporary name; none while the file has no name at all.
    temporary: Option<PathBuf>,
    target: PathBuf,
    existing: Existing,
    /// Whether the mode was chosen by the caller rather than by the umask.
    mode_chosen: bool,
}

impl NewFile {
    /// Starts a file that will be called `target`.
    ///
    /// A `target` that is a symbolic link stands for the file it points to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`] at once when the file is there and stays;
    /// [`ErrorKind::InvalidInput`] when `target` is a folder, a device or has no
    /// file name; [`ErrorKind::NotFound`] when its folder is missing;
    /// [`ErrorKind::Locked`] when a machine writes to what is there.
    pub fn create(target: &Path, existing: Existing) -> Result<Self> {
        // Before anything is asked of the system: what it says of a device is not what it says of files.
        refuse_name(target)?;
        let target = resolve(target)?;
        refuse_name(&target)?;
        match fs::symlink_metadata(&target) {
            Ok(_) if existing == Existing::Keep => return Err(exists(&target)),
            Ok(found) if found.is_dir() => {
                return Err(Error::invalid("cannot create: it is a folder").with_path(&target));
            }
            Ok(found) if !found.is_file() => {
                return Err(
                    Error::invalid("cannot create: it is not a regular file").with_path(&target)
                );
            }
            Ok(_) => hold::replaceable(&target)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io_at("cannot create", &target, error)),
        }
        if target.file_name().is_none() {
            return Err(Error::invalid("cannot create: no file name").with_path(&target));
        }
        let (file, temporary) = match sys::open_nameless(folder(&target)) {
            Some(file) => (file, None),
            None => {
                let (file, name) = with_free_name(&target, sys::open_private)
                    .map_err(|error| Error::io_at("cannot create", &target, error))?;
                (file, Some(name))
            }
        };
        Ok(Self {
            file,
            temporary,
            target,
            existing,
            mode_chosen: false,
        })
    }

    /// Lets ranges of zeros take no room where files have that only when it is asked for: on Windows,
    /// where Hyper-V refuses a VHD or a VHDX for it. Elsewhere every file is so.
    pub fn allow_holes(&self) {
        // What cannot have holes takes more room, and nothing else.
        sys::allow_holes(&self.file);
    }

    /// The file, open for reading and writing.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name the file will have.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file these permissions instead of those of any new file.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_permissions(&mut self, permissions: fs::Permissions) -> Result<()> {
        self.file
            .set_permissions(permissions)
            .map_err(|error| Error::io_at("cannot set permissions", &self.target, error))?;
        self.mode_chosen = true;
        Ok(())
    }

    /// Flushes the file, gives it its final name, and flushes the folder.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`] when the file has appeared meanwhile and
    /// stays; [`ErrorKind::Locked`] when a machine writes to the file that is to be
    /// replaced, or another program has it open and the system minds; otherwise
    /// those of the system.
    /// Nothing is left behind.
    pub fn publish(self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| Error::io_at("cannot flush", &self.target, error))?;
        let target = self.target.clone();
        self.publish_unsynced()?;
        sys::sync_folder(folder(&target))
            .map_err(|error| Error::io_at("cannot flush the folder of", &target, error))
    }

    /// Gives the file its final name without waiting for the disk: whole for
    /// every process from then on, but not after a power cut. For caches and
    /// other files that can be made again.
    ///
    /// # Errors
    ///
    /// As for [`NewFile::publish`].
    pub fn publish_unsynced(mut self) -> Result<()> {
        // A machine may have begun to since.
        if self.existing == Existing::Replace && self.target.is_file() {
            hold::replaceable(&self.target)?;
        }
        self.settle().map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                exists(&self.target)
            } else if sys::is_open_elsewhere(&self.target) {
                Error::new(
                    ErrorKind::Locked,
                    "cannot replace it: another program has it open, and must close it first",
                )
                .with_path(&self.target)
            } else {
                Error::io_at("cannot publish", &self.target, error)
            }
        })
    }

    fn settle(&mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            if !self.mode_chosen {
                sys::set_usual_mode(&self.file)?;
            }
            match self.existing {
                Existing::Replace => fs::rename(temporary, &self.target)?,
                Existing::Keep => rename_no_replace(temporary, &self.target)?,
            }
            self.temporary = None;
            return Ok(());
        }
        if self.existing == Existing::Keep {
            return sys::link_nameless(&self.file, &self.target);
        }
        // A file without a name cannot take one that is in use, so it takes a
        // free one first; that name goes if the rename fails.
        let ((), name) = with_free_name(&self.target, |name| sys::link_nameless(&self.file, name))?;
        self.temporary = Some(name.clone());
        fs::rename(&name, &self.target)?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // There is nobody left to tell, and the name says whose it was.
            if fs::remove_file(&temporary).is_err() {
                sys::make_removable(&self.file);
                let _ = fs::remove_file(temporary);
            }
        }
    }
}

/// Refuses a name that is something else to the system than a file's.
fn refuse_name(target: &Path) -> Result<()> {
    match target.file_name().and_then(names::refused_by_windows) {
        Some(why) if cfg!(windows) => {
            Err(Error::invalid(format!("cannot create: {why}")).with_path(target))
        }
        _ => Ok(()),
    }
}

/// The folder of a target that has a file name.
fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Follows a target that is a symbolic link.
fn resolve(target: &Path) -> Result<PathBuf> {
    match fs::symlink_metadata(target) {
        Ok(found) if found.is_symlink() => fs::canonicalize(target)
            .map_err(|error| Error::io_at("cannot follow the symbolic link", target, error)),
        _ => Ok(target.to_path_buf()),
    }
}

fn exists(target: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, "the file is there already").with_path(target)
}

fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(done) = sys::rename_no_replace(from, to) {
        return done;
    }
    // A hard link never replaces; the temporary name goes afterwards.
    fs::hard_link(from, to)?;
    let _ = fs::remove_file(from);
    Ok(())
}

/// Calls `take` with names beside `target` until one is free.
fn with_free_name<T>(
    target: &Path,
    mut take: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(T, PathBuf)> {
    let mut attempt = 0;
    loop {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let name = temporary_name(target.file_name().unwrap_or_default(), &random[..6]);
        let path = folder(target).join(name);
        match take(&path) {
            Ok(value) => return Ok((value, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// `.layer.vhd.opengcs-XXXXXX`; a long name is shortened, one of odd bytes left out.
fn temporary_name(name: &OsStr, random: &str) -> OsString {
    let room = NAME_MAX - 1 - TEMPORARY_MARK.len() - random.len();
    let mut kept = name.to_str().unwrap_or_default();
    while kept.len() > room {
        let mut end = room.min(kept.len() - 1);
        while !kept.is_char_boundary(end) {
            end -= 1;
        }
        kept = &kept[..end];
    }
    format!(".{kept}{TEMPORARY_MARK}{random}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_name_is_recognisable_and_fits() {
        assert_eq!(
            temporary_name(OsStr::new("layer.vhd"), "abcdef"),
            ".layer.vhd.opengcs-abcdef"
        );
        let long = "ä".repeat(127);
        let name = temporary_name(OsStr::new(&long), "abcdef");
        assert!(name.len() <= NAME_MAX);
        assert!(name.len() > NAME_MAX - 4);
    }

    #[test]
    fn named_fallback_publishes_and_cleans_up() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        for existing in [Existing::Keep, Existing::Replace] {
            let (file, name) = with_free_name(&target, sys::open_private).unwrap();
            let mut new = NewFile {
                file,
                temporary: Some(name),
                target: target.clone(),
                existing,
                mode_chosen: false,
            };
            new.file.write_all(b"whole").unwrap();
            new.settle().unwrap();
            drop(new);
            assert_eq!(fs::read(&target).unwrap(), b"whole");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        let (file, name) = with_free_name(&target, sys::open_private).unwrap();
        let new = NewFile {
            file,
            temporary: Some(name),
            target: target.clone(),
            existing: Existing::Keep,
            mode_chosen: false,
        };
        let error = new.publish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
