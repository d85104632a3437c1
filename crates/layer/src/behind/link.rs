//! What the two threads share: jobs on their way, and who waits for what.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use positioned_io::{ReadAt, WriteAt};

use super::WRITE;
use crate::buffer::Buffer;

/// How many bytes of jobs are there before a writer that sleeps is woken.
const ENOUGH: usize = 1 << 20;

/// Bytes to be written, and where.
pub(super) struct Job {
    pub(super) position: u64,
    pub(super) buffer: Arc<Buffer>,
    pub(super) range: Range<usize>,
}

/// What the writer's thread is to do, in order.
enum Order {
    Write(Job),
    /// To read back so many bytes, once all before them are written.
    Read(u64, usize),
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Order>,
    /// Bytes to be written in `jobs`.
    bytes: usize,
    given: u64,
    done: u64,
    /// What `done` the giver sleeps for.
    wanted: Option<u64>,
    writer_sleeps: bool,
    /// Nothing more will be given.
    closed: bool,
    /// The writer's thread is at its end.
    ended: bool,
    failure: Option<io::Error>,
    /// What was read back.
    answer: Option<io::Result<Vec<u8>>>,
}

impl State {
    /// Whether jobs can still be done; the failure of one is told once.
    fn check(&mut self) -> io::Result<()> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.ended => Err(io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}

/// Both ends' common ground.
#[derive(Default)]
pub(super) struct Link {
    state: Mutex<State>,
    for_writer: Condvar,
    for_giver: Condvar,
}

/// Says at its end, also that of a panic, that nothing more will be given.
pub(super) struct Closing<'l>(&'l Link);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.for_writer.notify_one();
    }
}

/// Says at its end, also that of a panic, that nobody writes any more.
struct Ending<'l>(&'l Link);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        let left = std::mem::take(&mut state.jobs);
        drop(state);
        drop(left);
        self.0.for_giver.notify_one();
    }
}

impl Link {
    /// Every change is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    /// How many jobs have been given.
    pub(super) fn given(&self) -> u64 {
        self.lock().given
    }

    /// Whether so many jobs are done.
    pub(super) fn is_done(&self, count: u64) -> bool {
        self.lock().done >= count
    }

    /// Sleeps until so many jobs are done, or nobody does any.
    pub(super) fn wait_for(&self, count: u64) {
        let mut state = self.lock();
        while state.done < count && !state.ended {
            state.wanted = Some(count);
            self.wake(&mut state);
            state = self
                .for_giver
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.wanted = None;
    }

    fn wake(&self, state: &mut State) {
        if state.writer_sleeps {
            state.writer_sleeps = false;
            self.for_writer.notify_one();
        }
    }

    /// Gives a job, or tells the failure of one before it.
    pub(super) fn give(&self, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        state.check()?;
        state.bytes += job.range.len();
        state.given += 1;
        state.jobs.push_back(Order::Write(job));
        if state.bytes >= ENOUGH {
            self.wake(&mut state);
        }
        Ok(())
    }

    /// Reads back what was given, at most `length` bytes.
    pub(super) fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        state.check()?;
        state.given += 1;
        state.jobs.push_back(Order::Read(position, length));
        self.wake(&mut state);
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state.check()?;
            state = self
                .for_giver
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does the jobs until there will be no more. The failure is told once: by whichever of this and
    /// [`Link::give`] comes first.
    pub(super) fn write(&self, out: &mut (impl ReadAt + WriteAt)) -> io::Result<()> {
        let _ending = Ending(self);
        loop {
            let mut state = self.lock();
            while state.jobs.is_empty() {
                if state.closed {
                    return state.failure.take().map_or(Ok(()), Err);
                }
                state.writer_sleeps = true;
                state = self
                    .for_writer
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.writer_sleeps = false;
            state.bytes = 0;
            let jobs = std::mem::take(&mut state.jobs);
            drop(state);
            for job in jobs {
                let (failure, answer) = match job {
                    // The giver may read into the buffer as soon as the job counts as done.
                    Order::Write(job) => (put(out, &job).err(), None),
                    Order::Read(position, length) => (None, Some(get(out, position, length))),
                };
                let mut state = self.lock();
                state.done += 1;
                if failure.is_some() {
                    // Those behind it would make an image that lacks something in its middle.
                    state.failure = failure;
                    return self.wait_until_told(state);
                }
                if answer.is_some() {
                    state.answer = answer;
                    self.for_giver.notify_one();
                }
                if state.wanted.is_some_and(|wanted| state.done >= wanted) {
                    self.for_giver.notify_one();
                }
            }
        }
    }

    /// Ends the writing; the failure stays for the giver until it gives no more.
    fn wait_until_told(&self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        state.ended = true;
        self.for_giver.notify_one();
        while !state.closed {
            state = self
                .for_writer
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}

fn get(out: &impl ReadAt, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = out.read_at(position, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn put(out: &mut impl WriteAt, job: &Job) -> io::Result<()> {
    let mut position = job.position;
    for piece in job.buffer[job.range.clone()].chunks(WRITE) {
        out.write_all_at(position, piece)?;
        position += piece.len() as u64;
    }
    Ok(())
}
