//! Decides who may read a disk file while others use it: nobody reads what a machine is writing to.
//!
//! QEMU says what it does with an image by locks on single bytes of the file, one for each thing that it
//! does and one for each that it lets no other do. They hold between programs and lie on open files, so
//! they go with whoever has them. We speak the same language, as `qemu-img` does: a conversion is not begun
//! while a machine can write to the disk, and no machine gets the disk to write to while it runs.
//!
//! On Windows the system holds what each open file lets others do: what is read here nobody else opens to
//! write to, and what others write to is not opened here.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::{Error, ErrorKind, Result};

mod sys;

/// The first of the bytes that say what is done (`RAW_LOCK_PERM_BASE` in QEMU's `block/file-posix.c`).
const DONE: u64 = 100;
/// The first of the bytes that say what others must not do (`RAW_LOCK_SHARED_BASE`).
const DENIED: u64 = 200;

/// `BLK_PERM_CONSISTENT_READ`: reading what does not change meanwhile. Its number is its bit's.
const READ: u64 = 0;
/// `BLK_PERM_WRITE`.
const WRITE: u64 = 1;
/// `BLK_PERM_RESIZE`.
const RESIZE: u64 = 3;

/// What a disk file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// To look at it, whatever others do with it.
    Glance,
    /// To read it for a while, in which it must not change.
    Still,
}

impl Use {
    /// How the file is opened.
    pub(crate) fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true);
        if self == Self::Still {
            sys::let_nobody_write(&mut options);
        }
        options
    }

    /// Takes the file's locks, once it is open.
    ///
    /// # Errors
    ///
    /// As for [`still`].
    pub(crate) fn hold(self, file: &File, path: &Path) -> Result<()> {
        match self {
            Self::Glance => Ok(()),
            Self::Still => still(file, path),
        }
    }
}

/// Says that a file is being read and must not change, until it is closed.
///
/// # Errors
///
/// [`ErrorKind::Locked`] when a program says that it writes to it, or that nobody may read it.
fn still(file: &File, path: &Path) -> Result<()> {
    // Said before it is asked: of two that come at once, at least one sees the other.
    for byte in [DONE + READ, DENIED + WRITE, DENIED + RESIZE] {
        sys::share(file, byte);
    }
    let taken = [DONE + WRITE, DONE + RESIZE, DENIED + READ]
        .into_iter()
        .any(|byte| sys::is_taken(file, byte));
    if !taken {
        return Ok(());
    }
    sys::give_back(file, DONE, DENIED + 100);
    Err(
        Error::new(ErrorKind::Locked, "a virtual machine is writing to it")
            .with_hint("remove it from the machine first, or stop the machine")
            .with_path(path),
    )
}

/// Sees that nobody writes to a file that is to be replaced: what they wrote would be gone with it.
///
/// # Errors
///
/// As for [`still`].
pub(crate) fn replaceable(path: &Path) -> Result<()> {
    // What cannot be read cannot be asked either; whether it may be replaced the system says.
    File::open(path).map_or(Ok(()), |file| still(&file, path))
}

/// Says that nobody else may use a file, for as long as it is there. A program that this process is
/// just starting may hold a copy of the open file for a moment longer, and with it what is not given back.
#[derive(Debug)]
pub(crate) struct Alone<'a>(&'a File);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        sys::give_back(self.0, DONE, DENIED + 100);
    }
}

/// Says that a file is being changed and that nobody else may use it.
///
/// # Errors
///
/// [`ErrorKind::Locked`] when a program uses it, or the system has it mounted.
pub(crate) fn alone<'a>(file: &'a File, path: &Path) -> Result<Alone<'a>> {
    let locked = |what: String, hint: &str| {
        Err(Error::new(ErrorKind::Locked, what)
            .with_path(path)
            .with_hint(hint))
    };
    if let Some(device) = sys::mounted_through(path) {
        let hint = format!("unmount it first, and let go of it: losetup -d {device}");
        return locked(format!("it is in use through {device}"), &hint);
    }
    let ours = [READ, WRITE, RESIZE];
    let held = Alone(file);
    for permission in ours {
        sys::share(file, DONE + permission);
        sys::share(file, DENIED + permission);
    }
    // Readers count too: what they read moves.
    let taken = ours
        .into_iter()
        .flat_map(|permission| [DONE + permission, DENIED + permission])
        .any(|byte| sys::is_taken(file, byte));
    if !taken {
        return Ok(held);
    }
    locked(
        "a virtual machine or a conversion is using it".to_owned(),
        "remove it from the machine or stop the machine, or wait for the conversion's end",
    )
}

#[cfg(all(test, windows))]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_nobody_writes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let open = |what: Use| {
            let file = what.options().open(&path);
            file.map_err(|error| Error::io_at("cannot open", &path, error))
        };
        let writer = || OpenOptions::new().write(true).open(&path);
        let one = open(Use::Still).unwrap();
        let two = open(Use::Still).unwrap();
        open(Use::Glance).unwrap();
        assert!(writer().is_err());
        drop((one, two));

        let written = writer().unwrap();
        open(Use::Glance).unwrap();
        let error = open(Use::Still).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().starts_with(path.to_str().unwrap()));
        drop(written);
        open(Use::Still).unwrap();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_a_writer_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let open = || File::open(&path).unwrap();
        let (one, two) = (open(), open());
        still(&one, &path).unwrap();
        still(&two, &path).unwrap();
        drop((one, two));

        let writer = open();
        sys::share(&writer, DONE + WRITE);
        let reader = open();
        let error = still(&reader, &path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().starts_with(path.to_str().unwrap()));
        // A reader that was sent away keeps nobody out.
        assert!(!sys::is_taken(&writer, DENIED + WRITE));
        drop(writer);
        // One that changes the file is alone, and keeps readers out.
        let held = alone(&reader, &path).unwrap();
        let other = open();
        assert!(still(&other, &path).is_err() && alone(&other, &path).is_err());
        drop(held);
        still(&other, &path).unwrap();
        assert!(alone(&reader, &path).is_err());
        drop(other);
        still(&reader, &path).unwrap();
        assert!(sys::is_taken(&open(), DENIED + WRITE));
    }
}
