//! Decides how disks come and go while the machine runs.
//!
//! A slot is taken before QEMU is asked and given back if it refuses. An attach or detach, once begun, runs
//! to its end on a task of its own: a caller who gives up, or who waits no longer for a QEMU that does not
//! answer, leaves no half of it behind. A disk attached for a caller who has gone is detached again, and until
//! that is so its slot is taken.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{broadcast, oneshot};

use super::{Inner, blockdev};
use crate::disk::{DiskSpec, Slot, SlotTable};
use crate::error::{Error, ErrorKind, Result};

/// How long a caller waits for QEMU. It needs milliseconds; a host may be slow or its disk be away.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file's identity, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

#[derive(Debug)]
struct Attached {
    file: FileId,
    generation: u64,
    /// An attach or detach is under way.
    busy: bool,
}

/// The disks of one machine.
#[derive(Debug)]
pub(super) struct Disks {
    table: Mutex<SlotTable<Attached>>,
    generation: AtomicU64,
}

impl Disks {
    pub(super) fn new(controllers: u8) -> Self {
        Self {
            table: Mutex::new(SlotTable::new(controllers)),
            generation: AtomicU64::new(1),
        }
    }

    fn table(&self) -> MutexGuard<'_, SlotTable<Attached>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the slot of the disk that the command line holds.
    pub(super) fn booted_from(&self, disk: &DiskSpec) -> Result<()> {
        let (_, file) = complete(disk)?;
        let slot = Slot {
            controller: 0,
            lun: 0,
        };
        self.table().insert(
            slot,
            Attached {
                file,
                generation: 0,
                busy: false,
            },
        );
        Ok(())
    }

    fn reserve(&self, file: FileId, path: &Path) -> Result<(Slot, u64)> {
        let mut table = self.table();
        if let Some((slot, _)) = table.iter().find(|(_, attached)| attached.file == file) {
            return Err(Error::new(
                ErrorKind::DiskInUse,
                format!(
                    "disk {} is already attached to this machine at {slot}",
                    path.display()
                ),
            ));
        }
        let Some(slot) = table.free() else {
            return Err(Error::new(
                ErrorKind::NoFreeSlot,
                format!(
                    "no free slot for disk {}: all {} are taken; detach one, or give the machine \
                     more controllers",
                    path.display(),
                    table.capacity()
                ),
            ));
        };
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        table.insert(
            slot,
            Attached {
                file,
                generation,
                busy: true,
            },
        );
        Ok((slot, generation))
    }
}

/// Checks a disk's file and completes its description: the absolute path and the size QEMU is to show.
pub(super) fn complete(disk: &DiskSpec) -> Result<(DiskSpec, FileId)> {
    let fail = |error| Error::path("open disk", &disk.path, error);
    let path = std::fs::canonicalize(&disk.path).map_err(fail)?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(!disk.read_only)
        .open(&path)
        .map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("disk {} is not a file", disk.path.display()),
        ));
    }
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    let complete = DiskSpec {
        size: blockdev::window(disk, metadata.len())?,
        path,
        ..disk.clone()
    };
    Ok((complete, id))
}

/// Gives a slot back unless the work on it came to its end.
struct Reservation<'a> {
    disks: &'a Disks,
    slot: Slot,
    keep: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.keep {
            if let Some(attached) = self.disks.table().get_mut(self.slot) {
                attached.busy = false;
            }
        } else {
            self.disks.table().remove(self.slot);
        }
    }
}

pub(super) async fn attach(inner: &Arc<Inner>, disk: DiskSpec) -> Result<Slot> {
    inner.live()?;
    let what = format!("cannot attach disk {}", disk.path.display());
    let (tell, told) = oneshot::channel();
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        let result = attach_now(&task, &disk).await;
        if let Err(Ok(slot)) = tell.send(result) {
            let _ = detach_now(&task, slot).await;
        }
    });
    in_time(inner, &what, told).await
}

pub(super) async fn detach(inner: &Arc<Inner>, slot: Slot) -> Result<()> {
    inner.live()?;
    let (tell, told) = oneshot::channel();
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        let _ = tell.send(detach_now(&task, slot).await);
    });
    in_time(inner, &format!("cannot detach disk {slot}"), told).await
}

/// Waits for a task for as long as a caller may have to. The task itself goes on.
async fn in_time<T>(inner: &Inner, what: &str, told: oneshot::Receiver<Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(outcome) => outcome.map_err(|_| inner.died())?,
        Err(_) => Err(Error::new(
            ErrorKind::TimedOut,
            format!(
                "{what}: qemu did not answer within {} s",
                PATIENCE.as_secs()
            ),
        )),
    }
}

async fn attach_now(inner: &Inner, disk: &DiskSpec) -> Result<Slot> {
    let live = inner.live()?;
    let what = format!("cannot attach disk {}", disk.path.display());
    let (complete, file) = complete(disk)?;
    let (slot, generation) = live.disks.reserve(file, &disk.path)?;
    let mut reservation = Reservation {
        disks: &live.disks,
        slot,
        keep: false,
    };
    let name = blockdev::node_name(slot, generation);
    let node = blockdev::node(&complete, &name)?;
    inner
        .execute(&what, "blockdev-add", node)
        .await
        .map_err(|error| locked(error, disk))?;
    let device = blockdev::device(slot, generation);
    if let Err(error) = inner.execute(&what, "device_add", device).await {
        let remove = json!({ "node-name": name });
        let _ = inner.execute(&what, "blockdev-del", remove).await;
        return Err(locked(error, disk));
    }
    reservation.keep = true;
    Ok(slot)
}

async fn detach_now(inner: &Inner, slot: Slot) -> Result<()> {
    let live = inner.live()?;
    let what = format!("cannot detach disk {slot}");
    let generation = {
        let mut table = live.disks.table();
        match table.get_mut(slot) {
            None => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{what}: no disk is attached there"),
                ));
            }
            Some(attached) if attached.busy => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("{what}: it is being attached or detached"),
                ));
            }
            Some(attached) => {
                attached.busy = true;
                attached.generation
            }
        }
    };
    let mut reservation = Reservation {
        disks: &live.disks,
        slot,
        keep: true,
    };
    let device = blockdev::device_name(slot, generation);
    let mut events = live.qmp.events();
    let delete = json!({ "id": device });
    match inner.execute(&what, "device_del", delete).await {
        Ok(_) => deleted(inner, &what, &mut events, &device).await?,
        // An earlier detach got this far and no further.
        Err(error) if refused(&error, "in the process of unplug") => {
            deleted(inner, &what, &mut events, &device).await?;
        }
        Err(error) if refused(&error, "not found") => {}
        Err(error) => return Err(error),
    }
    let node = json!({ "node-name": blockdev::node_name(slot, generation) });
    inner.execute(&what, "blockdev-del", node).await?;
    reservation.keep = false;
    Ok(())
}

/// Whether QEMU refused something in these words.
fn refused(error: &Error, words: &str) -> bool {
    error.kind() == ErrorKind::Refused && error.to_string().contains(words)
}

/// Waits for QEMU's word that the device is gone. A device that stays may be asked to go again.
async fn deleted(
    inner: &Inner,
    what: &str,
    events: &mut broadcast::Receiver<super::qmp::Event>,
    device: &str,
) -> Result<()> {
    let gone = async {
        loop {
            match events.recv().await {
                Ok(event) if event.name == "DEVICE_DELETED" && event.data["device"] == device => {
                    return Ok(());
                }
                // Having missed some, we may have missed ours: blockdev-del will tell.
                Err(broadcast::error::RecvError::Lagged(_)) => return Ok(()),
                Err(broadcast::error::RecvError::Closed) => return Err(inner.died()),
                Ok(_) => {
                    inner.live()?;
                }
            }
        }
    };
    let timed_out = |_| {
        Error::new(
            ErrorKind::TimedOut,
            format!(
                "{what}: qemu did not take the device away within {} s",
                PATIENCE.as_secs()
            ),
        )
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .map_err(timed_out)?
}

/// QEMU's words for a held lock, told as such.
fn locked(error: Error, disk: &DiskSpec) -> Error {
    let words = error.to_string();
    if !(words.contains("Failed to get") && words.contains("lock")) {
        return error;
    }
    let how = if disk.read_only {
        "another machine is writing to it"
    } else {
        "another machine or a conversion is using it; attach it read-only, or end the other"
    };
    Error::new(
        ErrorKind::DiskLocked,
        format!("cannot attach disk {}: {how}", disk.path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskFormat;

    #[test]
    fn the_same_file_by_another_path_is_already_attached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        std::fs::write(&path, [0; 512]).unwrap();
        let other = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &other).unwrap();
        let disks = Disks::new(1);
        let first = complete(&DiskSpec::new(&path, DiskFormat::Raw, true)).unwrap();
        let second = complete(&DiskSpec::new(&other, DiskFormat::Raw, true)).unwrap();
        disks.reserve(first.1, &path).unwrap();
        let error = disks.reserve(second.1, &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskInUse);
        assert!(error.to_string().contains("0:0"), "{error}");
    }

    #[test]
    fn a_full_machine_says_so() {
        let disks = Disks::new(1);
        for inode in 0..64 {
            let file = FileId { device: 0, inode };
            disks.reserve(file, Path::new("/d")).unwrap();
        }
        let file = FileId {
            device: 0,
            inode: 64,
        };
        let error = disks.reserve(file, Path::new("/d")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoFreeSlot);
    }

    #[test]
    fn a_folder_or_nothing_is_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DiskSpec::new(dir.path(), DiskFormat::Raw, true);
        assert_eq!(
            complete(&folder).unwrap_err().kind(),
            ErrorKind::InvalidConfig
        );
        let missing = DiskSpec::new(dir.path().join("x"), DiskFormat::Raw, true);
        assert_eq!(complete(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
