//! Conversions that need no VM: tar to disk file and back, scratch disks, layer folders, copies.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use opengcs_layer::{Control, DiskToTarOptions, Existing, ScratchOptions, TarToDiskOptions};

use crate::config::DEFAULT_VHDX_SIZE_GB;
use crate::error::{Error, ErrorKind, Result};
use crate::uvm::DataLog;

pub use opengcs_layer::{LayerVhdDetails, Plan};

/// Bytes that go through the pipe at once.
pub(crate) const CHUNK: usize = 256 << 10;
/// Chunks that wait in the pipe at most.
pub(crate) const DEPTH: usize = 8;

/// Writes a tar stream (plain, gzip, zstd or xz) as an ext4 file system in a fixed VHD; gives the
/// VHD's size in bytes. The file appears under its name when it is whole, and not at all on failure.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let empty_tar = vec![0; 1024];
/// let size = opengcs::tar_to_vhd(folder.path().join("layer.vhd"), empty_tar.as_slice())?;
/// assert_eq!(size, std::fs::metadata(folder.path().join("layer.vhd"))?.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The stream is cut, corrupt or no tar; the file cannot be written.
#[doc(alias = "TarToVhd")]
pub fn tar_to_vhd(target: impl AsRef<Path>, reader: impl Read) -> Result<u64> {
    tar_to_vhd_with(target.as_ref(), reader, &TarToDiskOptions::default())
}

/// Tells what [`tar_to_vhd`] would make of a tar stream, and what is the matter with the tar: missing
/// parents, hard links before their targets, entries that are replaced, paths that escape, and more,
/// each with what is done about it. Nothing is written.
///
/// What would be refused is no error but [`Plan::refusal`]. With other options than the usual:
/// [`opengcs_layer::plan_tar`].
///
/// ```
/// let plan = opengcs::plan_tar_to_vhd([0; 1024].as_slice())?;
/// assert!(plan.refusal.is_none());
/// assert_eq!(plan.problems.total(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The stream cannot be read.
pub fn plan_tar_to_vhd(reader: impl Read) -> Result<Plan> {
    opengcs_layer::plan_tar(reader, &TarToDiskOptions::default())
        .map_err(|error| layer_error("cannot look through the tar", error))
}

pub(crate) fn tar_to_vhd_with(
    target: &Path,
    reader: impl Read,
    options: &TarToDiskOptions,
) -> Result<u64> {
    let reader = Logged {
        reader,
        log: DataLog::new(
            format!("tar to {}", target.display()),
            &crate::Environment::process(),
        ),
    };
    opengcs_layer::tar_to_disk(reader, target, options)
        .map(|converted| converted.size)
        .map_err(|error| layer_error("cannot turn the tar into a VHD", error))
}

/// Reads an ext4 file system in a disk file (VHD, VHDX or raw) as a tar stream.
///
/// With `is_sandbox` only the overlay's `upper` is read, and its whiteouts become `.wh.` files.
/// `vhd_size` is the size in bytes that the caller knows, as from [`layer_vhd_details`]; a file
/// shorter than that has been cut.
///
/// The conversion runs in a thread of its own while the stream is read, and stops when the stream is
/// dropped. Its failure is an error of the read, and never a clean end.
///
/// # Errors
/// The file is not there, is shorter than it should be, or cannot be opened.
#[doc(alias = "VhdToTar")]
pub fn vhd_to_tar(
    vhd_file: impl AsRef<Path>,
    is_sandbox: bool,
    vhd_size: Option<u64>,
) -> Result<TarReader> {
    let vhd_file = vhd_file.as_ref().to_owned();
    check_source(&vhd_file, vhd_size)?;
    let (sender, receiver) = mpsc::sync_channel(DEPTH);
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancelled);
    std::thread::Builder::new()
        .name("opengcs-vhd2tar".into())
        .spawn(move || {
            let pipe = move |chunk| sender.send(chunk).is_ok();
            export_into(&vhd_file, is_sandbox, flag, pipe);
        })
        .map_err(|error| Error::new(ErrorKind::Io, "cannot start a thread").caused_by(error))?;
    Ok(TarReader {
        chunks: Some(receiver),
        current: io::Cursor::new(Vec::new()),
        cancelled,
    })
}

/// A piece of a tar stream, its end (an empty piece), or why there is no more.
pub(crate) type Chunk = io::Result<Vec<u8>>;

pub(crate) fn check_source(vhd_file: &Path, vhd_size: Option<u64>) -> Result<()> {
    let found =
        std::fs::metadata(vhd_file).map_err(|error| Error::io("open the disk", vhd_file, error))?;
    if found.is_dir() {
        return Err(Error::invalid(format!(
            "{} is a folder, not a disk file",
            vhd_file.display()
        )));
    }
    std::fs::File::open(vhd_file).map_err(|error| Error::io("open the disk", vhd_file, error))?;
    if let Some(expected) = vhd_size
        && found.is_file()
        && found.len() < expected
    {
        return Err(Error::new(
            ErrorKind::Conversion,
            format!(
                "the disk {} has been cut: it has {} of {expected} bytes",
                vhd_file.display(),
                found.len()
            ),
        ));
    }
    Ok(())
}

/// Runs the conversion and sends its pieces; the last is empty, or an error.
pub(crate) fn export_into(
    vhd_file: &Path,
    is_sandbox: bool,
    cancelled: Arc<AtomicBool>,
    pipe: impl FnMut(Chunk) -> bool,
) {
    let mut out = io::BufWriter::with_capacity(
        CHUNK,
        PipeWriter {
            pipe,
            log: DataLog::new(
                format!("tar of {}", vhd_file.display()),
                &crate::Environment::process(),
            ),
        },
    );
    let options = DiskToTarOptions {
        sandbox: is_sandbox,
        control: Control::new().cancel_with(cancelled),
        ..DiskToTarOptions::default()
    };
    let outcome = opengcs_layer::disk_to_tar(vhd_file, &mut out, &options)
        .map_err(|error| layer_error("cannot turn the disk into a tar", error));
    // What is in the buffer belongs before the end, and before an error.
    let flushed = io::Write::flush(&mut out);
    let (mut writer, _) = out.into_parts();
    let last = match (outcome, flushed) {
        (Ok(_), Ok(())) => Ok(Vec::new()),
        (Err(error), _) => Err(io::Error::from(error)),
        (Ok(_), Err(error)) => Err(error),
    };
    (writer.pipe)(last);
}

struct PipeWriter<P> {
    pipe: P,
    log: DataLog,
}

impl<P: FnMut(Chunk) -> bool> io::Write for PipeWriter<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.log.see(bytes);
        if bytes.is_empty() || (self.pipe)(Ok(bytes.to_vec())) {
            Ok(bytes.len())
        } else {
            Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the reader of the tar has gone",
            ))
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar stream that is made while it is read. Dropping it stops the conversion.
#[derive(Debug)]
pub struct TarReader {
    chunks: Option<mpsc::Receiver<Chunk>>,
    current: io::Cursor<Vec<u8>>,
    cancelled: Arc<AtomicBool>,
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(chunks) = &self.chunks else {
                return Ok(0);
            };
            match chunks.recv() {
                Ok(Ok(chunk)) if chunk.is_empty() => self.chunks = None,
                Ok(Ok(chunk)) => self.current = io::Cursor::new(chunk),
                Ok(Err(error)) => {
                    self.chunks = None;
                    return Err(error);
                }
                // The thread is gone without a word: that is no end of a tar.
                Err(_) => {
                    self.chunks = None;
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the conversion ended in the middle of the tar",
                    ));
                }
            }
        }
    }
}

impl Drop for TarReader {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Makes an empty ext4 file system of `size_gb` GB (2³⁰ bytes) in a VHDX of blocks of 1 MiB.
///
/// Sizes under 20 GB are raised to 20 GB, as the seed does; [`opengcs_layer::create_scratch`] makes
/// any size. With `cache_file` a copy is kept and used the next time: in that file for 20 GB, and in
/// files beside it, with the size in their names, for other sizes. Copies appear whole or not at all,
/// and several callers may share a cache.
///
/// # Errors
/// The file is there already, or cannot be written.
#[doc(alias = "CreateExt4Vhdx")]
pub fn create_ext4_vhdx(
    dest_file: impl AsRef<Path>,
    size_gb: u32,
    cache_file: Option<&Path>,
) -> Result<()> {
    let dest_file = dest_file.as_ref();
    let size_gb = size_gb.max(DEFAULT_VHDX_SIZE_GB);
    let size = u64::from(size_gb) << 30;
    let options = ScratchOptions {
        size,
        ..ScratchOptions::default()
    };
    let failed = |error| layer_error("cannot make the disk", error);
    let Some(cache) = cache_file.filter(|path| !path.as_os_str().is_empty()) else {
        opengcs_layer::create_scratch(dest_file, &options).map_err(failed)?;
        return Ok(());
    };
    if dest_file.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{} is there already", dest_file.display()),
        ));
    }
    let cache = cache_for(cache, size_gb);
    if !is_cached(&cache, size) {
        if let Some(folder) = cache.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
        }
        let options = ScratchOptions {
            existing: Existing::Replace,
            ..options
        };
        opengcs_layer::create_scratch(&cache, &options)
            .map_err(|error| layer_error("cannot make the cached disk", error))?;
    }
    copy_file(&cache, dest_file, false).map(drop)
}

/// Whether the cache holds what would be made, as far as a glance tells: a cache of another size, or
/// one that was damaged, is made anew.
fn is_cached(cache: &Path, size: u64) -> bool {
    cache.is_file()
        && opengcs_layer::inspect(cache).is_ok_and(|found| {
            found.disk.format == opengcs_layer::Format::Vhdx.to_string()
                && found.disk.virtual_size == size
                && found.problem.is_none()
                && found
                    .filesystem
                    .is_some_and(|filesystem| !filesystem.has_errors && filesystem.free_inodes > 0)
        })
}

/// The cache's file for a size: the given one for the usual size, one beside it for another.
fn cache_for(cache: &Path, size_gb: u32) -> PathBuf {
    if size_gb == DEFAULT_VHDX_SIZE_GB {
        return cache.to_owned();
    }
    let mut name = OsString::from(cache.file_stem().unwrap_or_default());
    name.push(format!("-{size_gb}G"));
    if let Some(end) = cache.extension() {
        name.push(".");
        name.push(end);
    }
    cache.with_file_name(name)
}

/// Finds the disk file of a layer folder: `layer.vhd`, else `sandbox.vhdx`.
///
/// # Errors
/// Neither is there; the error names the folder.
#[doc(alias = "LayerVhdDetails")]
pub fn layer_vhd_details(folder: impl AsRef<Path>) -> Result<LayerVhdDetails> {
    let folder = folder.as_ref();
    opengcs_layer::layer_vhd_details(folder)
        .map_err(|error| layer_error("cannot find the layer's disk", error))
}

/// Copies a file, sharing its blocks where the file system can and keeping its holes elsewhere; gives
/// its size in bytes.
///
/// # Errors
/// The source cannot be read; the destination is there and `overwrite` is false; or it cannot be
/// written, and it is as it was then.
#[doc(alias = "CopyFile")]
pub fn copy_file(
    src_file: impl AsRef<Path>,
    dest_file: impl AsRef<Path>,
    overwrite: bool,
) -> Result<u64> {
    let (from, to) = (src_file.as_ref(), dest_file.as_ref());
    opengcs_layer::copy_file(from, to, overwrite)
        .map_err(|error| layer_error("the copy failed", error))
}

pub(crate) fn layer_error(what: &str, error: opengcs_layer::Error) -> Error {
    use opengcs_layer::ErrorKind as Layer;
    let kind = match error.kind() {
        Layer::NotFound => ErrorKind::NotFound,
        Layer::InvalidInput => ErrorKind::InvalidInput,
        Layer::Cancelled => ErrorKind::Cancelled,
        Layer::AlreadyExists => ErrorKind::AlreadyExists,
        Layer::NoSpace => ErrorKind::NoSpace,
        Layer::Locked => ErrorKind::Locked,
        Layer::Io => ErrorKind::Io,
        Layer::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Conversion,
    };
    let hint = error.advice().map(str::to_owned);
    let failed = Error::new(kind, what).caused_by(error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// Shows the first bytes of what is read in the log, when asked for.
struct Logged<R> {
    reader: R,
    log: DataLog,
}

impl<R: Read> Read for Logged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.log.see(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
