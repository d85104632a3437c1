//! Decides what a disk file needs from whatever holds its bytes.

use std::fs::File;
use std::io;

use positioned_io::{ReadAt, Size};

mod sys;

/// Something that holds the bytes of a disk file: a [`File`], or a file in
/// memory for tests.
///
/// ```
/// use opengcs_vhd::Storage;
/// let file = tempfile::tempfile()?;
/// file.store_at(1 << 20, b"end")?;
/// assert_eq!(file.length()?, (1 << 20) + 3);
/// file.sync()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Writing takes `&self`, as files do. Bytes that were never written read as
/// zero, also after [`Storage::resize`] has made it longer.
pub trait Storage: ReadAt + Size {
    /// Writes all of `data` at byte `position`, growing the storage as needed.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn store_at(&self, position: u64, data: &[u8]) -> io::Result<()>;

    /// Sets the length in bytes; what is added reads as zero.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn resize(&self, length: u64) -> io::Result<()>;

    /// Makes everything written durable before it returns.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn sync(&self) -> io::Result<()>;

    /// Makes `length` bytes from `position`, all within the storage, zero, and
    /// gives back the room that they take. False when it cannot, and nothing
    /// was done: the caller may write zeros instead. A [`File`] cannot, since
    /// the standard library has no call for it; a wrapper around one can.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn punch(&self, position: u64, length: u64) -> io::Result<bool> {
        let _ = (position, length);
        Ok(false)
    }

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn length(&self) -> io::Result<u64> {
        self.size()?
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the storage has no length"))
    }

    /// How many bytes it takes on its own disk, where that is known.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn allocated(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

impl Storage for File {
    fn store_at(&self, position: u64, data: &[u8]) -> io::Result<()> {
        sys::write_all_at(self, position, data)
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        match self.size()? {
            Some(length) => Ok(length),
            // A device has no length in its metadata, but an end to seek to.
            None => io::Seek::seek(&mut &*self, io::SeekFrom::End(0)),
        }
    }

    fn allocated(&self) -> io::Result<Option<u64>> {
        sys::allocated(self)
    }
}

impl<S: Storage + ?Sized> Storage for &S {
    fn store_at(&self, position: u64, data: &[u8]) -> io::Result<()> {
        S::store_at(self, position, data)
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        S::resize(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        S::sync(self)
    }

    fn punch(&self, position: u64, length: u64) -> io::Result<bool> {
        S::punch(self, position, length)
    }

    fn length(&self) -> io::Result<u64> {
        S::length(self)
    }

    fn allocated(&self) -> io::Result<Option<u64>> {
        S::allocated(self)
    }
}
