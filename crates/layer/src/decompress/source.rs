//! The compressed input: buffered, looked ahead into, its position known.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use crate::buffer::Buffer;

/// How much is asked of the input at once.
const BUFFER: usize = 128 << 10;

#[derive(Default)]
struct Shared {
    consumed: Cell<u64>,
    at_end: Cell<bool>,
    failure: RefCell<Option<io::Error>>,
}

/// What is known of an input while a decoder owns it.
#[derive(Clone)]
pub(super) struct State(Rc<Shared>);

impl State {
    /// Bytes taken from the input so far.
    pub(super) fn consumed(&self) -> u64 {
        self.0.consumed.get()
    }

    /// Whether the decoder has asked for bytes beyond the end.
    pub(super) fn at_end(&self) -> bool {
        self.0.at_end.get()
    }

    /// The input's own failure, which decoders tend to bury.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.0.failure.take()
    }
}

/// A buffered input.
pub(super) struct Source<R> {
    inner: R,
    buffer: Buffer,
    start: usize,
    end: usize,
    state: State,
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: Buffer::new(BUFFER),
            start: 0,
            end: 0,
            state: State(Rc::new(Shared::default())),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state.clone()
    }

    /// The next `count` bytes without taking them; fewer only at the end.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.start < count && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end < count {
            let read = read_from(&mut self.inner, &mut self.buffer[self.end..], &self.state)?;
            if read == 0 {
                break;
            }
            self.end += read;
        }
        let end = self.end.min(self.start + count);
        Ok(&self.buffer[self.start..end])
    }
}

/// Reads, repeating what was interrupted and remembering what failed.
fn read_from(inner: &mut impl Read, buffer: &mut [u8], state: &State) -> io::Result<usize> {
    loop {
        match inner.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let told = io::Error::from(error.kind());
                state.0.failure.replace(Some(error));
                return Err(told);
            }
            Ok(read) => return Ok(read),
        }
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = read_from(&mut self.inner, &mut self.buffer, &self.state)?;
            self.state.0.at_end.set(self.end == 0);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        let consumed = &self.state.0.consumed;
        consumed.set(consumed.get() + count as u64);
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buffer.len() >= BUFFER {
            let read = read_from(&mut self.inner, buffer, &self.state)?;
            let consumed = &self.state.0.consumed;
            consumed.set(consumed.get() + read as u64);
            self.state.0.at_end.set(read == 0);
            return Ok(read);
        }
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
