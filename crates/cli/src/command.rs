//! Which commands there are.

mod initrd;
mod kernel;

use anyhow::Result;
use clap::Subcommand;

use crate::context::Context;
use crate::failure;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Initrd(initrd::Initrd),
    Kernel(kernel::Kernel),
}

impl Command {
    /// Does it. The number is the exit code.
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self {
            Self::Initrd(command) => command.run(context).await,
            Self::Kernel(command) => command.run(context).await,
        }
    }

    /// The exit code that stands for a failure of ours rather than of a program in a VM.
    pub(crate) fn own_failure(&self) -> u8 {
        failure::FAILED
    }
}
