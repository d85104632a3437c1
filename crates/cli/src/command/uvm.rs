//! `opengcs uvm`: a disk that VMs boot from.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use opengcs::guest::boot_disk::{self, BootDiskOptions};
use opengcs::guest::cancel_with;

use super::initrd::Parts;
use crate::context::Context;
use crate::progress::Progress;
use crate::size::Size;

/// Build the disk that VMs can boot from instead of a kernel and an initrd
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  opengcs uvm build
  opengcs run --boot vhdx -- uname -r"
)]
pub(crate) struct Uvm {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Build(Build),
}

/// Build uvm.vhdx, a disk with kernel, agent and root that VMs boot from through UEFI
///
/// It takes what `opengcs initrd build` takes, and an EFI stub. A data folder that has a uvm.vhdx
/// boots VMs from it unless told otherwise (`opengcs run --boot kernel`). Under QEMU that needs the
/// firmware of the package ovmf. Nobody writes to the disk: one serves many VMs.
///
/// The data folder is `$OPENGCS_DATA_DIR`, else `$XDG_DATA_HOME/opengcs`, else ~/.local/share/opengcs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs uvm build
  opengcs uvm build --agent target/x86_64-unknown-linux-musl/agent/gcs --output /srv/uvm.vhdx
  opengcs uvm build --parameters 'gcs.log=debug'

JSON: {path, size, virtual_size, release, modules}.")]
struct Build {
    #[command(flatten)]
    parts: Parts,
    /// The EFI stub (linuxx64.efi.stub); by default the host's, else one is downloaded through apt
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,
    /// More words for the kernel
    #[arg(long, value_name = "WORDS", default_value = "")]
    parameters: String,
    /// Where to write it; by default uvm.vhdx in the data folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Uvm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self.what {
            What::Build(build) => build.run(context).await,
        }
    }
}

impl Build {
    async fn run(self, context: &Context) -> Result<u8> {
        let environment = context.environment.clone();
        let mut options = BootDiskOptions::new(environment.data_dir());
        options.parts = self.parts.options(environment.data_dir());
        options.parts.output = self.output;
        options.stub = self.stub;
        options.kernel_parameters = self.parameters;
        let progress = Progress::spinner(context, "building the boot disk");
        let stop = context.stop.flag();
        let built = context
            .blocking(move || cancel_with(stop, || Ok(boot_disk::build(&options, &environment)?)))
            .await?;
        drop(progress);
        let line = format!(
            "{}: {}, boots Linux {} with {} modules",
            built.path.display(),
            Size(built.size),
            built.release,
            built.modules.len()
        );
        context.done(&built, &line)?;
        Ok(0)
    }
}
