//! Where a VM keeps its private files while it runs, and what becomes of them when its owner is killed.
//!
//! The owner holds a lock on the folder for as long as it lives, and the kernel takes the lock away
//! however the owner ends. So a folder that nobody has locked belongs to nobody, and the next start
//! under the same parent removes it.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use crate::sys;

/// What the folders' names begin with.
const PREFIX: &str = "opengcs-vm-";

/// How often a fresh folder may be taken for a stale one before we give up.
const ATTEMPTS: u32 = 16;

/// A folder of one VM's, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    dir: TempDir,
    /// Dropped after the folder is gone. `None` where folders cannot be locked: then none is ever
    /// taken for stale either.
    _lock: Option<File>,
}

impl RuntimeDir {
    /// Makes a folder below `parent` that only its owner can enter, after removing what killed owners
    /// have left there.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        for _ in 0..ATTEMPTS {
            let dir = sys::private_dir(parent, PREFIX)?;
            // Between these two lines another start may find the folder without a lock and remove it.
            match sys::lock_folder(dir.path(), true) {
                Ok(Some(lock)) if sys::is_at(&lock, dir.path()) => {
                    return Ok(Self {
                        dir,
                        _lock: Some(lock),
                    });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Ok(Self { dir, _lock: None });
                }
                _ => {}
            }
        }
        Err(io::Error::other(
            "every folder that was made disappeared at once",
        ))
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
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
        if let Ok(Some(lock)) = sys::lock_folder(&path, false)
            && sys::is_at(&lock, &path)
        {
            let removed = std::fs::remove_dir_all(&path);
            tracing::info!(path = %path.display(), ?removed, "removed what a killed owner had left");
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_owner_left_is_removed_and_what_lives_stays() {
        let parent = tempfile::tempdir().unwrap();
        let stale = parent.path().join("opengcs-vm-stale");
        std::fs::create_dir(&stale).unwrap();
        std::fs::write(stale.join("console.log"), "x").unwrap();
        let strange = parent.path().join("opengcs-other");
        std::fs::create_dir(&strange).unwrap();
        let link = parent.path().join("opengcs-vm-link");
        std::os::unix::fs::symlink(&strange, &link).unwrap();

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
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
