//! Decides what is kept of QEMU's own words and of the guest's console: bounded, whatever a guest writes.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use crate::console::{CONSOLE_TAIL, ConsoleFile, Tail};

/// Bytes kept of standard error.
const STDERR_TAIL: usize = 16 * 1024;

/// What has been recorded; shared with the thread that records.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    stderr: Arc<Mutex<Tail>>,
    console: Arc<Mutex<Tail>>,
}

fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            stderr: Arc::new(Mutex::new(Tail::new(STDERR_TAIL))),
            console: Arc::new(Mutex::new(Tail::new(CONSOLE_TAIL))),
        }
    }

    pub(crate) fn stderr(&self) -> String {
        lock(&self.stderr).text()
    }

    pub(crate) fn console(&self) -> String {
        lock(&self.console).text()
    }

    /// Records until both streams have ended.
    pub(crate) fn record(
        &self,
        mut stderr: ChildStderr,
        mut console: UnixStream,
        mut file: ConsoleFile,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        let (mut stderr_open, mut console_open) = (true, true);
        while stderr_open || console_open {
            // An end of file is told for ever: a stream that has ended is not asked any more.
            let mut polled = Vec::with_capacity(2);
            if stderr_open {
                polled.push(PollFd::new(&stderr, PollFlags::IN));
            }
            if console_open {
                polled.push(PollFd::new(&console, PollFlags::IN));
            }
            if let Err(error) = poll(&mut polled, None)
                && error != rustix::io::Errno::INTR
            {
                return;
            }
            let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            let stderr_ready = stderr_open && ready(polled.first());
            let console_ready = console_open && ready(polled.last());
            if stderr_ready {
                match stderr.read(&mut buffer) {
                    Ok(read) if read > 0 => lock(&self.stderr).push(&buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    _ => stderr_open = false,
                }
            }
            if console_ready {
                match console.read(&mut buffer) {
                    Ok(read) if read > 0 => {
                        lock(&self.console).push(&buffer[..read]);
                        file.push(&buffer[..read]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    _ => console_open = false,
                }
            }
        }
    }
}
