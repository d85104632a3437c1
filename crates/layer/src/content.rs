//! What a file is that holds no ext4, by its first bytes.

use opengcs_vhd::{Disk, Format, Storage};
use positioned_io::ReadAt;

use crate::Error;
use crate::error::from_ext4;

/// What first bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Its name, with an article.
    pub(crate) name: &'static str,
    /// Whether a raw disk may well begin so.
    pub(crate) on_disks: bool,
}

/// What the disk's first bytes belong to, where that is something well known that is no ext4.
pub(crate) fn recognise(disk: &impl ReadAt) -> Option<Content> {
    let mut start = [0; 512];
    let length = disk.read_at(0, &mut start).ok()?;
    let (name, on_disks) = match start.get(..length)? {
        [b'Q', b'F', b'I', 0xfb, ..] => ("a qcow2 image", false),
        [b'K', b'D', b'M', b'V', ..] => ("a VMDK image", false),
        [b'h', b's', b'q', b's', ..] => ("a squashfs image", true),
        [b'X', b'F', b'S', b'B', ..] => ("an XFS file system", true),
        [0x1f, 0x8b, ..] => ("a gzip stream", false),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("a zstd stream", false),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("an xz stream", false),
        [0x7f, b'E', b'L', b'F', ..] => ("a program or library (ELF)", false),
        start if start.get(257..262) == Some(b"ustar") => ("a tar", false),
        start if is_text(start) => ("text", false),
        _ => return None,
    };
    Some(Content { name, on_disks })
}

/// What a raw file is that is no disk at all.
pub(crate) fn no_disk<S: Storage>(disk: &Disk<S>) -> Option<&'static str> {
    let content = recognise(disk).filter(|content| !content.on_disks)?;
    (disk.format() == Format::Raw).then_some(content.name)
}

/// The failure to find a file system on a disk, which says what is there instead.
pub(crate) fn without_ext4(content: Option<Content>, error: opengcs_ext4::Error) -> Error {
    match content {
        Some(Content { name, .. }) => Error::corrupt(format!(
            "no file system is in it: it is {name}; a VHD, VHDX or raw disk with ext4 is needed"
        )),
        None => from_ext4(error),
    }
}

/// Whether it is UTF-8 without control characters; a letter may be cut off at the end.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            let whole = start.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\x0c' | '\x1b');
    !text.is_empty() && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_bytes() {
        for text in ["a\n", "#!/bin/sh\n\techo ä\r\n"] {
            assert!(is_text(text.as_bytes()), "{text}");
        }
        assert!(is_text(b"cut \xc3"));
        for bytes in [&b""[..], b"\0\0", b"a\0", b"\xff\xfe", b"\xc3 cut"] {
            assert!(!is_text(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn first_bytes_are_recognised() {
        let name = |bytes: &[u8]| recognise(&bytes.to_vec()).map(|content| content.name);
        assert_eq!(name(b"\x1f\x8b\x08\0"), Some("a gzip stream"));
        assert_eq!(name(b"\x7fELF\x02"), Some("a program or library (ELF)"));
        assert_eq!(name(b"hello\n"), Some("text"));
        assert_eq!(name(&[0; 512]), None);
    }
}
