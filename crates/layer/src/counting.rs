//! A storage that counts what is written to it and forgets it: how large a file becomes, without the file.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use opengcs_vhd::Storage;
use positioned_io::{ReadAt, Size};

/// The storage of a disk file that nobody wants.
///
/// Kept, in a file without a name, is only what is written while the flag is raised: the attributes
/// that the file system's writer reads again. Of most tars that is nothing.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    length: AtomicU64,
    read_again: Arc<AtomicBool>,
    kept: Mutex<Option<File>>,
}

impl Counting {
    pub(crate) fn new(read_again: Arc<AtomicBool>) -> Self {
        Self {
            read_again,
            ..Self::default()
        }
    }
}

impl ReadAt for Counting {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.load(Ordering::Relaxed).saturating_sub(position);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..length];
        buffer.fill(0);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*kept {
            let mut done = 0;
            while done < length {
                match file.read_at(position + done as u64, &mut buffer[done..])? {
                    0 => break,
                    read => done += read,
                }
            }
        }
        Ok(length)
    }
}

impl Size for Counting {
    fn size(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.length.load(Ordering::Relaxed)))
    }
}

impl Storage for Counting {
    fn store_at(&self, position: u64, data: &[u8]) -> io::Result<()> {
        let end = position.saturating_add(data.len() as u64);
        self.length.fetch_max(end, Ordering::Relaxed);
        if self.read_again.load(Ordering::Relaxed) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let file = match kept.take() {
                Some(file) => file,
                None => tempfile::tempfile()?,
            };
            kept.insert(file).store_at(position, data)?;
        }
        Ok(())
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        self.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_again_is_kept() {
        let flag = Arc::new(AtomicBool::new(false));
        let storage = Counting::new(Arc::clone(&flag));
        storage.store_at(1 << 40, b"content").unwrap();
        assert!(storage.kept.lock().unwrap().is_none());
        flag.store(true, Ordering::Relaxed);
        storage.store_at(8192, b"attribute").unwrap();
        let mut bytes = [1; 12];
        assert_eq!(storage.read_at(8191, &mut bytes).unwrap(), 12);
        assert_eq!(&bytes, b"\0attribute\0\0");
        assert_eq!(storage.length().unwrap(), (1 << 40) + 7);
        assert_eq!(storage.read_at((1 << 40) + 5, &mut bytes).unwrap(), 2);
    }
}
