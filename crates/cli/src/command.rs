//! Which commands there are.

mod completions;
mod debug;
mod disk;
mod doctor;
mod exec;
mod initrd;
mod inspect;
mod kernel;
mod man;
mod process_options;
mod reclaim;
mod run;
mod scratch;
mod squash;
mod tar2vhd;
mod uvm;
mod verify;
mod vhd2tar;
mod vm;
mod vm_options;

use anyhow::Result;
use clap::Subcommand;
use opengcs::Config;

use crate::context::Context;
use crate::failure::{self, Failure};
use crate::output;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(name = "tar2vhd")]
    Tar2Vhd(tar2vhd::Tar2Vhd),
    #[command(name = "vhd2tar")]
    Vhd2Tar(vhd2tar::Vhd2Tar),
    Squash(squash::Squash),
    Scratch(scratch::Scratch),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Reclaim(reclaim::Reclaim),
    Run(run::Run),
    Vm(vm::Vm),
    Exec(exec::Exec),
    Disk(disk::Disk),
    Debug(debug::Debug),
    Doctor(doctor::Doctor),
    Initrd(initrd::Initrd),
    Kernel(kernel::Kernel),
    Uvm(uvm::Uvm),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// Does it. The number is the exit code.
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        if context.json && matches!(self, Self::Completions(_) | Self::Man(_)) {
            return Err(Failure::usage("--json: this is text for a shell or for man").into());
        }
        match self {
            Self::Tar2Vhd(command) => command.run(context).await,
            Self::Vhd2Tar(command) => command.run(context).await,
            Self::Squash(command) => command.run(context).await,
            Self::Scratch(command) => command.run(context).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Verify(command) => command.run(context).await,
            Self::Reclaim(command) => command.run(context).await,
            Self::Run(command) => command.run(context).await,
            Self::Vm(command) => command.run(context).await,
            Self::Exec(command) => command.run(context).await,
            Self::Disk(command) => command.run(context).await,
            Self::Debug(command) => command.run(context).await,
            Self::Doctor(command) => command.run(context).await,
            Self::Initrd(command) => command.run(context).await,
            Self::Kernel(command) => command.run(context).await,
            Self::Uvm(command) => command.run(context).await,
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }

    /// The exit code that stands for a failure of ours rather than of a program in a VM.
    pub(crate) fn own_failure(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Exec(_) => process_options::OWN_FAILURE,
            _ => failure::FAILED,
        }
    }
}

/// Says which options were passed over.
fn note_warnings(config: &Config) {
    for warning in &config.options.warnings {
        output::warn(None, &warning.to_string());
    }
}
