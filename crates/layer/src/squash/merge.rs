//! Walks the layers of a chain together, the uppermost first, and writes what an overlay of them shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use opengcs_ext4::{Device, FileType, Metadata, NodeId, Writer, Xattr};
use opengcs_vhd::Disk;
use positioned_io::{ReadAt, WriteAt};

use super::SquashOptions;
use super::leaves::BUFFER;
use crate::buffer::Buffer;
use crate::control::{Meter, Progress};
use crate::error::{Name, from_ext4};
use crate::export::{Facts, Source};
use crate::ext4_source::{Ext4Source, Node};
use crate::whiteout::{self, Marker};
use crate::{Error, ErrorKind, Result};

const LOST_FOUND: &[u8] = b"lost+found";

/// A layer that is open.
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) source: Ext4Source<Disk<File>>,
    pub(super) root: Node,
}

/// How far the work is, and in the end all of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// A node of a layer, the layers counted from the uppermost.
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) node: Node,
}

/// What has one name in the layers, the uppermost first, as far as nothing hides it.
#[derive(Default)]
struct Stack {
    nodes: Vec<Place>,
    /// Whether a whiteout's name hides what lies below these.
    closed: bool,
}

/// A directory whose children are being written.
struct Frame {
    directory: NodeId,
    children: std::collections::btree_map::IntoIter<Vec<u8>, Stack>,
    /// How much of the path is the directory's.
    path: usize,
}

/// Directories that are one in the overlay.
struct Joined {
    /// The uppermost one's.
    metadata: Metadata,
    children: BTreeMap<Vec<u8>, Stack>,
    /// Whether they hide what lies below the whole chain.
    opaque: bool,
}

/// A node with several names that has not got all of them yet.
pub(super) struct Linked {
    pub(super) node: NodeId,
    pub(super) left: u64,
}

pub(super) struct Merger<'a, W: ReadAt + WriteAt> {
    /// The uppermost first.
    pub(super) layers: &'a [Layer],
    pub(super) writer: &'a mut Writer<W>,
    pub(super) output: &'a Path,
    keep_whiteouts: bool,
    /// The writer's own `lost+found`, until a layer brings something of that name.
    lost_found: Option<NodeId>,
    pub(super) links: HashMap<(usize, u64), Linked>,
    /// The directories entered, because a damaged disk may lead in circles.
    entered: HashSet<(usize, u64)>,
    pub(super) path: Vec<u8>,
    pub(super) done: Done,
    pub(super) meter: Meter<'a>,
    pub(super) buffer: Buffer,
}

impl<'a, W: ReadAt + WriteAt> Merger<'a, W> {
    pub(super) fn new(
        layers: &'a [Layer],
        writer: &'a mut Writer<W>,
        output: &'a Path,
        options: &'a SquashOptions,
    ) -> Self {
        let lost_found = writer.lookup(writer.root(), LOST_FOUND);
        Self {
            layers,
            writer,
            output,
            keep_whiteouts: options.keep_whiteouts,
            lost_found,
            links: HashMap::new(),
            entered: HashSet::new(),
            path: Vec::new(),
            done: Done::default(),
            meter: Meter::new(&options.control),
            buffer: Buffer::new(BUFFER),
        }
    }

    pub(super) fn run(mut self) -> Result<Done> {
        self.tell()?;
        let root = self.root()?;
        let mut frames = vec![root];
        while let Some(frame) = frames.last_mut() {
            let Some((name, stack)) = frame.children.next() else {
                frames.pop();
                continue;
            };
            let directory = frame.directory;
            self.path.truncate(frame.path);
            if frame.path > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            frames.extend(self.name(directory, &name, stack)?);
            let now = self.progress();
            self.meter.step(now)?;
        }
        self.tell()?;
        Ok(self.done)
    }

    fn progress(&self) -> Progress {
        Progress {
            entries: self.done.entries,
            bytes: self.done.bytes,
        }
    }

    fn tell(&mut self) -> Result<()> {
        let now = self.progress();
        self.meter.tell(now)
    }

    /// An error of a layer, at the path that is being looked at.
    pub(super) fn at(&self, layer: usize, error: Error) -> Error {
        let error = match self.layers.get(layer) {
            Some(layer) => error.with_path(&layer.path),
            None => error,
        };
        self.here(error)
    }

    /// An error of the image.
    pub(super) fn full(&self, error: opengcs_ext4::Error) -> Error {
        let error = from_ext4(error).with_path(self.output);
        match error.kind() {
            ErrorKind::NoSpace | ErrorKind::Io => error,
            _ => self.here(error),
        }
    }

    fn here(&self, error: Error) -> Error {
        if self.path.is_empty() {
            error
        } else {
            error.with_node(&self.path)
        }
    }

    pub(super) fn source(&self, layer: usize) -> &'a Ext4Source<Disk<File>> {
        &self.layers[layer].source
    }

    fn facts(&self, place: &Place) -> Result<Facts> {
        self.source(place.layer)
            .facts(&place.node)
            .map_err(|error| self.at(place.layer, error))
    }

    /// The root, with its metadata set.
    fn root(&mut self) -> Result<Frame> {
        let all = self.layers.iter().enumerate();
        let mut places = all.map(|(layer, opened)| Place {
            layer,
            node: opened.root.again(),
        });
        let top = places
            .next()
            .ok_or_else(|| Error::invalid("there is no layer"))?;
        let below = Stack {
            nodes: places.collect(),
            closed: false,
        };
        let facts = self.facts(&top)?;
        if facts.file_type != FileType::Directory {
            return Err(self.at(top.layer, Error::corrupt("the root is not a directory")));
        }
        let Joined {
            metadata, children, ..
        } = self.join(top, facts, below)?;
        let directory = self.writer.root();
        self.writer
            .set_metadata(directory, &metadata)
            .map_err(|error| self.full(error))?;
        Ok(Frame {
            directory,
            children: children.into_iter(),
            path: 0,
        })
    }

    /// Writes what has a name, if anything; gives a directory to go on with.
    fn name(&mut self, parent: NodeId, name: &[u8], stack: Stack) -> Result<Option<Frame>> {
        let Stack { nodes, closed } = stack;
        let mut nodes = nodes.into_iter();
        let Some(top) = nodes.next() else {
            // Only a whiteout has the name.
            self.whiteout(parent, name, Metadata::default())?;
            return Ok(None);
        };
        let mut facts = self.facts(&top)?;
        if facts.file_type == FileType::Directory {
            let below = Stack {
                nodes: nodes.collect(),
                closed,
            };
            let joined = self.join(top, facts, below)?;
            return self.directory(parent, name, joined);
        }
        let state = whiteout::take_overlay_xattrs(&mut facts.metadata.xattrs);
        if whiteout::is_whiteout(facts.file_type, facts.device) || state.whiteout {
            let metadata = Metadata {
                xattrs: Vec::new(),
                ..facts.metadata
            };
            self.whiteout(parent, name, metadata)?;
            return Ok(None);
        }
        self.refuse_elsewhere(top.layer, state.elsewhere)?;
        self.make_room(parent, name)?;
        self.leaf(parent, name, &top, facts)?;
        self.done.entries += 1;
        Ok(None)
    }

    /// Joins a directory with those below it, down to what hides the rest.
    fn join(&mut self, top: Place, facts: Facts, below: Stack) -> Result<Joined> {
        let mut children: BTreeMap<Vec<u8>, Stack> = BTreeMap::new();
        let mut below_it = below.nodes.into_iter();
        let mut metadata = None;
        let mut next = Some((top, facts));
        let mut opaque = false;
        while let Some((place, mut facts)) = next.take() {
            let state = whiteout::take_overlay_xattrs(&mut facts.metadata.xattrs);
            self.refuse_elsewhere(place.layer, state.elsewhere)?;
            if !self.entered.insert((place.layer, facts.identity.1)) {
                let what = "the directory is in the tree more than once";
                return Err(self.at(place.layer, Error::corrupt(what)));
            }
            metadata.get_or_insert(facts.metadata);
            opaque = self.gather(&place, &mut children)? || state.opaque;
            if opaque {
                break;
            }
            if let Some(place) = below_it.next() {
                let facts = self.facts(&place)?;
                // A whiteout, or a file that is hidden itself.
                opaque = facts.file_type != FileType::Directory;
                next = (!opaque).then_some((place, facts));
            }
        }
        opaque |= below.closed;
        let mut metadata = metadata.unwrap_or_default();
        if opaque && self.keep_whiteouts {
            metadata.xattrs.push(Xattr {
                name: whiteout::OPAQUE_XATTR.to_vec(),
                value: b"y".to_vec(),
            });
        }
        Ok(Joined {
            metadata,
            children,
            opaque,
        })
    }

    /// Adds a directory's children to those of the directories above it. Says whether it has OCI's mark
    /// of an opaque directory.
    fn gather(&self, place: &Place, children: &mut BTreeMap<Vec<u8>, Stack>) -> Result<bool> {
        let layer = place.layer;
        let source = self.source(layer);
        let found = source.children(&place.node);
        let found = found.map_err(|error| self.at(layer, error))?;
        let mut opaque = false;
        let mut hidden = Vec::new();
        for (name, node) in found {
            let marker = whiteout::marker(&name);
            let is_marker = marker != Marker::None
                && source
                    .facts(&node)
                    .map_err(|error| self.at(layer, error))?
                    .file_type
                    == FileType::File;
            match marker {
                Marker::Opaque if is_marker => opaque = true,
                Marker::Whiteout(name) if is_marker => hidden.push(name.to_vec()),
                Marker::Ignored if is_marker => {}
                _ => {
                    let stack = children.entry(name).or_default();
                    if !stack.closed {
                        stack.nodes.push(Place { layer, node });
                    }
                }
            }
        }
        // It hides what lies below this layer, and nothing of this layer.
        for name in hidden {
            children.entry(name).or_default().closed = true;
        }
        Ok(opaque)
    }

    fn directory(&mut self, parent: NodeId, name: &[u8], joined: Joined) -> Result<Option<Frame>> {
        let at_root = parent == self.writer.root();
        let is_lost_found = at_root && name == LOST_FOUND;
        // An empty one is none of anybody's content.
        if is_lost_found && joined.children.is_empty() && !(joined.opaque && self.keep_whiteouts) {
            return Ok(None);
        }
        let own = self.lost_found.take_if(|_| is_lost_found);
        let made = match own {
            Some(node) => self
                .writer
                .set_metadata(node, &joined.metadata)
                .map(|()| node),
            None => self.writer.create_directory(parent, name, joined.metadata),
        };
        let directory = made.map_err(|error| self.full(error))?;
        self.done.entries += 1;
        Ok(Some(Frame {
            directory,
            children: joined.children.into_iter(),
            path: self.path.len(),
        }))
    }

    /// Removes the writer's own `lost+found` for something else of that name.
    fn make_room(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        let at_root = parent == self.writer.root();
        let own = self.lost_found.take_if(|_| at_root && name == LOST_FOUND);
        if own.is_some() {
            let removed = self.writer.remove(parent, name);
            removed.map_err(|error| self.full(error))?;
        }
        Ok(())
    }

    fn whiteout(&mut self, parent: NodeId, name: &[u8], metadata: Metadata) -> Result<()> {
        if !self.keep_whiteouts {
            return Ok(());
        }
        self.make_room(parent, name)?;
        let device = Device::default();
        let made = self
            .writer
            .create_special(parent, name, FileType::CharDevice, device, metadata);
        made.map_err(|error| self.full(error))?;
        self.done.entries += 1;
        Ok(())
    }

    fn refuse_elsewhere(&self, layer: usize, xattr: Option<Vec<u8>>) -> Result<()> {
        let Some(name) = xattr else { return Ok(()) };
        let error = Error::unsupported(format!(
            "part of it lies elsewhere in the layers below ({} is set), and such references of \
             overlayfs are not followed",
            Name(&name)
        ));
        Err(self.at(layer, error))
    }
}
