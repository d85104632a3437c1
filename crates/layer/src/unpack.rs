//! Decides what each tar entry does to the tree of an ext4 image.
//!
//! - Nothing is followed: a symbolic link is a leaf. An entry below a name that
//!   is no folder is an error.
//! - Missing folders are made, mode 0755, owned by root, with the entry's time.
//! - An entry replaces what has its name, whole trees too; only a folder keeps
//!   the children of the folder it replaces, and takes its own metadata.
//! - A hard link joins the node that its target's name has at that moment, also
//!   a symbolic link or a device; its own metadata is not looked at.
//! - A whiteout is about the layers below: it never removes what this tar
//!   brings, in whichever order. A folder with a whiteout of its own name becomes
//!   opaque.
//! - The root's own entry (`./`) sets the root's metadata.

mod attributes;
mod folders;
mod leaves;
mod notes;
mod whiteouts;

use std::collections::HashSet;
use std::io::BufRead;

use opengcs_ext4::{Metadata, NodeId, Writer, Xattr};
use positioned_io::{ReadAt, WriteAt};

use attributes::{Attributes, metadata};
pub(crate) use notes::Notes;

use crate::control::{Control, Meter, Progress};
use crate::error::from_writer;
use crate::path::components;
use crate::problem::ProblemKind;
use crate::tar::{Decoder, Entry, EntryKind};
use crate::warning::Warnings;
use crate::whiteout::{self, Marker};
use crate::{Error, ErrorKind, Result};

/// What becomes of whiteouts in a tar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TarWhiteouts {
    /// `.wh.` names become overlayfs's form: devices 0:0 and opaque folders.
    #[default]
    Overlay,
    /// `.wh.` names are files like others.
    Keep,
}

/// How names in a tar are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnpackOptions {
    pub(crate) whiteouts: TarWhiteouts,
    pub(crate) backslash: bool,
    /// How much is read behind the tar's end mark.
    pub(crate) trailing: Option<u64>,
}

/// What was unpacked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    pub(crate) tar_bytes: u64,
    pub(crate) warnings: Warnings,
}

/// Unpacks a whole tar into `writer`. With `notes` all that is the matter with it is noted, and the first
/// error given back at the end.
pub(crate) fn unpack<R: BufRead, W: ReadAt + WriteAt>(
    input: R,
    writer: &mut Writer<W>,
    options: UnpackOptions,
    control: &Control,
    notes: Option<&mut Notes>,
) -> Result<Unpacked> {
    let mut decoder = Decoder::new(input);
    let mut unpacker = Unpacker {
        writer,
        options,
        whiteouts: HashSet::new(),
        made_whiteouts: HashSet::new(),
        hidden: HashSet::new(),
        xattrs: Vec::new(),
        lost_found: None,
        implied: 0,
        entries: 0,
        last_parent: None,
        input_failed: false,
        notes,
        warnings: Warnings::default(),
    };
    unpacker.lost_found = unpacker.writer.lookup(unpacker.writer.root(), LOST_FOUND);
    let mut meter = Meter::new(control);
    let mut entries = 0;
    control.check()?;
    let mut attributes = Attributes::default();
    let mut is_whole = true;
    loop {
        let mut entry = match decoder.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => {
                unpacker.refuse(error, true)?;
                is_whole = false;
                break;
            }
        };
        if let Some(notes) = &mut unpacker.notes {
            notes.look(&entry);
        }
        let taken = attributes.take(&mut entry, decoder.position(), &mut unpacker.warnings);
        unpacker.input_failed = taken.is_err();
        unpacker.xattrs = std::mem::take(&mut entry.xattrs);
        let applied = taken.and_then(|()| {
            unpacker.apply(&entry, &mut decoder, &mut |bytes| {
                meter.step(Progress { entries, bytes })
            })
        });
        match (applied, &mut unpacker.notes) {
            (Ok(()), Some(notes)) => notes.taken(&entry),
            (Ok(()), None) => {}
            (Err(error), _) => {
                let error = match error.kind() {
                    ErrorKind::Cancelled => error,
                    _ => error.with_entry(&entry.path, entry.offset),
                };
                let is_input = unpacker.input_failed;
                if !unpacker.refuse(error, is_input)? {
                    is_whole = false;
                    break;
                }
            }
        }
        entries += 1;
        unpacker.entries = entries;
        let bytes = decoder.position();
        meter.step(Progress { entries, bytes })?;
    }
    if is_whole && let Err(error) = decoder.drain(options.trailing) {
        unpacker.refuse(error, true)?;
        is_whole = false;
    }
    let tar_bytes = decoder.position();
    meter.tell(Progress {
        entries,
        bytes: tar_bytes,
    })?;
    let mut warnings = decoder.warnings;
    warnings.append(std::mem::take(&mut unpacker.warnings));
    let unpacked = Unpacked {
        entries,
        tar_bytes,
        warnings,
    };
    unpacker.finish_notes(&unpacked, is_whole, decoder.labels)?;
    Ok(unpacked)
}

struct Unpacker<'w, W: ReadAt + WriteAt> {
    writer: &'w mut Writer<W>,
    options: UnpackOptions,
    /// The nodes that are whiteouts.
    whiteouts: HashSet<NodeId>,
    /// Those of them that `.wh.` names have become: the tar has no entry for them.
    made_whiteouts: HashSet<NodeId>,
    /// Names under which this tar hides what lies in the layers below, whatever has them now.
    hidden: HashSet<(NodeId, Box<[u8]>)>,
    /// Our own `lost+found`, as long as the tar does not know it.
    lost_found: Option<NodeId>,
    /// The attributes of the entry that is being applied, until its node takes them.
    xattrs: Vec<Xattr>,
    /// Folders that were made because entries lie in them, and not for an entry of their own.
    implied: u64,
    entries: u64,
    /// The folder that the last entry lay in, which most often is the next one's too.
    last_parent: Option<(Vec<u8>, NodeId)>,
    /// Whether the entry's content could not be read: there is no next entry then.
    input_failed: bool,
    notes: Option<&'w mut Notes>,
    warnings: Warnings,
}

/// The folder that the writer makes unasked.
const LOST_FOUND: &[u8] = b"lost+found";

type Step<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

impl<W: ReadAt + WriteAt> Unpacker<'_, W> {
    fn apply<R: BufRead>(
        &mut self,
        entry: &Entry,
        decoder: &mut Decoder<R>,
        step: Step<'_>,
    ) -> Result<()> {
        let path = components(&entry.path, self.options.backslash)?;
        let Some((name, parents)) = path.split_last() else {
            return self.root(entry);
        };
        if self.options.whiteouts == TarWhiteouts::Overlay {
            if path
                .iter()
                .any(|name| whiteout::marker(name) == Marker::Ignored)
            {
                self.note(ProblemKind::AufsBookkeeping, || {
                    "AUFS's own bookkeeping".into()
                });
                return Ok(());
            }
            if parents
                .iter()
                .any(|name| whiteout::marker(name) != Marker::None)
            {
                return Err(Error::corrupt("it lies below a whiteout"));
            }
            match whiteout::marker(name) {
                Marker::None | Marker::Ignored => {}
                Marker::Opaque => {
                    let parent = self.parent(parents, entry.mtime)?;
                    return self.make_opaque(parent);
                }
                Marker::Whiteout(hidden) => {
                    let parent = self.parent(parents, entry.mtime)?;
                    return self.hide(parent, hidden, entry.mtime);
                }
            }
        }
        match entry.kind {
            EntryKind::Directory => self.directory(parents, name, entry),
            EntryKind::HardLink => self.hard_link(parents, name, entry),
            _ => {
                let parent = self.parent(parents, entry.mtime)?;
                self.make_room(parent, name)?;
                self.leaf(parent, name, entry, decoder, step)
            }
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::corrupt("its path is the root, which is a directory"));
        }
        let root = self.writer.root();
        if let Some(notes) = &mut self.notes {
            notes.root();
        }
        self.update(root, entry)
    }

    fn metadata(&mut self, entry: &Entry) -> Metadata {
        metadata(entry, std::mem::take(&mut self.xattrs))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.writer.xattrs(node).map_err(from_writer)
    }
}
