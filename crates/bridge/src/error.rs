//! What can go wrong on a bridge, and what the other end says went wrong.

use std::fmt;

use crate::{HResult, MessageType, message::ErrorRecord};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A frame's length is not allowed, or the stream ended inside a frame.
    Frame,
    /// A message does not fit in a frame.
    TooLarge,
    /// A body is not the JSON that its type asks for.
    Json,
    /// A message that has no place here: a response to nothing, or of another type than its
    /// request, or a kind that this end never gets.
    Unexpected,
    /// A request before the protocol version was negotiated.
    NotNegotiated,
    /// The two ends have no protocol version in common.
    Version,
    /// The connection is gone.
    Closed,
}

/// An error of the bridge. All of them end the connection but [`ErrorKind::NotNegotiated`],
/// [`ErrorKind::TooLarge`], and those of parsing one body.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    source: Option<serde_json::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            kind,
            what,
            source: None,
        }
    }

    pub(crate) fn json(what: impl Into<String>, source: serde_json::Error) -> Self {
        Self {
            kind: ErrorKind::Json,
            what: what.into(),
            source: Some(source),
        }
    }

    /// The error and its source in one line, for the other end.
    pub(crate) fn in_full(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.what),
            None => self.what.clone(),
        }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(source)
    }
}

/// A request that the guest has refused or failed.
///
/// The guest makes one to answer with; the host gets one as the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The request that failed; the guest's own failures do not know it yet.
    pub request: Option<MessageType>,
    /// The code.
    pub result: HResult,
    /// The reason, in words; may be empty.
    pub message: String,
    /// The records that came with it. A guest leaves them empty: they are made when it answers.
    pub records: Vec<ErrorRecord>,
}

impl Failure {
    /// A failure with a code and a reason.
    pub fn new(result: HResult, message: impl Into<String>) -> Self {
        Self {
            request: None,
            result,
            message: message.into(),
            records: Vec::new(),
        }
    }
}

impl From<&Error> for Failure {
    /// What a guest answers when it cannot make sense of a request.
    fn from(error: &Error) -> Self {
        let result = match error.kind {
            ErrorKind::Json => HResult::INVALID_JSON,
            ErrorKind::Version => HResult::UNSUPPORTED_PROTOCOL_VERSION,
            _ => HResult::FAIL,
        };
        Self::new(result, error.in_full())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(request) = self.request {
            write!(f, "{request} failed: ")?;
        }
        if self.message.is_empty() {
            write!(f, "{}", self.result)
        } else {
            write!(f, "{} [{:#010x}]", self.message, self.result.0)
        }
    }
}

impl std::error::Error for Failure {}
