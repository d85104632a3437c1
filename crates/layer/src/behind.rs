//! Writes what was read in a thread of its own, out of the very buffers that it was read into.
//!
//! The caller's thread reads the input and decides what goes where; so inputs need not be `Send`. The
//! other does nothing but write. A fixed number of buffers goes round, which bounds the memory.

mod link;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use positioned_io::{ReadAt, WriteAt};

use self::link::{Job, Link};
use crate::buffer::Buffer;
use crate::error::full_disk;
use crate::{Error, Result};

/// Bytes of a buffer of the input, and how many there are: enough for one thread to go on while the
/// other is kept from running for a while.
const READ: usize = 256 << 10;
const READS: usize = 16;
/// The same for bytes that do not lie in a buffer of the input, and the most that is written at once.
///
/// Page caches take memory in pieces as large as a write is. Pieces of half a MiB and more come from
/// what the kernel has longest left alone, which in a virtual machine the host must find first:
/// measured, writes of 1 MiB took up to seven times as long as those of 128 KiB.
pub(crate) const WRITE: usize = 128 << 10;
const WRITES: usize = 16;

const TAKEN: &str = "the ring gives buffers that nobody else has";

/// Buffers in the order in which they were last used, each with the number of jobs that were there
/// then.
struct Ring {
    used: VecDeque<(Arc<Buffer>, u64)>,
    made: usize,
    most: usize,
    length: usize,
}

impl Ring {
    fn new(most: usize, length: usize) -> Self {
        Self {
            used: VecDeque::with_capacity(most),
            made: 0,
            most,
            length,
        }
    }

    /// A buffer that nobody else has. When it must be waited for, half of them are: so the threads
    /// wake each other seldom.
    fn take(&mut self, link: &Link) -> Arc<Buffer> {
        if self.made >= self.most
            && let Some((mut buffer, last)) = self.used.pop_front()
        {
            if !link.is_done(last) {
                let half = self.used.get(self.used.len() / 2);
                link.wait_for(half.map_or(last, |(_, later)| *later));
            }
            // Its last job may have ended with the writer's thread.
            if Arc::get_mut(&mut buffer).is_some() {
                return buffer;
            }
        }
        self.made += 1;
        Arc::new(Buffer::new(self.length))
    }

    fn give_back(&mut self, buffer: Arc<Buffer>, link: &Link) {
        self.used.push_back((buffer, link.given()));
    }
}

/// The buffer that the input's bytes are in at the moment.
type Current = Rc<RefCell<Option<Arc<Buffer>>>>;

/// The input as it is read.
pub(crate) struct Ahead<'l, R> {
    input: R,
    link: &'l Link,
    ring: Ring,
    current: Current,
    buffer: Arc<Buffer>,
    start: usize,
    end: usize,
    /// What came behind the bytes that are in the buffer: the end, or a failure.
    last: Option<io::Result<()>>,
}

impl<R: Read> Ahead<'_, R> {
    fn refill(&mut self) -> io::Result<()> {
        self.start = 0;
        self.end = 0;
        match &mut self.last {
            Some(Ok(())) => return Ok(()),
            Some(failed) => return std::mem::replace(failed, Ok(())),
            None => {}
        }
        // What is lent to the writer's thread cannot be read into.
        self.current.take();
        let mut next = self.ring.take(self.link);
        let room = Arc::get_mut(&mut next).expect(TAKEN);
        while self.end < room.len() {
            match self.input.read(&mut room[self.end..]) {
                Ok(0) => {
                    self.last = Some(Ok(()));
                    break;
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.last = Some(Err(error));
                    break;
                }
            }
        }
        let used = std::mem::replace(&mut self.buffer, next);
        // The first is none of the ring's.
        if !used.is_empty() {
            self.ring.give_back(used, self.link);
        }
        self.current.replace(Some(Arc::clone(&self.buffer)));
        match &mut self.last {
            Some(failed @ Err(_)) if self.end == 0 => std::mem::replace(failed, Ok(())),
            _ => Ok(()),
        }
    }
}

impl<R: Read> BufRead for Ahead<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl<R: Read> Read for Ahead<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The output as the caller's thread sees it: what is written to it will be written, in this order.
/// A failure shows at a later write, or at the end.
pub(crate) struct Behind<'l> {
    link: &'l Link,
    ring: Ring,
    current: Current,
}

impl Behind<'_> {
    /// Where `bytes` are in the input's buffer, if they are.
    fn lent(&self, bytes: &[u8]) -> Option<(Arc<Buffer>, Range<usize>)> {
        let current = self.current.borrow();
        let buffer = current.as_ref()?;
        let start = bytes.as_ptr().addr().checked_sub(buffer.as_ptr().addr())?;
        let end = start.checked_add(bytes.len())?;
        (end <= buffer.len()).then(|| (Arc::clone(buffer), start..end))
    }
}

impl WriteAt for Behind<'_> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        if let Some((buffer, range)) = self.lent(bytes) {
            self.link.give(Job {
                position,
                buffer,
                range,
            })?;
            return Ok(bytes.len());
        }
        let length = bytes.len().min(WRITE);
        let mut buffer = self.ring.take(self.link);
        let room = Arc::get_mut(&mut buffer).expect(TAKEN);
        room[..length].copy_from_slice(&bytes[..length]);
        let given = self.link.give(Job {
            position,
            buffer: Arc::clone(&buffer),
            range: 0..length,
        });
        self.ring.give_back(buffer, self.link);
        given.map(|()| length)
    }

    /// The output itself is flushed when everything is written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadAt for Behind<'_> {
    /// Waits until everything before is written, so it is for what is seldom.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.link.read(position, buffer.len().min(WRITE))?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

/// Runs `work` on what `input` gives and on an output that writes to `out` behind it.
pub(crate) fn run<R: Read, W: ReadAt + WriteAt + Send, T>(
    input: R,
    mut out: W,
    work: impl FnOnce(Ahead<'_, R>, Behind<'_>) -> Result<T>,
) -> Result<(T, W)> {
    let link = Link::default();
    thread::scope(|scope| {
        let writer = thread::Builder::new()
            .name("opengcs-writer".into())
            .spawn_scoped(scope, || {
                let wrote = link.write(&mut out).and_then(|()| out.flush());
                (wrote, out)
            })
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let closing = link.closing();
        let current = Current::default();
        let ahead = Ahead {
            input,
            link: &link,
            ring: Ring::new(READS, READ),
            current: Rc::clone(&current),
            buffer: Arc::new(Buffer::new(0)),
            start: 0,
            end: 0,
            last: None,
        };
        let behind = Behind {
            link: &link,
            ring: Ring::new(WRITES, WRITE),
            current,
        };
        let worked = work(ahead, behind);
        drop(closing);
        let (wrote, out) = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let worked = worked?;
        wrote.map_err(|error| {
            full_disk(&error)
                .unwrap_or_else(|| Error::output("cannot write the file system", error))
        })?;
        Ok((worked, out))
    })
}

#[cfg(test)]
mod tests;
