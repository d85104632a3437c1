//! Writes a tree as a tar, parents first, the same bytes for the same tree.
//!
//! One encoder serves ext4 images and live folders, each behind [`Source`].
//! The root comes as `./`, the rest without a `./` before it. A node with
//! several names comes once, and its later names as hard links to the first.
//! Left out are sockets, which tar cannot hold (with a warning), and an empty
//! `lost+found` at the root.

mod order;

use std::collections::{HashMap, HashSet};
use std::io::Write;

use opengcs_ext4::{Device, FileType, Metadata};

use crate::buffer::Buffer;
use crate::control::{Control, Meter, Progress};
use crate::error::Name;
use crate::tar::{Encoder, Entry, EntryKind, Run};
use crate::warning::Warnings;
use crate::whiteout::{self, Marker};
use crate::{Error, Result};

pub(crate) use order::Order;
use order::{Found, Frontier, Place};

/// How much of a file is read at once.
const BUFFER: usize = 128 << 10;

/// In which form whiteouts are written to a tar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DiskWhiteouts {
    /// As OCI has them: `.wh.NAME` and `.wh..wh..opq`; overlayfs's own xattrs are left out.
    #[default]
    Oci,
    /// As they are on the disk: devices 0:0 and `trusted.overlay.*` xattrs.
    Keep,
}

/// How a tree is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExportOptions {
    pub(crate) whiteouts: DiskWhiteouts,
    pub(crate) sparse: bool,
}

/// What a node is, without its content.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) file_type: FileType,
    /// With xattrs.
    pub(crate) metadata: Metadata,
    pub(crate) size: u64,
    pub(crate) device: Device,
    pub(crate) links: u64,
    /// What two names of the same node have in common.
    pub(crate) identity: (u64, u64),
}

/// A file's runs as they are found: there may be more of them than fit in memory.
pub(crate) type Runs<'n> = Box<dyn Iterator<Item = Result<Run>> + 'n>;

/// A tree to write.
pub(crate) trait Source {
    /// A way to reach a node; a folder's children reach through it.
    type Node;
    /// Whether the tree may change while it is read.
    const LIVE: bool;

    /// In which order the tree is written.
    fn order(&self) -> Order {
        Order::Names
    }
    /// A node's number, for [`Order::Numbers`].
    fn number(&self, _node: &Self::Node) -> u64 {
        0
    }
    fn facts(&self, node: &Self::Node) -> Result<Facts>;
    /// In any order, without `.` and `..`.
    fn children(&self, folder: &Self::Node) -> Result<Vec<(Vec<u8>, Self::Node)>>;
    fn link_target(&self, node: &Self::Node) -> Result<Vec<u8>>;
    /// The data runs of a file, ascending; empty ones left out.
    fn runs<'n>(&'n self, node: &'n Self::Node, size: u64) -> Result<Runs<'n>>;
    /// Reads at least one byte, unless the file ends at `offset`.
    fn read(&self, node: &Self::Node, offset: u64, buffer: &mut [u8]) -> Result<usize>;
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) entries: u64,
    pub(crate) tar_bytes: u64,
    pub(crate) warnings: Warnings,
}

/// Writes the tree below `root` and ends the tar.
pub(crate) fn export<S: Source, W: Write>(
    source: &S,
    root: &S::Node,
    output: W,
    options: ExportOptions,
    control: &Control,
) -> Result<(W, Written)> {
    let mut exporter = Exporter {
        source,
        options,
        encoder: Encoder::new(output),
        first_names: HashMap::new(),
        folders: HashSet::new(),
        warnings: Warnings::default(),
        meter: Meter::new(control),
        entries: 0,
        buffer: Buffer::new(BUFFER),
    };
    control.check()?;
    exporter.walk(root)?;
    let Exporter {
        encoder,
        warnings,
        entries,
        mut meter,
        ..
    } = exporter;
    let (output, tar_bytes) = encoder.finish()?;
    meter.tell(Progress {
        entries,
        bytes: tar_bytes,
    })?;
    let written = Written {
        entries,
        tar_bytes,
        warnings,
    };
    Ok((output, written))
}

/// The first name of a node with several.
struct First {
    place: Place,
    /// How many names are to come still.
    left: u64,
}

struct Exporter<'a, S: Source, W> {
    source: &'a S,
    options: ExportOptions,
    encoder: Encoder<W>,
    /// What nodes with several names were written under, as long as they have names to come.
    first_names: HashMap<(u64, u64), First>,
    /// The folders entered, because a damaged disk may lead in circles.
    folders: HashSet<(u64, u64)>,
    warnings: Warnings,
    meter: Meter<'a>,
    entries: u64,
    buffer: Buffer,
}

impl<S: Source, W: Write> Exporter<'_, S, W> {
    fn walk(&mut self, root: &S::Node) -> Result<()> {
        let facts = self.source.facts(root)?;
        if facts.file_type != FileType::Directory {
            return Err(Error::corrupt("the root is not a directory"));
        }
        let mut frontier = Frontier::new(self.source.order());
        self.folder(&mut frontier, None, root, facts)?;
        while let Some(found) = frontier.next() {
            let path = found.path();
            self.node(&mut frontier, path.clone(), &found)
                .map_err(|error| named(error, &path))?;
            let now = Progress {
                entries: self.entries,
                bytes: self.encoder.position(),
            };
            self.meter.step(now)?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        frontier: &mut Frontier<S::Node>,
        path: Vec<u8>,
        Found { place, node }: &Found<S::Node>,
    ) -> Result<()> {
        let name = place.name();
        let mut facts = match self.source.facts(node) {
            Err(error) if S::LIVE && error.kind() == crate::ErrorKind::NotFound => {
                self.warnings
                    .push(&path, "left out: it vanished before it was read");
                return Ok(());
            }
            facts => facts?,
        };
        if facts.file_type == FileType::Directory {
            return self.folder(frontier, Some(place), node, facts);
        }
        if self.options.whiteouts == DiskWhiteouts::Oci {
            let state = whiteout::take_overlay_xattrs(&mut facts.metadata.xattrs);
            if whiteout::is_whiteout(facts.file_type, facts.device) || state.whiteout {
                return self.whiteout(&path, name, &facts);
            }
            refuse_elsewhere(state.elsewhere)?;
            if whiteout::marker(name) != Marker::None {
                self.warnings.push(
                    &path,
                    "a file with this name is taken for a whiteout in an OCI layer",
                );
            }
        }
        if facts.file_type == FileType::Socket {
            self.warnings
                .push(&path, "left out: tar cannot hold a socket");
            return Ok(());
        }
        if facts.links > 1 {
            let identity = facts.identity;
            if let Some(first) = self.first_names.get_mut(&identity) {
                let mut entry = entry(path, EntryKind::HardLink, facts);
                entry.link = first.place.path();
                entry.xattrs.clear();
                first.left = first.left.saturating_sub(1);
                // More names than a node says it has are a live tree's, or a damaged one's.
                if first.left == 0 && !S::LIVE {
                    self.first_names.remove(&identity);
                }
                return self.start(&entry);
            }
            let first = First {
                place: place.clone(),
                left: facts.links - 1,
            };
            self.first_names.insert(identity, first);
        }
        let kind = match facts.file_type {
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            FileType::File | FileType::Directory | FileType::Socket => EntryKind::File,
        };
        let size = facts.size;
        let mut entry = entry(path, kind, facts);
        match kind {
            EntryKind::File => {
                entry.size = size;
                self.file(node, entry)
            }
            EntryKind::Symlink => {
                entry.link = self.source.link_target(node)?;
                self.start(&entry)
            }
            _ => self.start(&entry),
        }
    }

    /// Writes a folder's own entry and gathers its children.
    fn folder(
        &mut self,
        frontier: &mut Frontier<S::Node>,
        place: Option<&Place>,
        node: &S::Node,
        mut facts: Facts,
    ) -> Result<()> {
        let path = place.map(Place::path).unwrap_or_default();
        if !self.folders.insert(facts.identity) {
            return Err(Error::corrupt(
                "the directory is in the tree more than once",
            ));
        }
        let mut opaque = false;
        if self.options.whiteouts == DiskWhiteouts::Oci {
            let state = whiteout::take_overlay_xattrs(&mut facts.metadata.xattrs);
            refuse_elsewhere(state.elsewhere)?;
            opaque = state.opaque;
        }
        let children = self.source.children(node)?;
        if path == b"lost+found" && children.is_empty() && !opaque {
            return Ok(());
        }
        let name = place.map_or(&b""[..], Place::name);
        if self.options.whiteouts == DiskWhiteouts::Oci && whiteout::marker(name) != Marker::None {
            self.warnings.push(
                &path,
                "a folder with this name is taken for a whiteout in an OCI layer, and what lies in it is lost",
            );
        }
        let mtime = facts.metadata.mtime;
        let shown = if path.is_empty() {
            b".".to_vec()
        } else {
            path.clone()
        };
        self.start(&entry(shown, EntryKind::Directory, facts))?;
        if opaque {
            let mut marker = path;
            if !marker.is_empty() {
                marker.push(b'/');
            }
            marker.extend_from_slice(whiteout::OPAQUE);
            let mut marker = Entry::new(marker, EntryKind::File);
            marker.mtime = mtime;
            self.start(&marker)?;
        }
        frontier.add(place, children, |node| self.source.number(node));
        Ok(())
    }

    /// A whiteout's owner means nothing, and no layer that is unpacked keeps it.
    fn whiteout(&mut self, path: &[u8], name: &[u8], facts: &Facts) -> Result<()> {
        let parent = path.strip_suffix(name).unwrap_or_default();
        let marker = [parent, whiteout::PREFIX, name].concat();
        let mut marker = Entry::new(marker, EntryKind::File);
        marker.mtime = facts.metadata.mtime;
        self.start(&marker)
    }

    fn start(&mut self, entry: &Entry) -> Result<()> {
        self.entries += 1;
        self.encoder.start(entry)
    }

    fn file(&mut self, node: &S::Node, mut entry: Entry) -> Result<()> {
        let size = entry.size;
        let source = self.source;
        if self.options.sparse && size > 0 {
            if S::LIVE {
                // What may change is looked at once.
                let runs: Vec<Run> = source.runs(node, size)?.collect::<Result<_>>()?;
                entry.runs = Some(runs.into());
            }
            let known = entry.runs.clone();
            let runs = || -> Result<Runs<'_>> {
                match &known {
                    Some(runs) => Ok(Box::new(runs.iter().copied().map(Ok))),
                    None => source.runs(node, size),
                }
            };
            let mut stored = 0;
            for run in runs()? {
                stored += run?.length;
            }
            if stored < size {
                self.entries += 1;
                self.encoder.start_sparse(&entry, &runs)?;
                for run in runs()? {
                    self.copy(node, run?, &entry.path)?;
                }
                return Ok(());
            }
            entry.runs = None;
        }
        self.start(&entry)?;
        // Holes of small files are not worth a look.
        let runs: Runs<'_> = if size > BUFFER as u64 {
            source.runs(node, size)?
        } else {
            let all = Run {
                offset: 0,
                length: size,
            };
            Box::new(std::iter::once(Ok(all)))
        };
        let mut position = 0;
        for run in runs {
            let run = run?;
            self.encoder.zeros(run.offset - position)?;
            self.copy(node, run, &entry.path)?;
            position = run.offset + run.length;
        }
        self.encoder.zeros(size - position)
    }

    fn copy(&mut self, node: &S::Node, run: Run, path: &[u8]) -> Result<()> {
        let mut offset = run.offset;
        let end = run.offset + run.length;
        while offset < end {
            let length = usize::try_from(end - offset).map_or(BUFFER, |left| left.min(BUFFER));
            let read = self.source.read(node, offset, &mut self.buffer[..length])?;
            if read == 0 {
                self.warnings.push(
                    path,
                    "it shrank while it was read; zeros stand for what is missing",
                );
                return self.encoder.zeros(end - offset);
            }
            self.encoder.data(&self.buffer[..read])?;
            offset += read as u64;
            self.meter.step(Progress {
                entries: self.entries,
                bytes: self.encoder.position(),
            })?;
        }
        Ok(())
    }
}

fn refuse_elsewhere(xattr: Option<Vec<u8>>) -> Result<()> {
    match xattr {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(format!(
            "its content is in a layer below ({} is set), so it cannot be written as OCI",
            Name(&name)
        ))),
    }
}

fn named(error: Error, path: &[u8]) -> Error {
    if error.kind() == crate::ErrorKind::Cancelled || error.is_output() {
        error
    } else {
        error.with_node(path)
    }
}

fn entry(path: Vec<u8>, kind: EntryKind, facts: Facts) -> Entry {
    let metadata = facts.metadata;
    let device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    Entry {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime,
        device: if device {
            facts.device
        } else {
            Device::default()
        },
        xattrs: metadata.xattrs,
        ..Entry::new(path, kind)
    }
}
