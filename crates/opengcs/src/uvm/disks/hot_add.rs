//! What a caller wants of a disk in the VM, and what its file says to that.

use std::path::{Path, PathBuf};

use opengcs_bridge::message::{MappedVirtualDisk, VerityInfo};
use opengcs_layer::Verity;
use opengcs_machine::{DiskFormat, DiskSpec};

use crate::config::check_guest_path;
use crate::error::{Error, ErrorKind, Result};

/// A disk to be added to a VM, and how it is to be seen there.
///
/// ```no_run
/// # async fn example(vm: opengcs::UtilityVm) -> opengcs::Result<()> {
/// use opengcs::HotAdd;
///
/// let layer = HotAdd::new("layer.vhd").mount("/mnt/layer").read_only(true);
/// vm.hot_add(layer).await?;
/// let data = HotAdd::new("data.img").mount("/mnt/data").partition(2).filesystem("vfat");
/// vm.hot_add(data.option("uid=1000")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct HotAdd {
    host_path: PathBuf,
    place: Place,
    read_only: bool,
    partition: u64,
    filesystem: String,
    ensure_filesystem: bool,
    options: Vec<String>,
    verity: Option<Protection>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A link to the device, where the VM chooses.
    Chosen,
    Link(String),
    Mount(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Protection {
    /// The tree is looked for in the disk file.
    Root(String),
    Told(Verity),
}

impl HotAdd {
    /// A disk file (VHD, VHDX or raw, as its content says). Unless more is said, it can be written to,
    /// and in the guest there is a link to its device.
    pub fn new(host_path: impl Into<PathBuf>) -> Self {
        Self {
            host_path: host_path.into(),
            place: Place::Chosen,
            read_only: false,
            partition: 0,
            filesystem: String::new(),
            ensure_filesystem: false,
            options: Vec::new(),
            verity: None,
        }
    }

    /// Mounts its file system at this path in the guest, which is made.
    pub fn mount(mut self, path: impl Into<String>) -> Self {
        self.place = Place::Mount(path.into());
        self
    }

    /// Mounts nothing, and makes this path in the guest a link to the device.
    pub fn link(mut self, path: impl Into<String>) -> Self {
        self.place = Place::Link(path.into());
        self
    }

    /// Whether nobody can write to it: the machine refuses it, and the mount does. Any number of VMs can
    /// have a disk read-only, and only one can have it to write to.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Means this partition of the disk, from 1, and not the whole disk (0).
    pub fn partition(mut self, number: u64) -> Self {
        self.partition = number;
        self
    }

    /// Mounts it as this type of file system, which the guest's kernel must have; ext4 unless told.
    pub fn filesystem(mut self, name: impl Into<String>) -> Self {
        self.filesystem = name.into();
        self
    }

    /// Asks the agent to make the file system when there is none. Agents may refuse that; ours does, for
    /// disks with a file system are made without a VM.
    pub fn ensure_filesystem(mut self) -> Self {
        self.ensure_filesystem = true;
        self
    }

    /// Adds an option of the mount, as in `mount -o`: one, or several with commas between.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Lets the guest's kernel check each block against the hash tree behind the file system, whose root
    /// hash must be this one (in hexadecimal): what does not agree with it is an error to whoever reads
    /// it. It makes the disk read-only.
    pub fn verity_root(mut self, root_hash: impl Into<String>) -> Self {
        self.verity = Some(Protection::Root(root_hash.into()));
        self.read_only = true;
        self
    }

    /// The same with all that is known of the tree, for disks that the host cannot look into.
    pub fn verity(mut self, tree: Verity) -> Self {
        self.verity = Some(Protection::Told(tree));
        self.read_only = true;
        self
    }

    /// The disk file.
    #[must_use]
    pub fn host_path(&self) -> &Path {
        &self.host_path
    }

    /// Whether nobody can write to it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn place(&self) -> Result<Place> {
        Ok(match &self.place {
            Place::Chosen => Place::Chosen,
            Place::Link(path) => Place::Link(guest_path(path)?),
            Place::Mount(path) => Place::Mount(guest_path(path)?),
        })
    }

    /// Reads what must be known of the file. It may take a moment: it reads from a disk.
    pub(super) fn examine(&self, real: &Path) -> Result<Examined> {
        let found = describe(real)?;
        let verity = match &self.verity {
            None => None,
            Some(Protection::Told(tree)) => Some(verity_info(tree)?),
            Some(Protection::Root(root)) => {
                let mut tree = tree_in(real)?;
                tree.root_hash.clone_from(root);
                Some(verity_info(&tree)?)
            }
        };
        Ok(Examined {
            spec: DiskSpec {
                path: real.to_owned(),
                format: found.format,
                read_only: self.read_only,
                size: found.window,
            },
            mapping: MappedVirtualDisk {
                read_only: self.read_only,
                partition: self.partition,
                options: self.options.clone(),
                filesystem: self.filesystem.clone(),
                ensure_filesystem: self.ensure_filesystem,
                verity_info: verity,
                size_in_bytes: found.size.unwrap_or(0),
                ..MappedVirtualDisk::default()
            },
        })
    }
}

fn guest_path(path: &str) -> Result<String> {
    check_guest_path(path)?;
    Ok(path.trim_end_matches('/').to_owned())
}

/// A disk file that was looked at: what the machine is told of it, and what the agent is.
pub(super) struct Examined {
    pub(super) spec: DiskSpec,
    /// Without place and slot.
    pub(super) mapping: MappedVirtualDisk,
}

struct Found {
    format: DiskFormat,
    /// What the machine shows of the file, where the file does not say it to the machine.
    window: Option<u64>,
    /// The size that the guest sees, where it is sure.
    size: Option<u64>,
}

/// The format of a disk file, by its content.
pub(in crate::uvm) fn format_of(path: &Path) -> Result<DiskFormat> {
    describe(path).map(|found| found.format)
}

fn describe(path: &Path) -> Result<Found> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{shown} is a folder, and folders are not shared with a VM"),
        )
        .hint("bring its content on a disk: `opengcs tar2vhd` makes one of a tar"));
    }
    let found = opengcs_layer::describe(path).map_err(|error| {
        let kind = match error.kind() {
            opengcs_layer::ErrorKind::NotFound => ErrorKind::NotFound,
            opengcs_layer::ErrorKind::Io => ErrorKind::Io,
            _ => ErrorKind::InvalidInput,
        };
        Error::new(kind, format!("cannot use the disk {shown}")).caused_by(error)
    })?;
    if found.parent.is_some() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{shown} is a differencing disk, which a VM cannot have"),
        )
        .hint("make a whole disk of it and its parents: vhd_to_tar reads them together"));
    }
    let size = Some(found.virtual_size);
    Ok(match found.format {
        opengcs_layer::Format::FixedVhd => Found {
            format: DiskFormat::FixedVhd,
            window: size,
            size,
        },
        opengcs_layer::Format::Vhdx => Found {
            format: DiskFormat::Vhdx,
            window: None,
            size,
        },
        opengcs_layer::Format::Raw => Found {
            format: DiskFormat::Raw,
            window: None,
            size,
        },
        // The machine rounds the size of some of these.
        opengcs_layer::Format::DynamicVhd => Found {
            format: DiskFormat::DynamicVhd,
            window: None,
            size: None,
        },
        #[allow(unreachable_patterns, reason = "the enum may grow")]
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{shown} is a {other}, which a VM cannot have"),
            ));
        }
    })
}

/// The hash tree in a disk file.
fn tree_in(path: &Path) -> Result<Verity> {
    let shown = path.display();
    let inspected = opengcs_layer::inspect(path).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("cannot look for a hash tree in {shown}"),
        )
        .caused_by(error)
    })?;
    inspected.verity.ok_or_else(|| {
        Error::invalid(format!("{shown} has no hash tree behind its file system"))
            .hint("`opengcs tar2vhd --verity` makes disks that have one")
    })
}

fn verity_info(tree: &Verity) -> Result<VerityInfo> {
    let is_hash = |text: &str| {
        !text.is_empty()
            && text.len().is_multiple_of(2)
            && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !is_hash(&tree.root_hash) {
        return Err(Error::invalid(format!(
            "the root hash {:?} is not a hash in hexadecimal",
            super::super::shortened(&tree.root_hash)
        )));
    }
    let bytes = tree.data_blocks.checked_mul(tree.data_block_size.into());
    let size = bytes.and_then(|bytes| i64::try_from(bytes).ok());
    // The protocol has one size of block, and the tree right behind the data.
    let same = tree.data_block_size == tree.hash_block_size && bytes == Some(tree.hash_offset);
    let (Some(size), true) = (size, same) else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the hash tree does not lie right behind its data in blocks of the same size",
        ));
    };
    Ok(VerityInfo {
        ext4_size_in_bytes: size,
        version: 1,
        algorithm: tree.algorithm.clone(),
        super_block: true,
        root_digest: tree.root_hash.to_ascii_lowercase(),
        salt: tree.salt.clone(),
        block_size: tree.data_block_size.into(),
    })
}
