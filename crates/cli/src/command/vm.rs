//! `opengcs vm`: VMs that outlive the command that started them.

mod inspect;
mod logs;
mod ls;
mod monitor;
mod start;
mod stats;
mod stop;
pub(super) mod view;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::context::Context;

/// Start, list, look into and stop VMs that outlive the command
///
/// A VM that `opengcs vm start` has started is held by a process of its own, its monitor. It goes on when
/// the terminal is closed, until the VM is stopped or ends by itself. VMs are known by their names, to
/// their user alone; their sockets and logs are in `$XDG_RUNTIME_DIR/opengcs/NAME`, and
/// where that variable is unset or names no folder, in `opengcs-UID/NAME` in the temporary folder
/// (`$TMPDIR`, else /tmp).
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  opengcs vm start build --memory 2G
  opengcs disk add build layer.vhd /mnt/layer --read-only
  opengcs exec -it build -- sh
  opengcs vm stop build"
)]
pub(crate) struct Vm {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Start(start::Start),
    Stop(stop::Stop),
    #[command(aliases = ["list", "ps"])]
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Logs(logs::Logs),
    Stats(stats::Stats),
    Monitor(monitor::Monitor),
}

impl Vm {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self.what {
            // These two clear up themselves when they are to stop.
            What::Start(command) => command.run(context).await,
            What::Monitor(command) => command.run(context).await,
            What::Stop(command) => context.unless_stopped(command.run(context)).await,
            What::Ls(command) => context.unless_stopped(command.run(context)).await,
            What::Inspect(command) => context.unless_stopped(command.run(context)).await,
            What::Logs(command) => context.unless_stopped(command.run(context)).await,
            What::Stats(command) => context.unless_stopped(command.run(context)).await,
        }
    }
}
