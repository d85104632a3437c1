//! Crash-safe writing: payload in place, the block table through the log, at most one log entry ahead of the file.
//!
//! The log holds entries alternately in its two halves, each its own tail. An
//! entry is durable before the table's pages change, and those are durable
//! before the next entry is written; so whichever entry is the newest whole one,
//! replaying it gives the newest or the next newest table. The header names the
//! log only when the first entry is in it: readers refuse a log that is named
//! and empty.

use super::bat::{Block, Page};
use super::header::{HEADERS_AT, Header};
use super::log::{self, Change, NewEntry, Replay};
use super::view::View;
use super::{Mode, Vhdx};
use crate::number::{clamp, end_of, is_zero, wide};
use crate::{Error, Guid, Result, Storage};

/// The most pages in one log entry: two such entries fit in the smallest log.
pub(super) const PAGES: usize = 100;

/// What GUIDs are derived for.
pub(super) const FILE: u64 = 1;
const DATA: u64 = 2;
const LOG: u64 = 3;

/// One opening for writing.
#[derive(Debug)]
pub(super) struct Session {
    id: Guid,
    /// Whether the headers say that the file is being changed.
    started: bool,
    /// Whether the header names the log, and so its entries count.
    logging: bool,
    /// What the log entries of this session carry.
    log_guid: Guid,
    /// The number of the next log entry.
    next: u64,
}

impl Session {
    pub(super) fn new(id: Guid) -> Self {
        Self {
            id,
            started: false,
            logging: false,
            log_guid: Guid::NIL,
            next: 1,
        }
    }
}

/// A GUID that the file has not had: each header has a new sequence number.
pub(super) fn fresh(session: Guid, header: &Header, purpose: u64) -> Guid {
    session.derive(header.sequence_number.rotate_left(2) ^ purpose)
}

/// Overwrites the header that does not count, and makes it the one that does.
pub(super) fn replace_header<S: Storage>(
    view: &View<S>,
    header: &mut Header,
    slot: &mut usize,
    mut new: Header,
) -> Result<()> {
    new.sequence_number = header
        .sequence_number
        .checked_add(1)
        .ok_or_else(|| Error::corrupt("the VHDX header's sequence number is at its end"))?;
    let other = usize::from(*slot == 0);
    let [first, second] = HEADERS_AT;
    view.write(if other == 0 { first } else { second }, &new.encode())?;
    view.sync()?;
    *header = new;
    *slot = other;
    Ok(())
}

/// Makes the changes of an active log in the file.
pub(super) fn replay<S: Storage>(view: &mut View<S>, replay: Replay) -> Result<()> {
    if replay.last_file_offset > view.end {
        view.storage
            .resize(replay.last_file_offset)
            .map_err(|error| Error::io("cannot extend the file", view.end, error))?;
        view.end = replay.last_file_offset;
    }
    for change in replay.changes {
        match change {
            Change::Data { offset, bytes } => view.write(offset, &bytes)?,
            Change::Zeros { offset, length } => zero(view, offset, length)?,
        }
    }
    view.sync()
}

/// Makes bytes zero, without writing where they are zero already.
fn zero<S: Storage>(view: &View<S>, mut offset: u64, length: u64) -> Result<()> {
    let end = end_of(offset, length)?;
    let mut buffer = vec![0; 64 << 10];
    while offset < end {
        let length = clamp(buffer.len(), end.saturating_sub(offset));
        let Some(piece) = buffer.get_mut(..length) else {
            break;
        };
        view.read(offset, piece)?;
        if !is_zero(piece) {
            piece.fill(0);
            view.write(offset, piece)?;
        }
        offset = offset.saturating_add(wide(length));
    }
    Ok(())
}

impl<S: Storage> Vhdx<S> {
    /// Writes all of `data`. Zeros do not take room for a block that has none.
    pub(crate) fn write_exact(&mut self, mut position: u64, mut data: &[u8]) -> Result<()> {
        let end = position
            .checked_add(wide(data.len()))
            .ok_or_else(|| Error::invalid("a write past the largest offset"))?;
        match self.mode {
            Mode::ReadOnly => return Err(crate::disk::read_only()),
            Mode::Creating { growing: true } if end > self.metadata.virtual_size => {
                self.set_size(end)?;
            }
            _ if end > self.metadata.virtual_size => return Err(crate::disk::past_end(end)),
            _ => {}
        }
        let block_size = self.metadata.block();
        while !data.is_empty() {
            let (block, within) = (position / block_size, position % block_size);
            let length = clamp(data.len(), block_size.get().saturating_sub(within));
            let (piece, rest) = data.split_at(length);
            let offset = match self.bat.block(&self.view, block)? {
                Block::Present(offset) => Some(offset),
                Block::NotPresent | Block::Zero if is_zero(piece) => None,
                Block::NotPresent | Block::Zero => {
                    self.start()?;
                    Some(self.allocate(block)?)
                }
                Block::Partial(_) => {
                    return Err(Error::corrupt("a VHDX block is partial where it cannot be"));
                }
            };
            if let Some(offset) = offset {
                self.start()?;
                self.view.write(offset.saturating_add(within), piece)?;
            }
            data = rest;
            position = position.saturating_add(wide(length));
            if self.bat.dirty.len() >= PAGES && matches!(self.mode, Mode::Writing(_)) {
                self.commit()?;
            }
        }
        Ok(())
    }

    /// Before the first change of a session: new GUIDs.
    pub(super) fn start(&mut self) -> Result<()> {
        let Mode::Writing(session) = &mut self.mode else {
            return Ok(());
        };
        if session.started {
            return Ok(());
        }
        let mut new = self.header.clone();
        new.file_write_guid = fresh(session.id, &self.header, FILE);
        new.data_write_guid = fresh(session.id, &self.header, DATA);
        session.log_guid = fresh(session.id, &self.header, LOG);
        replace_header(&self.view, &mut self.header, &mut self.slot, new)?;
        session.started = true;
        Ok(())
    }

    /// Makes everything durable: payload first, then the blocks' entries.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.complete(true)?;
        let Mode::Writing(session) = &mut self.mode else {
            return Ok(());
        };
        if self.bat.dirty.is_empty() {
            return self.view.sync();
        }
        // The payload, the length, and the pages of the entry before.
        let end = self.view.end;
        self.view
            .storage
            .resize(end)
            .map_err(|error| Error::io("cannot extend the file", end, error))?;
        self.view.sync()?;
        while !self.bat.dirty.is_empty() {
            let pages: Vec<(u64, Page)> = self
                .bat
                .dirty
                .iter()
                .take(PAGES)
                .map(|(number, page)| (self.bat.page_offset(*number), **page))
                .collect();
            let half = if session.next.is_multiple_of(2) {
                0
            } else {
                self.header.log_length / 2
            };
            let entry = NewEntry {
                guid: session.log_guid,
                sequence_number: session.next,
                position: half,
                file_length: end,
            };
            let at = self.header.log_offset.saturating_add(u64::from(half));
            self.view.write(at, &log::encode_entry(&entry, &pages))?;
            self.view.sync()?;
            if !session.logging {
                let mut new = self.header.clone();
                new.log_guid = session.log_guid;
                replace_header(&self.view, &mut self.header, &mut self.slot, new)?;
                session.logging = true;
            }
            session.next = session.next.saturating_add(1);
            for (offset, page) in &pages {
                self.view.write(*offset, page)?;
            }
            for _ in &pages {
                self.bat.dirty.pop_first();
            }
            if !self.bat.dirty.is_empty() {
                self.view.sync()?;
            }
        }
        // The log is durable and says that these blocks have gone.
        for room in self.space.settle() {
            self.give_back(&room);
        }
        Ok(())
    }

    /// Completes a creation, or empties the log behind a session of writing.
    pub(crate) fn close(mut self) -> Result<S> {
        if matches!(self.mode, Mode::Creating { .. }) {
            self.complete(false)?;
            return Ok(self.view.storage);
        }
        if let Mode::Writing(Session { started: true, .. }) = &self.mode {
            self.commit()?;
            self.view.sync()?;
            if !self.header.log_guid.is_nil() {
                let mut clean = self.header.clone();
                clean.log_guid = Guid::NIL;
                replace_header(&self.view, &mut self.header, &mut self.slot, clean)?;
            }
            // Not before: a log says how long its file was.
            self.shorten()?;
        }
        Ok(self.view.storage)
    }
}
