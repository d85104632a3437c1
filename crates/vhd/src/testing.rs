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

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use positioned_io::{ReadAt, Size, WriteAt};

use self::content::Content;
use crate::Storage;
use crate::number::wide;

mod content;
mod crash;
mod forge;

pub use forge::Child;

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
    /// Whether it refuses to have holes made in it.
    solid: bool,
}

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, Arc<[u8]>),
    Resize(u64),
    Punch(u64, u64),
    Sync,
}

impl Operation {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write(position, data) => content.write(*position, data),
            Self::Resize(length) => content.resize(*length),
            Self::Punch(position, length) => content.punch(*position, *length),
            Self::Sync => {}
        }
    }
}

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation and all after it fail, as when the machine stops.
    Stop,
    /// A write does its first bytes, this many, and then all fails; another
    /// operation is not done.
    Tear(usize),
    /// The operation fails once; those after it work.
    FailOnce,
    /// The operation and all after it find the disk full, until
    /// [`MemoryFile::relieve`]. What makes room or is already written works.
    Full,
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

    /// Takes the limit and a fault that has not happened, or goes on happening, away.
    pub fn relieve(&self) {
        let mut state = self.state();
        state.limit = None;
        state.fault = None;
    }

    /// Lets it refuse to have holes made in it, as some file systems do.
    pub fn refuse_holes(&self) {
        self.state().solid = true;
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
            Some((when, Fault::Full))
                if at >= when && matches!(operation, Operation::Write(..)) =>
            {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some((when, Fault::Tear(length))) if at >= when => {
                if let (true, Operation::Write(position, data)) = (at == when, &operation) {
                    let part: Arc<[u8]> = data.get(..length).unwrap_or(data).into();
                    let torn = Operation::Write(*position, part);
                    torn.apply(&mut state.now);
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
            Operation::Punch(..) | Operation::Sync => 0,
        };
        if state.limit.is_some_and(|limit| end > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        operation.apply(&mut state.now);
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

    fn punch(&self, position: u64, length: u64) -> io::Result<bool> {
        if self.state().solid {
            return Ok(false);
        }
        self.perform(Operation::Punch(position, length))?;
        Ok(true)
    }

    fn allocated(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.held()))
    }
}
