//! Looks over the shoulder of an unpacking, for a plan: what is the matter with each entry, and how much
//! there is.
//!
//! With notes, an entry that would end the conversion is passed over, so that what else is the matter is
//! found too; the first such error is what the conversion will say.

use std::collections::HashMap;

use opengcs_ext4::{NodeId, Writer};
use positioned_io::{ReadAt, WriteAt};

use super::whiteouts::is_opaque;
use super::{Unpacked, Unpacker};
use crate::decompress::Compression;
use crate::error::{Name, from_ext4};
use crate::path::components;
use crate::problem::{Problem, ProblemKind, Problems, kind_of};
use crate::tar::{Entry, EntryKind};
use crate::{Error, ErrorKind, Result};

/// The longest value of an attribute that Linux takes.
const VALUE_MAX: usize = 64 << 10;

/// What was noted of a tar.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) problems: Problems,
    /// The first error that would have ended the conversion.
    refusal: Option<Error>,
    /// How the tar came, once that is known.
    pub(crate) compression: Option<Compression>,
    /// What there was, as far as the tar was read.
    pub(crate) unpacked: Unpacked,
    /// Whether it was read to its end.
    pub(crate) is_whole: bool,
    pub(crate) largest: Option<(Vec<u8>, u64)>,
    /// Entries with extended attributes, and bytes of their names and values.
    pub(crate) with_attributes: u64,
    pub(crate) attribute_bytes: u64,
    /// The entry that is being looked at.
    path: Vec<u8>,
    offset: u64,
    oversized: bool,
    has_root: bool,
    /// Directories that no entry of their own has brought yet, and where that is told.
    implied: HashMap<NodeId, Option<usize>>,
    /// The target of the hard link that is being looked at, when it is not there.
    pub(super) absent: Option<Vec<u8>>,
    /// Hard links whose targets were not there, and the targets.
    links: Vec<(usize, Vec<u8>)>,
    /// Whiteouts, and the directories they lie in.
    whiteouts: HashMap<NodeId, NodeId>,
}

impl Notes {
    /// Looks at an entry before anything is done with it.
    pub(super) fn look(&mut self, entry: &Entry) {
        self.path.clone_from(&entry.path);
        self.offset = entry.offset;
        if entry.kind == EntryKind::File
            && self
                .largest
                .as_ref()
                .is_none_or(|(_, size)| *size < entry.size)
        {
            self.largest = Some((entry.path.clone(), entry.size));
        }
        let sizes = entry.xattrs.iter();
        let bytes: usize = sizes
            .map(|xattr| xattr.name.len() + xattr.value.len())
            .sum();
        self.with_attributes += u64::from(bytes > 0);
        self.attribute_bytes += bytes as u64;
        self.oversized = entry
            .xattrs
            .iter()
            .any(|xattr| xattr.value.len() > VALUE_MAX);
    }

    /// Looks at an entry's path once it was taken.
    pub(super) fn taken(&mut self, entry: &Entry) {
        let mut names = entry.path.split(|byte| *byte == b'/');
        if entry.path.starts_with(b"/") {
            self.add(ProblemKind::RewrittenPath, "its path is absolute");
        } else if names.any(|name| name == b"..") {
            self.add(ProblemKind::RewrittenPath, "its path goes back with \"..\"");
        }
    }

    /// Notes something about the entry that is being looked at.
    pub(super) fn add(&mut self, kind: ProblemKind, what: impl Into<String>) -> Option<usize> {
        let path = self.path.clone();
        self.add_at(kind, path, what)
    }

    fn add_at(
        &mut self,
        kind: ProblemKind,
        path: Vec<u8>,
        what: impl Into<String>,
    ) -> Option<usize> {
        self.problems.push(Problem {
            kind,
            path,
            offset: Some(self.offset),
            what: what.into(),
        })
    }

    /// Takes an error that would have ended the conversion.
    fn refuse(&mut self, error: Error, is_input: bool) {
        // What ext4 says of an attribute is not told apart from what else it refuses.
        let kind = match kind_of(&error) {
            ProblemKind::Damaged if !is_input => ProblemKind::Refused,
            ProblemKind::Refused if self.oversized && !is_input => ProblemKind::OversizedAttribute,
            kind => kind,
        };
        let place = self.problems.push(Problem {
            kind,
            path: error.entry().unwrap_or_default().to_vec(),
            offset: error.offset(),
            what: error.message().to_owned(),
        });
        if let (Some(target), Some(place)) = (self.absent.take(), place) {
            self.links.push((place, target));
        }
        self.refusal.get_or_insert(error);
    }

    /// A directory was made for what lies in it.
    pub(super) fn implied(&mut self, node: NodeId, path: Vec<u8>) {
        let place = self.add_at(
            ProblemKind::MissingParent,
            path,
            "it has no entry of its own before what lies in it",
        );
        self.implied.insert(node, place);
    }

    /// An entry came for a directory that is there.
    pub(super) fn repeated(&mut self, node: NodeId) {
        match self.implied.remove(&node) {
            Some(place) => {
                self.problems
                    .change(ProblemKind::MissingParent, place, ProblemKind::LateParent);
            }
            None => {
                self.add(ProblemKind::RepeatedDirectory, "the tar has it before");
            }
        }
    }

    /// The root's own entry came.
    pub(super) fn root(&mut self) {
        if std::mem::replace(&mut self.has_root, true) {
            self.add(ProblemKind::RepeatedDirectory, "the tar has it before");
        }
    }

    pub(super) fn whiteout(&mut self, node: NodeId, directory: NodeId) {
        self.whiteouts.insert(node, directory);
    }
}

impl<W: ReadAt + WriteAt> Unpacker<'_, W> {
    /// Notes something about the entry that is being unpacked.
    pub(super) fn note(&mut self, kind: ProblemKind, what: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.add(kind, what());
        }
    }

    /// What becomes of an error: it ends the unpacking, unless there are notes to take it. Gives whether
    /// to go on.
    pub(super) fn refuse(&mut self, error: Error, is_input: bool) -> Result<bool> {
        let Some(notes) = &mut self.notes else {
            return Err(error);
        };
        if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Io) {
            return Err(error);
        }
        let ends = is_input || error.kind() == ErrorKind::NoSpace;
        notes.refuse(error, is_input);
        Ok(!ends)
    }

    /// Notes what only the whole tar tells, and gives back the error that would have ended it before.
    pub(super) fn finish_notes(
        &mut self,
        unpacked: &Unpacked,
        is_whole: bool,
        labels: u64,
    ) -> Result<()> {
        let Some(notes) = self.notes.take() else {
            return Ok(());
        };
        notes.unpacked = unpacked.clone();
        notes.is_whole = is_whole;
        if labels > 0 {
            notes.problems.push(Problem {
                kind: ProblemKind::VolumeLabel,
                path: Vec::new(),
                offset: None,
                what: "it has a volume's label, which is no file".into(),
            });
        }
        notes
            .problems
            .count(ProblemKind::VolumeLabel, labels.saturating_sub(1));
        for (place, target) in std::mem::take(&mut notes.links) {
            let comes = find(self.writer, &target, self.options.backslash);
            let shown = Name(&target);
            notes.problems.word(
                place,
                if comes {
                    format!("it is a hard link to {shown}, which comes later in the tar")
                } else {
                    format!("it is a hard link to {shown}, which is not in the tar")
                },
            );
        }
        let mut opaque = HashMap::new();
        let mut whiteouts: Vec<_> = std::mem::take(&mut notes.whiteouts).into_iter().collect();
        whiteouts.sort_unstable();
        for (node, directory) in whiteouts {
            // Those that an entry has replaced, or that went with their directory, are none any more.
            if self.whiteouts.contains(&node)
                && self.writer.parent(directory).is_some()
                && below_opaque(self.writer, directory, &mut opaque)?
            {
                let kind = ProblemKind::NeedlessWhiteout;
                if !notes.problems.has_room(kind) {
                    notes.problems.count(kind, 1);
                    continue;
                }
                notes.problems.push(Problem {
                    kind,
                    path: path_of(self.writer, node, directory),
                    offset: None,
                    what: "a whiteout in a directory that hides all below it by itself".into(),
                });
            }
        }
        match notes.refusal.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Whether a path leads to something in the tree.
fn find<W: WriteAt>(writer: &Writer<W>, path: &[u8], backslash: bool) -> bool {
    let Ok(names) = components(path, backslash) else {
        return false;
    };
    let mut names = names.into_iter();
    names
        .try_fold(writer.root(), |node, name| writer.lookup(node, name))
        .is_some()
}

fn below_opaque<W: ReadAt + WriteAt>(
    writer: &Writer<W>,
    directory: NodeId,
    known: &mut HashMap<NodeId, bool>,
) -> Result<bool> {
    let mut seen = Vec::new();
    let mut node = directory;
    let found = loop {
        if let Some(found) = known.get(&node) {
            break *found;
        }
        seen.push(node);
        if writer
            .xattrs(node)
            .map_err(from_ext4)?
            .iter()
            .any(is_opaque)
        {
            break true;
        }
        match writer.parent(node) {
            Some(parent) if parent != node => node = parent,
            _ => break false,
        }
    };
    known.extend(seen.into_iter().map(|node| (node, found)));
    Ok(found)
}

fn path_of<W: WriteAt>(writer: &Writer<W>, node: NodeId, directory: NodeId) -> Vec<u8> {
    let mut names = Vec::new();
    let (mut node, mut directory) = (node, directory);
    loop {
        let found = writer.children(directory).find(|(_, child)| *child == node);
        names.push(found.map_or(&b""[..], |(name, _)| name));
        if directory == writer.root() {
            break;
        }
        node = directory;
        directory = writer.parent(directory).unwrap_or(writer.root());
    }
    names.reverse();
    names.join(&b'/')
}
