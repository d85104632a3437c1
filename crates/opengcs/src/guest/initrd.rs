//! What is in the guest's first root, and where its parts are found.
//!
//! The archive is two cpio archives, one behind the other, as Linux allows. The first, never
//! compressed, holds only `/etc/opengcs-release`, so that the kernel this initrd belongs to can be
//! read without unpacking it. The second holds the rest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use opengcs_layer::{Existing, NewFile};

use super::cpio;
use super::elf::Elf;
use super::kernel::release_of;
use super::modules::{
    DISK_MODULES, FIRST_MODULES, HYPERV_MODULES, ModuleFolder, QEMU_MODULES, REQUIRED_MODULES,
};
use crate::convert::layer_error;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{DEFAULT_INITRD_FILE, DEFAULT_KERNEL_FILE};

pub(in crate::guest) mod parts;
mod runtime;
pub(crate) mod tree;

pub use parts::{agent_path, busybox_path};
pub use runtime::runtime_path;

/// File in the guest that says which kernel the initrd is for.
pub const RELEASE_FILE: &str = "etc/opengcs-release";

/// File in the guest that lists the modules that the bridge needs, one path a line, in loading order.
pub const LOAD_FILE: &str = "lib/modules/load";

/// File in the guest that lists the modules that are loaded while the agent dials the host already.
pub const LOAD_LATER_FILE: &str = "lib/modules/load-later";

/// [`LOAD_FILE`] of a guest that finds itself on Hyper-V.
pub const LOAD_HYPERV_FILE: &str = "lib/modules/load-hyperv";

/// [`LOAD_LATER_FILE`] of such a guest.
pub const LOAD_LATER_HYPERV_FILE: &str = "lib/modules/load-later-hyperv";

/// How the second archive is packed. The kernel unpacks it with one processor before anything else
/// runs: under emulation that takes longer than reading the plain bytes, so plain is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// As it is: the fastest to boot.
    #[default]
    None,
    /// gzip, which every kernel unpacks.
    Gzip,
    /// zstd, for kernels from 5.9 on.
    Zstd,
}

/// What to build an initrd from; [`InitrdOptions::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct InitrdOptions {
    /// Folder where kernel, modules and agent are looked for.
    pub data_dir: PathBuf,
    /// The kernel it is for; by default `bootx64.efi` in the data folder.
    pub kernel: Option<PathBuf>,
    /// The kernel's modules; by default `modules/<release>` in the data folder.
    pub modules: Option<PathBuf>,
    /// The agent's static binary; see [`agent_path`].
    pub agent: Option<PathBuf>,
    /// A static busybox; see [`busybox_path`].
    pub busybox: Option<PathBuf>,
    /// Leave busybox out: then nothing but the agent runs in the VM until a disk is mounted.
    pub without_busybox: bool,
    /// An OCI runtime for containers, by path or by name ([`runtime_path`]), with the libraries that
    /// it needs; without one the VM runs no containers.
    pub runtime: Option<PathBuf>,
    /// Whether it is for Hyper-V as well, as it is by default.
    pub hyperv: bool,
    /// More modules, by name; each must exist.
    pub extra_modules: Vec<String>,
    /// Packing of the archive.
    pub compression: Compression,
    /// Where to write; by default `initrd.img` in the data folder.
    pub output: Option<PathBuf>,
}

impl InitrdOptions {
    /// The defaults for a data folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            kernel: None,
            modules: None,
            agent: None,
            busybox: None,
            without_busybox: false,
            runtime: None,
            hyperv: true,
            extra_modules: Vec::new(),
            compression: Compression::default(),
            output: None,
        }
    }
}

/// An initrd that was built.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BuiltInitrd {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Release of the kernel that it belongs to.
    pub release: String,
    /// The modules that are loaded, in order.
    pub modules: Vec<String>,
    /// The agent's binary that went in.
    pub agent: PathBuf,
    /// The busybox that went in.
    pub busybox: Option<PathBuf>,
    /// The OCI runtime that went in.
    pub runtime: Option<PathBuf>,
}

/// Builds the initrd and puts it in place at once when it is whole.
///
/// # Errors
/// The kernel, its modules, the agent or busybox are not to be had or not of use (each says what to
/// do), or the file cannot be written; an initrd that was there stays, then.
pub fn build(options: &InitrdOptions, environment: &Environment) -> Result<BuiltInitrd> {
    let gathered = gather(options, environment)?;
    let path = options
        .output
        .clone()
        .unwrap_or_else(|| options.data_dir.join(DEFAULT_INITRD_FILE));
    let size = write_file(&gathered.contents, options.compression, &path)?;
    Ok(BuiltInitrd {
        path,
        size,
        release: gathered.contents.release.clone(),
        modules: gathered.contents.module_names(),
        agent: gathered.agent,
        busybox: gathered.busybox,
        runtime: gathered.runtime,
    })
}

/// The parts of a guest, read, and where they were found.
pub(super) struct Gathered {
    pub(super) contents: Contents,
    pub(super) kernel: PathBuf,
    pub(super) agent: PathBuf,
    pub(super) busybox: Option<PathBuf>,
    pub(super) runtime: Option<PathBuf>,
}

/// Finds and reads everything that a guest is made of.
pub(super) fn gather(options: &InitrdOptions, environment: &Environment) -> Result<Gathered> {
    let kernel = options
        .kernel
        .clone()
        .unwrap_or_else(|| options.data_dir.join(DEFAULT_KERNEL_FILE));
    if !kernel.is_file() {
        return Err(
            Error::not_found(format!("there is no kernel {}", kernel.display()))
                .hint("get one with `opengcs kernel install`"),
        );
    }
    let release = match release_of(&kernel)? {
        Some(release) => release,
        None => options
            .modules
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str())
            .map(str::to_owned)
            .ok_or_else(|| {
                Error::invalid(format!("{} does not say its release", kernel.display()))
                    .hint("give the folder of its modules as well")
            })?,
    };
    let folder = options
        .modules
        .clone()
        .unwrap_or_else(|| options.data_dir.join("modules").join(&release));
    let modules = gather_modules(&folder, &release, options)?;
    let agent = agent_path(options.agent.as_deref(), &options.data_dir)?;
    let busybox = if options.without_busybox {
        None
    } else {
        Some(busybox_path(
            options.busybox.as_deref(),
            &options.data_dir,
            environment,
        )?)
    };
    let runtime = options
        .runtime
        .as_deref()
        .map(|given| runtime_path(given, environment))
        .transpose()?;
    let contents = Contents {
        files: match &runtime {
            Some(program) => runtime::gather(program)?,
            None => Vec::new(),
        },
        release: release.clone(),
        agent: parts::read_static(&agent, "the agent")?,
        busybox: busybox
            .as_deref()
            .map(|path| {
                Ok::<_, Error>(Busybox {
                    program: parts::read_static(path, "busybox")?,
                    applets: parts::applets(path),
                })
            })
            .transpose()?,
        modules,
    };
    Ok(Gathered {
        contents,
        kernel,
        agent,
        busybox,
        runtime,
    })
}

/// Everything that goes into an initrd, in memory.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Release of the kernel.
    pub release: String,
    /// The agent's binary.
    pub agent: Vec<u8>,
    /// The shell and its tools.
    pub busybox: Option<Busybox>,
    /// Modules in loading order.
    pub modules: Vec<GuestModule>,
    /// Whatever else.
    pub files: Vec<GuestFile>,
}

impl Contents {
    /// The names of its modules, in loading order.
    pub(super) fn module_names(&self) -> Vec<String> {
        self.modules
            .iter()
            .map(|module| module.name.clone())
            .collect()
    }
}

/// The shell and its tools: one program with many names.
#[derive(Debug, Clone, Default)]
pub struct Busybox {
    /// The static binary.
    pub program: Vec<u8>,
    /// Names that it answers to.
    pub applets: Vec<String>,
}

/// A file on its way into the guest.
#[derive(Debug, Clone)]
pub struct GuestFile {
    /// Path from the guest's root, without a `/` before it.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A module on its way into the guest.
#[derive(Debug, Clone)]
pub struct GuestModule {
    /// Name as the kernel says it.
    pub name: String,
    /// Path under `lib/modules/<release>`.
    pub path: String,
    /// Whether the bridge needs it: then it is loaded before the agent dials.
    pub first: bool,
    /// Whether it is loaded under QEMU.
    pub qemu: bool,
    /// Whether it is loaded on Hyper-V.
    pub hyperv: bool,
    /// The module, not compressed.
    pub content: Vec<u8>,
}

/// Writes an initrd: a pure function of its arguments.
///
/// # Errors
/// Writing fails, or a name cannot be held.
pub fn write<W: Write>(contents: &Contents, compression: Compression, out: W) -> io::Result<W> {
    let mut first = cpio::Writer::new(out);
    first.directory("etc", 0o755)?;
    let record = format!("KERNEL={}\n", contents.release);
    first.file(RELEASE_FILE, 0o644, record.as_bytes())?;
    let out = first.finish()?;
    match compression {
        Compression::None => archive(contents, out),
        Compression::Gzip => {
            let packer = flate2::GzBuilder::new()
                .mtime(0)
                .write(out, flate2::Compression::new(6));
            archive(contents, packer)?.finish()
        }
        Compression::Zstd => {
            let packer = zstd::Encoder::new(out, 12)?;
            archive(contents, packer)?.finish()
        }
    }
}

fn archive<W: Write>(contents: &Contents, out: W) -> io::Result<W> {
    let mut archive = cpio::Writer::new(out);
    tree::write(contents, &mut archive)?;
    archive.finish()
}

fn gather_modules(
    folder: &Path,
    release: &str,
    options: &InitrdOptions,
) -> Result<Vec<GuestModule>> {
    if !folder.is_dir() {
        return Err(Error::not_found(format!(
            "there is no folder {} with the modules of Linux {release}",
            folder.display()
        ))
        .hint("`opengcs kernel install` brings a kernel with its modules"));
    }
    let modules = ModuleFolder::open(folder)?;
    let extra = || options.extra_modules.iter().map(String::as_str);
    let own: [&[&str]; 2] = [
        QEMU_MODULES,
        if options.hyperv { HYPERV_MODULES } else { &[] },
    ];
    let wanted = |own: &[&[&'static str]]| -> Vec<&str> {
        let own = own.iter().copied().flatten().chain(DISK_MODULES).copied();
        own.chain(extra()).collect()
    };
    let required: Vec<&str> = REQUIRED_MODULES.iter().copied().chain(extra()).collect();
    let names = |wanted: &[&str]| -> Result<BTreeSet<String>> {
        let order = modules.load_order(wanted, &[])?;
        Ok(order.into_iter().map(|module| module.name).collect())
    };
    let first = names(FIRST_MODULES)?;
    let qemu = names(&wanted(&own[..1]))?;
    let hyperv = names(&wanted(&own[1..]))?;
    // Whatever of an order is left out, it stays an order.
    modules
        .load_order(&wanted(&own), &required)?
        .into_iter()
        .map(|module| {
            let content = modules.read(&module.path)?;
            let plain = match module.path.split_once(".ko") {
                Some((stem, _)) => format!("{stem}.ko"),
                None => module.path,
            };
            Ok(GuestModule {
                first: first.contains(&module.name),
                qemu: qemu.contains(&module.name),
                hyperv: options.hyperv && hyperv.contains(&module.name),
                name: module.name,
                path: plain,
                content,
            })
        })
        .collect()
}

fn write_file(contents: &Contents, compression: Compression, path: &Path) -> Result<u64> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
    let told = |error| layer_error("cannot write the initrd", error);
    let file = NewFile::create(path, Existing::Replace).map_err(told)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file.file());
    write(contents, compression, &mut out)
        .and_then(Write::flush)
        .map_err(|error| Error::io("write", path, error))?;
    drop(out);
    let size = file
        .file()
        .metadata()
        .map_err(|error| Error::io("look at", path, error))?
        .len();
    file.publish().map_err(told)?;
    Ok(size)
}

/// The release of the kernel that an initrd was built for; `None` for an initrd of another maker.
///
/// # Errors
/// The file cannot be read, or it is nothing that Linux takes for an initrd.
pub fn release_in(path: &Path) -> Result<Option<String>> {
    const HEAD: u64 = 8192;
    // What Linux unpacks: cpio, plain or packed by gzip, zstd, xz, lz4, bzip2, lzma or lzo.
    const MAGICS: &[&[u8]] = &[
        b"070701",
        b"070702",
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7zXZ\0",
        b"\x02\x21\x4c\x18",
        b"BZh",
        b"\x5d\0\0",
        b"\x89LZO",
    ];
    let file = File::open(path).map_err(|error| Error::io("open the initrd", path, error))?;
    let mut head = Vec::new();
    file.take(HEAD)
        .read_to_end(&mut head)
        .map_err(|error| Error::io("read the initrd", path, error))?;
    if !MAGICS.iter().any(|magic| head.starts_with(magic)) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{} is not an initrd: it is no cpio archive, plain or compressed",
                path.display()
            ),
        )
        .hint("build one with `opengcs initrd build`"));
    }
    Ok(cpio::entries(&head)
        .find(|entry| entry.name == RELEASE_FILE.as_bytes())
        .and_then(|entry| {
            std::str::from_utf8(entry.content)
                .ok()?
                .lines()
                .find_map(|line| line.strip_prefix("KERNEL="))
                .map(str::to_owned)
        }))
}

/// Checks that a kernel and an initrd belong together, as far as the files tell.
///
/// # Errors
/// They do not, or one of them is not what it should be.
pub fn check_pair(kernel: &Path, initrd: &Path) -> Result<()> {
    let is = release_of(kernel)?;
    let built_for = release_in(initrd)?;
    match (is, built_for) {
        (Some(is), Some(built_for)) if is != built_for => Err(Error::invalid(format!(
            "the kernel {} is Linux {is}, and the initrd {} was built for Linux {built_for}",
            kernel.display(),
            initrd.display()
        ))
        .hint("build the initrd again with `opengcs initrd build`")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
