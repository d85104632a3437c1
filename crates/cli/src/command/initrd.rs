//! `opengcs initrd`: what a VM has before a disk is mounted.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use opengcs::guest::cancel_with;
use opengcs::guest::initrd::{self, Compression, InitrdOptions};

use crate::context::Context;
use crate::progress::Progress;
use crate::size::Size;

/// Build the initrd, the small first file system that VMs start from
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  opengcs kernel install && opengcs initrd build
  opengcs initrd build --runtime crun"
)]
pub(crate) struct Initrd {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Build(Build),
}

/// Build the initrd that VMs start from: the agent, busybox, and the kernel's modules
///
/// It belongs to one kernel: get that first (`opengcs kernel install`), and build the initrd again
/// when the kernel changes.
///
/// The data folder is `$OPENGCS_DATA_DIR`, else `$XDG_DATA_HOME/opengcs`, else ~/.local/share/opengcs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs initrd build
  opengcs initrd build --agent target/x86_64-unknown-linux-musl/agent/gcs
  opengcs initrd build --runtime crun
  opengcs initrd build --add-module btrfs --output /tmp/initrd.img")]
struct Build {
    #[command(flatten)]
    parts: Parts,
    /// Where to write it; by default initrd.img in the data folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a guest is made of, on the command line.
#[derive(Debug, Args)]
pub(crate) struct Parts {
    /// The agent, a static program; by default `gcs` beside this program, in ../lib/opengcs from
    /// there, or in the data folder
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// A static busybox; by default the host's, else one is downloaded through apt
    #[arg(long, value_name = "FILE", conflicts_with = "no_busybox")]
    busybox: Option<PathBuf>,
    /// Leave busybox out: only programs on mounted disks run in the VM then
    #[arg(long)]
    no_busybox: bool,
    /// Put an OCI runtime in, for containers: crun or runc by name (this host's) or by path
    #[arg(long, value_name = "NAME|FILE")]
    runtime: Option<PathBuf>,
    /// The kernel it is for; by default bootx64.efi in the data folder
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Folder of the kernel's modules; by default modules/RELEASE in the data folder
    #[arg(long, value_name = "FOLDER")]
    modules: Option<PathBuf>,
    /// One more kernel module to load, by name; may be given again
    #[arg(long, value_name = "NAME")]
    add_module: Vec<String>,
    /// How to pack the initrd: not at all boots fastest, zstd is smallest
    #[arg(long, value_name = "HOW", default_value = "none")]
    compress: Packing,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Initrd {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self.what {
            What::Build(build) => build.run(context).await,
        }
    }
}

impl Build {
    async fn run(self, context: &Context) -> Result<u8> {
        let environment = context.environment.clone();
        let mut options = self.parts.options(environment.data_dir());
        options.output = self.output;
        let progress = Progress::spinner(context, "building the initrd");
        let stop = context.stop.flag();
        let built = context
            .blocking(move || cancel_with(stop, || Ok(initrd::build(&options, &environment)?)))
            .await?;
        drop(progress);
        let line = format!(
            "{}: {} for Linux {}, with {} modules",
            built.path.display(),
            Size(built.size),
            built.release,
            built.modules.len()
        );
        context.done(&built, &line)?;
        Ok(0)
    }
}

impl Parts {
    /// The options of a build into a data folder.
    pub(crate) fn options(self, data_dir: PathBuf) -> InitrdOptions {
        let mut options = InitrdOptions::new(data_dir);
        options.agent = self.agent;
        options.busybox = self.busybox;
        options.without_busybox = self.no_busybox;
        options.runtime = self.runtime;
        options.kernel = self.kernel;
        options.modules = self.modules;
        options.extra_modules = self.add_module;
        options.compression = match self.compress {
            Packing::None => Compression::None,
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
        };
        options
    }
}
