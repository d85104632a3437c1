//! The tree of a guest as a tar, on its way to ext4: a few kinds of entries with short names.

use std::io::{self, Write};

use crate::guest::initrd::tree::Tree;

const BLOCK: usize = 512;

/// Writes a POSIX ustar archive.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &str,
        kind: u8,
        permissions: u32,
        target: &str,
        (major, minor): (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, room: usize, bytes: &[u8]| {
            let field = header.get_mut(at..at + room);
            match field.and_then(|field| field.get_mut(..bytes.len())) {
                Some(field) => {
                    field.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{name} does not fit into a tar's header"),
                )),
            }
        };
        // Long names are split at a slash: modules lie deep.
        let (prefix, rest) = match name.len() {
            ..=100 => ("", name),
            length => name
                .get(length - 100..)
                .and_then(|end| end.find('/'))
                .and_then(|at| {
                    Some((
                        name.get(..length - 100 + at)?,
                        name.get(length - 99 + at..)?,
                    ))
                })
                .unwrap_or(("", name)),
        };
        put(0, 100, rest.as_bytes())?;
        put(100, 8, format!("{permissions:07o}").as_bytes())?;
        put(108, 8, b"0000000")?;
        put(116, 8, b"0000000")?;
        put(124, 12, format!("{:011o}", content.len()).as_bytes())?;
        put(136, 12, b"00000000000")?;
        put(148, 8, b"        ")?;
        put(156, 1, &[kind])?;
        put(157, 100, target.as_bytes())?;
        put(257, 8, b"ustar\x0000")?;
        put(329, 8, format!("{major:07o}").as_bytes())?;
        put(337, 8, format!("{minor:07o}").as_bytes())?;
        put(345, 155, prefix.as_bytes())?;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(content)?;
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

impl<W: Write> Tree for Writer<W> {
    fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        self.entry(name, b'5', permissions, "", (0, 0), &[])
    }

    fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, b'0', permissions, "", (0, 0), content)
    }

    fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, b'2', 0o777, target, (0, 0), &[])
    }

    fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        numbers: (u32, u32),
    ) -> io::Result<()> {
        self.entry(name, b'3', permissions, "", numbers, &[])
    }
}
