//! Decides what is kept of the guest's console: bounded, whatever a guest writes.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of the console kept in memory.
pub(crate) const CONSOLE_TAIL: usize = 64 * 1024;

/// Bytes of the console in one file; then it becomes the file before, and a new one is begun.
const CONSOLE_FILE: u64 = 4 * 1024 * 1024;

/// The last bytes of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(self.limit);
        let overflow = (self.bytes.len() + kept).saturating_sub(self.limit);
        self.bytes.drain(..overflow);
        self.bytes.extend(&bytes[bytes.len() - kept..]);
    }

    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The console's file and the one before it.
#[derive(Debug)]
pub(crate) struct ConsoleFile {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    /// Whether it is a regular file: a pipe or a device has no end, and its name is not ours to take.
    is_regular: bool,
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
        options.write(true).create(true).truncate(true);
        crate::sys::owner_only(&mut options);
        crate::sys::without_waiting(&mut options);
        let file = options.open(path).map_err(crate::sys::nobody_reads)?;
        Ok(Self {
            path: path.to_owned(),
            is_regular: file.metadata()?.is_file(),
            file: Some(file),
            written: 0,
        })
    }

    /// A full disk must not stop the guest, and neither must a pipe that nobody empties, so what cannot be
    /// written is only in the tail.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_regular && self.written >= CONSOLE_FILE {
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

    #[cfg(unix)]
    #[test]
    fn a_pipe_stays_where_it_is_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = ConsoleFile::create(&path).unwrap_err();
        assert!(error.to_string().contains("nobody reads"), "{error}");
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || io::copy(&mut File::open(path).unwrap(), &mut io::sink()))
        };
        let mut file = loop {
            match ConsoleFile::create(&path) {
                Ok(file) => break file,
                Err(_) => std::thread::yield_now(),
            }
        };
        let chunk = vec![b'x'; 4096];
        while file.written <= CONSOLE_FILE + chunk.len() as u64 {
            file.push(&chunk);
        }
        drop(file);
        assert!(reader.join().unwrap().unwrap() > CONSOLE_FILE);
        assert!(!path.is_file() && !older(&path).exists());
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
