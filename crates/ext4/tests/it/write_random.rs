//! Random trees: written, checked by `e2fsck`, read back and compared.

use std::collections::BTreeMap;
use std::fs::File;

use opengcs_ext4::{
    Device, FileType, InodeNo, Metadata, NodeId, Reader, Timestamp, Writer, WriterOptions, Xattr,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::judge::Image;

/// One call of the writer. Directories and nodes are chosen among those that exist.
#[derive(Clone, Debug)]
enum Step {
    Directory {
        parent: usize,
        name: usize,
        metadata: Metadata,
    },
    File {
        parent: usize,
        name: usize,
        metadata: Metadata,
        pieces: Vec<Piece>,
    },
    Symlink {
        parent: usize,
        name: usize,
        metadata: Metadata,
        length: usize,
    },
    Special {
        parent: usize,
        name: usize,
        metadata: Metadata,
        file_type: FileType,
        device: Device,
    },
    Link {
        parent: usize,
        name: usize,
        node: usize,
    },
    Remove {
        parent: usize,
        name: usize,
    },
    Many {
        parent: usize,
        count: usize,
        length: usize,
    },
}

#[derive(Clone, Debug)]
enum Piece {
    Data(usize, u8),
    Hole(usize),
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    file_type: FileType,
    metadata: Metadata,
    links: u32,
    content: Vec<u8>,
    device: Device,
    /// The first path of the node, the same for all its names.
    first: Vec<u8>,
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let time = || {
        // From 2310 on e2fsck takes times for a kernel's old mistake, and says so.
        (-0x8000_0000i64..0x2_7FFF_FFFF, 0u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| {
            Timestamp {
                seconds,
                nanoseconds,
            }
        })
    };
    let xattr = (
        prop_oneof![Just("user."), Just("trusted."), Just("security.")],
        "[a-z]{1,40}",
        vec(any::<u8>(), 0..80),
    )
        .prop_map(|(space, name, value)| Xattr {
            name: format!("{space}{name}").into(),
            value,
        });
    (
        0u16..0o10000,
        any::<u32>(),
        any::<u32>(),
        time(),
        time(),
        vec(xattr, 0..5),
    )
        .prop_map(|(mode, uid, gid, mtime, ctime, mut xattrs)| {
            xattrs.sort();
            xattrs.dedup_by(|a, b| a.name == b.name);
            Metadata {
                mode,
                uid,
                gid,
                atime: ctime,
                mtime,
                ctime,
                crtime: mtime,
                xattrs,
            }
        })
}

fn step() -> impl Strategy<Value = Step> {
    let piece = prop_oneof![
        (0usize..20_000, 1u8..).prop_map(|(length, byte)| Piece::Data(length, byte)),
        (0usize..50_000).prop_map(Piece::Hole),
    ];
    let special = prop_oneof![
        Just(FileType::CharDevice),
        Just(FileType::BlockDevice),
        Just(FileType::Fifo),
        Just(FileType::Socket)
    ];
    let parent = 0usize..1000;
    let name = 0usize..40;
    let place = || (parent.clone(), name.clone());
    prop_oneof![
        3 => (place(), metadata())
            .prop_map(|((parent, name), metadata)| Step::Directory { parent, name, metadata }),
        6 => (place(), metadata(), vec(piece, 0..12))
            .prop_map(|((parent, name), metadata, pieces)| Step::File { parent, name, metadata, pieces }),
        2 => (place(), metadata(), 1usize..1024)
            .prop_map(|((parent, name), metadata, length)| Step::Symlink { parent, name, metadata, length }),
        2 => (place(), metadata(), special, (0u32..4096, 0u32..1 << 20)).prop_map(
            |((parent, name), metadata, file_type, (major, minor))| Step::Special {
                parent, name, metadata, file_type, device: Device { major, minor },
            }),
        2 => (place(), 0usize..1000).prop_map(|((parent, name), node)| Step::Link { parent, name, node }),
        3 => place().prop_map(|(parent, name)| Step::Remove { parent, name }),
        1 => (0usize..1000, 1usize..300, 1usize..200)
            .prop_map(|(parent, count, length)| Step::Many { parent, count, length }),
    ]
}

/// Names differ in length, so that directories fill unevenly.
fn name(number: usize) -> Vec<u8> {
    let mut name = format!("n{number}").into_bytes();
    name.resize(name.len() + number * 5, 0xE9);
    name
}

#[derive(Default)]
struct Model {
    directories: Vec<NodeId>,
    nodes: Vec<NodeId>,
    content: BTreeMap<NodeId, Vec<u8>>,
    devices: BTreeMap<NodeId, Device>,
}

impl Model {
    fn take(&mut self, writer: &mut Writer<File>, step: Step) {
        let parent =
            |choice: usize, model: &Self| model.directories[choice % model.directories.len()];
        match step {
            Step::Directory {
                parent: choice,
                name: number,
                metadata,
            } => {
                let made = writer.create_directory(parent(choice, self), &name(number), metadata);
                self.directories.extend(made.ok());
            }
            Step::File {
                parent: choice,
                name: number,
                metadata,
                pieces,
            } => {
                let Ok(mut file) =
                    writer.create_file(parent(choice, self), &name(number), metadata)
                else {
                    return;
                };
                let mut bytes = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Data(length, byte) => {
                            file.write(&vec![byte; length]).unwrap();
                            bytes.resize(bytes.len() + length, byte);
                        }
                        Piece::Hole(length) => {
                            file.skip(length as u64).unwrap();
                            bytes.resize(bytes.len() + length, 0);
                        }
                    }
                }
                let node = file.finish().unwrap();
                self.nodes.push(node);
                self.content.insert(node, bytes);
            }
            Step::Symlink {
                parent: choice,
                name: number,
                metadata,
                length,
            } => {
                let target = vec![b't'; length.min(1023)];
                let made =
                    writer.create_symlink(parent(choice, self), &name(number), &target, metadata);
                if let Ok(node) = made {
                    self.nodes.push(node);
                    self.content.insert(node, target);
                }
            }
            Step::Special {
                parent: choice,
                name: number,
                metadata,
                file_type,
                device,
            } => {
                let made = writer.create_special(
                    parent(choice, self),
                    &name(number),
                    file_type,
                    device,
                    metadata,
                );
                if let Ok(node) = made {
                    self.nodes.push(node);
                    if matches!(file_type, FileType::CharDevice | FileType::BlockDevice) {
                        self.devices.insert(node, device);
                    }
                }
            }
            Step::Link {
                parent: choice,
                name: number,
                node,
            } => {
                if let Some(&node) = self.nodes.get(node % self.nodes.len().max(1)) {
                    // Refused where the name is taken.
                    let _ = writer.link(node, parent(choice, self), &name(number));
                }
            }
            Step::Remove {
                parent: choice,
                name: number,
            } => {
                if writer.remove(parent(choice, self), &name(number)).is_ok() {
                    let mut live = Vec::new();
                    let mut unread = vec![writer.root()];
                    while let Some(directory) = unread.pop() {
                        for (_, child) in writer.children(directory) {
                            live.push(child);
                            if writer.file_type(child) == FileType::Directory {
                                unread.push(child);
                            }
                        }
                    }
                    self.nodes.retain(|node| live.contains(node));
                    let root = writer.root();
                    self.directories
                        .retain(|node| *node == root || live.contains(node));
                }
            }
            Step::Many {
                parent: choice,
                count,
                length,
            } => {
                for number in 0..count {
                    let name = format!("{number:0length$}");
                    let made = writer.create_special(
                        parent(choice, self),
                        name.as_bytes(),
                        FileType::Fifo,
                        Device::default(),
                        Metadata::default(),
                    );
                    self.nodes.extend(made.ok());
                }
            }
        }
    }

    fn expect(&self, writer: &Writer<File>) -> BTreeMap<Vec<u8>, Seen> {
        let mut seen = BTreeMap::new();
        let mut firsts: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        let mut unread = vec![(Vec::new(), writer.root())];
        while let Some((path, node)) = unread.pop() {
            let first = firsts.entry(node).or_insert_with(|| path.clone()).clone();
            let mut metadata = writer.metadata(node);
            metadata.xattrs = writer.xattrs(node).unwrap();
            let mut links = writer.links(node);
            let mut children: Vec<_> = writer.children(node).collect();
            children.sort();
            if writer.file_type(node) == FileType::Directory {
                let directories = children
                    .iter()
                    .filter(|(_, child)| writer.file_type(*child) == FileType::Directory);
                links = 2 + directories.count() as u32;
            }
            for (name, child) in children {
                let mut below = path.clone();
                below.push(b'/');
                below.extend_from_slice(name);
                unread.push((below, child));
            }
            seen.insert(
                path,
                Seen {
                    file_type: writer.file_type(node),
                    metadata,
                    links,
                    content: self.content.get(&node).cloned().unwrap_or_default(),
                    device: self.devices.get(&node).copied().unwrap_or_default(),
                    first,
                },
            );
        }
        seen
    }
}

fn read(image: &Image) -> BTreeMap<Vec<u8>, Seen> {
    let reader = Reader::open(File::open(image.path()).unwrap()).unwrap();
    let mut seen = BTreeMap::new();
    let mut firsts: BTreeMap<InodeNo, Vec<u8>> = BTreeMap::new();
    let mut unread = vec![(Vec::new(), reader.root())];
    while let Some((path, number)) = unread.pop() {
        let first = firsts.entry(number).or_insert_with(|| path.clone()).clone();
        let inode = reader.inode(number).unwrap();
        let mut metadata = reader.metadata(&inode).unwrap();
        metadata.xattrs.sort();
        let mut content = Vec::new();
        match inode.file_type() {
            FileType::Directory => {
                let mut entries = reader.read_dir(&inode).unwrap();
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                for entry in entries {
                    let mut below = path.clone();
                    below.push(b'/');
                    below.extend_from_slice(&entry.name);
                    unread.push((below, entry.inode));
                }
            }
            FileType::Symlink => content = reader.read_link(&inode).unwrap(),
            FileType::File => {
                content = vec![0; inode.size() as usize];
                let mut done = 0;
                while done < content.len() {
                    done += reader
                        .read_at(&inode, done as u64, &mut content[done..])
                        .unwrap();
                }
            }
            _ => {}
        }
        seen.insert(
            path,
            Seen {
                file_type: inode.file_type(),
                metadata,
                links: inode.links(),
                content,
                device: inode.device().unwrap_or_default(),
                first,
            },
        );
    }
    seen
}

fn options() -> impl Strategy<Value = WriterOptions> {
    (
        prop_oneof![Just(1024u32), Just(2048), Just(4096)],
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<(bool, bool, bool, bool)>(),
    )
        .prop_map(
            |(block_size, uuid, seed, (journal, lost_found, inline_data, sized))| {
                WriterOptions::default()
                    .block_size(block_size)
                    .uuid(uuid)
                    .hash_seed(seed)
                    .journal(journal.then_some(5 << 20))
                    .lost_found(lost_found)
                    .inline_data(inline_data)
                    .ea_inode(true)
                    .size(sized.then_some(64 << 20))
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_back(options in options(), steps in vec(step(), 0..120)) {
        let mut expected = BTreeMap::new();
        let image = Image::write(&options, |writer| {
            let mut model = Model { directories: vec![writer.root()], ..Model::default() };
            for step in steps.clone() {
                model.take(writer, step);
            }
            expected = model.expect(writer);
        });
        image.check();
        let seen = read(&image);
        prop_assert_eq!(seen.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (path, expected) in &expected {
            prop_assert_eq!(&seen[path], expected, "{}", String::from_utf8_lossy(path));
        }
        let again = Image::write(&options, |writer| {
            let mut model = Model { directories: vec![writer.root()], ..Model::default() };
            for step in steps {
                model.take(writer, step);
            }
        });
        prop_assert!(
            std::fs::read(image.path()).unwrap() == std::fs::read(again.path()).unwrap(),
            "the same calls give other bytes"
        );
    }
}
