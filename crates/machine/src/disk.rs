//! Decides which slot a disk takes, and what a disk's description is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::config::LUNS_PER_CONTROLLER;

/// The format of a disk file, as the caller has recognised it by content. Formats are never probed: a raw
/// disk is the guest's to write and could pretend to be any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskFormat {
    /// The bytes of the disk and nothing else.
    Raw,
    /// The bytes of the disk and a footer of 512 bytes.
    FixedVhd,
    /// A dynamic VHD. QEMU takes the size from the geometry unless the creator is one that it knows, so the
    /// guest may see a size rounded to a cylinder.
    DynamicVhd,
    /// A VHDX.
    Vhdx,
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::FixedVhd => "vhd",
            Self::DynamicVhd => "dynamic vhd",
            Self::Vhdx => "vhdx",
        })
    }
}

/// A disk to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The disk file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Whether the machine refuses writes to it.
    pub read_only: bool,
    /// The guest-visible size in bytes, for raw and fixed VHD; `None` takes it from the file's length.
    pub size: Option<u64>,
}

impl DiskSpec {
    /// A disk file in `format`.
    pub fn new(path: impl Into<PathBuf>, format: DiskFormat, read_only: bool) -> Self {
        Self {
            path: path.into(),
            format,
            read_only,
            size: None,
        }
    }
}

/// A disk's place: the SCSI controller and the LUN on it. The guest finds the disk by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The controller, from 0.
    pub controller: u8,
    /// The logical unit on it, 0–63.
    pub lun: u8,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.controller, self.lun)
    }
}

/// Which slots are taken, and by what.
#[derive(Debug)]
pub(crate) struct SlotTable<T> {
    controllers: u8,
    taken: BTreeMap<Slot, T>,
}

impl<T> SlotTable<T> {
    pub(crate) fn new(controllers: u8) -> Self {
        Self {
            controllers,
            taken: BTreeMap::new(),
        }
    }

    /// The lowest free slot, controller by controller.
    pub(crate) fn free(&self) -> Option<Slot> {
        (0..self.controllers)
            .flat_map(|controller| {
                (0..LUNS_PER_CONTROLLER).map(move |lun| Slot { controller, lun })
            })
            .find(|slot| !self.taken.contains_key(slot))
    }

    pub(crate) fn capacity(&self) -> usize {
        usize::from(self.controllers) * usize::from(LUNS_PER_CONTROLLER)
    }

    pub(crate) fn insert(&mut self, slot: Slot, entry: T) {
        self.taken.insert(slot, entry);
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.taken.get_mut(&slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        self.taken.remove(&slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.taken.iter().map(|(slot, entry)| (*slot, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fill_controller_by_controller_lowest_first() {
        let mut table = SlotTable::new(2);
        for n in 0..128_u8 {
            let slot = table.free().unwrap();
            assert_eq!((slot.controller, slot.lun), (n / 64, n % 64));
            table.insert(slot, n);
        }
        assert_eq!(table.free(), None);
        let hole = Slot {
            controller: 0,
            lun: 7,
        };
        assert_eq!(table.remove(hole), Some(7));
        assert_eq!(table.free(), Some(hole));
    }
}
