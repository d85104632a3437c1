//! Where the entries of a synthetic layer stand: folders in folders, links among the files.

use std::path::Path;

use anyhow::Result;
use tar::{EntryType, Header};

use super::content::{Content, noise};
use super::random::Random;
use super::shape::{self, Kind};
use super::{TIME, Tar, append_with, create, finish};

/// Folders of so few files have none below them.
const FEW: u32 = 12;

/// Deeper folders have files only.
const DEEPEST: u32 = 9;

/// `cap_net_bind_service=ep` as the kernel stores it.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes a tar of `files` files which hold `mib` MiB, with their folders and some links.
pub(crate) fn write(path: &Path, files: u32, mib: u32) -> Result<()> {
    let mut random = Random::new(0);
    let mut layer = Layer {
        tar: create(path)?,
        content: Content::new(&mut random),
        sizes: shape::sizes(&mut random, files, u64::from(mib) << 20).into_iter(),
        random,
        folders: 0,
        linkable: None,
    };
    // The paths of a root file system, and what share of the files is below each.
    let mut left = files;
    for (folder, parts) in [
        ("usr", 0),
        ("usr/bin", 3),
        ("usr/lib", 12),
        ("usr/lib/x86_64-linux-gnu", 12),
        ("usr/lib/python3", 20),
        ("usr/share", 25),
        ("opt", 20),
        ("var", 100),
    ] {
        let here = u32::try_from(u64::from(files) * parts / 100)?.min(left);
        layer.folder(folder, 2, here)?;
        left -= here;
    }
    finish(layer.tar)
}

struct Layer {
    tar: Tar,
    random: Random,
    content: Content,
    sizes: std::vec::IntoIter<u64>,
    folders: u32,
    /// The last file that a hard link can name.
    linkable: Option<String>,
}

impl Layer {
    /// Appends a folder with `files` files below it: some in it, the others in folders of its own.
    fn folder(&mut self, path: &str, depth: u32, files: u32) -> Result<()> {
        self.folders += 1;
        let header = self.header(EntryType::Directory, 0o755);
        append_with(&mut self.tar, &format!("{path}/"), header, Vec::new(), &[])?;
        let here = match files {
            0..=FEW => files,
            _ if depth == DEEPEST => files,
            // Some folders are large: programs, the package manager's notes.
            _ if self.random.once_in(40) => files.min(1500),
            _ => u32::try_from(self.random.below(12))?,
        };
        for number in 0..here {
            self.file(path, number)?;
        }
        let mut left = files - here;
        let mut number = 0;
        while left > 0 {
            let most = usize::try_from(left.div_ceil(3).max(8))?;
            let share = left.min(1 + u32::try_from(self.random.below(most))?);
            let name = shape::folder_name(&mut self.random, number);
            self.folder(&format!("{path}/{name}"), depth + 1, share)?;
            left -= share;
            number += 1;
        }
        Ok(())
    }

    fn file(&mut self, folder: &str, number: u32) -> Result<()> {
        let size = self.sizes.next().unwrap_or_default();
        let kind = shape::kind(&mut self.random, size);
        let name = shape::file_name(&mut self.random, number, kind);
        let path = format!("{folder}/{name}");
        let length = usize::try_from(size)?;
        let data = match kind {
            Kind::Text => self.content.text(&mut self.random, length),
            Kind::Program => self.content.program(&mut self.random, length),
            Kind::Packed => noise(&mut self.random, length),
        };
        let mut records = Vec::new();
        if self.random.once_in(2000) {
            records.push(("SCHILY.xattr.security.capability", CAPABILITY));
        }
        let mode = if kind == Kind::Program { 0o755 } else { 0o644 };
        let header = self.header(EntryType::Regular, mode);
        append_with(&mut self.tar, &path, header, records, &data)?;
        if self.random.once_in(16) {
            self.link(&format!("{folder}/to-{number}"), EntryType::Symlink, &name)?;
        }
        if self.random.once_in(100)
            && let Some(target) = self.linkable.take()
        {
            self.link(&format!("{folder}/as-{number}"), EntryType::Link, &target)?;
        }
        if path.len() <= 100 {
            self.linkable = Some(path);
        }
        Ok(())
    }

    fn link(&mut self, path: &str, kind: EntryType, target: &str) -> Result<()> {
        let mode = if kind == EntryType::Link {
            0o644
        } else {
            0o777
        };
        let mut header = self.header(kind, mode);
        let mut records = Vec::new();
        if header.set_link_name_literal(target).is_err() {
            records.push(("linkpath", target.as_bytes()));
        }
        append_with(&mut self.tar, path, header, records, &[])
    }

    fn header(&mut self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        let owner = if self.random.once_in(20) { 1000 } else { 0 };
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(TIME + self.random.next() % 10_000_000);
        header
    }
}
