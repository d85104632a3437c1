//! What is kept of a log that may never end: its last part.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Keeps the end of a stream in memory, and in a file when there is one.
pub(super) struct Recorder {
    state: Mutex<Kept>,
    limit: usize,
}

struct Kept {
    recent: VecDeque<u8>,
    file: Option<Rotating>,
}

/// A file that starts anew when it is full; what it had is in the same path with `.1` appended.
struct Rotating {
    path: PathBuf,
    file: File,
    written: usize,
}

/// How much of the kernel's log is kept.
pub(super) const KERNEL_LOG: usize = 512 << 10;

/// How much of the agent's log is kept.
pub(super) const AGENT_LOG: usize = 512 << 10;

impl Recorder {
    pub(super) fn new(limit: usize, path: Option<PathBuf>) -> std::io::Result<Self> {
        let file = path
            .map(|path| {
                File::create(&path).map(|file| Rotating {
                    path,
                    file,
                    written: 0,
                })
            })
            .transpose()?;
        Ok(Self {
            state: Mutex::new(Kept {
                recent: VecDeque::new(),
                file,
            }),
            limit,
        })
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut kept = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        kept.recent.extend(bytes);
        let excess = kept.recent.len().saturating_sub(self.limit);
        kept.recent.drain(..excess);
        let failed = kept
            .file
            .as_mut()
            .is_some_and(|file| file.write(bytes, self.limit).is_err());
        if failed {
            // A full disk must not stop the VM: memory still has the end of the log.
            kept.file = None;
        }
    }

    pub(super) fn text(&self) -> String {
        let kept = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = kept.recent.as_slices();
        String::from_utf8_lossy(&[first, second].concat()).into_owned()
    }
}

impl Rotating {
    fn write(&mut self, bytes: &[u8], limit: usize) -> std::io::Result<()> {
        if self.written > 0 && self.written.saturating_add(bytes.len()) > limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = File::create(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(bytes)?;
        self.written = self.written.saturating_add(bytes.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_in_memory_and_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let recorder = Recorder::new(10, Some(path.clone())).unwrap();
        for word in ["01234567", "89ab", "cdef"] {
            recorder.push(word.as_bytes());
        }
        assert_eq!(recorder.text(), "6789abcdef");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "89abcdef");
        let old = std::fs::read_to_string(folder.path().join("agent.log.1")).unwrap();
        assert_eq!(old, "01234567");
    }
}
