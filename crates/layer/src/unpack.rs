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

use std::collections::HashSet;
use std::io::BufRead;

use opengcs_ext4::{Device, FileType, Metadata, NodeId, Timestamp, Writer, Xattr};
use positioned_io::{ReadAt, WriteAt};

use attributes::{Attributes, implied, metadata, type_name};

use crate::control::{Control, Meter, Progress};
use crate::error::{Name, from_ext4};
use crate::path::components;
use crate::tar::{Chunk, Decoder, Entry, EntryKind};
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

/// Unpacks a whole tar into `writer`.
pub(crate) fn unpack<R: BufRead, W: ReadAt + WriteAt>(
    input: R,
    writer: &mut Writer<W>,
    options: UnpackOptions,
    control: &Control,
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
        warnings: Warnings::default(),
    };
    unpacker.lost_found = unpacker.writer.lookup(unpacker.writer.root(), LOST_FOUND);
    let mut meter = Meter::new(control);
    let mut entries = 0;
    control.check()?;
    let mut attributes = Attributes::default();
    while let Some(mut entry) = decoder.next_entry()? {
        attributes
            .take(&mut entry, decoder.position(), &mut unpacker.warnings)
            .map_err(|error| error.with_entry(&entry.path, entry.offset))?;
        unpacker.xattrs = std::mem::take(&mut entry.xattrs);
        unpacker
            .apply(&entry, &mut decoder, &mut |bytes| {
                meter.step(Progress { entries, bytes })
            })
            .map_err(|error| match error.kind() {
                ErrorKind::Cancelled => error,
                _ => error.with_entry(&entry.path, entry.offset),
            })?;
        entries += 1;
        unpacker.entries = entries;
        let bytes = decoder.position();
        meter.step(Progress { entries, bytes })?;
    }
    decoder.drain(options.trailing)?;
    let tar_bytes = decoder.position();
    meter.tell(Progress {
        entries,
        bytes: tar_bytes,
    })?;
    let mut warnings = decoder.warnings;
    warnings.append(unpacker.warnings);
    Ok(Unpacked {
        entries,
        tar_bytes,
        warnings,
    })
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
    warnings: Warnings,
}

/// The folder that the writer makes unasked.
const LOST_FOUND: &[u8] = b"lost+found";

/// How many folders without entries are made, and how many more for each entry: real tars lack a few
/// at most, and each costs memory and a block that a short path asks for.
const IMPLIED_BASE: u64 = 16 << 10;
const IMPLIED_EACH: u64 = 8;

fn is_opaque(xattr: &Xattr) -> bool {
    xattr.name == whiteout::OPAQUE_XATTR
}

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
        self.update(root, entry)
    }

    /// The folder that `names` lead to, made where it is missing.
    fn parent(&mut self, names: &[&[u8]], time: Timestamp) -> Result<NodeId> {
        let path = names.join(&b'/');
        if let Some((last, node)) = &self.last_parent
            && *last == path
        {
            return Ok(*node);
        }
        let mut node = self.writer.root();
        for (depth, name) in names.iter().enumerate() {
            node = match self.writer.lookup(node, name) {
                Some(child) if self.writer.file_type(child) == FileType::Directory => child,
                Some(child) if self.whiteouts.contains(&child) => {
                    self.make_room(node, name)?;
                    self.imply(node, name, time)?
                }
                Some(child) => {
                    let parent = names.get(..=depth).unwrap_or(names).join(&b'/');
                    return Err(Error::corrupt(format!(
                        "it lies below {}, which is {} and no directory",
                        Name(&parent),
                        type_name(self.writer.file_type(child)),
                    )));
                }
                None => self.imply(node, name, time)?,
            };
        }
        if names.first() == Some(&LOST_FOUND) {
            self.lost_found = None;
        }
        self.last_parent = Some((path, node));
        Ok(node)
    }

    /// Makes a folder that no entry of its own has brought yet.
    fn imply(&mut self, parent: NodeId, name: &[u8], time: Timestamp) -> Result<NodeId> {
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
            .map_err(from_ext4)?;
        if self.hides(parent, name) {
            self.make_opaque(made)?;
        }
        Ok(made)
    }

    /// Whether what lies below a name in the layers below is hidden.
    fn hides(&self, parent: NodeId, name: &[u8]) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(&(parent, name.into()))
    }

    /// Removes what has the name.
    fn make_room(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        if let Some(node) = self.writer.lookup(parent, name) {
            self.lost_found = self.lost_found.filter(|own| *own != node);
            let was_whiteout = self.whiteouts.remove(&node);
            let mut hides = was_whiteout;
            if self.writer.file_type(node) == FileType::Directory {
                self.last_parent = None;
                hides |= self.xattrs(node)?.iter().any(is_opaque);
            }
            if hides && self.options.whiteouts == TarWhiteouts::Overlay {
                self.hidden.insert((parent, name.into()));
            }
            self.writer.remove(parent, name).map_err(from_ext4)?;
        }
        Ok(())
    }

    fn metadata(&mut self, entry: &Entry) -> Metadata {
        metadata(entry, std::mem::take(&mut self.xattrs))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.writer.xattrs(node).map_err(from_ext4)
    }

    fn make_opaque(&mut self, directory: NodeId) -> Result<()> {
        self.writer
            .set_xattr(directory, whiteout::OPAQUE_XATTR, b"y")
            .map_err(from_ext4)
    }

    fn hide(&mut self, parent: NodeId, hidden: &[u8], time: Timestamp) -> Result<()> {
        // What the tar did not bring is not what it keeps.
        if self.lost_found.is_some() && self.writer.lookup(parent, hidden) == self.lost_found {
            self.lost_found = None;
            self.writer.remove(parent, hidden).map_err(from_ext4)?;
        }
        match self.writer.lookup(parent, hidden) {
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
                    .map_err(from_ext4)?;
                self.whiteouts.insert(node);
                self.made_whiteouts.insert(node);
                Ok(())
            }
        }
    }

    fn directory(&mut self, parents: &[&[u8]], name: &[u8], entry: &Entry) -> Result<()> {
        let parent = self.parent(parents, entry.mtime)?;
        let existing = self.writer.lookup(parent, name);
        if let Some(node) = existing
            && self.writer.file_type(node) == FileType::Directory
        {
            return self.update(node, entry);
        }
        if existing.is_some() {
            self.make_room(parent, name)?;
        }
        let metadata = self.metadata(entry);
        let node = self
            .writer
            .create_directory(parent, name, metadata)
            .map_err(from_ext4)?;
        if self.hides(parent, name) {
            self.make_opaque(node)?;
        }
        Ok(())
    }

    /// Gives a folder that is there already the entry's metadata; opaque it stays.
    fn update(&mut self, node: NodeId, entry: &Entry) -> Result<()> {
        self.lost_found = self.lost_found.filter(|own| *own != node);
        let mut metadata = self.metadata(entry);
        if self.options.whiteouts == TarWhiteouts::Overlay && !metadata.xattrs.iter().any(is_opaque)
        {
            let kept = self.xattrs(node)?.into_iter().find(is_opaque);
            metadata.xattrs.extend(kept);
        }
        self.writer.set_metadata(node, &metadata).map_err(from_ext4)
    }

    fn hard_link(&mut self, parents: &[&[u8]], name: &[u8], entry: &Entry) -> Result<()> {
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
                    Error::corrupt(format!(
                        "it is a hard link to {shown}, which is not in the tar before it"
                    ))
                })?;
        }
        if self.writer.file_type(node) == FileType::Directory {
            return Err(Error::corrupt(format!(
                "it is a hard link to {shown}, which is a directory"
            )));
        }
        if target.starts_with(parents) && target.get(parents.len()) == Some(&name) {
            if target.len() == parents.len() + 1 {
                return Ok(());
            }
            return Err(Error::corrupt(format!(
                "it is a hard link to {shown}, which it would replace"
            )));
        }
        let parent = self.parent(parents, entry.mtime)?;
        if self.writer.lookup(parent, name) == Some(node) {
            return Ok(());
        }
        self.make_room(parent, name)?;
        self.writer.link(node, parent, name).map_err(from_ext4)
    }

    fn leaf<R: BufRead>(
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
                    .map_err(from_ext4)?;
                let mut done = decoder.position();
                while let Some(chunk) = decoder.next_chunk()? {
                    match chunk {
                        Chunk::Data(data) => {
                            done += data.len() as u64;
                            file.write(data).map_err(from_ext4)?;
                        }
                        Chunk::Hole(length) => file.skip(length).map_err(from_ext4)?,
                    }
                    step(done)?;
                }
                return file.finish().map(drop).map_err(from_ext4);
            }
            EntryKind::Symlink => {
                if entry.link.is_empty() {
                    return Err(Error::corrupt("it is a symbolic link without a target"));
                }
                return self
                    .writer
                    .create_symlink(parent, name, &entry.link, metadata)
                    .map(drop)
                    .map_err(from_ext4);
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
            )));
        }
        let node = self
            .writer
            .create_special(parent, name, file_type, entry.device, metadata)
            .map_err(from_ext4)?;
        if self.options.whiteouts == TarWhiteouts::Overlay
            && whiteout::is_whiteout(file_type, entry.device)
        {
            self.whiteouts.insert(node);
        }
        Ok(())
    }
}
