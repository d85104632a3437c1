//! Decides how disks come and go while the machine runs.
//!
//! A slot is taken before QEMU is asked and given back if it refuses. An attach or detach, once begun, runs
//! to its end on a task of its own: a caller who gives up leaves no half of it behind, and a disk attached
//! for a caller who has given up is detached again.

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

/// How long QEMU may take over one step. It needs milliseconds; a host may be slow or its disk be away.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

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
    let (tell, told) = oneshot::channel();
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        let result = attach_now(&task, &disk).await;
        if let Err(Ok(slot)) = tell.send(result) {
            let _ = detach_now(&task, slot).await;
        }
    });
    told.await.map_err(|_| inner.died())?
}

pub(super) async fn detach(inner: &Arc<Inner>, slot: Slot) -> Result<()> {
    inner.live()?;
    let (tell, told) = oneshot::channel();
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        let _ = tell.send(detach_now(&task, slot).await);
    });
    told.await.map_err(|_| inner.died())?
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
    step(&what, inner.execute(&what, "blockdev-add", node))
        .await
        .map_err(|error| locked(error, disk))?;
    let device = blockdev::device(slot, generation);
    if let Err(error) = step(&what, inner.execute(&what, "device_add", device)).await {
        let remove = inner.execute(&what, "blockdev-del", json!({ "node-name": name }));
        let _ = step(&what, remove).await;
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
    let delete = inner.execute(&what, "device_del", json!({ "id": device }));
    match step(&what, delete).await {
        Ok(_) => step(&what, deleted(inner, &mut events, &device)).await?,
        // An earlier detach got this far and no further.
        Err(error) if error.kind() == ErrorKind::Refused && not_found(&error) => {}
        Err(error) => return Err(error),
    }
    let node = json!({ "node-name": blockdev::node_name(slot, generation) });
    step(&what, inner.execute(&what, "blockdev-del", node)).await?;
    reservation.keep = false;
    Ok(())
}

fn not_found(error: &Error) -> bool {
    error.to_string().contains("not found")
}

/// Waits for QEMU's word that the device is gone.
async fn deleted(
    inner: &Inner,
    events: &mut broadcast::Receiver<super::qmp::Event>,
    device: &str,
) -> Result<()> {
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
}

async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(STEP_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            ErrorKind::TimedOut,
            format!(
                "{what}: qemu did not answer within {} s",
                STEP_TIMEOUT.as_secs()
            ),
        )),
    }
}

/// QEMU's words for a held lock, told as such.
fn locked(error: Error, disk: &DiskSpec) -> Error {
    let words = error.to_string();
    if !(words.contains("Failed to get") && words.contains("lock")) {
        return error;
    }
    let how = if disk.read_only {
        "another process is writing to it"
    } else {
        "another process is using it; attach it read-only, or end the other machine"
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
