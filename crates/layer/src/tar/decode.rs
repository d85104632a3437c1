//! Decodes a tar stream entry by entry: which headers belong together and which of their values count.
//!
//! PAX local records come before PAX global records, those before GNU long
//! names, those before the header's own fields. Link, device, directory and
//! fifo entries have no content, whatever their size field says, as with GNU
//! tar and Go; but a hard link that says a size may be followed by its target's
//! content again, as `pax -o linkdata` writes it.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use super::header::{BLOCK, text};
use super::{Entry, Run};
use crate::problem::ProblemKind;
use crate::warning::Warnings;
use crate::{Error, Result};
use entry::size_of;

mod entry;
mod input;
mod values;

/// The most bytes of long names and PAX records before one entry, and of all global records.
const MAX_EXTENSION: u64 = 8 << 20;

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
    /// The runs of a sparse file, which its entry has too; which of them is next, and how much of it
    /// was taken.
    runs: Option<Arc<[Run]>>,
    next_run: usize,
    taken: u64,
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
    /// The size that a hard link has said, until it shows whether its content follows.
    content_of_link: Option<u64>,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
    ended: bool,
    pub(crate) warnings: Warnings,
    /// Labels of volumes, which were passed over.
    pub(crate) labels: u64,
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
            content_of_link: None,
            global: BTreeMap::new(),
            ended: false,
            warnings: Warnings::default(),
            labels: 0,
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
                    if extensions.records.is_empty() {
                        extensions.records = records;
                    } else {
                        extensions.records.append(&mut records);
                    }
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
                b'A' => {
                    // Solaris tells the list of the entry that follows in a header of its own.
                    self.extension(&header, &mut extensions, offset)?;
                    self.warnings.push_as(
                        ProblemKind::IncompleteAcl,
                        &header.path(),
                        "its access control list in the form of Solaris is left out",
                    );
                }
                b'V' => {
                    // A volume's label: no file.
                    self.labels += 1;
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
        if let Some(runs) = &self.body.runs {
            let Some(run) = runs.get(self.body.next_run) else {
                let hole = self.body.size - self.body.position;
                self.body.position = self.body.size;
                return Ok((hole > 0).then_some(Chunk::Hole(hole)));
            };
            if self.body.taken == 0 && run.offset > self.body.position {
                let hole = run.offset - self.body.position;
                self.body.position = run.offset;
                return Ok(Some(Chunk::Hole(hole)));
            }
            limit = run.length - self.body.taken;
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
        if let Some(runs) = &self.body.runs
            && let Some(run) = runs.get(self.body.next_run)
        {
            self.body.taken += taken;
            if self.body.taken == run.length {
                self.body.taken = 0;
                self.body.next_run += 1;
            }
        }
        Ok(Some(Chunk::Data(buffer.get(..length).unwrap_or_default())))
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
}
