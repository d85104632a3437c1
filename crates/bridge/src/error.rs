//! What can go wrong on a bridge, and what the other end says went wrong.

use std::fmt::{self, Write as _};

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

/// The letters of a reason that are shown.
const LONGEST_SHOWN: usize = 1000;

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
        let record = self.records.first().map_or("", |record| &record.message);
        let message = match self.message.trim() {
            "" => record.trim(),
            message => message,
        };
        if message.is_empty() {
            return write!(f, "{}", self.result);
        }
        // The words are a stranger's: they stay one line, and a short one.
        for letter in message.chars().take(LONGEST_SHOWN) {
            f.write_char(if letter.is_control() { ' ' } else { letter })?;
        }
        if message.chars().nth(LONGEST_SHOWN).is_some() {
            f.write_str("…")?;
        }
        write!(f, " [{:#010x}]", self.result.0)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_one_short_line() {
        let failure = Failure::new(
            HResult::FAIL,
            format!("a\nb\r\u{1b}[0m{}\n", "x".repeat(5000)),
        );
        let shown = failure.to_string();
        assert!(!shown.contains(char::is_control), "{shown}");
        assert!(
            shown.len() < 1100 && shown.starts_with("a b  [0m"),
            "{shown}"
        );
        assert!(shown.ends_with("… [0x80004005]"), "{shown}");
    }

    #[test]
    fn a_reason_that_is_only_in_the_records_is_found() {
        let mut failure = Failure::new(HResult::FAIL, " ");
        failure.records.push(ErrorRecord {
            message: "the reason".to_owned(),
            ..ErrorRecord::default()
        });
        assert_eq!(failure.to_string(), "the reason [0x80004005]");
    }
}
