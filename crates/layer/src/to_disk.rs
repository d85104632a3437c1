//! Turns a tar stream into a disk file in one pass and two threads: what is compressed is decompressed in
//! one and unpacked in the other; what is not is unpacked in one and written in the other.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use opengcs_ext4::{Finished, Writer, WriterOptions};
use opengcs_vhd::{self as vhd, Disk, Format, Storage};
use positioned_io::{ReadAt, WriteAt};

use crate::control::Control;
use crate::decompress::{Compression, Decompressor};
use crate::error::{from_ext4, full_disk};
use crate::filesystem::FilesystemOptions;
use crate::unpack::{TarWhiteouts, UnpackOptions, Unpacked, unpack};
use crate::verity::{self, Area, Hashing, Noting, Verity, Written};
use crate::{Error, ErrorKind, Existing, NewFile, Result, Warnings, behind, pipeline};

/// How many bytes are read behind the end mark of a tar that is not compressed. Tapes and their
/// likes are filled up with zeros, by far less.
const TRAILING: u64 = 64 << 20;

/// A disk that is made whole after its size is known, not when the file system is flushed.
pub(crate) struct Growing<S>(pub(crate) Disk<S>);

impl<S: Storage> ReadAt for Growing<S> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(position, buffer)
    }
}

impl<S: Storage> WriteAt for Growing<S> {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(position, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
}

impl Default for TarToDiskOptions {
    fn default() -> Self {
        Self {
            ext4: TarToExt4Options::default(),
            format: Format::FixedVhd,
            existing: Existing::Replace,
            sync: true,
            verity: false,
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
    convert(input, out, options).map(|(converted, _)| converted)
}

fn convert<W: ReadAt + WriteAt + Send>(
    input: impl Read,
    out: W,
    options: &TarToExt4Options,
) -> Result<(Converted, W)> {
    let writer_options = options.filesystem.writer()?;
    // What is wrong with the options is told before the input is waited for.
    Writer::new(Vec::new(), &writer_options).map_err(from_ext4)?;
    let input = Decompressor::new(input)?;
    let compression = input.compression();
    let unpack_options = UnpackOptions {
        whiteouts: options.whiteouts,
        backslash: options.backslash_paths,
        // What is compressed ends with a checksum, to which it must be read. What is not may be a
        // device that never ends.
        trailing: (compression == Compression::None).then_some(TRAILING),
    };
    let unpacked = if compression == Compression::None {
        behind::run(input, out, |ahead, behind| {
            let (unpacked, finished, _) =
                unpack_whole(ahead, behind, &writer_options, unpack_options, options)?;
            Ok((unpacked, finished))
        })
        .map(|((unpacked, finished), out)| (unpacked, finished, out))
    } else {
        pipeline::run(input, |incoming| {
            unpack_whole(incoming, out, &writer_options, unpack_options, options)
        })
    };
    let (unpacked, finished, out) = unpacked?;
    Ok((converted(unpacked, &finished, compression), out))
}

fn unpack_whole<W: ReadAt + WriteAt>(
    input: impl BufRead,
    out: W,
    writer_options: &WriterOptions,
    unpack_options: UnpackOptions,
    options: &TarToExt4Options,
) -> Result<(Unpacked, Finished, W)> {
    let mut writer = Writer::new(out, writer_options).map_err(from_ext4)?;
    let unpacked = unpack(input, &mut writer, unpack_options, &options.control)?;
    let (finished, out) = writer.finish().map_err(from_ext4)?;
    Ok((unpacked, finished, out))
}

fn converted(unpacked: Unpacked, finished: &Finished, compression: Compression) -> Converted {
    Converted {
        size: finished.size,
        virtual_size: finished.size,
        entries: unpacked.entries,
        tar_bytes: unpacked.tar_bytes,
        compression,
        inodes: finished.inodes - finished.free_inodes,
        warnings: unpacked.warnings,
        verity: None,
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
    let filesystem = &options.ext4.filesystem;
    let mut disk_options = filesystem.disk(options.format);
    if options.verity {
        let area = filesystem.written_size().map(Area::behind).transpose()?;
        disk_options.size = area.map(|area| area.end);
    }
    let disk = Disk::create(file.file(), &disk_options).map_err(from_vhd)?;
    let out = Growing(disk);
    let converted = if options.verity {
        convert(input, Noting::new(out), &options.ext4)
            .map(|(converted, noting)| (converted, noting.out, Some(noting.written)))
    } else {
        convert(input, out, &options.ext4).map(|(converted, out)| (converted, out, None))
    };
    let (mut converted, Growing(mut disk), written) =
        converted.map_err(|error| match error.kind() {
            ErrorKind::NoSpace => error.with_path(output),
            _ => error,
        })?;
    let area = match &written {
        Some(_) => Some(Area::behind(converted.virtual_size)?),
        None => None,
    };
    if filesystem.size.is_none() {
        let size = area
            .as_ref()
            .map_or(converted.virtual_size, |area| area.end);
        disk.set_size(size).map_err(from_vhd)?;
    }
    if let (Some(area), Some(written)) = (area, written) {
        converted.verity = Some(
            append_verity(&mut disk, &area, &written, options)
                .map_err(|error| error.with_path(output))?,
        );
    }
    converted.virtual_size = disk.virtual_size();
    disk.finish()
        .map_err(|error| from_vhd(error).with_path(output))?;
    converted.size = length(file.file(), output)?;
    publish(file, options.sync)?;
    Ok(converted)
}

fn append_verity(
    disk: &mut Disk<&File>,
    area: &Area,
    written: &Written,
    options: &TarToDiskOptions,
) -> Result<Verity> {
    let hashing = Hashing {
        written,
        control: &options.ext4.control,
    };
    verity::append(disk, area, options.ext4.filesystem.uuid(), &hashing)
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

/// An error of a disk file as one of ours.
pub(crate) fn from_vhd(error: vhd::Error) -> Error {
    if let Some(full) = full_disk(&error) {
        return full;
    }
    let kind = match error.kind() {
        vhd::ErrorKind::Corrupt => ErrorKind::Corrupt,
        vhd::ErrorKind::Unsupported => ErrorKind::Unsupported,
        vhd::ErrorKind::InvalidInput | vhd::ErrorKind::ReadOnly => ErrorKind::InvalidInput,
        vhd::ErrorKind::NoSpace => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    match kind {
        ErrorKind::NoSpace => Error::new(kind, "the disk is full").with_source(error),
        ErrorKind::Io => Error::new(kind, "cannot read or write the disk file").with_source(error),
        _ => Error::new(kind, error.to_string()),
    }
}
