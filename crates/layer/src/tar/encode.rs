//! Encodes entries to a tar stream: ustar fields where they suffice, PAX records where not.
//!
//! The bytes depend on the entries alone. There is no user or group name, no
//! padding to a record beyond the two end blocks, and xattrs are sorted.

use std::io::Write;

use opengcs_ext4::{Timestamp, Xattr};

use super::header::{BLOCK, Header, put_number};
use super::{Entry, EntryKind, Run};
use super::{acl, pax};
use crate::{Error, Result};

const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The largest numbers that ustar's octal fields hold.
const MAX_OWNER: u32 = 0o777_7777;
const MAX_SIZE: u64 = 0o777_7777_7777;

/// Writes a tar stream.
pub(crate) struct Encoder<W> {
    output: W,
    /// Content bytes that the current entry still expects.
    expected: u64,
    padding: usize,
    position: u64,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(output: W) -> Self {
        Self {
            output,
            expected: 0,
            padding: 0,
            position: 0,
        }
    }

    /// How many bytes have been written.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Writes an entry's headers. For files with content, [`data`](Self::data)
    /// follows: `entry.size` bytes.
    pub(crate) fn start(&mut self, entry: &Entry) -> Result<()> {
        self.begin(entry, None)
    }

    /// Writes a sparse file's headers and map. The content of its runs alone follows. `runs` gives
    /// the same runs each time: first their map is measured, then written.
    pub(crate) fn start_sparse(&mut self, entry: &Entry, runs: &MakeRuns<'_>) -> Result<()> {
        let map = MapShape::of(runs, entry.size)?;
        self.begin(entry, Some(&map))?;
        let mut text = format!("{}\n", map.runs);
        for run in runs()? {
            put_run(&mut text, run?);
            if text.len() > 8 << 10 {
                self.data(text.as_bytes())?;
                text.clear();
            }
        }
        if let Some(last) = map.last {
            put_run(&mut text, last);
        }
        self.data(text.as_bytes())?;
        self.zeros(map.padding())
    }

    fn begin(&mut self, entry: &Entry, map: Option<&MapShape>) -> Result<()> {
        self.close_entry()?;
        let mut records = Vec::new();
        let mut header = Header([0; BLOCK]);
        let mut path = entry.path.clone();
        if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut stored = if entry.kind == EntryKind::File {
            entry.size
        } else {
            0
        };
        if let Some(map) = map {
            pax::put(&mut records, b"GNU.sparse.major", b"1");
            pax::put(&mut records, b"GNU.sparse.minor", b"0");
            pax::put(&mut records, b"GNU.sparse.name", &path);
            let size = entry.size.to_string();
            pax::put(&mut records, b"GNU.sparse.realsize", size.as_bytes());
            stored = map.stored + map.text + map.padding();
            path = beside(&path, b"GNUSparseFile.0");
        }
        if !put_path(&mut header, &path) {
            pax::put(&mut records, b"path", &path);
        }
        if entry.link.len() <= 100 {
            header.0[157..157 + entry.link.len()].copy_from_slice(&entry.link);
        } else {
            header.0[157..257].copy_from_slice(&entry.link[..100]);
            pax::put(&mut records, b"linkpath", &entry.link);
        }
        put_number(&mut header.0[100..108], u64::from(entry.mode));
        for (range, key, owner) in [(108..116, b"uid", entry.uid), (116..124, b"gid", entry.gid)] {
            if owner > MAX_OWNER {
                pax::put(&mut records, key, owner.to_string().as_bytes());
            }
            put_number(&mut header.0[range], u64::from(owner.min(MAX_OWNER)));
        }
        if stored > MAX_SIZE {
            pax::put(&mut records, b"size", stored.to_string().as_bytes());
        }
        put_number(&mut header.0[124..136], stored.min(MAX_SIZE));
        put_times(&mut header, &mut records, entry);
        let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
        xattrs.sort();
        for xattr in xattrs {
            let mut key = b"SCHILY.xattr.".to_vec();
            key.extend(pax::escape_name(&xattr.name));
            pax::put(&mut records, &key, &xattr.value);
            put_list(&mut records, xattr);
        }
        header.0[156] = kind_byte(entry.kind);
        put_number(&mut header.0[329..337], u64::from(entry.device.major));
        put_number(&mut header.0[337..345], u64::from(entry.device.minor));
        finish_header(&mut header);
        if !records.is_empty() {
            self.write_pax(&path, entry, &records)?;
        }
        self.write(&header.0)?;
        self.expected = stored;
        self.padding = usize::try_from(stored.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        Ok(())
    }

    /// Writes content of the current entry.
    pub(crate) fn data(&mut self, data: &[u8]) -> Result<()> {
        self.expected = self
            .expected
            .checked_sub(data.len() as u64)
            .ok_or_else(|| Error::corrupt("there is more content than the entry's size tells"))?;
        self.write(data)
    }

    /// Writes zeros as content of the current entry.
    pub(crate) fn zeros(&mut self, mut count: u64) -> Result<()> {
        static ZERO_RUN: [u8; 64 * 1024] = [0; 64 * 1024];
        while count > 0 {
            let step = usize::try_from(count).map_or(ZERO_RUN.len(), |c| c.min(ZERO_RUN.len()));
            self.data(&ZERO_RUN[..step])?;
            count -= step as u64;
        }
        Ok(())
    }

    /// Ends the tar.
    pub(crate) fn finish(mut self) -> Result<(W, u64)> {
        self.close_entry()?;
        self.write(&ZEROS)?;
        self.output.flush().map_err(cannot_write)?;
        Ok((self.output, self.position))
    }

    fn close_entry(&mut self) -> Result<()> {
        if self.expected > 0 {
            return Err(Error::corrupt(format!(
                "{} bytes of the entry's content are missing",
                self.expected
            )));
        }
        let padding = std::mem::take(&mut self.padding);
        self.write(&ZEROS[..padding])
    }

    fn write_pax(&mut self, path: &[u8], entry: &Entry, records: &[u8]) -> Result<()> {
        let mut header = Header([0; BLOCK]);
        let name = beside(path.strip_suffix(b"/").unwrap_or(path), b"PaxHeaders.0");
        if !put_path(&mut header, &name) {
            header.0[..20].copy_from_slice(b"PaxHeaders.0/longer\0");
        }
        put_number(&mut header.0[100..108], 0o644);
        put_number(&mut header.0[108..116], 0);
        put_number(&mut header.0[116..124], 0);
        put_number(&mut header.0[124..136], records.len() as u64);
        let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(0);
        put_number(&mut header.0[136..148], seconds.min(MAX_SIZE));
        header.0[156] = b'x';
        put_number(&mut header.0[329..337], 0);
        put_number(&mut header.0[337..345], 0);
        finish_header(&mut header);
        self.write(&header.0)?;
        self.write(records)?;
        self.write(&ZEROS[..records.len().wrapping_neg() % BLOCK])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(cannot_write)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::output("cannot write the tar", error)
}

fn kind_byte(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

fn finish_header(header: &mut Header) {
    header.0[257..265].copy_from_slice(b"ustar\x0000");
    header.set_checksum();
}

/// Tells an access control list as text too: GNU tar and bsdtar take lists from there alone, and
/// container engines take them from the attribute.
fn put_list(records: &mut Vec<u8>, xattr: &Xattr) {
    let key: &[u8] = match xattr.name.as_slice() {
        b"system.posix_acl_access" => b"SCHILY.acl.access",
        b"system.posix_acl_default" => b"SCHILY.acl.default",
        _ => return,
    };
    if let Some(text) = acl::text(&xattr.value) {
        pax::put(records, key, text.as_bytes());
    }
}

/// The path `folder` beside the last component of `path`.
fn beside(path: &[u8], folder: &[u8]) -> Vec<u8> {
    let start = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let (parent, name) = path.split_at(start);
    [parent, folder, b"/", name].concat()
}

/// Puts `path` into the name and prefix fields; when it does not fit, a part of it and `false`.
fn put_path(header: &mut Header, path: &[u8]) -> bool {
    if path.len() <= 100 {
        header.0[..path.len()].copy_from_slice(path);
        return true;
    }
    let split = path
        .iter()
        .enumerate()
        .skip(path.len() - 101)
        .find(|(at, byte)| **byte == b'/' && *at > 0 && *at <= 155 && *at + 1 < path.len());
    if let Some((at, _)) = split {
        let name = &path[at + 1..];
        header.0[..name.len()].copy_from_slice(name);
        header.0[345..345 + at].copy_from_slice(&path[..at]);
        return true;
    }
    header.0[..100].copy_from_slice(&path[..100]);
    false
}

fn put_times(header: &mut Header, records: &mut Vec<u8>, entry: &Entry) {
    let fits = |time: Timestamp| {
        u64::try_from(time.seconds)
            .ok()
            .filter(|seconds| time.nanoseconds == 0 && *seconds <= MAX_SIZE)
    };
    if fits(entry.mtime).is_none() {
        pax::put(records, b"mtime", pax::time_text(entry.mtime).as_bytes());
    }
    let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(0);
    put_number(&mut header.0[136..148], seconds.min(MAX_SIZE));
    for (key, time) in [(&b"atime"[..], entry.atime), (b"ctime", entry.ctime)] {
        if let Some(time) = time {
            pax::put(records, key, pax::time_text(time).as_bytes());
        }
    }
}

/// Gives a file's runs, each time the same.
pub(crate) type MakeRuns<'a> = dyn Fn() -> Result<Box<dyn Iterator<Item = Result<Run>> + 'a>> + 'a;

/// What GNU sparse 1.0's map will be: a line of text for each number.
struct MapShape {
    runs: u64,
    /// An empty run that tells of a hole at the end.
    last: Option<Run>,
    /// Bytes of the lines, and of the content behind them.
    text: u64,
    stored: u64,
}

impl MapShape {
    fn of(runs: &MakeRuns<'_>, size: u64) -> Result<Self> {
        let mut shape = Self {
            runs: 0,
            last: None,
            text: 0,
            stored: 0,
        };
        let mut end = 0;
        for run in runs()? {
            let run = run?;
            shape.add(run);
            end = run.offset + run.length;
        }
        if end < size {
            let last = Run {
                offset: size,
                length: 0,
            };
            shape.add(last);
            shape.last = Some(last);
        }
        shape.text += digits(shape.runs) + 1;
        Ok(shape)
    }

    fn add(&mut self, run: Run) {
        self.runs += 1;
        self.text += digits(run.offset) + digits(run.length) + 2;
        self.stored += run.length;
    }

    /// Bytes that fill the map up to whole blocks.
    fn padding(&self) -> u64 {
        self.text.wrapping_neg() % BLOCK as u64
    }
}

fn digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

fn put_run(text: &mut String, run: Run) {
    use std::fmt::Write;
    let written = writeln!(text, "{}\n{}", run.offset, run.length);
    debug_assert!(written.is_ok(), "text takes what is written");
}
