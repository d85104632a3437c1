//! Makes an entry of a header and the extension headers before it.

use std::io::BufRead;
use std::sync::Arc;

use opengcs_ext4::{Device, Timestamp, Xattr};

use super::values::Values;
use super::{Body, Decoder, Extensions, MAX_EXTENSION};
use crate::problem::ProblemKind;
use crate::tar::header::{BLOCK, BadNumber, Dialect, Header};
use crate::tar::pax::Records;
use crate::tar::sparse::{self, PaxSparse};
use crate::tar::{Entry, EntryKind, Run};
use crate::{Error, Result};

impl<R: BufRead> Decoder<R> {
    /// Reads the content of an extension header.
    pub(super) fn extension(
        &mut self,
        header: &Header,
        extensions: &mut Extensions,
        offset: u64,
    ) -> Result<Vec<u8>> {
        let size = size_of(header).map_err(|error| error.with_offset(offset))?;
        extensions.bytes = extensions.bytes.saturating_add(size.max(BLOCK as u64));
        if extensions.bytes > MAX_EXTENSION {
            return Err(Error::unsupported(format!(
                "the extension headers of one entry take more than {MAX_EXTENSION} bytes"
            ))
            .with_offset(offset));
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut left = size;
        while left > 0 {
            let mut block = [0; BLOCK];
            if self.read_block(&mut block)? != BLOCK {
                return Err(
                    Error::corrupt("the tar ends within an extension header").with_offset(offset)
                );
            }
            let step = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            content.extend_from_slice(&block[..step]);
            left -= step as u64;
        }
        Ok(content)
    }

    pub(super) fn take_global(&mut self, records: &[u8], offset: u64) -> Result<()> {
        for record in Records::new(records) {
            let (key, value) = record.map_err(|_| bad_record().with_offset(offset))?;
            if key.starts_with(b"GNU.sparse.") {
                return Err(Error::unsupported(
                    "a global header says that all files are sparse, which no tool means",
                )
                .with_offset(offset));
            }
            if value.is_empty() {
                self.global.remove(key);
            } else {
                self.global.insert(key.to_vec(), value.to_vec());
            }
        }
        let held: usize = self
            .global
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if held as u64 > MAX_EXTENSION {
            return Err(Error::unsupported(format!(
                "the global records take more than {MAX_EXTENSION} bytes"
            ))
            .with_offset(offset));
        }
        Ok(())
    }

    pub(super) fn entry(
        &mut self,
        header: &Header,
        extensions: Extensions,
        offset: u64,
    ) -> Result<Entry> {
        if self.global.contains_key(&b"GNU.volume.filename"[..]) {
            return Err(continued());
        }
        let mut values = Values::default();
        for (key, value) in &self.global {
            values.take(key, value)?;
        }
        let of_all = std::mem::take(&mut values.xattrs);
        for record in Records::new(&extensions.records) {
            let (key, value) = record.map_err(|_| bad_record())?;
            values.take(key, value)?;
        }
        // One attribute has several forms, so that a later one does not always replace it.
        for (name, value) in of_all {
            values.xattrs.entry(name).or_insert(value);
        }
        let stored = match values.size {
            Some(size) => size,
            None => size_of(header)?,
        };
        let path = values
            .path
            .take()
            .or(extensions.long_name)
            .unwrap_or_else(|| header.path());
        let path = match values.sparse.name.take() {
            Some(name) => name,
            None => path,
        };
        let link = values
            .link
            .take()
            .or(extensions.long_link)
            .unwrap_or_else(|| header.link().to_vec());
        let kind = kind_of(header, &path, stored)?;
        if is_unknown(header) {
            let letter = header.kind().escape_ascii();
            self.warnings.push_as(
                ProblemKind::UnknownType,
                &path,
                format!("its type '{letter}' is not known: it is taken for a file"),
            );
        }
        let (gnu_atime, gnu_ctime) = header.gnu_times();
        let own = |field: &str, number: Result<i64, BadNumber>| {
            number.map_err(|_| Error::corrupt(format!("the header's {field} is not a number")))
        };
        let mode = own("mode", header.mode())? & 0o7777;
        let mut entry = Entry {
            kind,
            link,
            mode: u16::try_from(mode).unwrap_or(0),
            uid: owner("uid", values.uid, || own("uid", header.uid()))?,
            gid: owner("gid", values.gid, || own("gid", header.gid()))?,
            mtime: match values.mtime {
                Some(time) => time,
                None => whole(own("mtime", header.mtime())?),
            },
            atime: values.atime.or(gnu_atime.map(whole)),
            ctime: values.ctime.or(gnu_ctime.map(whole)),
            device: Device::default(),
            xattrs: values
                .xattrs
                .into_iter()
                .map(|(name, value)| Xattr { name, value })
                .collect(),
            size: 0,
            runs: None,
            offset,
            path,
        };
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            let number = |told: Option<u64>, own: Result<i64, BadNumber>| match told {
                Some(told) => u32::try_from(told).ok(),
                None => u32::try_from(own.ok()?).ok(),
            };
            let (major, minor) = header.device();
            (entry.device.major, entry.device.minor) = number(values.major, major)
                .zip(number(values.minor, minor))
                .ok_or_else(|| Error::corrupt("the header's device number is not a number"))?;
        }
        // GNU tar tells the same list as an xattr too, when asked for both.
        let there = |name: &&[u8]| entry.xattrs.iter().any(|xattr| xattr.name == **name);
        if !values.acl.iter().all(there) {
            self.warnings.push_as(
ProblemKind::IncompleteAcl,
                &entry.path,
                "its access control list in text form (SCHILY.acl) is left out: it is not complete, \
                 or names someone without a number",
            );
        }
        if values.has_ace {
            self.warnings.push_as(
                ProblemKind::IncompleteAcl,
                &entry.path,
                "its access control list of NFSv4's kind (SCHILY.acl.ace) is left out: ext4 has no such \
                 lists",
            );
        }
        self.start_body(header, values.sparse, &mut entry, stored)?;
        Ok(entry)
    }

    /// Works out where the content is, and reads the sparse map if it stands before it.
    pub(super) fn start_body(
        &mut self,
        header: &Header,
        pax_sparse: PaxSparse,
        entry: &mut Entry,
        stored: u64,
    ) -> Result<()> {
        let gnu_dump = header.kind() == b'D';
        self.body = Body {
            name: entry.path.clone(),
            offset: entry.offset,
            ..Body::default()
        };
        if entry.kind == EntryKind::HardLink {
            self.content_of_link = Some(stored).filter(|stored| *stored > 0);
        }
        if entry.kind != EntryKind::File && !gnu_dump {
            return Ok(());
        }
        self.body.padding = stored.wrapping_neg() % BLOCK as u64;
        self.body.stored = stored;
        self.body.stored_total = stored;
        if gnu_dump {
            return Ok(());
        }
        entry.size = stored;
        self.body.size = stored;
        let map = if header.kind() == b'S' {
            Some(self.gnu_sparse_map(header)?)
        } else {
            pax_sparse.map()?
        };
        let map = match map {
            Some(sparse::Map::InContent { real_size }) => Some((self.map_in_content()?, real_size)),
            Some(sparse::Map::Given { runs, real_size }) => Some((runs, real_size)),
            None => None,
        };
        if let Some((runs, real_size)) = map {
            let runs = sparse::check(runs, real_size, self.body.stored)?;
            entry.size = real_size;
            self.body.size = real_size;
            let runs: Arc<[Run]> = runs.into();
            self.body.runs = Some(Arc::clone(&runs));
            entry.runs = Some(runs);
        }
        Ok(())
    }

    pub(super) fn gnu_sparse_map(&mut self, header: &Header) -> Result<sparse::Map> {
        let mut map = sparse::GnuMap::from_header(header)?;
        while map.more {
            let mut block = [0; BLOCK];
            if self.read_block(&mut block)? != BLOCK {
                return Err(Error::corrupt(
                    "the tar ends within the map of a sparse file",
                ));
            }
            map.take_extension(&block)?;
        }
        Ok(sparse::Map::Given {
            runs: map.runs,
            real_size: map.real_size,
        })
    }

    /// GNU sparse 1.0: the map is decimal lines at the start of the content, padded to a block.
    pub(super) fn map_in_content(&mut self) -> Result<Vec<Run>> {
        let mut reader = sparse::TextMap::default();
        while !reader.complete() {
            let mut block = [0; BLOCK];
            if self.body.stored < BLOCK as u64 {
                return Err(Error::corrupt(
                    "the map of the sparse file is longer than its content",
                ));
            }
            if self.read_block(&mut block)? != BLOCK {
                return Err(Error::corrupt(
                    "the tar ends within the map of a sparse file",
                ));
            }
            self.body.stored -= BLOCK as u64;
            reader.take(&block)?;
        }
        Ok(reader.runs)
    }
}

impl Extensions {
    /// The entry's name as far as it is known when nothing else is.
    pub(super) fn name(&self, header: &Header) -> Vec<u8> {
        let mut name = self.long_name.clone();
        for (key, value) in Records::new(&self.records).flatten() {
            if key == b"path" || key == b"GNU.sparse.name" {
                name = Some(value.to_vec());
            }
        }
        name.unwrap_or_else(|| header.path())
    }
}

/// What a volume but the first begins with, which old GNU archives tell by a type and PAX ones by a
/// global record.
fn continued() -> Error {
    Error::unsupported("it continues from another volume of a multi-volume archive")
}

fn bad_record() -> Error {
    Error::corrupt("a PAX record breaks the form")
}

fn whole(seconds: i64) -> Timestamp {
    Timestamp {
        seconds,
        nanoseconds: 0,
    }
}

pub(super) fn size_of(header: &Header) -> Result<u64> {
    header
        .size()
        .ok()
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| Error::corrupt("the header's size is not a number"))
}

fn owner(field: &str, pax: Option<u64>, own: impl FnOnce() -> Result<i64>) -> Result<u32> {
    let number = match pax {
        Some(number) => Some(number),
        None => u64::try_from(own()?).ok(),
    };
    number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| Error::unsupported(format!("its {field} does not fit into 32 bits")))
}

fn kind_of(header: &Header, path: &[u8], stored: u64) -> Result<EntryKind> {
    let kind = header.kind();
    Ok(match kind {
        // Before ustar a slash at the end made a directory, and some tools still write that.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        b'0' | b'7' if path.ends_with(b"/") && stored == 0 => EntryKind::Directory,
        0 | b'0' | b'7' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' | b'D' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        b'S' if header.dialect() == Dialect::Gnu => EntryKind::File,
        b'M' => return Err(continued()),
        // POSIX wants types that are not known to be files.
        _ => EntryKind::File,
    })
}

/// Whether nobody has defined what the entry is.
fn is_unknown(header: &Header) -> bool {
    match header.kind() {
        0 | b'0'..=b'7' | b'D' => false,
        b'S' => header.dialect() != Dialect::Gnu,
        _ => true,
    }
}
