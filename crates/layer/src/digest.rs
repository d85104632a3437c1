//! SHA-256 of what goes by, and of a file that is there.

use std::fs::File;
use std::io::{self, BufRead, Read};

use positioned_io::ReadAt;
use sha2::{Digest as _, Sha256};

use crate::control::{Control, Meter, Progress};
use crate::{Error, Result};

/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;

/// A digest as OCI writes it: `sha256:` and 64 hexadecimal digits.
fn shown(hash: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An input whose bytes are counted and hashed as they are read.
pub(crate) struct Hashed<R> {
    inner: R,
    /// `None` when nobody asked.
    hash: Option<Sha256>,
    count: u64,
    has_ended: bool,
}

impl<R> Hashed<R> {
    pub(crate) fn new(inner: R, is_asked: bool) -> Self {
        Self {
            inner,
            hash: is_asked.then(Sha256::new),
            count: 0,
            has_ended: false,
        }
    }

    /// The digest, if one was asked for, and how many bytes it is of: all, or it is an error.
    pub(crate) fn finish(self) -> Result<Option<(String, u64)>> {
        if self.hash.is_some() && !self.has_ended {
            return Err(Error::unsupported(
                "what follows the tar's end was not read to its end, so there is no digest of it all",
            ));
        }
        let count = self.count;
        Ok(self.hash.map(|hash| (shown(hash), count)))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.has_ended |= read == 0 && !buffer.is_empty();
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
            self.count += read as u64;
        }
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        self.has_ended |= buffer.is_empty();
        Ok(buffer)
    }

    fn consume(&mut self, count: usize) {
        if let Some(hash) = self.hash.as_mut().filter(|_| count > 0) {
            // The buffer that was filled before is there still, and nothing is read for it.
            let bytes = self.inner.fill_buf().unwrap_or_default();
            let bytes = bytes.get(..count).unwrap_or(bytes);
            hash.update(bytes);
            self.count += bytes.len() as u64;
        }
        self.inner.consume(count);
    }
}

/// The digest of a file's bytes, holes as zeros, and how many there are.
pub(crate) fn of_file(file: &File, control: &Control) -> Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut meter = Meter::new(control);
    let mut buffer = vec![0; BUFFER];
    let mut position = 0;
    loop {
        let read = match file.read_at(position, &mut buffer) {
            Ok(0) => return Ok((shown(hash), position)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("cannot read", error)),
        };
        hash.update(&buffer[..read]);
        position += read as u64;
        meter.step(Progress {
            entries: 0,
            bytes: position,
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_goes_by_is_hashed_however_it_is_taken() {
        let mut whole = Hashed::new(&b"abc"[..], true);
        whole.read_exact(&mut [0]).unwrap();
        whole.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(whole.finish().unwrap(), Some((ABC.to_owned(), 3)));
        let mut pieces = Hashed::new(io::BufReader::with_capacity(2, &b"abc"[..]), true);
        while !pieces.fill_buf().unwrap().is_empty() {
            pieces.consume(1);
        }
        assert_eq!(pieces.finish().unwrap(), Some((ABC.to_owned(), 3)));
        let mut part = Hashed::new(&b"abc"[..], true);
        part.read_exact(&mut [0; 3]).unwrap();
        assert!(part.finish().is_err());
        assert_eq!(Hashed::new(&b"abc"[..], false).finish().unwrap(), None);
    }

    #[test]
    fn file_is_hashed_whole() {
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, b"abc").unwrap();
        let found = of_file(&file, &Control::new()).unwrap();
        assert_eq!(found, (ABC.to_owned(), 3));
    }
}
