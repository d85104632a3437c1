//! Decides how failures are told: one error type with a small kind, one line of text and a source.

use std::fmt;
use std::io;
use std::path::Path;

/// What sort of failure an [`Error`] is; stable enough to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The hypervisor's program is not on this host.
    NotInstalled,
    /// The firmware that boots disks is not on this host.
    NoFirmware,
    /// A value of the configuration cannot work.
    InvalidConfig,
    /// The machine did not come up.
    StartFailed,
    /// The machine ended while something was asked of it.
    GuestDied,
    /// The call does not fit the machine's state (not started yet, started twice, …).
    WrongState,
    /// This very machine already holds the disk.
    DiskInUse,
    /// Another process holds the disk.
    DiskLocked,
    /// Every slot of every controller is taken.
    NoFreeSlot,
    /// A file, slot or program that was named does not exist.
    NotFound,
    /// Another listener holds the port.
    PortInUse,
    /// Nobody in the guest listens on the port.
    ConnectionRefused,
    /// It took longer than it may.
    TimedOut,
    /// The hypervisor refused a command.
    Refused,
    /// An operation of the host failed.
    Io,
}

/// A failure of this crate: its [kind](Error::kind), one lowercase line, and the cause if there is one.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
}

impl Error {
    /// A failure without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: one_line(&message.into()),
            source: None,
        }
    }

    pub(crate) fn io(what: impl fmt::Display, source: io::Error) -> Self {
        Self::caused(ErrorKind::Io, what, source)
    }

    pub(crate) fn caused(kind: ErrorKind, what: impl fmt::Display, source: io::Error) -> Self {
        Self {
            kind,
            message: one_line(&what.to_string()),
            source: Some(source),
        }
    }

    /// A failure to use `path`: missing files become [`ErrorKind::NotFound`].
    pub(crate) fn path(action: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::caused(kind, format!("cannot {action} {}", path.display()), source)
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Foreign text (QEMU's, a kernel's) may hold line ends and control bytes; a message may not.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => {}
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_bytes() {
        let error = Error::new(ErrorKind::Refused, "a\nb\u{1b}[31mc\n");
        assert_eq!(error.to_string(), "a b[31mc");
    }

    #[test]
    fn a_missing_path_is_not_found() {
        let error = Error::path("open disk", Path::new("/x"), io::ErrorKind::NotFound.into());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "cannot open disk /x");
    }
}
