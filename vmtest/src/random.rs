//! Trees as chance makes them, the same for the same seed: every kind of node, name, time, owner and attribute.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use tar::{Builder, EntryType, Header};

use crate::odd::CAPABILITY;

/// What a tree is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Where chance begins.
    pub seed: u64,
    /// How many nodes there are, besides one large folder.
    pub nodes: usize,
    /// How many entries the large folder has.
    pub large_folder: usize,
    /// The longest target of a symbolic link.
    pub longest_link: usize,
}

/// Chance: a linear congruence, of which the high bits are taken.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound as u64).unwrap_or(0)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Any byte but the end of a line, where the crate `tar` parts PAX records.
    fn byte(&mut self) -> u8 {
        match u8::try_from(self.below(256)) {
            Ok(byte) if byte != b'\n' => byte,
            _ => 0,
        }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A name of letters, or of any bytes that names may have.
    fn name(&mut self) -> Vec<u8> {
        let length = match self.below(20) {
            0 => 255,
            1 => 1 + self.below(200),
            _ => 1 + self.below(24),
        };
        let any = self.one_in(3);
        let mut name: Vec<u8> = (0..length)
            .map(|_| match self.byte() {
                byte if any && byte != 0 && byte != b'/' => byte,
                byte => b'a' + byte % 26,
            })
            .collect();
        // Dots alone mean folders, and `.wh.` is taken away as a mark.
        if name[0] == b'.' {
            name[0] = b'_';
        }
        name
    }

    /// Content with runs of zeros in it, of all sizes.
    fn content(&mut self) -> Vec<u8> {
        let size = match self.below(30) {
            0..=5 => self.below(160),
            6..=14 => self.below(5000),
            15..=25 => self.below(40_000),
            26..=28 => self.below(400_000),
            _ => 0,
        };
        let mut content = Vec::with_capacity(size);
        while content.len() < size {
            let step = (1 + self.below(20_000)).min(size - content.len());
            let fill = if self.one_in(2) { 0 } else { self.byte() };
            content.resize(content.len() + step, fill);
            if fill != 0 {
                let end = content.len();
                content[end - 1] = self.byte();
            }
        }
        content
    }

    /// Seconds with a fraction, from 1902 to 2286.
    fn time(&mut self) -> String {
        let (sign, seconds) = match self.below(4) {
            0 => ("-", 1 + self.below(2_000_000_000)),
            1 => ("", self.below(10_000_000_000)),
            _ => ("", 1_000_000_000 + self.below(700_000_000)),
        };
        if self.one_in(3) {
            format!("{sign}{seconds}")
        } else {
            format!("{sign}{seconds}.{:09}", 1 + self.below(999_999_998))
        }
    }

    fn owner(&mut self) -> usize {
        match self.below(5) {
            0 => self.below(4_294_967_295),
            1 => 0,
            _ => self.below(70_000),
        }
    }

    /// Attributes that the kernel shows for a node of this kind.
    fn attributes(&mut self, kind: EntryType) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let holds_users = matches!(kind, EntryType::Regular | EntryType::Directory);
        if !self.one_in(4) {
            return found;
        }
        for number in 0..1 + self.below(4) {
            let space = if holds_users {
                *self.pick(&["user", "trusted"])
            } else {
                "trusted"
            };
            let length = match self.below(12) {
                0 => self.below(12_000),
                1..=3 => self.below(900),
                _ => self.below(40),
            };
            // GNU tar leaves out attributes without a value.
            found.push((
                format!("{space}.n{number}{}", self.below(9)),
                self.bytes(1 + length),
            ));
        }
        if kind == EntryType::Regular && self.one_in(3) {
            found.push(("security.capability".into(), CAPABILITY.to_vec()));
        }
        if holds_users && self.one_in(3) {
            found.push(("system.posix_acl_access".into(), access_list(self)));
        }
        found
    }
}

/// An access list as `getxattr` gives it: owner, a user, group, mask, others.
fn access_list(chance: &mut Chance) -> Vec<u8> {
    let user = 1000 + u32::try_from(chance.below(20)).unwrap_or(0);
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, id) in [(1_u16, !0), (2, user), (4, !0), (0x10, !0), (0x20, !0)] {
        list.extend(tag.to_le_bytes());
        list.extend(u16::try_from(chance.below(8)).unwrap_or(0).to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// Writes a tree below `random/`, without the mark that ends a tar.
///
/// # Errors
/// When `out` does not take the bytes.
pub fn write_tree(shape: Shape, out: &mut impl Write) -> Result<()> {
    let mut chance = Chance(shape.seed);
    let mut bytes = Vec::new();
    let mut tar = Builder::new(&mut bytes);
    let mut folders = vec![b"random".to_vec()];
    let mut linkable: Vec<Vec<u8>> = Vec::new();
    let mut taken = BTreeSet::new();
    entry(
        &mut tar,
        &mut chance,
        b"random",
        EntryType::Directory,
        b"",
        b"",
    )?;
    for _ in 0..shape.nodes {
        let mut path = chance.pick(&folders).clone();
        path.push(b'/');
        path.extend(chance.name());
        if path.len() > 3000 || !taken.insert(path.clone()) {
            continue;
        }
        let kind = match chance.below(20) {
            0..=3 => EntryType::Directory,
            4..=6 => EntryType::Symlink,
            7 | 8 if !linkable.is_empty() => EntryType::Link,
            9 => EntryType::Char,
            10 => EntryType::Block,
            11 => EntryType::Fifo,
            _ => EntryType::Regular,
        };
        let (mut content, mut target) = (Vec::new(), Vec::new());
        match kind {
            EntryType::Directory => folders.push(path.clone()),
            EntryType::Symlink => {
                let most = if chance.one_in(4) {
                    shape.longest_link
                } else {
                    80
                };
                let length = 1 + chance.below(most);
                target = (0..length).map(|_| *chance.pick(b"abc/.. x")).collect();
            }
            EntryType::Link => target.clone_from(chance.pick(&linkable)),
            EntryType::Regular => content = chance.content(),
            _ => {}
        }
        entry(&mut tar, &mut chance, &path, kind, &target, &content)?;
        if kind != EntryType::Directory {
            linkable.push(path);
        }
    }
    if shape.large_folder > 0 {
        entry(
            &mut tar,
            &mut chance,
            b"random/large",
            EntryType::Directory,
            b"",
            b"",
        )?;
        for number in 0..shape.large_folder {
            let path = format!("random/large/entry number {number}").into_bytes();
            let mut header = plain_header(EntryType::Regular, 0o644);
            put_path(&mut header, &path);
            header.set_cksum();
            tar.append(&header, &[][..])?;
        }
    }
    // The blocks that end an archive stay with whoever ends it.
    tar.finish()?;
    drop(tar);
    out.write_all(&bytes[..bytes.len() - 1024])?;
    Ok(())
}

fn plain_header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn put_path(header: &mut Header, path: &[u8]) {
    let name = &mut header.as_old_mut().name;
    let count = path.len().min(name.len());
    name[..count].copy_from_slice(&path[..count]);
}

fn entry(
    tar: &mut Builder<impl Write>,
    chance: &mut Chance,
    path: &[u8],
    kind: EntryType,
    target: &[u8],
    content: &[u8],
) -> Result<()> {
    let mut header = plain_header(kind, u32::try_from(chance.below(0o10000))?);
    header.set_size(content.len() as u64);
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    if kind != EntryType::Link {
        for (name, value) in [("uid", chance.owner()), ("gid", chance.owner())] {
            records.push((name.into(), value.to_string().into_bytes()));
        }
        records.push(("mtime".into(), chance.time().into_bytes()));
        for (name, value) in chance.attributes(kind) {
            if name == "system.posix_acl_access" {
                // The kernel keeps owner, mask and others in the mode too.
                let (user, mask, others) = (value[6], value[30], value[38]);
                let bits = u32::from(user) << 6 | u32::from(mask) << 3 | u32::from(others);
                header.set_mode(header.mode()? & !0o777 | bits);
            }
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
    }
    if matches!(kind, EntryType::Char | EntryType::Block) {
        // 0:0 would be a whiteout.
        header.set_device_major(1 + u32::try_from(chance.below(4095))?)?;
        header.set_device_minor(u32::try_from(chance.below(1 << 20))?)?;
    }
    records.push(("path".into(), path.to_vec()));
    if !target.is_empty() {
        records.push(("linkpath".into(), target.to_vec()));
    }
    tar.append_pax_extensions(
        records
            .iter()
            .map(|(name, value)| (name.as_str(), &value[..])),
    )?;
    put_path(&mut header, b"long");
    header.set_cksum();
    tar.append(&header, content)?;
    Ok(())
}
