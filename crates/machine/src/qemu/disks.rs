//! Decides how disks come and go while the machine runs.
//!
//! A slot is taken before QEMU is asked and given back if it refuses. An attach or detach, once begun, runs
//! to its end on a task of its own: a caller who gives up, or who waits no longer for a QEMU that does not
//! answer, leaves no half of it behind. A disk attached for a caller who has gone is detached again, and until
//! that is so its slot is taken.
//!
//! A detach is over for its caller when QEMU has closed the file, which takes two milliseconds. QEMU frees
//! the device itself only when it has collected enough to free, or has waited 50 ms for more: until then the
//! slot is *going*, and whoever needs one and finds none waits for it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast, oneshot};

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
    /// `None` when the file is closed and the slot is going.
    file: Option<FileId>,
    generation: u64,
    /// What QEMU was told of it; null for the disk that the command line holds.
    node: Value,
    /// An attach or detach is under way.
    busy: bool,
}

/// The disks of one machine.
#[derive(Debug)]
pub(super) struct Disks {
    table: Mutex<SlotTable<Attached>>,
    generation: AtomicU64,
    /// Told of every slot that becomes free.
    freed: Notify,
}

impl Disks {
    pub(super) fn new(controllers: u8) -> Self {
        Self {
            table: Mutex::new(SlotTable::new(controllers)),
            generation: AtomicU64::new(1),
            freed: Notify::new(),
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
                file: Some(file),
                generation: 0,
                node: Value::Null,
                busy: false,
            },
        );
        Ok(())
    }

    /// Takes a slot. When all are taken and some of them are going, it waits for one.
    async fn reserve(&self, file: FileId, path: &Path) -> Result<(Slot, u64)> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on a slot that becomes free is noticed.
            freed.as_mut().enable();
            match self.try_reserve(file, path) {
                Err(error) if error.kind() == ErrorKind::NoFreeSlot && self.is_one_going() => {
                    freed.await;
                }
                outcome => return outcome,
            }
        }
    }

    fn is_one_going(&self) -> bool {
        self.table()
            .iter()
            .any(|(_, attached)| attached.file.is_none())
    }

    fn try_reserve(&self, file: FileId, path: &Path) -> Result<(Slot, u64)> {
        let mut table = self.table();
        let same = |attached: &Attached| attached.file == Some(file);
        if let Some((slot, _)) = table.iter().find(|(_, attached)| same(attached)) {
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
                file: Some(file),
                generation,
                node: Value::Null,
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
struct Reservation {
    inner: Arc<Inner>,
    slot: Slot,
    keep: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(live) = self.inner.live.get() else {
            return;
        };
        if self.keep {
            if let Some(attached) = live.disks.table().get_mut(self.slot) {
                attached.busy = false;
            }
        } else {
            live.disks.table().remove(self.slot);
            live.disks.freed.notify_waiters();
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
        Ok(outcome) => outcome.map_err(|_| inner.life.died())?,
        Err(_) => Err(Error::new(
            ErrorKind::TimedOut,
            format!(
                "{what}: qemu did not answer within {} s",
                PATIENCE.as_secs()
            ),
        )),
    }
}

async fn attach_now(inner: &Arc<Inner>, disk: &DiskSpec) -> Result<Slot> {
    let live = inner.live()?;
    let what = format!("cannot attach disk {}", disk.path.display());
    let (complete, file) = complete(disk)?;
    let (slot, generation) = live.disks.reserve(file, &disk.path).await?;
    let mut reservation = Reservation {
        inner: Arc::clone(inner),
        slot,
        keep: false,
    };
    let name = blockdev::node_name(slot, generation);
    let node = blockdev::node(&complete, &name)?;
    if let Some(attached) = live.disks.table().get_mut(slot) {
        attached.node = node.clone();
    }
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

async fn detach_now(inner: &Arc<Inner>, slot: Slot) -> Result<()> {
    let live = inner.live()?;
    let what = format!("cannot detach disk {slot}");
    let (generation, node) = {
        let mut table = live.disks.table();
        match table.get_mut(slot) {
            Some(attached) if attached.file.is_some() && attached.busy => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("{what}: it is being attached or detached"),
                ));
            }
            Some(attached) if attached.file.is_some() => {
                attached.busy = true;
                (attached.generation, attached.node.clone())
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{what}: no disk is attached there"),
                ));
            }
        }
    };
    let mut reservation = Reservation {
        inner: Arc::clone(inner),
        slot,
        keep: true,
    };
    let going = Going {
        device: blockdev::device_name(slot, generation),
        remains: blockdev::remains(slot, generation),
        events: live.qmp.events(),
        what,
    };
    let what = &going.what;
    let delete = json!({ "id": going.device });
    match inner.execute(what, "device_del", delete).await {
        Ok(_) => {}
        // An earlier detach got this far and no further.
        Err(error) if refused(&error, "in the process of unplug") => {}
        Err(error) if refused(&error, "not found") => {
            going.delete_nodes(inner).await?;
            reservation.keep = false;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let (empty, reopen) = blockdev::emptied(&node, slot, generation);
    // It may be there since an earlier detach; whether it is, the next step tells.
    let _ = inner.execute(what, "blockdev-add", empty).await;
    match inner.execute(what, "blockdev-reopen", reopen).await {
        Ok(_) => {}
        // A QEMU that cannot do this closes the file with the device.
        Err(error) if error.kind() == ErrorKind::Refused => {
            going.end(inner).await?;
            reservation.keep = false;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    if let Some(attached) = live.disks.table().get_mut(slot) {
        attached.file = None;
    }
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        match going.end(&task).await {
            Ok(()) => reservation.keep = false,
            Err(error) if error.kind() == ErrorKind::GuestDied => {}
            // What is in the slot nobody knows, so it stays taken.
            Err(error) => tracing::warn!(%slot, %error, "a slot does not become free"),
        }
        drop(reservation);
    });
    Ok(())
}

/// A device that QEMU was asked to take away.
struct Going {
    what: String,
    device: String,
    /// The arguments of `blockdev-del` for what it leaves.
    remains: [Value; 2],
    events: broadcast::Receiver<super::qmp::Event>,
}

impl Going {
    /// Waits for the device's end, and removes what it leaves.
    async fn end(mut self, inner: &Inner) -> Result<()> {
        deleted(inner, &self.what, &mut self.events, &self.device).await?;
        self.delete_nodes(inner).await
    }

    async fn delete_nodes(&self, inner: &Inner) -> Result<()> {
        let [node, empty] = self.remains.clone();
        inner.execute(&self.what, "blockdev-del", node).await?;
        // Where the file was not closed before, there is none.
        let _ = inner.execute(&self.what, "blockdev-del", empty).await;
        Ok(())
    }
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
                Err(broadcast::error::RecvError::Closed) => return Err(inner.life.died()),
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
        disks.try_reserve(first.1, &path).unwrap();
        let error = disks.try_reserve(second.1, &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskInUse);
        assert!(error.to_string().contains("0:0"), "{error}");
    }

    #[test]
    fn a_full_machine_says_so() {
        let disks = Disks::new(1);
        for inode in 0..64 {
            let file = FileId { device: 0, inode };
            disks.try_reserve(file, Path::new("/d")).unwrap();
        }
        let file = FileId {
            device: 0,
            inode: 64,
        };
        let error = disks.try_reserve(file, Path::new("/d")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoFreeSlot);
    }

    #[tokio::test]
    async fn a_full_machine_waits_for_a_slot_that_is_going() {
        let disks = Arc::new(Disks::new(1));
        let file = |inode| FileId { device: 0, inode };
        for inode in 0..64 {
            disks.try_reserve(file(inode), Path::new("/d")).unwrap();
        }
        let slot = Slot {
            controller: 0,
            lun: 7,
        };
        disks.table().get_mut(slot).unwrap().file = None;
        let task = Arc::clone(&disks);
        let waiting =
            tokio::spawn(async move { task.reserve(file(64), Path::new("/d")).await.unwrap().0 });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        disks.table().remove(slot);
        disks.freed.notify_waiters();
        assert_eq!(waiting.await.unwrap(), slot);
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
