//! A disk that a VM boots from: `uvm.vhdx`, laid out as Hyper-V generation 2 and other UEFI machines want it.
//!
//! ```text
//! VHDX ─ GPT ─┬─ EFI system partition, FAT32: EFI/BOOT/BOOTX64.EFI
//!             │     = stub + kernel arguments + initrd (agent, modules) + kernel
//!             └─ root, ext4: agent, busybox, folders to mount on
//! ```
//!
//! The agent in the initrd loads the modules, mounts the root read-only with a layer of memory above it,
//! and goes on there. Nobody writes to the disk, so that one serves many VMs at once. The same parts
//! give the same bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use opengcs_layer::{
    Disk, DiskFile, DiskOptions, Existing, FilesystemOptions, Format, Guid, NewFile,
    TarToExt4Options, tar_to_ext4,
};
use positioned_io::WriteAt;
use uuid::Uuid;

use super::initrd::parts::download_file;
use super::initrd::{self, Compression, Contents, InitrdOptions, tree};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::options::DEFAULT_VHDX_FILE;

mod fat;
mod gpt;
#[cfg(test)]
mod tests;
mod uki;
mod ustar;

use fat::SECTOR;

/// UUID of the root's file system, by which the guest finds it.
pub const ROOT_UUID: Uuid = Uuid::from_u128(0x6f70_656e_6763_8300_8065_7874_3400_0b00);
/// The identifiers of the disk and its partitions. Nobody sees two such disks at once, so that they
/// may be the same for all.
const DISK_ID: u128 = 0x6f70_656e_6763_8300_8065_7874_3400_0b01;
const EFI_ID: u128 = 0x6f70_656e_6763_8300_8065_7874_3400_0b02;
const ROOT_ID: u128 = 0x6f70_656e_6763_8300_8065_7874_3400_0b03;

/// The kernel's arguments; more may follow. A panic ends the machine, as with a kernel and an initrd. The
/// kernel's check of the timer is a race that an emulated machine on a busy host loses; hypervisors that
/// Linux knows have it left out anyway.
const KERNEL_WORDS: &str =
    "console=ttyS0 panic=-1 reboot=t no_timer_check quiet panic_print=0x20 cryptomgr.notests";

/// Partitions begin at whole MiB.
const ALIGNMENT: u64 = (1 << 20) / SECTOR;

/// File name of the EFI stub in the data folder.
const STUB: &str = "linuxx64.efi.stub";
/// Where the distribution puts it.
const STUB_PATH: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// The package that has it.
const STUB_PACKAGE: &str = "systemd-boot-efi";

/// What to build a boot disk from.
#[derive(Debug, Clone)]
pub struct BootDiskOptions {
    /// Kernel, modules, agent and busybox. Its packing is that of the initrd on the disk, its output
    /// the disk: by default `uvm.vhdx` in the data folder.
    pub parts: InitrdOptions,
    /// The EFI stub; see [`stub_path`].
    pub stub: Option<PathBuf>,
    /// More words for the kernel.
    pub kernel_parameters: String,
}

impl BootDiskOptions {
    /// The defaults for a data folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            parts: InitrdOptions::new(data_dir),
            stub: None,
            kernel_parameters: String::new(),
        }
    }
}

/// A boot disk that was built.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BuiltBootDisk {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of the disk in it.
    pub virtual_size: u64,
    /// Release of the kernel on it.
    pub release: String,
    /// The modules that are loaded, in order.
    pub modules: Vec<String>,
}

/// Finds the EFI stub: the given path, else the data folder's, else the host's, else the package
/// `systemd-boot-efi` is downloaded and its stub kept in the data folder.
///
/// # Errors
/// None is to be had.
pub fn stub_path(given: Option<&Path>, data_dir: &Path) -> Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(Error::not_found(format!(
                "there is no EFI stub {}",
                path.display()
            )))
        };
    }
    let kept = data_dir.join(STUB);
    for path in [kept.clone(), Path::new("/").join(STUB_PATH)] {
        if path.is_file() {
            return Ok(path);
        }
    }
    download_file(STUB_PACKAGE, &[STUB_PATH], data_dir, &kept).map_err(|error| {
        Error::new(error.kind(), "no EFI stub is to be had")
            .caused_by(error)
            .hint(format!(
                "install the package {STUB_PACKAGE}, or give a {STUB} by its path"
            ))
    })?;
    Ok(kept)
}

/// Builds the boot disk and puts it in place at once when it is whole.
///
/// # Errors
/// A part is not to be had or not of use (each says what to do), or the file cannot be written; a disk
/// that was there stays, then.
pub fn build(options: &BootDiskOptions, environment: &Environment) -> Result<BuiltBootDisk> {
    let data_dir = &options.parts.data_dir;
    let gathered = initrd::gather(&options.parts, environment)?;
    let stub = stub_path(options.stub.as_deref(), data_dir)?;
    let read = |path: &Path| fs::read(path).map_err(|error| Error::io("read", path, error));
    let (stub, kernel) = (read(&stub)?, read(&gathered.kernel)?);
    let path = options
        .parts
        .output
        .clone()
        .unwrap_or_else(|| data_dir.join(DEFAULT_VHDX_FILE));
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
    }
    let image = Image::new(
        &gathered.contents,
        options.parts.compression,
        &stub,
        &kernel,
        &options.kernel_parameters,
    )?;
    let unfinished = |error| {
        Error::new(ErrorKind::Io, format!("cannot write {}", path.display())).caused_by(error)
    };
    let file = NewFile::create(&path, Existing::Replace).map_err(unfinished)?;
    let handle = file
        .file()
        .try_clone()
        .map_err(|error| Error::io("write", &path, error))?;
    let virtual_size = image.sectors() * SECTOR;
    let disk_options = DiskOptions::new(Format::Vhdx, Some(virtual_size), Guid::from_u128(DISK_ID));
    let failed = |error: io::Error| Error::io("write", &path, error);
    let mut disk = Disk::create(DiskFile::new(handle), &disk_options)
        .map_err(|error| failed(io::Error::other(error)))?;
    image.write(&mut disk).map_err(failed)?;
    disk.finish()
        .map_err(|error| failed(io::Error::other(error)))?;
    let size = file.file().metadata().map_err(failed)?.len();
    file.publish().map_err(unfinished)?;
    Ok(BuiltBootDisk {
        path,
        size,
        virtual_size,
        release: gathered.contents.release.clone(),
        modules: gathered.contents.module_names(),
    })
}

/// The disk's contents, before they have a place.
struct Image {
    program: Vec<u8>,
    volume: fat::Geometry,
    root: Vec<u8>,
}

impl Image {
    fn new(
        contents: &Contents,
        compression: Compression,
        stub: &[u8],
        kernel: &[u8],
        kernel_parameters: &str,
    ) -> Result<Self> {
        if kernel_parameters.chars().any(char::is_control) {
            return Err(Error::invalid(
                "the kernel's parameters must be one line without control characters",
            ));
        }
        let line = format!("{KERNEL_WORDS} root=UUID={ROOT_UUID} {kernel_parameters}");
        // The first root needs no shell, the second no modules.
        let early = Contents {
            busybox: None,
            ..contents.clone()
        };
        let late = Contents {
            modules: Vec::new(),
            ..contents.clone()
        };
        let in_memory =
            |error| Error::new(ErrorKind::Io, "cannot make the initrd").caused_by(error);
        let archive = initrd::write(&early, compression, Vec::new()).map_err(in_memory)?;
        let release = format!("{}\0", contents.release);
        let program = uki::unify(
            stub,
            &[
                (".cmdline", line.trim_end().as_bytes()),
                (".uname", release.as_bytes()),
                (".initrd", &archive),
                // Last: the kernel unpacks itself behind its own end.
                (".linux", kernel),
            ],
        )?;
        let volume = fat::Geometry::of(program.len())
            .ok_or_else(|| Error::invalid("kernel and initrd are larger than FAT can hold"))?;
        Ok(Self {
            program,
            volume,
            root: root_filesystem(&late)?,
        })
    }

    fn root_first(&self) -> u64 {
        (ALIGNMENT + self.volume.sectors()).next_multiple_of(ALIGNMENT)
    }

    fn root_sectors(&self) -> u64 {
        let bytes = u64::try_from(self.root.len()).unwrap_or(u64::MAX);
        bytes.div_ceil(SECTOR).next_multiple_of(ALIGNMENT)
    }

    /// The whole disk, with room for the second table.
    fn sectors(&self) -> u64 {
        self.root_first() + self.root_sectors() + ALIGNMENT
    }

    fn write(&self, disk: &mut impl WriteAt) -> io::Result<()> {
        let root_first = self.root_first();
        let partitions = [
            gpt::Partition {
                kind: gpt::EFI_SYSTEM,
                id: gpt::guid(EFI_ID),
                first: ALIGNMENT,
                last: ALIGNMENT + self.volume.sectors() - 1,
                name: "EFI system",
            },
            gpt::Partition {
                kind: gpt::LINUX_FILESYSTEM,
                id: gpt::guid(ROOT_ID),
                first: root_first,
                last: root_first + self.root_sectors() - 1,
                name: "opengcs root",
            },
        ];
        gpt::write(disk, self.sectors(), gpt::guid(DISK_ID), &partitions)?;
        fat::write(disk, ALIGNMENT * SECTOR, self.volume, &self.program)?;
        disk.write_all_at(root_first * SECTOR, &self.root)
    }
}

fn root_filesystem(contents: &Contents) -> Result<Vec<u8>> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Io, "cannot make the root's file system").caused_by(error)
    };
    let mut tar = ustar::Writer::new(Vec::new());
    tree::write(contents, &mut tar).map_err(failed)?;
    let tar = tar.finish().map_err(failed)?;
    let options = TarToExt4Options {
        filesystem: FilesystemOptions {
            uuid: Some(ROOT_UUID),
            label: "opengcs-root".into(),
            lost_found: false,
            ..FilesystemOptions::default()
        },
        ..TarToExt4Options::default()
    };
    let mut image = Vec::new();
    let made = tar_to_ext4(tar.as_slice(), &mut image, &options)
        .map_err(|error| failed(io::Error::other(error)))?;
    image.resize(
        usize::try_from(made.size).map_err(|error| failed(io::Error::other(error)))?,
        0,
    );
    Ok(image)
}
