//! Turns a tar stream into a disk file in one pass and two threads: what is compressed is decompressed in
//! one and unpacked in the other; what is not is unpacked in one and written in the other.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use opengcs_ext4::{Finished, Writer, WriterOptions};
use opengcs_vhd::Format;
use positioned_io::{ReadAt, WriteAt};

use crate::control::Control;
use crate::decompress::{Compression, Decompressor};
use crate::digest::{self, Hashed};
use crate::error::from_ext4;
use crate::filesystem::FilesystemOptions;
use crate::image::{self, Shape, Tree};
use crate::unpack::{Notes, TarWhiteouts, UnpackOptions, Unpacked, unpack};
use crate::verity::Verity;
use crate::{Error, ErrorKind, Existing, NewFile, Result, Warnings, behind, pipeline};

/// How many bytes are read behind the end mark of a tar that is not compressed. Tapes and their
/// likes are filled up with zeros, by far less.
const TRAILING: u64 = 64 << 20;

/// How a tar becomes a file system.
#[derive(Clone, Debug, Default)]
pub struct TarToExt4Options {
    /// The file system.
    pub filesystem: FilesystemOptions,
    /// What becomes of whiteouts.
    pub whiteouts: TarWhiteouts,
    /// Whether backslashes separate the parts of paths, as in tars made on Windows.
    pub backslash_paths: bool,
    /// Progress and cancellation.
    pub control: Control,
}

/// How a tar becomes a disk file.
#[derive(Clone, Debug)]
pub struct TarToDiskOptions {
    /// The tar and the file system.
    pub ext4: TarToExt4Options,
    /// The disk file's format; fixed VHD unless chosen.
    pub format: Format,
    /// What happens to a file that is there already; it is replaced unless chosen otherwise.
    pub existing: Existing,
    /// Whether to wait until the file is safe from a power cut before it gets its name.
    pub sync: bool,
    /// Whether a dm-verity tree follows the file system, as hcsshim lays it out. A size asked for
    /// is the file system's; the disk is larger by the tree.
    pub verity: bool,
    /// Whether digests are taken: of the tar while it is read, of the disk file when it is whole.
    pub digests: bool,
}

impl Default for TarToDiskOptions {
    fn default() -> Self {
        Self {
            ext4: TarToExt4Options::default(),
            format: Format::FixedVhd,
            existing: Existing::Replace,
            sync: true,
            verity: false,
            digests: false,
        }
    }
}

impl TarToDiskOptions {
    pub(crate) fn shape<'a>(&'a self, path: Option<&'a Path>) -> Shape<'a> {
        Shape {
            filesystem: &self.ext4.filesystem,
            format: self.format,
            tree: if self.verity {
                Tree::Written
            } else {
                Tree::None
            },
            path,
            control: &self.ext4.control,
        }
    }
}

/// What a tar has become.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Converted {
    /// Bytes of the disk file; of the file system, where there is no file.
    pub size: u64,
    /// Bytes of the disk in it.
    pub virtual_size: u64,
    /// Entries in the tar.
    pub entries: u64,
    /// Bytes of the tar, uncompressed.
    pub tar_bytes: u64,
    /// How the tar came.
    pub compression: Compression,
    /// Inodes in use, with those that ext4 reserves.
    pub inodes: u32,
    /// What was left out or interpreted.
    pub warnings: Warnings,
    /// The dm-verity tree behind the file system, where one was asked for.
    pub verity: Option<Verity>,
    /// Digests, where they were asked for.
    pub digests: Option<Digests>,
    pub(crate) finished: Finished,
    /// The digest of the uncompressed tar on its way into `digests`.
    diff_id: Option<String>,
}

/// What identifies a conversion's input and output: SHA-256, as OCI writes digests (`sha256:…`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Digests {
    /// Of the tar as it came, compressed or not.
    pub tar: String,
    /// Bytes of that.
    pub tar_size: u64,
    /// Of the tar, uncompressed: OCI's `DiffID`.
    pub diff_id: String,
    /// Of the disk file's bytes, holes as zeros.
    pub image: String,
}

/// Writes a tar stream as an ext4 file system to `out`, which must read as zeros where it was not
/// written. It is read where attributes that were put out already change.
///
/// The tar may be compressed with gzip, zstd or xz.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] and [`ErrorKind::Unsupported`] name the tar's entry and byte;
/// [`ErrorKind::NoSpace`] when the file system or the disk is full; those of input and output.
pub fn tar_to_ext4(
    input: impl Read,
    out: impl ReadAt + WriteAt + Send,
    options: &TarToExt4Options,
) -> Result<Converted> {
    convert(input, out, options, false).map(|(converted, _)| converted)
}

fn convert<W: ReadAt + WriteAt + Send>(
    input: impl Read,
    out: W,
    options: &TarToExt4Options,
    hashing: bool,
) -> Result<(Converted, W)> {
    let mut job = Job::new(options)?;
    let mut input = Hashed::new(input, hashing);
    let decompressor = Decompressor::new(&mut input)?;
    let compression = decompressor.compression();
    // What is not compressed has one digest.
    job.hashing = hashing && compression != Compression::None;
    let (mut converted, out) = if compression == Compression::None {
        behind::run(decompressor, out, |ahead, behind| {
            let (converted, _) = job.run(ahead, behind, compression, None)?;
            Ok(converted)
        })?
    } else {
        pipeline::run(decompressor, |incoming| {
            job.run(incoming, out, compression, None)
        })?
    };
    if let Some((tar, tar_size)) = input.finish()? {
        converted.digests = Some(Digests {
            diff_id: converted.diff_id.take().unwrap_or_else(|| tar.clone()),
            tar,
            tar_size,
            image: String::new(),
        });
    }
    Ok((converted, out))
}

/// Does the same as [`convert`] and notes what is the matter with the tar.
pub(crate) fn convert_noting<W: ReadAt + WriteAt + Send>(
    input: impl Read,
    out: W,
    options: &TarToExt4Options,
    read_again: Arc<AtomicBool>,
    notes: &mut Notes,
) -> Result<(Converted, W)> {
    let mut job = Job::new(options)?;
    job.writer = job.writer.read_again(read_again);
    let input = Decompressor::new(input)?;
    let compression = input.compression();
    notes.compression = Some(compression);
    pipeline::run(input, |incoming| {
        job.run(incoming, out, compression, Some(notes))
    })
}

/// An unpacking whose options make sense.
struct Job<'a> {
    options: &'a TarToExt4Options,
    writer: WriterOptions,
    /// Whether what is unpacked is hashed.
    hashing: bool,
}

impl<'a> Job<'a> {
    fn new(options: &'a TarToExt4Options) -> Result<Self> {
        let writer = options.filesystem.writer()?;
        // What is wrong with the options is told before the input is waited for.
        Writer::new(Vec::new(), &writer).map_err(from_ext4)?;
        Ok(Self {
            options,
            writer,
            hashing: false,
        })
    }

    fn run<W: ReadAt + WriteAt>(
        &self,
        input: impl BufRead,
        out: W,
        compression: Compression,
        notes: Option<&mut Notes>,
    ) -> Result<(Converted, W)> {
        let options = UnpackOptions {
            whiteouts: self.options.whiteouts,
            backslash: self.options.backslash_paths,
            // What is compressed ends with a checksum, to which it must be read. What is not may be a
            // device that never ends.
            trailing: (compression == Compression::None).then_some(TRAILING),
        };
        let mut writer = Writer::new(out, &self.writer).map_err(from_ext4)?;
        let control = &self.options.control;
        let mut input = Hashed::new(input, self.hashing);
        let unpacked = unpack(&mut input, &mut writer, options, control, notes)?;
        let diff_id = input.finish()?;
        let (finished, out) = writer.finish().map_err(from_ext4)?;
        let mut converted = converted(unpacked, finished, compression);
        converted.diff_id = diff_id.map(|(digest, _)| digest);
        Ok((converted, out))
    }
}

fn converted(unpacked: Unpacked, finished: Finished, compression: Compression) -> Converted {
    Converted {
        size: finished.size,
        virtual_size: finished.size,
        entries: unpacked.entries,
        tar_bytes: unpacked.tar_bytes,
        compression,
        inodes: finished.inodes - finished.free_inodes,
        warnings: unpacked.warnings,
        verity: None,
        finished,
        digests: None,
        diff_id: None,
    }
}

/// Converts a tar stream to a disk file with an ext4 file system in it.
///
/// The file appears under its name when it is whole; when anything fails, there
/// is neither it nor a temporary file.
///
/// # Errors
///
/// As for [`tar_to_ext4`], and those of [`NewFile`].
pub fn tar_to_disk(
    input: impl Read,
    output: &Path,
    options: &TarToDiskOptions,
) -> Result<Converted> {
    let file = NewFile::create(output, options.existing)?;
    if options.format == Format::Raw {
        file.allow_holes();
    }
    let made = image::make(file.file(), &options.shape(Some(output)), |out| {
        convert(input, out, &options.ext4, options.digests)
            .map(|(converted, out)| {
                let size = converted.virtual_size;
                (converted, size, out)
            })
            .map_err(|error| match error.kind() {
                ErrorKind::NoSpace => error.with_path(output),
                _ => error,
            })
    })?;
    let mut converted = Converted {
        size: length(file.file(), output)?,
        virtual_size: made.virtual_size,
        verity: made.verity,
        ..made.filled
    };
    if let Some(digests) = &mut converted.digests {
        let taken = digest::of_file(file.file(), &options.ext4.control);
        (digests.image, _) = taken.map_err(|error| error.with_path(output))?;
    }
    publish(file, options.sync)?;
    Ok(converted)
}

pub(crate) fn length(file: &File, path: &Path) -> Result<u64> {
    file.metadata()
        .map(|metadata| metadata.len())
        .map_err(|error| Error::io_at("cannot read", path, error))
}

pub(crate) fn publish(file: NewFile, sync: bool) -> Result<()> {
    if sync {
        file.publish()
    } else {
        file.publish_unsynced()
    }
}
