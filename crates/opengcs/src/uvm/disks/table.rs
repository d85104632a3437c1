//! Which disks the VM has, and how far a change of each has got.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Attachment;
use crate::error::{Error, ErrorKind, Result};

/// The VM's disks by their files' real paths.
#[derive(Default)]
pub(in crate::uvm) struct Disks {
    table: Mutex<BTreeMap<PathBuf, Entry>>,
}

#[derive(Clone)]
struct Entry {
    /// The path by which the caller named it.
    named: PathBuf,
    /// Its path in the guest, where the caller chose one.
    place: Option<String>,
    state: EntryState,
}

#[derive(Clone)]
pub(super) enum EntryState {
    Adding,
    Attached(Attachment),
    /// Not mounted in the guest, and still attached; a removal goes on from here.
    Unmounted(Attachment),
    Removing(Attachment),
}

impl EntryState {
    /// What is known of the disk once it has a slot.
    pub(super) fn attachment(&self) -> Option<&Attachment> {
        match self {
            Self::Attached(attachment)
            | Self::Unmounted(attachment)
            | Self::Removing(attachment) => Some(attachment),
            Self::Adding => None,
        }
    }
}

impl Disks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reserve(&self, real: &Path, named: &Path, place: Option<&str>) -> Result<()> {
        let mut table = self.lock();
        let taken = |what: String| Err(Error::new(ErrorKind::AlreadyAttached, what));
        if let Some(entry) = table.get(real) {
            let named = named.display();
            return match entry.state {
                EntryState::Unmounted(_) => taken(format!(
                    "the disk {named} is attached to this VM and not mounted, after a change that \
                     failed: remove it first"
                )),
                _ => taken(format!("the disk {named} is attached to this VM already")),
            };
        }
        let same = |entry: &&Entry| place.is_some() && entry.place.as_deref() == place;
        if let (Some(other), Some(place)) = (table.values().find(same), place) {
            return taken(format!(
                "{place} in the VM is taken by the disk {}",
                other.named.display()
            ));
        }
        table.insert(
            real.to_owned(),
            Entry {
                named: named.to_owned(),
                place: place.map(str::to_owned),
                state: EntryState::Adding,
            },
        );
        Ok(())
    }

    pub(super) fn set(&self, real: &Path, state: EntryState) {
        if let Some(entry) = self.lock().get_mut(real) {
            entry.state = state;
        }
    }

    pub(super) fn forget(&self, real: &Path) {
        self.lock().remove(real);
    }

    /// Finds a disk by the path that was given: by its real path, or as it was named when the file
    /// has gone since.
    pub(super) fn find(&self, named: &Path) -> Option<(PathBuf, EntryState)> {
        let real = std::fs::canonicalize(named).ok();
        let table = self.lock();
        let by_key = real.as_deref().and_then(|real| table.get_key_value(real));
        by_key
            .or_else(|| {
                table
                    .iter()
                    .find(|(key, entry)| entry.named == named || key.as_path() == named)
            })
            .map(|(key, entry)| (key.clone(), entry.state.clone()))
    }

    /// Moves a disk on to its removal. Only one of several callers gets it.
    pub(super) fn begin_removal(&self, named: &Path) -> Result<(PathBuf, Attachment, bool)> {
        let Some((real, _)) = self.find(named) else {
            return Err(Error::new(
                ErrorKind::NotAttached,
                format!("the disk {} is not attached to this VM", named.display()),
            ));
        };
        let mut table = self.lock();
        let begun = match table.get_mut(&real).map(|entry| &mut entry.state) {
            Some(state @ (EntryState::Attached(_) | EntryState::Unmounted(_))) => {
                let mounted = matches!(state, EntryState::Attached(_));
                let attachment = state.attachment().cloned();
                if let Some(attachment) = &attachment {
                    *state = EntryState::Removing(attachment.clone());
                }
                attachment.map(|attachment| (real, attachment, mounted))
            }
            _ => None,
        };
        begun.ok_or_else(|| {
            Error::new(
                ErrorKind::Locked,
                format!("the disk {} is being added or removed", named.display()),
            )
        })
    }

    /// Every disk that has a slot, in the order of the slots.
    pub(super) fn all(&self) -> Vec<Attachment> {
        let table = self.lock();
        let mut all: Vec<_> = table
            .values()
            .filter_map(|entry| entry.state.attachment().cloned())
            .collect();
        all.sort_by_key(|disk| (disk.controller, disk.lun));
        all
    }
}
