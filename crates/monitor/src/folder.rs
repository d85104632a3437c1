//! Where VMs have their folders, who holds them, and what becomes of those that nobody holds.
//!
//! ```text
//!   $XDG_RUNTIME_DIR/opengcs/        0700; locked for moments, by whoever changes what is in it
//!     build/                         0700; locked by its monitor for as long as that lives
//!       monitor.sock                 0600
//!       monitor.log console.log agent.log
//!     test/                          nobody's lock: its monitor has ended
//!       ended.json                   ... and has left word: kept, with its logs, until the next start
//!     old/                           ... without a word: killed; it is cleared away
//! ```
//!
//! A lock is the kernel's: it goes with its holder, however that ends, so that a folder without one is
//! nobody's. Whether a folder is locked is tried only under the lock of all: a start never takes a look
//! for a VM.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opengcs::Environment;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;
use crate::sys::{self, Lock};

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

/// How long another may hold the lock of all: it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// How many VMs that have died are remembered.
const REMEMBERED: usize = 10;

/// The word that a monitor leaves behind.
const RECORD: &str = "ended.json";

/// Whose VM it was, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its name.
    pub name: Name,
    /// When it was asked to start, in milliseconds since 1970, UTC.
    pub started_ms: u64,
    /// When it had ended.
    pub ended_ms: u64,
    /// Why, in one line.
    pub reason: String,
    /// The file with everything that was recorded.
    pub bundle: Option<PathBuf>,
}

/// A VM's folder as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A monitor holds it.
    Living(Name, PathBuf),
    /// Its VM has ended by itself.
    Ended(Ended, PathBuf),
}

/// The folder of all VMs of a user.
#[derive(Debug, Clone)]
pub struct Folders {
    all: PathBuf,
}

impl Folders {
    /// The folders of the user of this environment: below `$XDG_RUNTIME_DIR`, or else in the temporary
    /// folder. Nothing is made yet.
    ///
    /// # Errors
    /// There are none on this operating system.
    pub fn of(environment: &Environment) -> Result<Self> {
        sys::supported()?;
        let user = environment
            .get("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir());
        Ok(Self {
            all: sys::runtime_folder(user),
        })
    }

    /// The folder of all of them.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.all
    }

    /// Every VM, by name. What killed monitors have left is removed.
    ///
    /// # Errors
    /// The folder cannot be read, or is not this user's alone.
    pub fn list(&self) -> Result<Vec<Found>> {
        if !self.all.exists() {
            return Ok(Vec::new());
        }
        let _all = self.lock()?;
        let mut found = self.sweep()?;
        found.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(found)
    }

    /// The VM of this name.
    ///
    /// # Errors
    /// There is none, or the folder of all cannot be read.
    pub fn find(&self, name: &Name) -> Result<Found> {
        named(name, self.list()?)
    }

    /// The VM of this name, killed by force with its monitor, which need not answer: SIGKILL, after which
    /// nothing is left of them. What the guest had not written to its disks is lost. False: there was none.
    ///
    /// # Errors
    /// The monitor's process is not known, or does not end.
    pub async fn kill(&self, name: &Name) -> Result<bool> {
        let folder = match named(name, self.look().await?) {
            Ok(Found::Living(_, folder)) => folder,
            Ok(Found::Ended(..)) | Err(_) => return Ok(false),
        };
        sys::kill_listener(&folder)
            .await
            .map_err(|error| Error::io("end the monitor in", &folder, &error))?;
        let mut waited = Duration::ZERO;
        // The lock goes with the process, and what it leaves goes with a look.
        while let Ok(Found::Living(..)) = named(name, self.look().await?) {
            if waited > PATIENCE {
                let what =
                    format!("the monitor of the VM {name} was killed, and has not ended yet");
                return Err(Error::new(ErrorKind::Timeout, what));
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
        Ok(true)
    }

    /// Every VM, as [`Folders::list`], without holding up the caller's thread while another process has the
    /// folder.
    ///
    /// # Errors
    /// As for [`Folders::list`].
    pub async fn look(&self) -> Result<Vec<Found>> {
        let folders = self.clone();
        let looked = tokio::task::spawn_blocking(move || folders.list()).await;
        looked.map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?
    }

    /// Takes a name for a new VM, and makes its folder. What a VM that has ended has left there goes.
    ///
    /// # Errors
    /// A VM of that name lives, or the folder cannot be made.
    pub fn claim(&self, name: &Name) -> Result<Claim> {
        let _all = self.lock()?;
        self.sweep()?;
        let path = self.all.join(name.as_str());
        if path.symlink_metadata().is_ok() {
            if !sys::is_own_folder(&path) {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("{} is no folder of a VM", path.display()),
                )
                .hint("remove it, or take another name"));
            }
            // Whoever ended has let go of it; the lock is for the case that they have not.
            match sys::lock_folder(&path) {
                Ok(Some(_lock)) => remove(&path)?,
                Ok(None) => {
                    return Err(Error::new(
                        ErrorKind::InUse,
                        format!("there is a VM {name} already"),
                    )
                    .hint(format!(
                        "`opengcs vm stop {name}` ends it; another name makes another VM"
                    )));
                }
                Err(error) => return Err(Error::io("lock", &path, &error)),
            }
        }
        sys::make_private(&path).map_err(|error| Error::io("make the folder", &path, &error))?;
        match sys::lock_folder(&path) {
            Ok(Some(lock)) => Ok(Claim {
                folders: self.clone(),
                name: name.clone(),
                path,
                _lock: lock,
            }),
            Ok(None) => Err(Error::new(
                ErrorKind::InUse,
                format!("{} was locked by another", path.display()),
            )),
            Err(error) => Err(Error::io("lock", &path, &error)),
        }
    }

    /// Forgets a VM that has ended.
    ///
    /// # Errors
    /// It lives again, or its folder cannot be removed.
    pub fn forget(&self, name: &Name) -> Result<()> {
        let _all = self.lock()?;
        let path = self.all.join(name.as_str());
        match sys::lock_folder(&path) {
            Ok(Some(_lock)) => remove(&path),
            Ok(None) => Err(Error::new(
                ErrorKind::InUse,
                format!("a VM {name} has been started again"),
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("lock", &path, &error)),
        }
    }

    /// The lock under which folders are made, tried and removed.
    fn lock(&self) -> Result<Lock> {
        sys::make_private(&self.all).map_err(|error| {
            Error::io("use", &self.all, &error).hint("VMs' sockets are for their owner alone")
        })?;
        let mut waited = Duration::ZERO;
        loop {
            match sys::lock_folder(&self.all) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if waited < PATIENCE => {
                    std::thread::sleep(PAUSE);
                    waited += PAUSE;
                }
                Ok(None) => {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        format!("another process keeps {} locked", self.all.display()),
                    ));
                }
                Err(error) => return Err(Error::io("lock", &self.all, &error)),
            }
        }
    }

    /// Looks at every folder, and removes those that nobody holds and nobody has left word in; of those
    /// with a word, the newest stay. The lock of all must be held.
    fn sweep(&self) -> Result<Vec<Found>> {
        let entries = std::fs::read_dir(&self.all)
            .map_err(|error| Error::io("list", &self.all, &error))?
            .flatten();
        let (mut living, mut ended) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.parse::<Name>().ok()) else {
                continue;
            };
            if !sys::is_own_folder(&path) {
                continue;
            }
            match sys::lock_folder(&path) {
                Ok(None) => living.push(Found::Living(name, path)),
                Ok(Some(_lock)) => match read_record(&path, &name) {
                    Some(record) => ended.push((record, path)),
                    None => {
                        let removed = remove(&path);
                        tracing::info!(%name, ?removed, "removed what a killed monitor had left");
                    }
                },
                Err(error) => tracing::warn!(%name, %error, "a VM's folder cannot be locked"),
            }
        }
        ended.sort_by_key(|(record, _)| std::cmp::Reverse(record.ended_ms));
        for (number, (record, path)) in ended.into_iter().enumerate() {
            if number < REMEMBERED {
                living.push(Found::Ended(record, path));
            } else if let Err(error) = remove(&path) {
                tracing::warn!(%error, "an old record cannot be removed");
            }
        }
        Ok(living)
    }
}

/// The one of this name.
pub(crate) fn named(name: &Name, all: Vec<Found>) -> Result<Found> {
    let found = all.into_iter().find(|found| found.name() == name);
    found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no VM {name}"))
            .hint("`opengcs vm ls` lists those that there are")
    })
}

impl Found {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Living(name, _) => name,
            Self::Ended(record, _) => &record.name,
        }
    }
}

/// A name that this process holds, with its folder.
#[derive(Debug)]
pub struct Claim {
    folders: Folders,
    name: Name,
    path: PathBuf,
    _lock: Lock,
}

impl Claim {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the name back. Nothing stays of the folder but, with a record, that and the logs.
    ///
    /// # Errors
    /// The folder cannot be removed, or the record not be written.
    pub fn release(self, record: Option<&Ended>) -> Result<()> {
        let _all = self.folders.lock()?;
        let Some(record) = record else {
            return remove(&self.path);
        };
        if let Err(error) = write_record(&self.path, record) {
            // Half a record is worth less than none.
            tracing::warn!(%error, "no word is left of the VM");
            return remove(&self.path);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn read_record(folder: &Path, name: &Name) -> Option<Ended> {
    let bytes = std::fs::read(folder.join(RECORD)).ok()?;
    let record: Ended = serde_json::from_slice(&bytes).ok()?;
    (record.name == *name).then_some(record)
}

fn write_record(folder: &Path, record: &Ended) -> std::io::Result<()> {
    serde_json::to_writer(File::create(folder.join(RECORD))?, record)?;
    sys::remove_socket(folder)
}

/// Milliseconds since 1970, UTC.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
