//! `opengcs kernel`: the kernel that VMs start with.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use opengcs::guest::cancel_with;
use opengcs::guest::kernel::{self, KernelSource};

use crate::context::Context;
use crate::progress::Progress;
use crate::report;

/// Get a Linux kernel for VMs, or list those that are here
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  opengcs kernel install
  opengcs kernel ls"
)]
pub(crate) struct Kernel {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Install(Install),
    #[command(alias = "list")]
    Ls(Ls),
}

/// Put a Linux kernel and its modules into the data folder, for VMs to start with
///
/// Without options this downloads the distribution's kernel for VMs through apt and unpacks it.
/// It is not installed on this host, and needs no root. Where there is no apt, the host's own
/// kernel in /boot is copied.
///
/// The data folder is `$OPENGCS_DATA_DIR`, else `$XDG_DATA_HOME/opengcs`, else ~/.local/share/opengcs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs kernel install
  opengcs kernel install --package linux-image-cloud-amd64
  opengcs kernel install --deb linux-image-6.1.0-1-cloud-amd64_6.1.1-1_amd64.deb
  opengcs kernel install --file ./bzImage --modules ./lib/modules/6.9.1")]
struct Install {
    /// Download this package through apt
    #[arg(long, value_name = "NAME", conflicts_with_all = ["deb", "file", "host"])]
    package: Option<String>,
    /// Take a kernel package that is here (again for its modules, where they are apart)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "host"])]
    deb: Vec<PathBuf>,
    /// Take a kernel file (a bzImage)
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    file: Option<PathBuf>,
    /// Folder of that kernel's modules, …/modules/RELEASE; /lib/modules/RELEASE if not given
    #[arg(long, value_name = "FOLDER", requires = "file")]
    modules: Option<PathBuf>,
    /// Copy the newest kernel in this host's /boot
    #[arg(long)]
    host: bool,
}

/// List the kernels in the data folder; the one that VMs start with is marked *
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs kernel ls
  opengcs kernel ls --json

JSON: a list of {release, origin, kernel, modules, current}.")]
struct Ls {}

impl Kernel {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self.what {
            What::Install(install) => install.run(context).await,
            What::Ls(ls) => ls.run(context),
        }
    }
}

impl Install {
    async fn run(self, context: &Context) -> Result<u8> {
        let source = self.source();
        let data_dir = context.environment.data_dir();
        let progress = Progress::spinner(context, "getting a kernel");
        let stop = context.stop.flag();
        let installed = context
            .blocking(move || cancel_with(stop, || Ok(kernel::install(&source, &data_dir)?)))
            .await?;
        drop(progress);
        let line = format!(
            "Linux {} from {} is now {}",
            installed.release,
            installed.origin,
            installed.kernel.display()
        );
        context.done(&installed, &line)?;
        Ok(0)
    }

    fn source(self) -> KernelSource {
        if let Some(name) = self.package {
            KernelSource::Package(name)
        } else if !self.deb.is_empty() {
            KernelSource::DebFiles(self.deb)
        } else if let Some(kernel) = self.file {
            KernelSource::File {
                kernel,
                modules: self.modules,
            }
        } else if self.host {
            KernelSource::Host
        } else {
            KernelSource::Distribution
        }
    }
}

impl Ls {
    fn run(&self, context: &Context) -> Result<u8> {
        let data_dir = context.environment.data_dir();
        let all = kernel::list(&data_dir)?;
        if context.json {
            crate::output::json(&all)?;
        } else if all.is_empty() {
            crate::output::note(format_args!(
                "there is no kernel in {}: `opengcs kernel install` gets one",
                data_dir.display()
            ));
        } else {
            let mut table = report::table(&["", "RELEASE", "ORIGIN", "KERNEL"]);
            for one in all {
                let (mark, file) = if one.current {
                    ("*", one.kernel.display().to_string())
                } else {
                    ("", "-".to_owned())
                };
                table.add_row([mark, &one.release, &one.origin, &file]);
            }
            report::print_table(&table)?;
        }
        Ok(0)
    }
}
