//! Decides what a whiteout of the tar becomes, and what it hides whatever has its name later.

use opengcs_ext4::{Device, FileType, Metadata, NodeId, Timestamp, Xattr};
use positioned_io::{ReadAt, WriteAt};

use super::Unpacker;
use super::attributes::implied;
use crate::Result;
use crate::error::from_writer;
use crate::problem::ProblemKind;
use crate::whiteout;

pub(super) fn is_opaque(xattr: &Xattr) -> bool {
    xattr.name == whiteout::OPAQUE_XATTR
}

impl<W: ReadAt + WriteAt> Unpacker<'_, W> {
    /// Whether what lies below a name in the layers below is hidden.
    pub(super) fn hides(&self, parent: NodeId, name: &[u8]) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(&(parent, name.into()))
    }

    pub(super) fn make_opaque(&mut self, directory: NodeId) -> Result<()> {
        self.writer
            .set_xattr(directory, whiteout::OPAQUE_XATTR, b"y")
            .map_err(from_writer)
    }

    pub(super) fn hide(&mut self, parent: NodeId, hidden: &[u8], time: Timestamp) -> Result<()> {
        // What the tar did not bring is not what it keeps.
        if self.lost_found.is_some() && self.writer.lookup(parent, hidden) == self.lost_found {
            self.lost_found = None;
            self.writer.remove(parent, hidden).map_err(from_writer)?;
        }
        let there = self.writer.lookup(parent, hidden);
        if there.is_some_and(|node| !self.whiteouts.contains(&node)) {
            self.note(ProblemKind::WhiteoutBesideEntry, || {
                "the tar has what this whiteout hides, before it".into()
            });
        }
        match there {
            Some(node) if self.writer.file_type(node) == FileType::Directory => {
                self.make_opaque(node)
            }
            // What this tar brings hides the name below by itself, until a folder takes its place.
            Some(_) => {
                self.hidden.insert((parent, hidden.into()));
                Ok(())
            }
            None => {
                let metadata = Metadata {
                    mode: 0,
                    ..implied(time)
                };
                let device = Device { major: 0, minor: 0 };
                let node = self
                    .writer
                    .create_special(parent, hidden, FileType::CharDevice, device, metadata)
                    .map_err(from_writer)?;
                self.whiteouts.insert(node);
                self.made_whiteouts.insert(node);
                if let Some(notes) = &mut self.notes {
                    notes.whiteout(node, parent);
                }
                Ok(())
            }
        }
    }
}
