//! Decides which folder an entry goes into: made where it is missing, cleared of what has the entry's name.

use opengcs_ext4::{FileType, NodeId, Timestamp};
use positioned_io::{ReadAt, WriteAt};

use super::attributes::{implied, type_name};
use super::whiteouts::is_opaque;
use super::{LOST_FOUND, TarWhiteouts, Unpacker};
use crate::error::{Name, from_writer};
use crate::problem::ProblemKind;
use crate::tar::Entry;
use crate::{Error, Result};

/// How many folders without entries are made, and how many more for each entry: real tars lack a few
/// at most, and each costs memory and a block that a short path asks for.
const IMPLIED_BASE: u64 = 16 << 10;
const IMPLIED_EACH: u64 = 8;

impl<W: ReadAt + WriteAt> Unpacker<'_, W> {
    /// The folder that `names` lead to, made where it is missing.
    pub(super) fn parent(&mut self, names: &[&[u8]], time: Timestamp) -> Result<NodeId> {
        let path = names.join(&b'/');
        if let Some((last, node)) = &self.last_parent
            && *last == path
        {
            return Ok(*node);
        }
        let mut node = self.writer.root();
        for (depth, name) in names.iter().enumerate() {
            let path = || names.get(..=depth).unwrap_or(names).join(&b'/');
            node = match self.writer.lookup(node, name) {
                Some(child) if self.writer.file_type(child) == FileType::Directory => child,
                Some(child) if self.whiteouts.contains(&child) => {
                    self.make_room(node, name)?;
                    self.imply(node, name, path, time)?
                }
                Some(child) => {
                    return Err(Error::corrupt(format!(
                        "it lies below {}, which is {} and no directory",
                        Name(&path()),
                        type_name(self.writer.file_type(child)),
                    ))
                    .with_problem(ProblemKind::BelowNoDirectory));
                }
                None => self.imply(node, name, path, time)?,
            };
        }
        if names.first() == Some(&LOST_FOUND) {
            self.lost_found = None;
        }
        self.last_parent = Some((path, node));
        Ok(node)
    }

    /// Makes a folder that no entry of its own has brought yet.
    fn imply(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: impl Fn() -> Vec<u8>,
        time: Timestamp,
    ) -> Result<NodeId> {
        self.implied += 1;
        if self.implied > IMPLIED_BASE + IMPLIED_EACH * self.entries {
            return Err(Error::unsupported(format!(
                "the tar lacks the entries of {} directories, more than are made for its {} entries",
                self.implied, self.entries
            )));
        }
        let made = self
            .writer
            .create_directory(parent, name, implied(time))
            .map_err(from_writer)?;
        if let Some(notes) = &mut self.notes {
            notes.implied(made, path());
        }
        if self.hides(parent, name) {
            self.make_opaque(made)?;
        }
        Ok(made)
    }

    /// Removes what has the name.
    pub(super) fn make_room(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        if let Some(node) = self.writer.lookup(parent, name) {
            let is_own = self.lost_found == Some(node);
            self.lost_found = self.lost_found.filter(|_| !is_own);
            let was_whiteout = self.whiteouts.contains(&node);
            // The nodes of overlayfs's own whiteouts have several names.
            if self.writer.links(node) <= 1 {
                self.whiteouts.remove(&node);
            }
            let mut hides = was_whiteout;
            let file_type = self.writer.file_type(node);
            if was_whiteout {
                self.note(ProblemKind::WhiteoutBesideEntry, || {
                    "the tar has a whiteout of this name before".into()
                });
            } else if !is_own {
                self.note(ProblemKind::Replaced, || {
                    format!("the tar has {} of this name before", type_name(file_type))
                });
            }
            if file_type == FileType::Directory {
                self.last_parent = None;
                hides |= self.xattrs(node)?.iter().any(is_opaque);
            }
            if hides && self.options.whiteouts == TarWhiteouts::Overlay {
                self.hidden.insert((parent, name.into()));
            }
            self.writer.remove(parent, name).map_err(from_writer)?;
        }
        Ok(())
    }

    pub(super) fn directory(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        let parent = self.parent(parents, entry.mtime)?;
        let existing = self.writer.lookup(parent, name);
        if let Some(node) = existing
            && self.writer.file_type(node) == FileType::Directory
        {
            if let Some(notes) = &mut self.notes
                && self.lost_found != Some(node)
            {
                notes.repeated(node);
            }
            return self.update(node, entry);
        }
        if existing.is_some() {
            self.make_room(parent, name)?;
        }
        let metadata = self.metadata(entry);
        let node = self
            .writer
            .create_directory(parent, name, metadata)
            .map_err(from_writer)?;
        if self.hides(parent, name) {
            self.make_opaque(node)?;
        }
        Ok(())
    }

    /// Gives a folder that is there already the entry's metadata; opaque it stays.
    pub(super) fn update(&mut self, node: NodeId, entry: &Entry) -> Result<()> {
        self.lost_found = self.lost_found.filter(|own| *own != node);
        let mut metadata = self.metadata(entry);
        if self.options.whiteouts == TarWhiteouts::Overlay && !metadata.xattrs.iter().any(is_opaque)
        {
            let kept = self.xattrs(node)?.into_iter().find(is_opaque);
            metadata.xattrs.extend(kept);
        }
        self.writer
            .set_metadata(node, &metadata)
            .map_err(from_writer)
    }
}
