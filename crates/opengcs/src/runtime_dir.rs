//! Where a VM keeps its private files while it runs, and what becomes of them when its owner is killed.
//!
//! The owner holds a lock on the folder for as long as it lives, and the system takes the lock away
//! however the owner ends. So a folder that nobody has locked belongs to nobody, and the next start
//! under the same parent removes it.

use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::{self, Holder};

/// What the folders' names begin with.
const PREFIX: &str = "opengcs-vm-";

/// How often a fresh folder may be taken for a stale one before we give up.
const ATTEMPTS: u32 = 16;

/// A folder of one VM's, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    path: PathBuf,
    /// `None` where folders cannot be locked: then none is ever taken for stale either.
    lock: Option<File>,
}

impl RuntimeDir {
    /// Makes a folder below `parent` that only its owner can enter, after removing what killed owners
    /// have left there.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        for _ in 0..ATTEMPTS {
            let mut dir = Self::make(parent)?;
            // Between these two lines another start may find the folder without a lock and remove it.
            match sys::lock_folder(&dir.path, Holder::Owner) {
                Ok(Some(lock)) if sys::is_at(&lock, &dir.path) => {
                    dir.lock = Some(lock);
                    return Ok(dir);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Ok(dir),
                _ => {}
            }
        }
        Err(io::Error::other(
            "every folder that was made disappeared at once",
        ))
    }

    /// Makes a folder that has no lock yet.
    fn make(parent: &Path) -> io::Result<Self> {
        let mut attempt = 0;
        loop {
            let random = uuid::Uuid::new_v4().simple().to_string();
            let path = parent.join(format!("{PREFIX}{}", &random[..8]));
            match sys::make_private_folder(&path) {
                Ok(()) => return Ok(Self { path, lock: None }),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if cfg!(windows) {
            // What is open there cannot be removed.
            self.lock = None;
        }
        // What stays is removed by the next start.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes folders that no living owner has. What cannot be removed stays: it harms no start.
fn sweep(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        let named = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        if !named || !sys::is_own_folder(&path) {
            continue;
        }
        // Where the lock keeps others from looking into the folder, it keeps us too.
        let inside: Vec<_> = std::fs::read_dir(&path)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        if let Ok(Some(lock)) = sys::lock_folder(&path, Holder::Sweeper)
            && sys::is_at(&lock, &path)
        {
            let removed = remove(&path, &inside, lock);
            tracing::info!(path = %path.display(), ?removed, "removed what a killed owner had left");
        }
    }
}

/// Removes a folder that we have locked, and in which `inside` was found.
fn remove(path: &Path, inside: &[DirEntry], lock: File) -> io::Result<()> {
    if !cfg!(windows) {
        return std::fs::remove_dir_all(path);
    }
    // What is open there cannot be removed, so the lock goes before the folder itself does. If somebody
    // takes it in between, or something was made since we looked, it stays for the next start.
    for entry in inside {
        let _ = match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
    }
    drop(lock);
    std::fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_owner_left_is_removed_and_what_lives_stays() {
        let parent = tempfile::tempdir().unwrap();
        let stale = parent.path().join("opengcs-vm-stale");
        std::fs::create_dir(&stale).unwrap();
        std::fs::write(stale.join("console.log"), "x").unwrap();
        std::fs::create_dir(stale.join("folder")).unwrap();
        std::fs::write(stale.join("folder/file"), "x").unwrap();
        let strange = parent.path().join("opengcs-other");
        std::fs::create_dir(&strange).unwrap();
        let link = parent.path().join("opengcs-vm-link");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&strange, &link).unwrap();
        // Links to folders are for privileged users there, and are not made by wine.
        #[cfg(not(unix))]
        std::fs::write(&link, "").unwrap();

        let first = RuntimeDir::create(parent.path()).unwrap();
        let second = RuntimeDir::create(parent.path()).unwrap();
        assert!(!stale.exists());
        assert!(strange.exists() && link.exists());
        assert!(first.path().exists() && second.path().exists());

        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn starts_at_once_do_not_take_each_others_folders() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let dir = RuntimeDir::create(parent.path()).unwrap();
                        std::fs::write(dir.path().join("console.log"), "x").unwrap();
                        assert!(dir.path().join("console.log").exists());
                    }
                });
            }
        });
        if cfg!(windows) {
            // Whose folder a sweeper was just looking at could not remove it.
            sweep(parent.path());
        }
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
