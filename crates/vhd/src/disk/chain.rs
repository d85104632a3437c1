//! Chains of differencing disks: each is opened for reading with its parent, which must be the one it names.

use super::{Access, Disk, Inner, ParentSummary};
use crate::{Error, Result, Storage};

/// No chain may be longer.
const MAX_DEPTH: usize = 64;

impl<S: Storage> Disk<S> {
    /// Opens a disk file for reading with its parents, if it has any.
    ///
    /// `find` gives the storage of the parent that a disk names; which of its
    /// paths to trust is the caller's to decide.
    ///
    /// ```
    /// use opengcs_vhd::testing::{Child, MemoryFile};
    /// use opengcs_vhd::{Disk, DiskOptions, Format, Guid};
    /// use positioned_io::{ReadAt, WriteAt};
    /// let id = Guid::from_u128(1);
    /// let options = DiskOptions::new(Format::FixedVhd, Some(1 << 20), id);
    /// let mut base = Disk::create(MemoryFile::new(), &options)?;
    /// base.write_all_at(0, &[1; 1024])?;
    /// let base = base.finish()?;
    /// let child = Child {
    ///     size: 1 << 20,
    ///     id: Guid::from_u128(2),
    ///     parent: id,
    ///     paths: &[("W2ru", r".\base.vhd")],
    ///     block_size: 1 << 20,
    ///     sectors: [(1, [2; 512])].into(),
    /// };
    /// let disk = Disk::open_chain(child.vhd(), |parent| {
    ///     assert_eq!(parent.paths, [r".\base.vhd"]);
    ///     Ok(base.clone())
    /// })?;
    /// let mut bytes = [0; 1024];
    /// disk.read_exact_at(0, &mut bytes)?;
    /// assert_eq!((bytes[511], bytes[512]), (1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Disk::open`], and those of `find`;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when a parent is not the one that
    /// its child was made from, or the chain is longer than 64 disks.
    pub fn open_chain(
        storage: S,
        mut find: impl FnMut(&ParentSummary) -> std::io::Result<S>,
    ) -> Result<Self> {
        let mut chain = vec![Self::open_alone(storage, Access::ReadOnly)?];
        while let Some(child) = chain.last() {
            let Some(parent) = child.summary()?.parent else {
                break;
            };
            if chain.len() >= MAX_DEPTH {
                return Err(Error::corrupt("the chain of parents is too long"));
            }
            let found = find(&parent)
                .map_err(|error| Error::io("cannot open the parent disk", 0, error))?;
            let found = Self::open_alone(found, Access::ReadOnly)?;
            // A VHDX has a VHDX as its parent, a VHD a VHD.
            let same = match (&child.inner, &found.inner) {
                (Inner::Vhdx(_), Inner::Vhdx(_))
                | (Inner::Dynamic(_), Inner::Dynamic(_) | Inner::Flat { .. }) => {
                    parent.is(&found.summary()?)
                }
                _ => false,
            };
            if !same {
                return Err(Error::corrupt(format!(
                    "the parent disk {parent} is not the one its child was made from"
                )));
            }
            chain.push(found);
        }
        let mut disk = None;
        while let Some(mut next) = chain.pop() {
            next.parent = disk.map(Box::new);
            disk = Some(next);
        }
        disk.ok_or_else(|| Error::invalid("no disk"))
    }
}
