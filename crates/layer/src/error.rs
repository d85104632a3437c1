//! What can go wrong in a conversion, and where: one error with the file, tar entry and offset it happened at.

mod ext4;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::problem::ProblemKind;

pub(crate) use ext4::{from_ext4, from_writer, full_disk};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input breaks the rules of its format, or ends too early.
    Corrupt,
    /// The input is valid but uses something that is not supported.
    Unsupported,
    /// The caller's options or arguments make no sense.
    InvalidInput,
    /// A file or folder is missing.
    NotFound,
    /// The output is there already.
    AlreadyExists,
    /// The disk, or the image being written, is full.
    NoSpace,
    /// Another program holds the file: a machine is writing to the disk, or it is open elsewhere.
    Locked,
    /// The caller asked to stop.
    Cancelled,
    /// Reading or writing failed.
    Io,
}

/// A failure, with the place it happened at.
///
/// `Display` is one lowercase line; the cause beneath it is
/// [`source`](StdError::source), and is not repeated in the line.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    entry: Option<Vec<u8>>,
    offset: Option<u64>,
    output: bool,
    problem: Option<ProblemKind>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`: lowercase, no full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                path: None,
                entry: None,
                offset: None,
                output: false,
                problem: None,
                hint: None,
                source: None,
            }),
        }
    }

    /// A failed system operation; `action` is what was tried (`"cannot open"`).
    ///
    /// An [`Error`] that travelled inside the [`io::Error`] comes out as it went in.
    #[must_use]
    pub fn io(action: impl Into<String>, error: io::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return own,
            Err(other) => other,
        };
        Self::new(io_kind(&error), action).with_source(error)
    }

    /// The same as [`Error::io`], with the path it concerns.
    #[must_use]
    pub fn io_at(action: impl Into<String>, path: &Path, error: io::Error) -> Self {
        Self::io(action, error).with_path(path)
    }

    /// Names the file or folder concerned, unless one is named already.
    #[must_use]
    pub fn with_path(mut self, path: &Path) -> Self {
        self.inner.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// The same error, naming `shown` where it named `path`: for a file that stands for
    /// something else, as a copy of what came through a pipe does.
    #[must_use]
    pub fn with_path_shown_as(mut self, path: &Path, shown: &Path) -> Self {
        if self.path() == Some(path) {
            self.inner.path = Some(shown.to_path_buf());
        }
        self
    }

    /// Names the tar entry and the byte in the tar where its header starts,
    /// unless they are named already.
    #[must_use]
    pub fn with_entry(mut self, entry: &[u8], offset: u64) -> Self {
        self.inner.entry.get_or_insert_with(|| entry.to_vec());
        self.inner.offset.get_or_insert(offset);
        self
    }

    /// Names the node of a tree concerned, unless one is named already.
    pub(crate) fn with_node(mut self, path: &[u8]) -> Self {
        self.inner.entry.get_or_insert_with(|| path.to_vec());
        self
    }

    /// Marks a failure of the output, which no entry is to blame for.
    pub(crate) fn output(action: impl Into<String>, error: io::Error) -> Self {
        let mut error = Self::io(action, error);
        error.inner.output = true;
        error
    }

    pub(crate) fn is_output(&self) -> bool {
        self.inner.output
    }

    /// Tells the byte offset in the input, unless it is told already.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.inner.offset.get_or_insert(offset);
        self
    }

    /// Says what to do about it: lowercase, no full stop. It is not part of the line.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// What to do about it, when there is something.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The file or folder concerned.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// The tar entry concerned, as its raw name.
    #[must_use]
    pub fn entry(&self) -> Option<&[u8]> {
        self.inner.entry.as_deref()
    }

    /// The byte offset in the input (in the tar, for an entry).
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.inner.offset
    }

    /// Says which of a plan's problems this is.
    pub(crate) fn with_problem(mut self, kind: ProblemKind) -> Self {
        self.inner.problem = Some(kind);
        self
    }

    /// Which of the [problems of a tar](ProblemKind) it was refused for, where it was for one.
    #[must_use]
    pub fn problem(&self) -> Option<ProblemKind> {
        self.inner.problem
    }

    /// The line without the place.
    pub(crate) fn message(&self) -> &str {
        &self.inner.message
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    if is_in_use(error) {
        return ErrorKind::Locked;
    }
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::NoSpace
        }
        _ => ErrorKind::Io,
    }
}

/// Whether others have the file open and do not let us do what we want (`ERROR_SHARING_VIOLATION`,
/// `ERROR_LOCK_VIOLATION`).
fn is_in_use(error: &io::Error) -> bool {
    cfg!(windows) && matches!(error.raw_os_error(), Some(32 | 33))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.inner.path {
            write!(f, "{}: ", path.display())?;
        }
        match (&self.inner.entry, self.inner.offset) {
            (Some(entry), Some(offset)) => {
                write!(f, "entry {} at byte {offset}: ", Name(entry))?;
            }
            (Some(entry), None) => write!(f, "entry {}: ", Name(entry))?,
            (None, Some(offset)) => write!(f, "at byte {offset}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &format_args!("{self}"))
            .field("source", &self.inner.source)
            .finish()
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

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::Cancelled | ErrorKind::Io => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Shows a name of any bytes quoted on one line, shortened when very long.
pub(crate) struct Name<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 300;
        let shown = self.0.get(..SHOWN).unwrap_or(self.0);
        f.write_str("\"")?;
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '"' || c == '\\' || c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if self.0.len() > SHOWN {
            write!(f, "…\" ({} bytes)", self.0.len())
        } else {
            f.write_str("\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_names_path_entry_and_offset() {
        let error = Error::corrupt("size is not a number")
            .with_entry(b"a\xff\n", 1024)
            .with_path(Path::new("/x.tar"));
        assert_eq!(
            error.to_string(),
            "/x.tar: entry \"a\\xff\\n\" at byte 1024: size is not a number"
        );
    }

    #[test]
    fn own_error_survives_a_trip_through_io() {
        let io_error = io::Error::from(Error::corrupt("gzip input is cut short").with_offset(7));
        let back = Error::io("cannot read", io_error);
        assert_eq!(back.kind(), ErrorKind::Corrupt);
        assert_eq!(back.offset(), Some(7));
    }

    #[test]
    fn full_disk_has_its_own_kind() {
        let error = Error::io("cannot write", io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
}
