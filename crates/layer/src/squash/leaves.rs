//! Copies what is no directory from a layer into the image: once, however many names it has.

use opengcs_ext4::{FileType, NodeId};
use positioned_io::{ReadAt, WriteAt};

use super::merge::{Linked, Merger, Place};
use crate::control::Progress;
use crate::error::from_ext4;
use crate::export::{Facts, Source};
use crate::{Error, ErrorKind, Result};

/// How much of a file is copied at once.
pub(super) const BUFFER: usize = 128 << 10;

impl<W: ReadAt + WriteAt> Merger<'_, W> {
    /// Writes a node that is no directory.
    pub(super) fn leaf(
        &mut self,
        parent: NodeId,
        name: &[u8],
        place: &Place,
        facts: Facts,
    ) -> Result<()> {
        let identity = (place.layer, facts.identity.1);
        if let Some(linked) = self.links.get_mut(&identity) {
            let node = linked.node;
            linked.left = linked.left.saturating_sub(1);
            if linked.left == 0 {
                self.links.remove(&identity);
            }
            let done = self.writer.link(node, parent, name);
            return done.map_err(|error| self.full(error));
        }
        let links = facts.links;
        let node = match facts.file_type {
            FileType::File => self.file(parent, name, place, facts)?,
            FileType::Symlink => {
                let target = self
                    .source(place.layer)
                    .link_target(&place.node)
                    .map_err(|error| self.at(place.layer, error))?;
                self.writer
                    .create_symlink(parent, name, &target, facts.metadata)
                    .map_err(|error| self.full(error))?
            }
            other => self
                .writer
                .create_special(parent, name, other, facts.device, facts.metadata)
                .map_err(|error| self.full(error))?,
        };
        if links > 1 {
            // Names that are hidden never come, and what is kept for them is little.
            let left = links - 1;
            self.links.insert(identity, Linked { node, left });
        }
        Ok(())
    }

    fn file(&mut self, parent: NodeId, name: &[u8], place: &Place, facts: Facts) -> Result<NodeId> {
        let Self {
            layers,
            writer,
            output,
            path,
            done,
            meter,
            buffer,
            ..
        } = self;
        let layer = &layers[place.layer];
        let of_layer = |error: Error| error.with_path(&layer.path).with_node(path);
        let of_image = |error: opengcs_ext4::Error| {
            let error = from_ext4(error).with_path(output);
            match error.kind() {
                ErrorKind::NoSpace | ErrorKind::Io => error,
                _ => error.with_node(path),
            }
        };
        let mut file = writer
            .create_file(parent, name, facts.metadata)
            .map_err(of_image)?;
        let runs = layer
            .source
            .runs(&place.node, facts.size)
            .map_err(of_layer)?;
        for run in runs {
            let run = run.map_err(of_layer)?;
            let hole = run.offset.saturating_sub(file.position());
            file.skip(hole).map_err(of_image)?;
            let end = run.offset.saturating_add(run.length);
            let mut at = run.offset;
            while at < end {
                let length = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
                let piece = &mut buffer[..length];
                let read = layer
                    .source
                    .read(&place.node, at, piece)
                    .map_err(of_layer)?;
                file.write(&piece[..read]).map_err(of_image)?;
                at += read as u64;
                done.bytes += read as u64;
                meter.step(Progress {
                    entries: done.entries,
                    bytes: done.bytes,
                })?;
            }
        }
        let rest = facts.size.saturating_sub(file.position());
        file.skip(rest).map_err(of_image)?;
        file.finish().map_err(of_image)
    }
}
