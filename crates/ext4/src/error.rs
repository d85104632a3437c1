//! The crate's one error: a small kind, what was wrong, and where in the volume.

use std::borrow::Cow;
use std::{fmt, io};

use crate::types::{BlockNo, InodeNo};

/// What a caller can tell errors apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The volume contradicts itself or the format.
    Corrupt,
    /// The volume, or what was asked for, needs something this crate does not do.
    Unsupported,
    /// The file behind the volume failed; `source()` has the reason.
    Io,
    /// It does not fit in the volume.
    NoSpace,
    /// An argument makes no sense.
    InvalidInput,
    /// No such node or name.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// A directory was needed and this is none, or the other way round.
    WrongType,
    /// A limit of ext4 was passed: a name, a value, a file, a link count.
    TooLarge,
}

impl ErrorKind {
    fn text(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt file system",
            Self::Unsupported => "unsupported",
            Self::Io => "input/output error",
            Self::NoSpace => "no space left in the image",
            Self::InvalidInput => "invalid argument",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::WrongType => "wrong file type",
            Self::TooLarge => "too large",
        }
    }
}

/// An error of this crate, with the place it concerns.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    what: Cow<'static, str>,
    inode: Option<InodeNo>,
    block: Option<BlockNo>,
    offset: Option<u64>,
    source: Option<io::Error>,
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            inode: None,
            block: None,
            offset: None,
            source: None,
        }))
    }

    pub(crate) fn corrupt(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, what)
    }

    pub(crate) fn unsupported(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, what)
    }

    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, what)
    }

    pub(crate) fn no_space(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NoSpace, what)
    }

    pub(crate) fn too_large(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::TooLarge, what)
    }

    /// An I/O error, with what was being done (`"read the superblock"`) and at which byte.
    pub(crate) fn io(what: impl Into<Cow<'static, str>>, offset: u64, source: io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, what);
        error.0.offset = Some(offset);
        error.0.source = Some(source);
        error
    }

    pub(crate) fn at_inode(mut self, inode: InodeNo) -> Self {
        self.0.inode.get_or_insert(inode);
        self
    }

    pub(crate) fn at_block(mut self, block: BlockNo) -> Self {
        self.0.block.get_or_insert(block);
        self
    }

    #[allow(dead_code, reason = "for readers of structures that lie inside blocks")]
    pub(crate) fn at_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong, without the kind before it and the place behind it.
    pub fn message(&self) -> &str {
        &self.0.what
    }

    /// The inode it concerns, when one is known.
    pub fn inode(&self) -> Option<InodeNo> {
        self.0.inode
    }

    /// The block it concerns, when one is known.
    pub fn block(&self) -> Option<BlockNo> {
        self.0.block
    }

    /// The byte offset it concerns, when one is known: of the volume for I/O errors, else inside
    /// the block or file.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "{}: {}", inner.kind.text(), inner.what)?;
        let mut place = Vec::new();
        if let Some(inode) = inner.inode {
            place.push(format!("inode {inode}"));
        }
        if let Some(block) = inner.block {
            place.push(format!("block {block}"));
        }
        if let Some(offset) = inner.offset {
            place.push(format!("offset {offset}"));
        }
        if !place.is_empty() {
            write!(f, " ({})", place.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(source),
            None => None,
        }
    }
}
