//! Decides which kind of ours an error of the file system is.

use std::error::Error as StdError;
use std::io;

use opengcs_ext4 as ext4;

use crate::{Error, ErrorKind};

/// An error of the image's writer or reader as one of ours.
pub(crate) fn from_ext4(error: ext4::Error) -> Error {
    let kind = match error.kind() {
        ext4::ErrorKind::Corrupt => ErrorKind::Corrupt,
        ext4::ErrorKind::Unsupported | ext4::ErrorKind::TooLarge => ErrorKind::Unsupported,
        ext4::ErrorKind::NoSpace => ErrorKind::NoSpace,
        ext4::ErrorKind::InvalidInput
        | ext4::ErrorKind::AlreadyExists
        | ext4::ErrorKind::WrongType => ErrorKind::InvalidInput,
        ext4::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => match full_disk(&error) {
            Some(full) => return full,
            None => ErrorKind::Io,
        },
    };
    match kind {
        ErrorKind::Io => {
            Error::new(kind, "cannot read or write the file system").with_source(error)
        }
        _ => Error::new(kind, error.to_string()),
    }
}

/// An error of the image's writer about what a tar brings: what would be a caller's fault is the tar's.
pub(crate) fn from_writer(error: ext4::Error) -> Error {
    match error.kind() {
        ext4::ErrorKind::InvalidInput => Error::corrupt(error.message().to_owned()),
        _ => from_ext4(error),
    }
}

/// The error to tell if what lies at the bottom is that there is no room: without the layers in
/// between, which all say the same.
pub(crate) fn full_disk(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(error);
    let mut system = None;
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        system = io.or(system);
        // What an I/O error carries is not among its sources, but they follow it.
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    let system = system?;
    let what = match system.kind() {
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::QuotaExceeded => "the quota on the disk is used up",
        io::ErrorKind::FileTooLarge => {
            "the file would be larger than its file system, or a limit (ulimit -f), lets a file be"
        }
        _ => return None,
    };
    Some(Error::new(ErrorKind::NoSpace, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_told_as_what_it_is() {
        for (kind, words) in [
            (io::ErrorKind::StorageFull, "the disk is full"),
            (io::ErrorKind::QuotaExceeded, "quota"),
            (io::ErrorKind::FileTooLarge, "larger than its file system"),
        ] {
            let error = full_disk(&io::Error::from(kind)).unwrap();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(full_disk(&io::Error::from(io::ErrorKind::NotFound)).is_none());
    }
}
