//! `opengcs disk`: disks of a VM that runs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use opengcs_monitor::{Client, Folders, Name, proto};

use super::vm::view;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use crate::report;
use crate::size::Size;

/// Add disks to a VM while it runs, list them, and take them away
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  opengcs disk add build layer.vhd /mnt/layer --read-only
  opengcs disk ls build
  opengcs disk rm build layer.vhd"
)]
pub(crate) struct Disk {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Add(Add),
    Rm(Remove),
    #[command(alias = "list")]
    Ls(List),
}

/// Add a disk file (VHD, VHDX or raw) to a VM that runs, and mount its file system there
///
/// When this command returns, the disk is there. A disk that is interrupted while it is added is there or
/// is not, and never half.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs disk add build layer.vhd /mnt/layer --read-only
  opengcs disk add build scratch.vhdx                  at /mnt/scratch
  opengcs disk add build data.img --no-mount           prints where its device is
  opengcs disk add build data.img /mnt/data --partition 2 --fs vfat --mount-option uid=1000

JSON: as one of `opengcs disk ls --json`.")]
struct Add {
    /// The VM's name
    name: Name,
    /// The disk file
    file: PathBuf,
    /// Where it is mounted in the VM, or with --no-mount where a link to its device is; without it
    /// /mnt/NAME by the file's name, or a link of the VM's choice
    guest_path: Option<String>,
    /// Let nobody write to it; any number of VMs can have it so
    #[arg(long)]
    read_only: bool,
    /// Only have the device there
    #[arg(long)]
    no_mount: bool,
    /// Mean this partition of it, from 1, and not the whole disk
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    partition: u64,
    /// The type of its file system; ext4 if not given
    #[arg(long, value_name = "TYPE", conflicts_with = "no_mount")]
    fs: Option<String>,
    /// An option of the mount, as in `mount -o`; may be given again
    #[arg(long, value_name = "OPTION", conflicts_with = "no_mount")]
    mount_option: Vec<String>,
    /// Have the VM check each block against the disk's hash tree, whose root hash must be this one;
    /// it is read-only then
    #[arg(long, value_name = "ROOT-HASH")]
    verity: Option<String>,
}

/// Take a disk away from a VM that runs, by its file or its place in the VM
///
/// It is unmounted first; what keeps it in use is named. When this command returns, the file is free.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs disk rm build layer.vhd
  opengcs disk rm build /mnt/layer

JSON: as one of `opengcs disk ls --json`.")]
struct Remove {
    /// The VM's name
    name: Name,
    /// The disk file, or the disk's place in the VM
    #[arg(value_name = "FILE|GUEST-PATH")]
    what: PathBuf,
}

/// List the disks of a VM
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs disk ls build
  opengcs disk ls build --json

SLOT is the SCSI controller and the unit on it; a place with (device) is a link to the device.
JSON: a list of {controller, lun, file, guest_path, mounted, read_only, partition (0: whole disk), size
in bytes or null, verity_root or null}.")]
struct List {
    /// The VM's name
    name: Name,
}

impl Disk {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let done = async {
            match self.what {
                What::Add(command) => command.run(context).await,
                What::Rm(command) => command.run(context).await,
                What::Ls(command) => command.run(context).await,
            }
        };
        context.unless_stopped(done).await
    }
}

impl Add {
    async fn run(self, context: &Context) -> Result<u8> {
        self.place_is_apart()?;
        let mut client = connect(&self.name, context).await?;
        let request = proto::AddDiskRequest {
            file: absolute(&self.file)?,
            guest_path: self.guest_path.unwrap_or_default(),
            mount: !self.no_mount,
            read_only: self.read_only,
            partition: self.partition,
            filesystem: self.fs.unwrap_or_default(),
            mount_options: self.mount_option,
            verity_root: self.verity.unwrap_or_default(),
        };
        let progress = Progress::spinner(context, "adding the disk");
        let added = client.add_disk(request).await?;
        drop(progress);
        let disk = view::Disk::from(added);
        let how = if disk.mounted { "at" } else { "its device is" };
        let line = format!(
            "{} in {}: {how} {}",
            self.file.display(),
            self.name,
            disk.guest_path
        );
        context.done(&disk, &line)?;
        Ok(0)
    }

    /// Tells those who write a disk as `opengcs run --disk` takes it.
    fn place_is_apart(&self) -> Result<()> {
        let said = self.file.to_str().filter(|_| !self.file.exists());
        let Some((file, place)) = said.and_then(|said| said.rsplit_once(":/")) else {
            return Ok(());
        };
        let (place, read_only) = match place.rsplit_once(':') {
            Some((place, "ro")) => (place, " --read-only"),
            _ => (place, ""),
        };
        let name = &self.name;
        Err(
            Failure::usage(format!("there is no file {}", self.file.display()))
                .hint(format!(
                    "the place in the VM is a word of its own: \
                     opengcs disk add {name} {file} /{place}{read_only}"
                ))
                .into(),
        )
    }
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8> {
        let mut client = connect(&self.name, context).await?;
        let said = text(&self.what)?;
        let progress = Progress::spinner(context, "removing the disk");
        let removed = client.remove_disk(absolute(&self.what)?, said).await?;
        drop(progress);
        let disk = view::Disk::from(removed);
        let line = format!("{} is free", disk.file);
        context.done(&disk, &line)?;
        Ok(0)
    }
}

impl List {
    async fn run(self, context: &Context) -> Result<u8> {
        let vm = connect(&self.name, context).await?.inspect().await?;
        let disks: Vec<_> = vm.disks.into_iter().map(view::Disk::from).collect();
        if context.json {
            output::json(&disks)?;
        } else if disks.is_empty() {
            output::note(format_args!("{} has no disk", self.name));
        } else {
            let mut table = report::table(&["SLOT", "PLACE", "ACCESS", "SIZE", "FILE"]);
            for disk in disks {
                let device = if disk.mounted { "" } else { " (device)" };
                let access = if disk.read_only {
                    "read-only"
                } else {
                    "read-write"
                };
                let size = disk
                    .size
                    .map_or_else(|| "-".to_owned(), |size| Size(size).to_string());
                table.add_row([
                    format!("{}:{}", disk.controller, disk.lun),
                    format!("{}{device}", disk.guest_path),
                    access.to_owned(),
                    size,
                    disk.file,
                ]);
            }
            report::print_table(&table)?;
        }
        Ok(0)
    }
}

async fn connect(name: &Name, context: &Context) -> Result<Client> {
    let folders = Folders::of(&context.environment)?;
    Ok(Client::connect(&folders, name).await?)
}

/// The path as it means the same to the monitor, which is in another folder.
fn absolute(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)
        .with_context(|| format!("cannot tell where {} is", path.display()))?;
    text(&absolute)
}

/// The protocol has text alone.
fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::new(format!("the path {} is not UTF-8", path.display()))
            .hint("give the disk file a name that is")
            .into()
    })
}
