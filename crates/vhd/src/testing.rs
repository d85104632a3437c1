//! A file in memory that remembers every write, and shows what a crash at any of them leaves on the disk.
//!
//! ```
//! use opengcs_vhd::Storage;
//! use opengcs_vhd::testing::MemoryFile;
//! let file = MemoryFile::new();
//! file.store_at(0, b"durable")?;
//! file.sync()?;
//! file.store_at(0, b"lost?!!")?;
//! let left: Vec<Vec<u8>> = file.crashes_after(3).iter().map(|f| f.bytes(0, 7)).collect();
//! assert!(left.contains(&b"durable".to_vec()));
//! assert!(left.contains(&b"lost?!!".to_vec()));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use positioned_io::{ReadAt, Size, WriteAt};

use crate::Storage;
use crate::number::{clamp, wide};

const PAGE: usize = 4096;

/// A file in memory. Clones are the same file, as open files of one inode are.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Content,
    /// What it began with, and what has been done since, for the replay of crashes.
    base: Content,
    operations: Vec<Operation>,
    /// What happens at which operation.
    fault: Option<(usize, Fault)>,
    /// The most bytes the file may hold.
    limit: Option<u64>,
}

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, Arc<[u8]>),
    Resize(u64),
    Sync,
}

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation and all after it fail, as when the machine stops.
    Stop,
    /// A write does its first bytes, this many, and then all fails.
    Tear(usize),
    /// The operation fails once; those after it work.
    FailOnce,
}

/// The bytes of a file; pages that were never written are zero and not held.
#[derive(Clone, Debug, Default)]
struct Content {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
}

impl Content {
    fn write(&mut self, mut position: u64, mut data: &[u8]) {
        self.length = self.length.max(position.saturating_add(wide(data.len())));
        while !data.is_empty() {
            let within = usize::try_from(position % 4096).unwrap_or(0);
            let (piece, rest) = data.split_at(data.len().min(PAGE.saturating_sub(within)));
            let page = self
                .pages
                .entry(position / 4096)
                .or_insert_with(|| Box::new([0; PAGE]));
            if let Some(target) = page.get_mut(within..within.saturating_add(piece.len())) {
                target.copy_from_slice(piece);
            }
            position = position.saturating_add(wide(piece.len()));
            data = rest;
        }
    }

    fn resize(&mut self, length: u64) {
        self.length = length;
        self.pages.split_off(&length.div_ceil(4096));
        if let Some(page) = self.pages.get_mut(&(length / 4096)) {
            let within = usize::try_from(length % 4096).unwrap_or(0);
            if let Some(gone) = page.get_mut(within..) {
                gone.fill(0);
            }
        }
    }

    fn read(&self, mut position: u64, buf: &mut [u8]) -> usize {
        let total = clamp(buf.len(), self.length.saturating_sub(position));
        let mut rest = buf.get_mut(..total).unwrap_or_default();
        while !rest.is_empty() {
            let within = usize::try_from(position % 4096).unwrap_or(0);
            let length = rest.len().min(PAGE.saturating_sub(within));
            let (piece, tail) = rest.split_at_mut(length);
            match self.pages.get(&(position / 4096)) {
                Some(page) => {
                    let end = within.saturating_add(length);
                    piece.copy_from_slice(page.get(within..end).unwrap_or_default());
                }
                None => piece.fill(0),
            }
            position = position.saturating_add(wide(length));
            rest = tail;
        }
        total
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write(position, data) => self.write(*position, data),
            Operation::Resize(length) => self.resize(*length),
            Operation::Sync => {}
        }
    }
}

impl From<Content> for MemoryFile {
    fn from(content: Content) -> Self {
        Self(Arc::new(Mutex::new(State {
            base: content.clone(),
            now: content,
            ..State::default()
        })))
    }
}

impl From<&[u8]> for MemoryFile {
    fn from(bytes: &[u8]) -> Self {
        let mut content = Content::default();
        content.write(0, bytes);
        content.into()
    }
}

impl MemoryFile {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the file as it is now, with no faults and no history.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        self.state().now.clone().into()
    }

    /// Forgets the history: all that was written is durable.
    pub fn settle(&self) {
        let mut state = self.state();
        state.base = state.now.clone();
        state.operations.clear();
    }

    /// Bytes of the file; what lies past its end is left out.
    #[must_use]
    pub fn bytes(&self, position: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = self.state().now.read(position, &mut bytes);
        bytes.truncate(read);
        bytes
    }

    /// How many writes, resizes and syncs there were since it was new or settled.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.state().operations.len()
    }

    /// How many bytes of it are held, as a sparse file holds them.
    #[must_use]
    pub fn held(&self) -> u64 {
        wide(self.state().now.pages.len()).saturating_mul(4096)
    }

    /// Lets something go wrong at operation `at`, counted as [`Self::operations`] does.
    pub fn inject(&self, at: usize, fault: Fault) {
        self.state().fault = Some((at, fault));
    }

    /// Lets writes that would make the file longer than this fail as on a full disk.
    pub fn limit(&self, length: u64) {
        self.state().limit = Some(length);
    }

    /// Files that a crash after the first `count` operations may leave: all that
    /// was synced is there; of the rest nothing, all, every other one, all but
    /// the first, or all with the last torn.
    #[must_use]
    pub fn crashes_after(&self, count: usize) -> Vec<Self> {
        let state = self.state();
        let done = state.operations.get(..count).unwrap_or(&state.operations);
        let durable = done
            .iter()
            .rposition(|operation| matches!(operation, Operation::Sync))
            .map_or(0, |at| at.saturating_add(1));
        let (durable, pending) = done.split_at(durable);
        let mut content = state.base.clone();
        for operation in durable {
            content.apply(operation);
        }
        let keep = |chosen: &dyn Fn(usize) -> bool| {
            let mut content = content.clone();
            for (at, operation) in pending.iter().enumerate() {
                if chosen(at) {
                    content.apply(operation);
                }
            }
            content
        };
        let mut left = vec![keep(&|_| false)];
        if let Some(last) = pending.len().checked_sub(1) {
            left.push(keep(&|_| true));
            left.push(keep(&|at| at % 2 == 0));
            left.push(keep(&|at| at % 2 == 1));
            left.push(keep(&|at| at != 0));
            if let Some(Operation::Write(position, data)) = pending.last() {
                for length in [
                    1,
                    17,
                    512,
                    4096,
                    data.len() / 2,
                    data.len().saturating_sub(1),
                ] {
                    let mut torn = keep(&|at| at != last);
                    torn.write(*position, data.get(..length).unwrap_or(data));
                    left.push(torn);
                }
            }
        }
        left.into_iter().map(Self::from).collect()
    }

    fn perform(&self, operation: Operation) -> io::Result<()> {
        let mut state = self.state();
        let at = state.operations.len();
        match state.fault {
            Some((when, Fault::FailOnce)) if at == when => {
                state.fault = None;
                return Err(io::Error::other("injected failure"));
            }
            Some((when, Fault::Stop)) if at >= when => {
                return Err(io::Error::other("injected stop"));
            }
            Some((when, Fault::Tear(length))) if at >= when => {
                if let (true, Operation::Write(position, data)) = (at == when, &operation) {
                    let part: Arc<[u8]> = data.get(..length).unwrap_or(data).into();
                    let torn = Operation::Write(*position, part);
                    state.now.apply(&torn);
                    state.operations.push(torn);
                }
                state.fault = Some((at, Fault::Stop));
                return Err(io::Error::other("injected tear"));
            }
            _ => {}
        }
        let end = match &operation {
            Operation::Write(position, data) => position.saturating_add(wide(data.len())),
            Operation::Resize(length) => *length,
            Operation::Sync => 0,
        };
        if state.limit.is_some_and(|limit| end > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.now.apply(&operation);
        state.operations.push(operation);
        Ok(())
    }
}

impl ReadAt for MemoryFile {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.state().now.read(pos, buf))
    }
}

impl WriteAt for MemoryFile {
    fn write_at(&mut self, pos: u64, buf: &[u8]) -> io::Result<usize> {
        self.store_at(pos, buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync()
    }
}

impl Size for MemoryFile {
    fn size(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.state().now.length))
    }
}

impl Storage for MemoryFile {
    fn store_at(&self, position: u64, data: &[u8]) -> io::Result<()> {
        self.perform(Operation::Write(position, data.into()))
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        self.perform(Operation::Resize(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.perform(Operation::Sync)
    }

    fn allocated(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.held()))
    }
}
