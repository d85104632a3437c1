//! Decodes a tar stream entry by entry: which headers belong together and which of their values count.
//!
//! PAX local records come before PAX global records, those before GNU long
//! names, those before the header's own fields. Link, device, directory and
//! fifo entries have no content, whatever their size field says, as with GNU
//! tar and Go.

use std::collections::BTreeMap;
use std::io::BufRead;

use opengcs_ext4::{Device, Timestamp, Xattr};

use super::header::{BLOCK, BadNumber, Dialect, Header, text};
use super::pax::{self, Records};
use super::sparse::{self, PaxSparse};
use super::{Entry, EntryKind, Run};
use crate::warning::Warnings;
use crate::{Error, Result};

/// The most bytes of long names and PAX records before one entry, and of all global records.
const MAX_EXTENSION: u64 = 16 << 20;

/// A piece of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk<'a> {
    Data(&'a [u8]),
    /// So many bytes of zeros that are not stored.
    Hole(u64),
}

/// What is left of the current entry's content.
#[derive(Default)]
struct Body {
    name: Vec<u8>,
    offset: u64,
    /// Stored bytes that are still to come.
    stored: u64,
    /// Stored bytes in all.
    stored_total: u64,
    padding: u64,
    /// The runs of a sparse file, in reverse.
    runs: Option<Vec<Run>>,
    /// Where in the file the next byte goes, for sparse files.
    position: u64,
    size: u64,
}

/// Reads a tar stream.
pub(crate) struct Decoder<R> {
    input: R,
    position: u64,
    /// Bytes of the input's buffer handed out and not yet consumed.
    lent: usize,
    body: Body,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
    ended: bool,
    pub(crate) warnings: Warnings,
}

/// Values that extension headers give to the entry they precede.
#[derive(Default)]
struct Extensions {
    offset: Option<u64>,
    bytes: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Vec<u8>,
}

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            lent: 0,
            body: Body::default(),
            global: BTreeMap::new(),
            ended: false,
            warnings: Warnings::default(),
        }
    }

    /// How far into the tar the decoder is, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, after skipping what is left of the one before; `None` at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_body()?;
        let mut extensions = Extensions::default();
        while !self.ended {
            let offset = self.position;
            let Some(header) = self.read_header()? else {
                break;
            };
            let start = *extensions.offset.get_or_insert(offset);
            match header.kind() {
                b'x' | b'X' => {
                    let mut records = self.extension(&header, &mut extensions, offset)?;
                    extensions.records.append(&mut records);
                }
                b'g' => {
                    let records = self.extension(&header, &mut extensions, offset)?;
                    self.take_global(&records, offset)?;
                    if extensions.offset == Some(offset) {
                        extensions.offset = None;
                    }
                }
                b'L' => {
                    let name = self.extension(&header, &mut extensions, offset)?;
                    extensions.long_name = Some(text(&name).to_vec());
                }
                b'K' => {
                    let name = self.extension(&header, &mut extensions, offset)?;
                    extensions.long_link = Some(text(&name).to_vec());
                }
                b'V' => {
                    // A volume's label: no file.
                    let size = size_of(&header).map_err(|error| error.with_offset(offset))?;
                    self.skip(size.next_multiple_of(BLOCK as u64), &header.path(), offset)?;
                    extensions = Extensions::default();
                }
                _ => {
                    let name = extensions.name(&header);
                    return self
                        .entry(&header, extensions, start)
                        .map(Some)
                        .map_err(|error| error.with_entry(&name, start));
                }
            }
        }
        if let Some(offset) = extensions.offset {
            return Err(Error::corrupt(
                "the tar ends after an extension header, before the entry it belongs to",
            )
            .with_offset(offset));
        }
        Ok(None)
    }

    /// The next piece of the current entry's content; `None` when it is complete.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk<'_>>> {
        self.settle();
        let mut limit = self.body.stored;
        if let Some(runs) = &mut self.body.runs {
            let Some(run) = runs.last_mut() else {
                let hole = self.body.size - self.body.position;
                self.body.position = self.body.size;
                return Ok((hole > 0).then_some(Chunk::Hole(hole)));
            };
            if run.offset > self.body.position {
                let hole = run.offset - self.body.position;
                self.body.position = run.offset;
                return Ok(Some(Chunk::Hole(hole)));
            }
            limit = run.length;
        }
        if limit == 0 {
            return Ok(None);
        }
        // Looked at twice because the first look cannot be handed out.
        if self.fill()? == 0 {
            return Err(self.cut_short());
        }
        let buffer = self
            .input
            .fill_buf()
            .map_err(|error| Error::io("cannot read the tar", error))?;
        let length = usize::try_from(limit).map_or(buffer.len(), |limit| limit.min(buffer.len()));
        self.lent = length;
        let taken = length as u64;
        self.position += taken;
        self.body.stored -= taken;
        self.body.position += taken;
        if let Some(runs) = &mut self.body.runs
            && let Some(run) = runs.last_mut()
        {
            run.offset += taken;
            run.length -= taken;
            if run.length == 0 {
                runs.pop();
            }
        }
        Ok(Some(Chunk::Data(buffer.get(..length).unwrap_or_default())))
    }

    /// Reads on to the end of the input, so that its own checks are made.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.settle();
        let start = self.position;
        let mut zeros = true;
        loop {
            let buffer = self
                .input
                .fill_buf()
                .map_err(|error| Error::io("cannot read the tar", error))?;
            if buffer.is_empty() {
                break;
            }
            zeros = zeros && buffer.iter().all(|byte| *byte == 0);
            let length = buffer.len();
            self.input.consume(length);
            self.position += length as u64;
        }
        // A disk image begins as an empty tar does.
        if !zeros && start <= 2 * BLOCK as u64 {
            return Err(Error::corrupt(
                "no tar: there is no entry before its end, and other data behind it",
            ));
        }
        if !zeros {
            self.warnings.push(
                b"",
                format!("what follows the end of the tar at byte {start} is ignored"),
            );
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.input.consume(std::mem::take(&mut self.lent));
    }

    fn fill(&mut self) -> Result<usize> {
        self.input
            .fill_buf()
            .map(<[u8]>::len)
            .map_err(|error| Error::io("cannot read the tar", error))
    }

    fn cut_short(&self) -> Error {
        let total = self.body.stored_total;
        let there = total - self.body.stored;
        Error::corrupt(format!(
            "the tar ends at byte {} within this entry's content ({there} of {total} bytes)",
            self.position
        ))
        .with_entry(&self.body.name, self.body.offset)
    }

    fn skip_body(&mut self) -> Result<()> {
        self.settle();
        let body = std::mem::take(&mut self.body);
        let rest = body.stored.saturating_add(body.padding);
        self.skip(rest, &body.name, body.offset)
    }

    fn skip(&mut self, mut count: u64, name: &[u8], offset: u64) -> Result<()> {
        while count > 0 {
            let there = self.fill()?;
            if there == 0 {
                return Err(Error::corrupt(format!(
                    "the tar ends at byte {} within this entry's content",
                    self.position
                ))
                .with_entry(name, offset));
            }
            let step = usize::try_from(count).map_or(there, |count| count.min(there));
            self.input.consume(step);
            self.position += step as u64;
            count -= step as u64;
        }
        Ok(())
    }

    /// Fills `block`; how many bytes there were is less only at the end.
    fn read_block(&mut self, block: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < block.len() {
            let buffer = self
                .input
                .fill_buf()
                .map_err(|error| Error::io("cannot read the tar", error))?;
            if buffer.is_empty() {
                break;
            }
            let step = buffer.len().min(block.len() - done);
            block[done..done + step].copy_from_slice(&buffer[..step]);
            self.input.consume(step);
            self.position += step as u64;
            done += step;
        }
        Ok(done)
    }

    /// The next header; `None` at the end of the tar or, without end blocks, of the input.
    fn read_header(&mut self) -> Result<Option<Header>> {
        let offset = self.position;
        let mut header = Header([0; BLOCK]);
        match self.read_block(&mut header.0)? {
            BLOCK => {}
            0 => {
                self.ended = true;
                return Ok(None);
            }
            short if offset == 0 => {
                return Err(Error::corrupt(format!(
                    "the input is no tar stream: it has {short} bytes, and a header takes {BLOCK}"
                )));
            }
            short => {
                return Err(Error::corrupt(format!(
                    "the tar ends within a header ({short} of {BLOCK} bytes)"
                ))
                .with_offset(offset));
            }
        }
        if header.is_zero() {
            let mut second = Header([0; BLOCK]);
            self.read_block(&mut second.0)?;
            if !second.is_zero() {
                return Err(Error::corrupt(
                    "a single block of zeros stands where a header or the end should be",
                )
                .with_offset(offset));
            }
            self.ended = true;
            return Ok(None);
        }
        if !header.checksum_fits() {
            let message = if offset == 0 {
                "the input is no tar stream: the first header's checksum does not fit"
            } else {
                "the header's checksum does not fit"
            };
            return Err(Error::corrupt(message).with_offset(offset));
        }
        Ok(Some(header))
    }

    /// Reads the content of an extension header.
    fn extension(
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
        let mut content = Vec::new();
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

    fn take_global(&mut self, records: &[u8], offset: u64) -> Result<()> {
        for record in Records::new(records) {
            let (key, value) = record.map_err(|_| bad_record().with_offset(offset))?;
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

    fn entry(&mut self, header: &Header, extensions: Extensions, offset: u64) -> Result<Entry> {
        let mut values = Values::default();
        for (key, value) in &self.global {
            values.take(key, value, true)?;
        }
        for record in Records::new(&extensions.records) {
            let (key, value) = record.map_err(|_| bad_record())?;
            values.take(key, value, false)?;
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
            let numbers = header
                .device()
                .ok()
                .and_then(|(major, minor)| {
                    Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
                })
                .ok_or_else(|| Error::corrupt("the header's device number is not a number"))?;
            (entry.device.major, entry.device.minor) = numbers;
        }
        if values.acl {
            self.warnings.push(
                &entry.path,
                "its access control list in text form (SCHILY.acl) is left out",
            );
        }
        self.start_body(header, values.sparse, &mut entry, stored)?;
        Ok(entry)
    }

    /// Works out where the content is, and reads the sparse map if it stands before it.
    fn start_body(
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
            self.body.runs = Some(runs.iter().rev().copied().collect());
            entry.runs = Some(runs);
        }
        Ok(())
    }

    fn gnu_sparse_map(&mut self, header: &Header) -> Result<sparse::Map> {
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
    fn map_in_content(&mut self) -> Result<Vec<Run>> {
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
    fn name(&self, header: &Header) -> Vec<u8> {
        let mut name = self.long_name.clone();
        for (key, value) in Records::new(&self.records).flatten() {
            if key == b"path" || key == b"GNU.sparse.name" {
                name = Some(value.to_vec());
            }
        }
        name.unwrap_or_else(|| header.path())
    }
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

fn size_of(header: &Header) -> Result<u64> {
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
        b'M' => {
            return Err(Error::unsupported(
                "it continues from another volume of a multi-volume archive",
            ));
        }
        other => {
            return Err(Error::unsupported(format!(
                "entry type '{}' is not known",
                other.escape_ascii()
            )));
        }
    })
}

/// What PAX records say about an entry.
#[derive(Default)]
struct Values {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Timestamp>,
    atime: Option<Timestamp>,
    ctime: Option<Timestamp>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse: PaxSparse,
    acl: bool,
}

impl Values {
    fn take(&mut self, key: &[u8], value: &[u8], global: bool) -> Result<()> {
        let bad = || {
            let key = String::from_utf8_lossy(key).into_owned();
            Error::corrupt(format!(
                "PAX record {key:?} has a value that makes no sense"
            ))
        };
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            [] => Ok(None),
            text => pax::decimal(text).map(Some).ok_or_else(bad),
        };
        let time = || match value {
            [] => Ok(None),
            text => pax::time(text).map(Some).ok_or_else(bad),
        };
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            b"ctime" => self.ctime = time()?,
            b"SCHILY.acl.access" | b"SCHILY.acl.default" => self.acl = !value.is_empty(),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(pax::unescape_name(name), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = pax::url_decode(name).ok_or_else(bad)?;
                    let value = pax::base64(value).ok_or_else(bad)?;
                    // The plain form of the same attribute, where both are there, is the safer one.
                    self.xattrs.entry(name).or_insert(value);
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.")
                    && !global
                {
                    self.sparse.take(name, value).ok_or_else(bad)?;
                }
            }
        }
        Ok(())
    }
}
