//! Decides what an entry that is no folder becomes: a file, a link, a device.

use std::io::BufRead;

use opengcs_ext4::{FileType, NodeId};
use positioned_io::{ReadAt, WriteAt};

use super::{Step, TarWhiteouts, Unpacker};
use crate::error::{Name, from_writer};
use crate::path::components;
use crate::problem::ProblemKind;
use crate::tar::{Chunk, Decoder, Entry, EntryKind};
use crate::whiteout;
use crate::{Error, Result};

impl<W: ReadAt + WriteAt> Unpacker<'_, W> {
    pub(super) fn hard_link(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        let shown = Name(&entry.link);
        let target = components(&entry.link, self.options.backslash).map_err(|error| {
            Error::new(error.kind(), format!("hard link target {shown}: {error}"))
        })?;
        let mut node = self.writer.root();
        for name in &target {
            // Leaves have no children, so links are not followed here either.
            node = (self.writer.file_type(node) == FileType::Directory)
                .then(|| self.writer.lookup(node, name))
                .flatten()
                .filter(|node| !self.made_whiteouts.contains(node))
                .ok_or_else(|| {
                    if let Some(notes) = &mut self.notes {
                        notes.absent = Some(entry.link.clone());
                    }
                    Error::corrupt(format!(
                        "it is a hard link to {shown}, which is not in the tar before it"
                    ))
                    .with_problem(ProblemKind::LateHardLink)
                })?;
        }
        if self.writer.file_type(node) == FileType::Directory {
            return Err(Error::corrupt(format!(
                "it is a hard link to {shown}, which is a directory"
            ))
            .with_problem(ProblemKind::Refused));
        }
        if target.starts_with(parents) && target.get(parents.len()) == Some(&name) {
            if target.len() == parents.len() + 1 {
                self.note(ProblemKind::RepeatedHardLink, || {
                    "it is a hard link to itself".into()
                });
                return Ok(());
            }
            return Err(Error::corrupt(format!(
                "it is a hard link to {shown}, which it would replace"
            ))
            .with_problem(ProblemKind::Refused));
        }
        let parent = self.parent(parents, entry.mtime)?;
        if self.writer.lookup(parent, name) == Some(node) {
            self.note(ProblemKind::RepeatedHardLink, || {
                "the tar has this hard link before".into()
            });
            return Ok(());
        }
        self.make_room(parent, name)?;
        self.writer.link(node, parent, name).map_err(from_writer)
    }

    pub(super) fn leaf<R: BufRead>(
        &mut self,
        parent: NodeId,
        name: &[u8],
        entry: &Entry,
        decoder: &mut Decoder<R>,
        step: Step<'_>,
    ) -> Result<()> {
        let metadata = self.metadata(entry);
        let file_type = match entry.kind {
            EntryKind::File => {
                let mut file = self
                    .writer
                    .create_file(parent, name, metadata)
                    .map_err(from_writer)?;
                let mut done = decoder.position();
                let failed = &mut self.input_failed;
                while let Some(chunk) = decoder.next_chunk().inspect_err(|_| *failed = true)? {
                    match chunk {
                        Chunk::Data(data) => {
                            done += data.len() as u64;
                            file.write(data).map_err(from_writer)?;
                        }
                        Chunk::Hole(length) => file.skip(length).map_err(from_writer)?,
                    }
                    step(done)?;
                }
                return file.finish().map(drop).map_err(from_writer);
            }
            EntryKind::Symlink => {
                if entry.link.is_empty() {
                    return Err(Error::corrupt("it is a symbolic link without a target")
                        .with_problem(ProblemKind::Refused));
                }
                return self
                    .writer
                    .create_symlink(parent, name, &entry.link, metadata)
                    .map(drop)
                    .map_err(from_writer);
            }
            EntryKind::CharDevice => FileType::CharDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            EntryKind::Fifo => FileType::Fifo,
            EntryKind::Directory | EntryKind::HardLink => return Ok(()),
        };
        if entry.device.major >= 1 << 12 || entry.device.minor >= 1 << 20 {
            return Err(Error::unsupported(format!(
                "device {}:{} does not fit into 12 and 20 bits",
                entry.device.major, entry.device.minor
            ))
            .with_problem(ProblemKind::DeviceNumber));
        }
        let node = self
            .writer
            .create_special(parent, name, file_type, entry.device, metadata)
            .map_err(from_writer)?;
        if self.options.whiteouts == TarWhiteouts::Overlay
            && whiteout::is_whiteout(file_type, entry.device)
        {
            self.whiteouts.insert(node);
            if let Some(notes) = &mut self.notes {
                notes.whiteout(node, parent);
            }
        }
        Ok(())
    }
}
