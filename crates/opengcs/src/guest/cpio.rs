//! How a file tree becomes a `newc` cpio archive, the form in which Linux takes its first root.
//!
//! The form is that of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`:
//! a 110-byte header of hexadecimal text, the name with its NUL, padding to 4 bytes, the data,
//! padding to 4 bytes. Every number that could differ between two hosts (times, device, owner) is
//! zero, so the same tree gives the same bytes.

use std::io::{self, Write};

/// Type bits of a regular file's mode.
pub const FILE: u32 = 0o100_000;
/// Type bits of a directory's mode.
pub const DIRECTORY: u32 = 0o040_000;
/// Type bits of a symbolic link's mode.
pub const SYMLINK: u32 = 0o120_000;
/// Type bits of a character device's mode.
pub const CHARACTER_DEVICE: u32 = 0o020_000;

const MAGIC: &[u8; 6] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// The kernel refuses longer names (`PATH_MAX`).
const MAX_NAME: usize = 4096;

/// Writes one archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    inode: u32,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// An empty archive on `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            written: 0,
        }
    }

    /// A directory; its parent comes first.
    ///
    /// # Errors
    /// The name does not fit, or writing fails.
    pub fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        self.entry(name, DIRECTORY | permissions, (0, 0), &[])
    }

    /// A regular file.
    ///
    /// # Errors
    /// The name or the content does not fit, or writing fails.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE | permissions, (0, 0), content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// The name or the target does not fit, or writing fails.
    pub fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        if target.is_empty() || target.len() >= MAX_NAME {
            return Err(unfit(name, "its target has a length that Linux refuses"));
        }
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device.
    ///
    /// # Errors
    /// The name does not fit, or writing fails.
    pub fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        (major, minor): (u32, u32),
    ) -> io::Result<()> {
        self.entry(name, CHARACTER_DEVICE | permissions, (major, minor), &[])
    }

    /// Ends the archive and gives back the output.
    ///
    /// # Errors
    /// Writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.raw(TRAILER, 0, 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        if name.is_empty() || name == TRAILER || name.contains('\0') || name.len() >= MAX_NAME {
            return Err(unfit(name, "a name that cpio cannot hold"));
        }
        self.inode = self
            .inode
            .checked_add(1)
            .ok_or_else(|| unfit(name, "more entries than cpio can number"))?;
        self.raw(name, self.inode, mode, device, content)
    }

    fn raw(
        &mut self,
        name: &str,
        inode: u32,
        mode: u32,
        (major, minor): (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| unfit(name, "more than 4 GiB, which cpio cannot hold"))?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let name_size = name.len() + 1;
        let mut header = String::with_capacity(HEADER);
        header.push_str("070701");
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let name_size_field =
            u32::try_from(name_size).map_err(|_| unfit(name, "a name that cpio cannot hold"))?;
        for field in [
            inode,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size_field,
            0,
        ] {
            use std::fmt::Write as _;
            write!(header, "{field:08x}").map_err(io::Error::other)?;
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let padding = match self.written % 4 {
            0 => return Ok(()),
            1 => 3,
            2 => 2,
            _ => 1,
        };
        self.put(&[0; 3][..padding])
    }
}

fn unfit(name: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?}: {why}"))
}

/// One entry of an archive, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path without a leading slash, as bytes.
    pub name: &'a [u8],
    /// Type and permission bits.
    pub mode: u32,
    /// Content of a file, target of a symbolic link.
    pub content: &'a [u8],
}

/// The entries of the first archive in `bytes`, up to its end or to the first that makes no sense.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (entry, after) = parse(rest)?;
        rest = after;
        (entry.name != TRAILER.as_bytes()).then_some(entry)
    })
    .fuse()
}

fn parse(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let header = bytes.get(..HEADER)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    let field = |index: usize| -> Option<usize> {
        let start = MAGIC.len() + index * 8;
        let text = std::str::from_utf8(header.get(start..start + 8)?).ok()?;
        usize::from_str_radix(text, 16).ok()
    };
    let mode = u32::try_from(field(1)?).ok()?;
    let size = field(6)?;
    let name_size = field(11)?;
    let name_end = HEADER.checked_add(name_size)?;
    let name = bytes.get(HEADER..name_end)?.strip_suffix(&[0])?;
    let start = name_end.checked_next_multiple_of(4)?;
    let end = start.checked_add(size)?;
    let content = bytes.get(start..end)?;
    let after = bytes
        .get(end.checked_next_multiple_of(4)?..)
        .unwrap_or_default();
    Some((
        Entry {
            name,
            mode,
            content,
        },
        after,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.directory("bin", 0o755).unwrap();
        writer.file("bin/gcs", 0o755, b"hello").unwrap();
        writer.symlink("init", "/bin/gcs").unwrap();
        writer.character_device("console", 0o600, (5, 1)).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        let read: Vec<_> = entries(&bytes).collect();
        assert_eq!(read.len(), 4);
        assert_eq!(read[1].name, b"bin/gcs");
        assert_eq!(read[1].content, b"hello");
        assert_eq!(read[1].mode, 0o100_755);
        assert_eq!(read[2].content, b"/bin/gcs");
    }

    #[test]
    fn gnu_cpio_header_has_the_golden_bytes() {
        let mut writer = Writer::new(Vec::new());
        writer.file("a", 0o644, b"xyz").unwrap();
        let bytes = writer.finish().unwrap();
        let expected = b"07070100000001000081a40000000000000000000000010000000000000003\
            0000000000000000000000000000000000000002\
            00000000a\0xyz\0";
        assert_eq!(&bytes[..expected.len()], expected);
    }

    #[test]
    fn cut_and_flipped_archives_end_early_and_never_panic() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(entries(&bytes[..end]).count() <= 4);
        }
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0xff;
            let _ = entries(&flipped).count();
        }
    }

    #[test]
    fn names_that_cpio_cannot_hold_are_refused() {
        let mut writer = Writer::new(Vec::new());
        for name in ["", "TRAILER!!!", "a\0b", &"x".repeat(5000)] {
            assert!(writer.file(name, 0o644, b"").is_err());
        }
        assert!(writer.symlink("l", "").is_err());
    }
}
