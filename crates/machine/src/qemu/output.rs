//! Decides what is kept of QEMU's own words and of the guest's console: bounded, whatever a guest writes.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

/// Bytes kept of standard error.
const STDERR_TAIL: usize = 16 * 1024;

/// Bytes of the console kept in memory.
const CONSOLE_TAIL: usize = 64 * 1024;

/// Bytes of the console in one file; then it becomes the file before, and a new one is begun.
const CONSOLE_FILE: u64 = 4 * 1024 * 1024;

/// The last bytes of a stream.
#[derive(Debug)]
struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(self.limit);
        let overflow = (self.bytes.len() + kept).saturating_sub(self.limit);
        self.bytes.drain(..overflow);
        self.bytes.extend(&bytes[bytes.len() - kept..]);
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

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

/// The console's file and the one before it.
#[derive(Debug)]
pub(crate) struct ConsoleFile {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

/// Where the console goes that no longer fits.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl ConsoleFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Self {
            path: path.to_owned(),
            file: Some(options.open(path)?),
            written: 0,
        })
    }

    /// A full disk must not stop the guest, so what cannot be written is only in the tail.
    fn push(&mut self, bytes: &[u8]) {
        if self.written >= CONSOLE_FILE {
            self.file = None;
            if std::fs::rename(&self.path, older(&self.path)).is_ok() {
                *self = match Self::create(&self.path) {
                    Ok(new) => new,
                    Err(_) => return,
                };
            }
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.written += bytes.len() as u64;
        }
    }
}

/// The message of a kernel panic, if the console shows one.
pub(crate) fn panic_message(console: &str) -> Option<String> {
    const MARK: &str = "Kernel panic - not syncing: ";
    let (_, rest) = console.rsplit_once(MARK)?;
    Some(crate::error::one_line(rest.lines().next().unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes() {
        let mut tail = Tail::new(4);
        tail.push(b"ab");
        tail.push(b"cde");
        assert_eq!(tail.text(), "bcde");
        tail.push(b"0123456789");
        assert_eq!(tail.text(), "6789");
    }

    #[test]
    fn a_console_that_never_stops_fills_two_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut file = ConsoleFile::create(&path).unwrap();
        let chunk = vec![b'x'; 256 * 1024];
        for _ in 0..100 {
            file.push(&chunk);
        }
        let total: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 2 * (CONSOLE_FILE + chunk.len() as u64), "{total}");
    }

    #[test]
    fn a_panic_is_found_on_the_console() {
        let console = "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root\r\n[ 1.1] CPU";
        assert_eq!(
            panic_message(console).as_deref(),
            Some("VFS: Unable to mount root")
        );
        assert_eq!(panic_message("all is well"), None);
    }
}
