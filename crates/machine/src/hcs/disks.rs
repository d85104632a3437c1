//! Decides how disks come and go while the machine runs.
//!
//! A slot is taken before Hyper-V is asked and given back if it refuses. What has begun runs to its end on a
//! task of its own; a disk attached for a caller who has given up is detached again. A machine runs under an
//! account of its own, so each disk file's access list gets that account, and loses it afterwards.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::document;
use super::run::Inner;
use super::sys::file::{self, FileId};
use super::sys::system;
use crate::disk::{DiskSpec, Slot, SlotTable};
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
struct Attached {
    file: FileId,
    path: PathBuf,
    /// An attach or detach is under way.
    busy: bool,
}

/// The disks of one machine.
#[derive(Debug)]
pub(super) struct Disks(Mutex<SlotTable<Attached>>);

impl Disks {
    pub(super) fn new(controllers: u8) -> Self {
        Self(Mutex::new(SlotTable::new(controllers)))
    }

    fn table(&self) -> MutexGuard<'_, SlotTable<Attached>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lowest free slot for a disk whose path is complete.
    pub(super) fn reserve(&self, disk: &DiskSpec) -> Result<Slot> {
        let fail = |error| Error::path("open disk", &disk.path, error);
        let Some(file) = file::identity(&disk.path).map_err(fail)? else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("disk {} is not a file", disk.path.display()),
            ));
        };
        let mut table = self.table();
        if let Some((slot, _)) = table.iter().find(|(_, attached)| attached.file == file) {
            return Err(Error::new(
                ErrorKind::DiskInUse,
                format!(
                    "disk {} is already attached to this machine at {slot}",
                    disk.path.display()
                ),
            ));
        }
        let Some(slot) = table.free() else {
            return Err(Error::new(
                ErrorKind::NoFreeSlot,
                format!(
                    "no free slot for disk {}: all {} are taken; detach one, or give the machine more \
                     controllers",
                    disk.path.display(),
                    table.capacity()
                ),
            ));
        };
        let path = disk.path.clone();
        let busy = true;
        table.insert(slot, Attached { file, path, busy });
        Ok(slot)
    }

    pub(super) fn settle(&self, slot: Slot, keep: bool) {
        let mut table = self.table();
        if !keep {
            table.remove(slot);
        } else if let Some(attached) = table.get_mut(slot) {
            attached.busy = false;
        }
    }

    /// Every disk file that the machine may use.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let table = self.table();
        table
            .iter()
            .map(|(_, attached)| attached.path.clone())
            .collect()
    }

    /// Marks the disk in `slot` as on its way, and gives its path.
    fn take(&self, slot: Slot, what: &str) -> Result<PathBuf> {
        let mut table = self.table();
        match table.get_mut(slot) {
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("{what}: no disk is attached there"),
            )),
            Some(attached) if attached.busy => Err(Error::new(
                ErrorKind::WrongState,
                format!("{what}: it is being attached or detached"),
            )),
            Some(attached) => {
                attached.busy = true;
                Ok(attached.path.clone())
            }
        }
    }
}

/// The path as Hyper-V needs it: it knows no working folder of ours.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let fail = |error: io::Error| Error::path("use", path, error);
    std::path::absolute(path).map_err(fail)
}

pub(super) async fn attach(inner: &Arc<Inner>, disk: DiskSpec) -> Result<Slot> {
    inner.system()?;
    let (tell, told) = oneshot::channel();
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        let result = attach_now(&task, disk).await;
        if let Err(Ok(slot)) = tell.send(result) {
            let _ = detach_now(&task, slot).await;
        }
    });
    told.await.map_err(|_| inner.life.died())?
}

pub(super) async fn detach(inner: &Arc<Inner>, slot: Slot) -> Result<()> {
    inner.system()?;
    let (tell, told) = oneshot::channel();
    let task = Arc::clone(inner);
    tokio::spawn(async move {
        let _ = tell.send(detach_now(&task, slot).await);
    });
    told.await.map_err(|_| inner.life.died())?
}

async fn attach_now(inner: &Arc<Inner>, mut disk: DiskSpec) -> Result<Slot> {
    let what = format!("cannot attach disk {}", disk.path.display());
    disk.path = absolute(&disk.path)?;
    let slot = inner.disks.reserve(&disk)?;
    let request = document::attach(slot, &disk);
    let attached = match request {
        Ok(request) => add(inner, &what, disk.path.clone(), request.to_string()).await,
        Err(error) => Err(error),
    };
    inner.disks.settle(slot, attached.is_ok());
    attached.map(|()| slot)
}

async fn add(inner: &Arc<Inner>, what: &str, path: PathBuf, request: String) -> Result<()> {
    let (what, id, limit) = (what.to_owned(), inner.id.clone(), inner.host.limit);
    let library = inner.library()?;
    let work = move |system: &system::System| {
        // The account may have access by the folder's list although this one cannot be changed.
        let granted = system::access(&library, &id, &path, true);
        let modified = system.modify(&request, &what, limit);
        modified.map_err(|error| {
            let _ = system::access(&library, &id, &path, false);
            match granted {
                Err(denied) => Error::new(error.kind(), format!("{error}; {denied}")),
                Ok(()) => error,
            }
        })
    };
    inner.operate(work).await
}

async fn detach_now(inner: &Arc<Inner>, slot: Slot) -> Result<()> {
    let what = format!("cannot detach disk {slot}");
    let path = inner.disks.take(slot, &what)?;
    let request = document::detach(slot)?.to_string();
    let (id, limit) = (inner.id.clone(), inner.host.limit);
    let library = inner.library()?;
    let work = move |system: &system::System| {
        system.modify(&request, &what, limit)?;
        if let Err(error) = system::access(&library, &id, &path, false) {
            tracing::debug!(%error);
        }
        Ok(())
    };
    let detached = inner.operate(work).await;
    inner.disks.settle(slot, detached.is_err());
    detached
}
