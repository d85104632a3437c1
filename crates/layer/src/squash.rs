//! Makes one image of a chain of layers, lowest first, as an overlay of them looks.

mod leaves;
mod merge;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use opengcs_ext4::{Reader, Writer};
use opengcs_vhd::{Access, Disk, Format};

use crate::control::Control;
use crate::error::from_ext4;
use crate::ext4_source::Ext4Source;
use crate::filesystem::FilesystemOptions;
use crate::image::{self, Shape, Tree, from_vhd};
use crate::to_disk::{length, publish};
use crate::to_tar::{SANDBOX_ROOT, open_ext4};
use crate::verity::Verity;
use crate::{
    Error, Existing, NewFile, Result, TarToExt4Options, Warnings, layer_vhd_details, tar_to_ext4,
};

use merge::{Layer, Merger};

/// How layers become one image.
#[derive(Clone, Debug)]
pub struct SquashOptions {
    /// The file system.
    pub filesystem: FilesystemOptions,
    /// The disk file's format; fixed VHD unless chosen.
    pub format: Format,
    /// What happens to a file that is there already; it is replaced unless chosen otherwise.
    pub existing: Existing,
    /// Whether to wait until the file is safe from a power cut before it gets its name.
    pub sync: bool,
    /// Whether a dm-verity tree follows the file system.
    pub verity: bool,
    /// Whether the uppermost layer is the disk of a sandbox, of which the content of `/upper` is taken.
    /// A layer folder with a sandbox in it says so itself.
    pub sandbox: bool,
    /// Whether the image will lie on other layers, which it hides as the chain does: its whiteouts and
    /// opaque directories stay, in overlayfs's form.
    pub keep_whiteouts: bool,
    /// Folders in which the parents of differencing disks may lie, besides the disks' own.
    pub parents: Vec<PathBuf>,
    /// Progress and cancellation.
    pub control: Control,
}

impl Default for SquashOptions {
    fn default() -> Self {
        Self {
            filesystem: FilesystemOptions::default(),
            format: Format::FixedVhd,
            existing: Existing::Replace,
            sync: true,
            verity: false,
            sandbox: false,
            keep_whiteouts: false,
            parents: Vec::new(),
            control: Control::default(),
        }
    }
}

/// What layers have become.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Squashed {
    /// Bytes of the disk file.
    pub size: u64,
    /// Bytes of the disk in it.
    pub virtual_size: u64,
    /// Names in the image.
    pub entries: u64,
    /// Bytes of files that were copied, holes not counted.
    pub bytes: u64,
    /// Inodes in use, with those that ext4 reserves.
    pub inodes: u32,
    /// What was left out or interpreted in layers that came as tars.
    pub warnings: Warnings,
    /// The dm-verity tree behind the file system, where one was asked for.
    pub verity: Option<Verity>,
}

/// Makes one image of `layers`, the lowest first, as in OCI's manifests; overlayfs's `lowerdir` has them
/// the other way round.
///
/// A layer is a disk file (VHD, VHDX or raw, also a differencing one), a layer folder, or a tar. The image
/// has what an overlay of the layers shows, and no more room is taken for what it hides. Whiteouts count
/// in both forms, overlayfs's and OCI's `.wh.` names, whichever a layer has. A directory has the metadata
/// of the uppermost layer that has it. Hard links stay within their layer, holes stay holes.
///
/// ```
/// use opengcs_layer::{SquashOptions, TarToDiskOptions, squash, tar_to_disk};
/// # let folder = tempfile::tempdir()?;
/// # let (base, top) = (folder.path().join("base.vhd"), folder.path().join("top.vhd"));
/// # let both = folder.path().join("both.vhd");
/// # for layer in [&base, &top] {
/// #     tar_to_disk(&[0; 1024][..], layer, &TarToDiskOptions::default())?;
/// # }
/// let squashed = squash(&[&base, &top], &both, &SquashOptions::default())?;
/// assert_eq!(squashed.entries, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] without layers; [`ErrorKind::Corrupt`] and [`ErrorKind::Unsupported`] name
/// the layer and the node: one whose content lies in another layer (`redirect`, `metacopy`) is refused;
/// [`ErrorKind::Locked`] when a machine is writing to a layer; [`ErrorKind::NoSpace`]; those of files.
///
/// [`ErrorKind::InvalidInput`]: crate::ErrorKind::InvalidInput
/// [`ErrorKind::Corrupt`]: crate::ErrorKind::Corrupt
/// [`ErrorKind::Unsupported`]: crate::ErrorKind::Unsupported
/// [`ErrorKind::Locked`]: crate::ErrorKind::Locked
/// [`ErrorKind::NoSpace`]: crate::ErrorKind::NoSpace
pub fn squash<P: AsRef<Path>>(
    layers: &[P],
    output: &Path,
    options: &SquashOptions,
) -> Result<Squashed> {
    let writer = options.filesystem.writer()?;
    Writer::new(Vec::new(), &writer).map_err(from_ext4)?;
    let mut warnings = Warnings::default();
    let mut opened = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let is_top = number + 1 == layers.len();
        let is_sandbox = options.sandbox && is_top;
        opened.push(open(layer.as_ref(), is_sandbox, options, &mut warnings)?);
    }
    if opened.is_empty() {
        return Err(Error::invalid("there is no layer to squash"));
    }
    // What layers hide from each other is expected too: how much that is shows only on the way.
    let used = opened
        .iter()
        .map(|layer: &Layer| layer.source.bytes_in_use());
    options.control.expect(used.sum());
    opened.reverse();
    let file = NewFile::create(output, options.existing)?;
    let shape = Shape {
        filesystem: &options.filesystem,
        format: options.format,
        tree: if options.verity {
            Tree::Written
        } else {
            Tree::None
        },
        path: Some(output),
        control: &options.control,
    };
    let made = image::make(file.file(), &shape, |out| {
        let full = |error: opengcs_ext4::Error| from_ext4(error).with_path(output);
        let mut writer = Writer::new(out, &writer).map_err(full)?;
        let done = Merger::new(&opened, &mut writer, output, options).run()?;
        let (finished, out) = writer.finish().map_err(full)?;
        let squashed = Squashed {
            size: 0,
            virtual_size: 0,
            entries: done.entries,
            bytes: done.bytes,
            inodes: finished.inodes - finished.free_inodes,
            warnings,
            verity: None,
        };
        Ok((squashed, finished.size, out))
    })?;
    let squashed = Squashed {
        size: length(file.file(), output)?,
        virtual_size: made.virtual_size,
        verity: made.verity,
        ..made.filled
    };
    publish(file, options.sync)?;
    Ok(squashed)
}

fn open(
    path: &Path,
    is_sandbox: bool,
    options: &SquashOptions,
    warnings: &mut Warnings,
) -> Result<Layer> {
    let (disk, is_sandbox) = if path.is_dir() {
        let details = layer_vhd_details(path)?;
        (details.path, details.is_sandbox || is_sandbox)
    } else {
        (path.to_path_buf(), is_sandbox)
    };
    let reader = if is_tar(&disk)? {
        from_tar(&disk, options, warnings).map_err(|error| error.with_path(path))?
    } else {
        open_ext4(&disk, &options.parents)?
    };
    let source = Ext4Source::new(reader);
    let root = if is_sandbox {
        source
            .folder_in_root(SANDBOX_ROOT)
            .map_err(|error| error.with_path(&disk))?
    } else {
        source.root()
    };
    Ok(Layer {
        path: disk,
        source,
        root,
    })
}

/// Whether a file is a tar, by its first bytes: compressed as tars are, or with a tar's magic.
fn is_tar(path: &Path) -> Result<bool> {
    let mut start = Vec::with_capacity(512);
    // What cannot be opened is told by who opens it as a disk. A pipe would be waited for.
    if !std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(false);
    }
    let Ok(file) = File::open(path) else {
        return Ok(false);
    };
    file.take(512)
        .read_to_end(&mut start)
        .map_err(|error| Error::io_at("cannot read", path, error))?;
    let compressed: [&[u8]; 3] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"];
    let is_compressed = compressed.iter().any(|magic| start.starts_with(magic));
    Ok(is_compressed || start.get(257..262) == Some(b"ustar"))
}

/// A tar as a disk in a file without a name.
fn from_tar(
    path: &Path,
    options: &SquashOptions,
    warnings: &mut Warnings,
) -> Result<Reader<Disk<File>>> {
    let input = File::open(path).map_err(|error| Error::io("cannot open", error))?;
    let no_place = |error| Error::io("cannot unpack the tar into a temporary file", error);
    let file = tempfile::tempfile().map_err(no_place)?;
    let unpack = TarToExt4Options {
        filesystem: FilesystemOptions {
            lost_found: false,
            ..FilesystemOptions::default()
        },
        control: options.control.silent(),
        ..TarToExt4Options::default()
    };
    let out = file.try_clone().map_err(no_place)?;
    let converted = tar_to_ext4(input, out, &unpack)?;
    warnings.append(converted.warnings);
    let disk = Disk::open(file, Access::ReadOnly).map_err(from_vhd)?;
    Reader::open(disk).map_err(from_ext4)
}
