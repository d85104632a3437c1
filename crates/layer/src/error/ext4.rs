//! Decides which kind of ours an error of the file system is.

use opengcs_ext4 as ext4;

use crate::{Error, ErrorKind};

/// An error of the image's writer or reader as one of ours.
pub(crate) fn from_ext4(error: ext4::Error) -> Error {
    use std::error::Error as _;
    let kind = match error.kind() {
        ext4::ErrorKind::Corrupt => ErrorKind::Corrupt,
        ext4::ErrorKind::Unsupported | ext4::ErrorKind::TooLarge => ErrorKind::Unsupported,
        ext4::ErrorKind::NoSpace => ErrorKind::NoSpace,
        ext4::ErrorKind::InvalidInput
        | ext4::ErrorKind::AlreadyExists
        | ext4::ErrorKind::WrongType => ErrorKind::InvalidInput,
        ext4::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => {
            let full = error
                .source()
                .and_then(|source| source.downcast_ref::<std::io::Error>())
                .is_some_and(|source| {
                    matches!(
                        source.kind(),
                        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                    )
                });
            if full {
                ErrorKind::NoSpace
            } else {
                ErrorKind::Io
            }
        }
    };
    let message = match kind {
        ErrorKind::NoSpace if error.kind() == ext4::ErrorKind::Io => "the disk is full",
        ErrorKind::Io => "cannot read or write the file system",
        _ => return Error::new(kind, error.to_string()),
    };
    Error::new(kind, message).with_source(error)
}
