//! Where a conversion's input comes from, and how waiting for it is interrupted.

use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::failure::Failure;
use crate::signals::Stopped;
use crate::sys;

/// How long a read waits before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// A stream of bytes that ends with an error when the process is told to stop.
pub(crate) struct Input {
    file: File,
    /// Whether reading may block for ever: everything but a regular file.
    endless: bool,
    /// Length in bytes where it is known.
    length: Option<u64>,
    read: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Input {
    /// Opens a file, or stdin for `-`.
    pub(crate) fn open(path: &Path, context: &Context) -> Result<Self> {
        let (file, name) = if path == Path::new("-") {
            if io::stdin().is_terminal() {
                return Err(
                    Failure::usage("stdin is a terminal, where no data comes from")
                        .hint("give a file with -i FILE, or pipe the data in")
                        .into(),
                );
            }
            let file = sys::stdin().context("cannot read from stdin")?;
            (file, "stdin".to_owned())
        } else {
            let name = path.display().to_string();
            let file = match sys::open_to_read(path) {
                // Windows opens no folder as a file, and says only that access is denied.
                Err(_) if path.is_dir() => return Err(is_folder(&name).into()),
                file => file.with_context(|| format!("cannot open {name}"))?,
            };
            (file, name)
        };
        let metadata = metadata(&file, &name)?;
        if metadata.is_dir() {
            return Err(is_folder(&name).into());
        }
        Ok(Self::new(file, &metadata, context))
    }

    /// Stdin for a process, whatever it is.
    pub(crate) fn stdin(context: &Context) -> Result<Self> {
        let file = sys::stdin().context("cannot read from stdin")?;
        let metadata = metadata(&file, "stdin")?;
        Ok(Self::new(file, &metadata, context))
    }

    fn new(file: File, metadata: &Metadata, context: &Context) -> Self {
        Self {
            file,
            endless: !metadata.is_file(),
            length: metadata.is_file().then_some(metadata.len()),
            read: Arc::new(AtomicU64::new(0)),
            stop: context.stop.flag(),
        }
    }

    /// Its length in bytes, where it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// How many bytes were read, for another thread to see.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

fn is_folder(name: &str) -> Failure {
    Failure::new(format!("{name} is a folder, not a file")).hint(format!(
        "a tar of it is made with: tar -C {name} -c . | opengcs tar2vhd -o layer.vhd"
    ))
}

fn metadata(file: &File, name: &str) -> Result<Metadata> {
    file.metadata()
        .with_context(|| format!("cannot look at {name}"))
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Err(io::Error::other(Stopped));
            }
            if !self.endless || sys::wait_readable(&self.file, LOOK)? {
                let count = match self.file.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    result => result?,
                };
                self.read
                    .fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
                return Ok(count);
            }
        }
    }
}

/// A file that can be read at any place.
pub(crate) enum OnDisk {
    /// One that the user named.
    Named(PathBuf),
    /// A copy of what came through a pipe; it goes when this is dropped.
    Copy(tempfile::TempPath),
}

impl OnDisk {
    /// Takes all of a stream; zeros become holes.
    pub(crate) fn spool(mut input: Input, moved: impl Fn()) -> Result<Self> {
        const CHUNK: usize = 64 << 10;
        let what = "cannot keep what comes from stdin in a temporary file";
        let mut file = tempfile::NamedTempFile::new().context(what)?;
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut length = 0;
        loop {
            chunk.clear();
            let count = (&mut input)
                .take(u64::try_from(CHUNK).unwrap_or_default())
                .read_to_end(&mut chunk)
                .context("cannot read from stdin")?;
            if count == 0 {
                break;
            }
            length += u64::try_from(count).unwrap_or_default();
            moved();
            if chunk.iter().all(|byte| *byte == 0) {
                file.seek(io::SeekFrom::Start(length)).context(what)?;
            } else {
                file.write_all(&chunk).context(what)?;
            }
        }
        file.as_file().set_len(length).context(what)?;
        Ok(Self::Copy(file.into_temp_path()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Copy(path) => path,
        }
    }

    /// Calls a copy what the user knows it as.
    pub(crate) fn named(&self, error: anyhow::Error) -> anyhow::Error {
        match (self, error.downcast::<opengcs::layer::Error>()) {
            (Self::Copy(path), Ok(error)) => {
                error.with_path_shown_as(path, Path::new("stdin")).into()
            }
            (Self::Named(_), Ok(error)) => error.into(),
            (_, Err(error)) => error,
        }
    }
}
