//! What went wrong, as one type: a small kind to act on, one line to show, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The sort of failure, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, a variable or an argument has a value that cannot be used.
    InvalidInput,
    /// A file, folder or program that is needed is not there.
    NotFound,
    /// The file to be made is there already.
    AlreadyExists,
    /// The disk or the file system is full.
    NoSpace,
    /// The disk is attached already, or its place in the guest is taken.
    AlreadyAttached,
    /// The disk is not attached to this VM.
    NotAttached,
    /// Every place for a disk is taken.
    NoFreeSlot,
    /// Another owner holds the file.
    Locked,
    /// Nothing moved for longer than the VM's timeout.
    Timeout,
    /// The machine ended: it did not come up, it died, or it was stopped.
    MachineEnded,
    /// The connection to the agent was lost while the request was out.
    ConnectionLost,
    /// The agent answered that it could not or would not.
    GuestRefused,
    /// The agent said something that the protocol does not allow.
    Protocol,
    /// A conversion failed: its input is corrupt, or its output could not be written.
    Conversion,
    /// A program on the host (apt-get, dpkg-deb, busybox…) failed.
    HostTool,
    /// The machine or this build cannot do that.
    Unsupported,
    /// The operation was given up because its caller went away.
    Cancelled,
    /// The operating system refused a file operation.
    Io,
}

/// A failure of this crate.
///
/// `Display` is one line that names the thing and, in parentheses, what to do when there is
/// something; [`source`](StdError::source) is the cause below it; [`Error::report`] joins the two.
/// A VM that did not come up also has a [`detail`](Error::detail) of many lines.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
    detail: Option<String>,
    bundle: Option<PathBuf>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                what: what.into(),
                hint: None,
                detail: None,
                bundle: None,
                source: None,
            }),
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, what)
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, what)
    }

    /// A failed file operation: `action` reads as in "cannot <action> <path>".
    pub(crate) fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {action} {}", path.display())).caused_by(source)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.inner.detail = Some(detail.into());
        self
    }

    /// Everything about it is in a file.
    pub(crate) fn recorded_in(mut self, bundle: PathBuf) -> Self {
        let pointer = format!("what was recorded is in {}", bundle.display());
        self.inner.hint = Some(match self.inner.hint.take() {
            Some(hint) => format!("{hint}; {pointer}"),
            None => pointer,
        });
        self.inner.bundle = Some(bundle);
        self
    }

    pub(crate) fn caused_by(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync + 'static>>,
    ) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The sort of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What to do about it, when there is something.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The record of a VM that did not come up or that died: its console, its emulator's messages
    /// and its agent's log, as far as they got.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.inner.detail.as_deref()
    }

    /// The file with that record, when the configuration names a folder for such files.
    #[must_use]
    pub fn bundle(&self) -> Option<&Path> {
        self.inner.bundle.as_deref()
    }

    /// The whole failure in one line: what, each cause below it, and what to do.
    #[must_use]
    pub fn report(&self) -> String {
        let mut line = self.inner.what.clone();
        let mut cause = self.source();
        while let Some(below) = cause {
            let text = below.to_string();
            // Some foreign errors print their source as part of themselves.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = below.source();
        }
        if let Some(hint) = &self.inner.hint {
            line.push_str(" (");
            line.push_str(hint);
            line.push(')');
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.what)?;
        if let Some(hint) = &self.inner.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.inner.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => std::io::ErrorKind::NotFound,
            ErrorKind::InvalidInput => std::io::ErrorKind::InvalidInput,
            ErrorKind::AlreadyExists => std::io::ErrorKind::AlreadyExists,
            ErrorKind::NoSpace => std::io::ErrorKind::StorageFull,
            ErrorKind::Timeout => std::io::ErrorKind::TimedOut,
            ErrorKind::Conversion | ErrorKind::Protocol => std::io::ErrorKind::InvalidData,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_joins_the_causes_and_ends_with_the_advice() {
        let error = Error::new(ErrorKind::Io, "cannot write /x")
            .caused_by(std::io::Error::other("no space left"))
            .hint("make room");
        assert_eq!(error.report(), "cannot write /x: no space left (make room)");
        assert_eq!(error.to_string(), "cannot write /x (make room)");
    }
}
