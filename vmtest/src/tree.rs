//! What a tar stream says, as a tree that can be compared: the judge of every round trip.
//!
//! The streams are read with the crate `tar`, which shares no code with the converter.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{Read, copy};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

/// Every path of a stream with what it leads to. Later entries replace earlier ones.
#[derive(Debug, Default, Clone)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Node type, in one word.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Modification time, in decimal seconds without trailing zeros.
    pub mtime: String,
    /// Extended attributes by their full names.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// A symlink's target, a device's number, or the digest of a file's content.
    pub content: String,
    /// The first of the paths that are hard links to the same node.
    pub linked_to: Vec<u8>,
}

impl Tree {
    /// Reads a tar stream, plain.
    ///
    /// # Errors
    /// When the stream is no tar, or a hard link has no target.
    pub fn from_tar(stream: impl Read) -> Result<Self> {
        let mut tree = Self::default();
        let mut archive = Archive::new(stream);
        for entry in archive.entries()? {
            tree.add(&mut entry?)?;
        }
        tree.name_link_groups();
        Ok(tree)
    }

    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let path = normal(&entry.path_bytes());
        if entry.header().entry_type() == EntryType::Link {
            let target = normal(
                &entry
                    .link_name_bytes()
                    .context("hard link without a target")?,
            );
            let node = self
                .nodes
                .get(&target)
                .with_context(|| format!("{} links to nothing", String::from_utf8_lossy(&path)))?;
            let node = node.clone();
            self.nodes.insert(path, node);
            return Ok(());
        }
        let mut node = Node::of(entry)?;
        node.linked_to.clone_from(&path);
        if node.kind != "directory" {
            self.remove_below(&path);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// A path that is no directory any more has nothing below it.
    fn remove_below(&mut self, path: &[u8]) {
        let mut prefix = path.to_vec();
        prefix.push(b'/');
        self.nodes.retain(|other, _| !other.starts_with(&prefix));
    }

    /// Links carry the name they were made from; the first in order is the same on both sides.
    fn name_link_groups(&mut self) {
        let mut first: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (path, node) in &self.nodes {
            first
                .entry(node.linked_to.clone())
                .or_insert_with(|| path.clone());
        }
        for node in self.nodes.values_mut() {
            node.linked_to.clone_from(&first[&node.linked_to]);
        }
    }

    /// How many paths there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no path at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node at `path`, which has no leading slash.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.as_bytes())
    }

    /// All paths in order.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.nodes
            .keys()
            .map(|path| String::from_utf8_lossy(path).into_owned())
    }

    /// Drops what only exists because a directory was made or changed on the way: its times.
    pub fn forget_directory_times(&mut self) {
        for node in self
            .nodes
            .values_mut()
            .filter(|node| node.kind == "directory")
        {
            node.mtime.clear();
        }
    }

    /// Drops the node at `path`, for a path that only one side can have.
    pub fn forget(&mut self, path: &str) {
        self.nodes.remove(path.as_bytes());
    }

    /// Takes the names of each device and fifo for nodes of their own, as GNU tar does.
    pub fn part_linked_devices(&mut self) {
        for (path, node) in &mut self.nodes {
            if !matches!(node.kind, "file" | "symlink" | "directory") {
                node.linked_to.clone_from(path);
            }
        }
    }

    /// The first of the names of a path's node, in order.
    #[must_use]
    pub fn first_name(&self, path: &[u8]) -> Option<&[u8]> {
        Some(&self.nodes.get(path)?.linked_to)
    }

    /// How many links each path's node must have: its names, or for a folder the folders in it and two.
    #[must_use]
    pub fn link_counts(&self) -> BTreeMap<&[u8], usize> {
        let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (path, node) in &self.nodes {
            if node.kind == "directory" {
                *counts.entry(path).or_default() += 2;
                if let Some(slash) = path.iter().rposition(|&byte| byte == b'/') {
                    *counts.entry(&path[..slash]).or_default() += 1;
                }
            } else {
                *counts.entry(&node.linked_to).or_default() += 1;
            }
        }
        self.nodes
            .iter()
            .map(|(path, node)| {
                let key = if node.kind == "directory" {
                    path
                } else {
                    &node.linked_to
                };
                (&**path, counts[&**key])
            })
            .collect()
    }

    /// Fails with the first differences between two trees; only one of them may have a root.
    ///
    /// # Errors
    /// When they differ.
    pub fn must_equal(&self, other: &Self) -> Result<()> {
        let (mut left, mut right) = (self.clone(), other.clone());
        left.forget("");
        right.forget("");
        let found = left.differences(&right);
        if found.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = found.iter().take(30).map(ToString::to_string).collect();
        bail!("{} differences:\n{}", found.len(), lines.join("\n"))
    }

    /// Every difference between two trees, a line each.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        for (path, left) in &self.nodes {
            match other.nodes.get(path) {
                None => found.push(Difference::new(path, "path", "there", "missing")),
                Some(right) => left.differences(path, right, &mut found),
            }
        }
        for path in other
            .nodes
            .keys()
            .filter(|path| !self.nodes.contains_key(*path))
        {
            found.push(Difference::new(path, "path", "missing", "there"));
        }
        found
    }
}

impl Node {
    fn of(entry: &mut Entry<'_, impl Read>) -> Result<Self> {
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => "file",
            EntryType::Directory => "directory",
            EntryType::Symlink => "symlink",
            EntryType::Char => "char device",
            EntryType::Block => "block device",
            EntryType::Fifo => "fifo",
            other => bail!("entry type {other:?} is none of a file system"),
        };
        let mut mtime = header.mtime()?.to_string();
        let mut owner = (header.uid()?, header.gid()?);
        let mut xattrs = BTreeMap::new();
        if let Some(records) = entry.pax_extensions()? {
            for record in records {
                let record = record?;
                let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                match record.key()? {
                    "mtime" => mtime = value,
                    "uid" => owner.0 = value.parse()?,
                    "gid" => owner.1 = value.parse()?,
                    key => {
                        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                            xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                        }
                    }
                }
            }
        }
        let content = match kind {
            "symlink" => {
                String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned()
            }
            "file" => digest(entry)?,
            "char device" | "block device" => {
                let number = |part: Option<u32>| part.unwrap_or_default();
                let (major, minor) = (header.device_major()?, header.device_minor()?);
                format!("{}:{}", number(major), number(minor))
            }
            _ => String::new(),
        };
        Ok(Self {
            kind,
            mode: header.mode()? & 0o7777,
            owner,
            mtime: plain_decimal(&mtime),
            xattrs,
            content,
            linked_to: Vec::new(),
        })
    }

    fn differences(&self, path: &[u8], other: &Self, found: &mut Vec<Difference>) {
        let mut compare = |what, left: &dyn fmt::Debug, right: &dyn fmt::Debug| {
            let (left, right) = (format!("{left:?}"), format!("{right:?}"));
            if left != right {
                found.push(Difference::new(path, what, &left, &right));
            }
        };
        compare("type", &self.kind, &other.kind);
        if self.kind != "symlink" {
            compare("mode", &self.mode, &other.mode);
        }
        compare("owner", &self.owner, &other.owner);
        compare("mtime", &self.mtime, &other.mtime);
        compare("xattrs", &self.xattrs, &other.xattrs);
        compare("content", &self.content, &other.content);
        compare("link", &self.linked_to, &other.linked_to);
    }
}

/// One thing that two trees do not agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    path: String,
    what: &'static str,
    left: String,
    right: String,
}

impl Difference {
    fn new(path: &[u8], what: &'static str, left: &str, right: &str) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        let (left, right) = (left.to_owned(), right.to_owned());
        Self {
            path,
            what,
            left,
            right,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            what,
            left,
            right,
        } = self;
        write!(f, "{path:<40} {what:<8} {left} | {right}")
    }
}

/// The SHA-256 of everything that `reader` has, in hex.
///
/// # Errors
/// When reading fails.
pub fn digest(reader: &mut impl Read) -> Result<String> {
    let mut hasher = Hasher(Sha256::new());
    copy(reader, &mut hasher)?;
    Ok(hex(&hasher.0.finalize()))
}

struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes as lowercase hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// A path as both sides may write it, in one form: no `./`, no slash at either end.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/');
    let kept: Vec<&[u8]> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    kept.join(&b'/')
}

/// `12.500` and `12.5` are the same time.
fn plain_decimal(number: &str) -> String {
    if number.contains('.') {
        number
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else {
        number.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{normal, plain_decimal};

    #[test]
    fn paths_and_times_have_one_form() {
        assert_eq!(normal(b"./usr//bin/"), b"usr/bin");
        assert_eq!(normal(b"/"), b"");
        assert_eq!(plain_decimal("-12.500"), "-12.5");
        assert_eq!(plain_decimal("100"), "100");
        assert_eq!(plain_decimal("3.000"), "3");
    }
}
