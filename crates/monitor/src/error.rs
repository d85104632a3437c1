//! What went wrong, so that it can be told on this side of a socket or on the other.

use std::fmt;

use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::proto::{self, failure::Kind};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Under which key of a status's metadata the failure is, in parts.
const FAILURE: &str = "opengcs-failure-bin";
/// Longer lines are cut: metadata has little room.
const LONGEST_LINE: usize = 4 << 10;

/// The sort of failure, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument cannot be used.
    Invalid,
    /// There is no such VM, process, disk or program.
    NotFound,
    /// Somebody else has it, or it is there already.
    InUse,
    /// The VM has ended.
    Ended,
    /// The VM is still starting.
    NotYet,
    /// Nothing moved for too long.
    Timeout,
    /// The monitor does not answer, though it is there.
    Silent,
    /// The guest's agent would not.
    Refused,
    /// It cannot be done here.
    Unsupported,
    /// Anything else.
    Other,
}

/// A failure of this crate, or one that was told by the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
    detail: Option<String>,
}

impl Error {
    /// A failure that says `what`, with its causes: one line, lowercase.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            hint: None,
            detail: None,
        }
    }

    pub(crate) fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        };
        Self::new(kind, format!("cannot {action} {}: {error}", path.display()))
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The sort of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it, when there is something.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What was recorded of a VM that did not come up.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

impl From<opengcs::Error> for Error {
    fn from(error: opengcs::Error) -> Self {
        use opengcs::ErrorKind as Library;
        let kind = match error.kind() {
            Library::InvalidInput => ErrorKind::Invalid,
            Library::NotFound | Library::NotAttached => ErrorKind::NotFound,
            Library::AlreadyExists | Library::AlreadyAttached | Library::Locked => ErrorKind::InUse,
            Library::MachineEnded => ErrorKind::Ended,
            Library::Timeout => ErrorKind::Timeout,
            Library::GuestRefused => ErrorKind::Refused,
            Library::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        };
        let hint = error.advice().map(str::to_owned);
        let report = error.report();
        let what = hint
            .as_ref()
            .and_then(|hint| report.strip_suffix(&format!(" ({hint})")))
            .unwrap_or(&report);
        Self {
            kind,
            what: what.to_owned(),
            detail: error.detail().map(str::to_owned),
            hint,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (kind, code) = match error.kind {
            ErrorKind::Invalid => (Kind::Invalid, Code::InvalidArgument),
            ErrorKind::NotFound => (Kind::NotFound, Code::NotFound),
            ErrorKind::InUse => (Kind::InUse, Code::FailedPrecondition),
            ErrorKind::Ended => (Kind::Ended, Code::Aborted),
            ErrorKind::NotYet => (Kind::NotYet, Code::FailedPrecondition),
            ErrorKind::Timeout | ErrorKind::Silent => (Kind::Timeout, Code::DeadlineExceeded),
            ErrorKind::Refused => (Kind::Refused, Code::FailedPrecondition),
            ErrorKind::Unsupported => (Kind::Unsupported, Code::Unimplemented),
            ErrorKind::Other => (Kind::Unspecified, Code::Unknown),
        };
        let what = shortened(&error.what);
        let failure = proto::Failure {
            kind: kind.into(),
            what: what.clone(),
            hint: shortened(error.hint.as_deref().unwrap_or_default()),
        };
        let bytes = prost::Message::encode_to_vec(&failure);
        let mut status = Self::new(code, what);
        status
            .metadata_mut()
            .insert_bin(FAILURE, MetadataValue::from_bytes(&bytes));
        status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let parts = status
            .metadata()
            .get_bin(FAILURE)
            .and_then(|value| value.to_bytes().ok())
            .and_then(|bytes| <proto::Failure as prost::Message>::decode(bytes).ok());
        let Some(parts) = parts else {
            // Not the monitor's words, but those of the connection to it.
            return Self::new(
                ErrorKind::Ended,
                "the connection to the VM's monitor broke: it has ended, or was killed",
            );
        };
        let kind = match parts.kind() {
            Kind::Invalid => ErrorKind::Invalid,
            Kind::NotFound => ErrorKind::NotFound,
            Kind::InUse => ErrorKind::InUse,
            Kind::Ended => ErrorKind::Ended,
            Kind::NotYet => ErrorKind::NotYet,
            Kind::Timeout => ErrorKind::Timeout,
            Kind::Refused => ErrorKind::Refused,
            Kind::Unsupported => ErrorKind::Unsupported,
            Kind::Unspecified => ErrorKind::Other,
        };
        Self {
            kind,
            what: parts.what,
            hint: Some(parts.hint).filter(|hint| !hint.is_empty()),
            detail: None,
        }
    }
}

fn shortened(text: &str) -> String {
    match text
        .char_indices()
        .find(|(at, c)| at + c.len_utf8() > LONGEST_LINE)
    {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_on_the_other_side() {
        let error = Error::new(ErrorKind::InUse, "cannot unmount /ä: in use by sh (12)")
            .hint("end the process");
        assert_eq!(Error::from(Status::from(error.clone())), error);
        let long = Error::new(ErrorKind::Other, "ü".repeat(LONGEST_LINE));
        let told = Error::from(Status::from(long));
        assert!(told.to_string().ends_with('…') && told.to_string().len() < LONGEST_LINE + 4);
    }

    #[test]
    fn a_status_of_the_connection_says_that_the_monitor_is_gone() {
        let error = Error::from(Status::unavailable("tcp connect error"));
        assert_eq!(error.kind(), ErrorKind::Ended);
    }
}
