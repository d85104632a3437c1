//! Overlaps an input or output, with its compression, with the work on its content, in two threads.
//!
//! The caller's thread reads or writes; so inputs and outputs need not be
//! `Send`. A fixed number of buffers goes round, which bounds the memory.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::behind::WRITE;
use crate::buffer::Buffer;
use crate::{Error, Result};

/// Small enough that what one thread has put into a buffer is in the cache still when the other takes
/// it, and large enough that they do not wake each other all the time. Measured: 128 KiB and 1 MiB cost
/// a quarter more.
const BUFFER: usize = 512 << 10;
const BUFFERS: usize = 4;

/// A buffer, and how much of it is filled.
type Message = io::Result<(Buffer, usize)>;

/// The worker's end: the input as it arrives.
pub(crate) struct Incoming {
    full: Receiver<Message>,
    empty: SyncSender<Buffer>,
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            match self.full.recv() {
                Ok(Ok((buffer, end))) => {
                    let used = std::mem::replace(&mut self.buffer, buffer);
                    self.start = 0;
                    self.end = end;
                    // The reader may have ended already.
                    let _ = self.empty.send(used);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Runs `work` on what `input` gives.
pub(crate) fn run<T: Send>(
    mut input: impl Read,
    work: impl FnOnce(Incoming) -> Result<T> + Send,
) -> Result<T> {
    let (full_sender, full) = sync_channel(BUFFERS);
    let (empty, empty_receiver) = sync_channel(BUFFERS + 1);
    let incoming = Incoming {
        full,
        empty,
        buffer: Buffer::new(BUFFER),
        start: 0,
        end: 0,
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("opengcs-layer".into())
            .spawn_scoped(scope, move || work(incoming))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        pump(&mut input, &full_sender, &empty_receiver);
        drop(full_sender);
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Reads until the end, a failure, or the worker's end.
fn pump(input: &mut impl Read, full: &SyncSender<Message>, empty: &Receiver<Buffer>) {
    // The worker holds the first.
    let mut made = 1;
    loop {
        let mut buffer = match empty.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if made < BUFFERS => {
                made += 1;
                Buffer::new(BUFFER)
            }
            Err(_) => match empty.recv() {
                Ok(buffer) => buffer,
                Err(_) => return,
            },
        };
        let mut end = 0;
        let result = loop {
            match input.read(&mut buffer[end..]) {
                Ok(0) => break Ok(true),
                Ok(read) => {
                    end += read;
                    if end == BUFFER {
                        break Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if end > 0 && full.send(Ok((buffer, end))).is_err() {
            return;
        }
        match result {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                let _ = full.send(Err(error));
                return;
            }
        }
    }
}

/// The worker's end of an output.
pub(crate) struct Outgoing {
    full: SyncSender<(Buffer, usize)>,
    empty: Receiver<Buffer>,
    made: usize,
    buffer: Buffer,
    end: usize,
}

impl Outgoing {
    /// Hands over what has not been handed over yet.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.hand_over()
            .map_err(|error| Error::output("cannot write the tar", error))
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        if self.end == 0 {
            return Ok(());
        }
        let next = match self.empty.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.made < BUFFERS => {
                self.made += 1;
                Buffer::new(BUFFER)
            }
            Err(_) => self.empty.recv().map_err(|_| gone())?,
        };
        let full = std::mem::replace(&mut self.buffer, next);
        let end = std::mem::take(&mut self.end);
        self.full.send((full, end)).map_err(|_| gone())
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.end == BUFFER {
            self.hand_over()?;
        }
        let step = bytes.len().min(BUFFER - self.end);
        self.buffer[self.end..][..step].copy_from_slice(&bytes[..step]);
        self.end += step;
        Ok(step)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work`, writing to `output` what it hands over. A failure of the output
/// comes before what the worker makes of it.
pub(crate) fn run_output<W: Write, T: Send>(
    mut output: W,
    work: impl FnOnce(Outgoing) -> Result<T> + Send,
) -> Result<(W, T)> {
    let (full, full_receiver) = sync_channel::<(Buffer, usize)>(BUFFERS);
    let (empty_sender, empty) = sync_channel(BUFFERS + 1);
    let outgoing = Outgoing {
        full,
        empty,
        made: 1,
        buffer: Buffer::new(BUFFER),
        end: 0,
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("opengcs-layer".into())
            .spawn_scoped(scope, move || work(outgoing))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let mut failure = None;
        while let Ok((buffer, end)) = full_receiver.recv() {
            let mut pieces = buffer[..end].chunks(WRITE);
            if let Err(error) = pieces.try_for_each(|piece| output.write_all(piece)) {
                failure = Some(Error::output("cannot write the tar", error));
                break;
            }
            let _ = empty_sender.send(buffer);
        }
        // Wakes a worker that waits for a buffer or for room.
        drop(full_receiver);
        drop(empty_sender);
        let worked = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match failure {
            Some(error) => Err(error),
            None => Ok((output, worked?)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_in_order() {
        let data: Vec<u8> = (0..10_000_000u32)
            .map(|i| (i * 7).to_le_bytes()[1])
            .collect();
        let got = run(&data[..], |mut incoming| {
            let mut got = Vec::new();
            incoming.read_to_end(&mut got).unwrap();
            Ok(got)
        });
        assert!(got.unwrap() == data);
    }

    #[test]
    fn worker_that_stops_early_ends_the_reading() {
        let got: Result<()> = run(io::repeat(1), |_| Err(Error::corrupt("enough")));
        assert!(got.is_err());
    }

    #[test]
    fn failure_of_the_input_reaches_the_worker() {
        let input = io::repeat(1).take(100).chain(Fails);
        let got = run(input, |mut incoming| {
            let mut got = Vec::new();
            let error = incoming.read_to_end(&mut got).unwrap_err();
            assert_eq!(got.len(), 100);
            Ok(error.kind())
        });
        assert_eq!(got.unwrap(), io::ErrorKind::BrokenPipe);
    }

    struct Fails;

    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}
