//! What the reader's tests share: foreign tools, source trees, and trees read back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use opengcs_ext4::{Device, FileType, Inode, Reader, Result, Segment, SegmentKind, Xattr};
use positioned_io::ReadAt;

/// Runs a tool, which must be there and succeed (or end with a code of `codes`).
pub(crate) fn run(program: &str, arguments: &[&str], codes: &[i32]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("DEBUGFS_PAGER", "cat")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (package e2fsprogs): {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| codes.contains(&code)),
        "{program} {arguments:?} ended with {code:?}:\n{text}"
    );
    text
}

/// A folder for an image and what it is made from.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `mke2fs` with words of `options`, filling the image from `source`.
    pub(crate) fn make(&self, options: &str, size: &str, source: Option<&Path>) -> PathBuf {
        let image = self.path("image");
        let _ = fs::remove_file(&image);
        let mut arguments = vec!["-q", "-F"];
        arguments.extend(options.split_whitespace());
        if let Some(source) = source {
            arguments.extend(["-d", source.to_str().unwrap()]);
        }
        arguments.extend([image.to_str().unwrap(), size]);
        run("mke2fs", &arguments, &[0]);
        image
    }

    /// Runs commands of `debugfs` that write.
    pub(crate) fn debugfs(&self, image: &Path, commands: &[String]) -> String {
        let script = self.path("script");
        fs::write(&script, commands.join("\n")).unwrap();
        run(
            "debugfs",
            &[
                "-w",
                "-f",
                script.to_str().unwrap(),
                image.to_str().unwrap(),
            ],
            &[0],
        )
    }
}

/// Repairs (and so replays the journal of) an image, then holds that nothing is left to repair.
pub(crate) fn e2fsck(image: &Path) {
    let image = image.to_str().unwrap();
    run("e2fsck", &["-fy", image], &[0, 1]);
    run("e2fsck", &["-fn", image], &[0]);
}

/// Bytes that differ from block to block and do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Fills a folder with files of awkward sizes and names. `span` is how far the sparse file goes.
pub(crate) fn plant(folder: &Path, entries: u32, span: u64, longest_link: usize) {
    fs::create_dir_all(folder).unwrap();
    for size in [
        0, 1, 59, 60, 61, 100, 160, 1023, 1024, 1025, 4095, 4096, 4097, 12288, 12289, 300_000,
    ] {
        fs::write(
            folder.join(format!("size-{size}")),
            noise(size as u64, size),
        )
        .unwrap();
    }
    let mut sparse = File::create(folder.join("sparse")).unwrap();
    for part in 0..6 {
        sparse
            .seek(SeekFrom::Start(span / 5 * part + 1000 * part))
            .unwrap();
        sparse.write_all(&noise(part + 7, 5000)).unwrap();
    }
    sparse.set_len(span / 5 * 6).unwrap();
    let deep = folder.join("a/b/c/d");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    fs::write(deep.join("leaf"), b"leaf").unwrap();
    let many = folder.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..entries {
        fs::write(
            many.join(format!("name-{number:05}-{:x}", number * 7919)),
            [],
        )
        .unwrap();
    }
    fs::hard_link(folder.join("size-4097"), deep.join("hard")).unwrap();
    fs::write(folder.join("n".repeat(255)), b"longest").unwrap();
    let odd = std::ffi::OsString::from_vec(b"odd \xff\xfe\n name".to_vec());
    fs::write(folder.join(odd), b"odd").unwrap();
    for length in [1, 59, 60, 61, longest_link] {
        symlink("t".repeat(length), folder.join(format!("link-{length}"))).unwrap();
    }
    run(
        "mkfifo",
        &["-m", "640", folder.join("fifo").to_str().unwrap()],
        &[0],
    );
    for (name, mode) in [("size-1", 0o4755), ("size-60", 0o0), ("empty", 0o1777)] {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A node as a test compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) file_type: FileType,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) links: u32,
    /// Content or target.
    pub(crate) content: Vec<u8>,
    pub(crate) device: Option<Device>,
    pub(crate) xattrs: Vec<Xattr>,
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// From the C library's 64-bit form.
fn device(number: u64) -> Device {
    let major = (number >> 8) & 0xFFF | (number >> 32) & 0xFFFF_F000;
    let minor = number & 0xFF | (number >> 12) & 0xFFFF_FF00;
    Device {
        major: u32::try_from(major).unwrap(),
        minor: u32::try_from(minor).unwrap(),
    }
}

/// The tree of a folder, without attributes, the times of what no tool copies left out.
pub(crate) fn tree_of_folder(folder: &Path) -> Tree {
    fn walk(folder: &Path, path: &[u8], tree: &mut Tree) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            let kind = metadata.file_type();
            let mut name = path.to_vec();
            name.push(b'/');
            name.extend_from_slice(entry.file_name().as_bytes());
            let (file_type, content) = if kind.is_dir() {
                walk(&entry.path(), &name, tree);
                (FileType::Directory, Vec::new())
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                (FileType::Symlink, target.into_os_string().into_vec())
            } else if kind.is_fifo() {
                (FileType::Fifo, Vec::new())
            } else if kind.is_socket() {
                (FileType::Socket, Vec::new())
            } else if kind.is_char_device() {
                (FileType::CharDevice, Vec::new())
            } else if kind.is_block_device() {
                (FileType::BlockDevice, Vec::new())
            } else {
                (FileType::File, fs::read(entry.path()).unwrap())
            };
            tree.insert(
                name,
                Node {
                    file_type,
                    mode: u16::try_from(metadata.mode() & 0o7777).unwrap(),
                    uid: metadata.uid(),
                    gid: metadata.gid(),
                    mtime: metadata.mtime(),
                    links: u32::try_from(metadata.nlink()).unwrap(),
                    content,
                    device: matches!(file_type, FileType::CharDevice | FileType::BlockDevice)
                        .then(|| device(metadata.rdev())),
                    xattrs: Vec::new(),
                },
            );
        }
    }
    let mut tree = Tree::new();
    walk(folder, b"", &mut tree);
    tree
}

/// A file's content by its segments, the holes held against `read_at`. Of a file so large that a
/// damaged size must have made it so, the segments alone.
pub(crate) fn content<R: ReadAt>(reader: &Reader<R>, inode: &Inode) -> Result<Vec<u8>> {
    if inode.size() > 256 << 20 {
        let segments = reader.segments(inode)?.collect::<Result<Vec<_>>>()?;
        return Ok(format!("{segments:?}").into_bytes());
    }
    let mut bytes = Vec::new();
    for segment in reader.segments(inode)? {
        let Segment {
            offset,
            length,
            kind,
        } = segment?;
        assert_eq!(offset, bytes.len() as u64);
        let start = bytes.len();
        bytes.resize(start + usize::try_from(length).unwrap(), 0);
        if kind == SegmentKind::Data {
            let read = reader.read_at(inode, offset, &mut bytes[start..])?;
            assert_eq!(read as u64, length);
        } else {
            let mut hole = vec![1; usize::try_from(length.min(70_000)).unwrap()];
            reader.read_at(inode, offset, &mut hole)?;
            assert!(hole.iter().all(|&byte| byte == 0));
        }
    }
    assert_eq!(bytes.len() as u64, inode.size());
    assert_eq!(reader.read_at(inode, inode.size(), &mut [0])?, 0);
    Ok(bytes)
}

fn walk<R: ReadAt>(
    reader: &Reader<R>,
    directory: &Inode,
    path: &[u8],
    depth: u32,
    visit: &mut dyn FnMut(&[u8], Node),
) -> Result<()> {
    for entry in reader.read_dir(directory)? {
        let mut name = path.to_vec();
        name.push(b'/');
        name.extend_from_slice(&entry.name);
        let inode = reader.inode(entry.inode)?;
        let metadata = reader.metadata(&inode)?;
        let content = match inode.file_type() {
            FileType::File => content(reader, &inode)?,
            FileType::Symlink => reader.read_link(&inode)?,
            _ => Vec::new(),
        };
        visit(
            &name,
            Node {
                file_type: inode.file_type(),
                mode: metadata.mode,
                uid: metadata.uid,
                gid: metadata.gid,
                mtime: metadata.mtime.seconds,
                links: inode.links(),
                content,
                device: inode.device(),
                xattrs: metadata.xattrs,
            },
        );
        // Hostile images may hold cycles; no test nests deeper.
        if inode.file_type() == FileType::Directory && depth < 12 {
            walk(reader, &inode, &name, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// The tree of a volume.
pub(crate) fn tree<R: ReadAt>(reader: &Reader<R>) -> Result<Tree> {
    let root = reader.inode(reader.root())?;
    reader.metadata(&root)?;
    let mut tree = Tree::new();
    walk(reader, &root, b"", 0, &mut |path, node| {
        tree.insert(path.to_vec(), node);
    })?;
    Ok(tree)
}

/// Opens an image file and reads all of it.
pub(crate) fn tree_of_image(image: &Path) -> Tree {
    tree(&Reader::open(File::open(image).unwrap()).unwrap()).unwrap()
}

/// Holds two trees against each other, so that a difference is one readable line.
#[track_caller]
pub(crate) fn assert_same(what: &str, found: &Tree, expected: &Tree) {
    let show = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    for name in expected.keys() {
        assert!(
            found.contains_key(name),
            "{what}: {} is missing",
            show(name)
        );
    }
    for (name, node) in found {
        let Some(wanted) = expected.get(name) else {
            panic!("{what}: {} is too much", show(name));
        };
        let brief = |node: &Node| Node {
            content: Vec::new(),
            ..node.clone()
        };
        assert_eq!(brief(node), brief(wanted), "{what}: {}", show(name));
        assert!(
            node.content == wanted.content,
            "{what}: content of {} ({} and {} bytes)",
            show(name),
            node.content.len(),
            wanted.content.len()
        );
    }
}
