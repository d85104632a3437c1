//! `opengcs vm stop`: VMs end in order, or else by force.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs_monitor::proto::stop_response::How;
use opengcs_monitor::{Client, Ended, Error, ErrorKind, Folders, Found, Looked, Name};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{self, FAILED};

/// End VMs: their guests are asked, and killed when they take too long
///
/// A guest ends its processes, writes everything to its disks, unmounts them and powers off. When this
/// command returns, the VMs' names are free. For a VM that has ended by itself, what was kept of it goes. Whoever
/// interrupts this command (Ctrl-C) has not taken the order back: the VMs end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm stop build
  opengcs vm stop build test            both at once
  opengcs vm stop build --time 60
  opengcs vm stop build --time 0        at once; what was not written is lost
  opengcs vm stop build --force         also when its monitor does not answer

JSON: {name, how: gracefully, killed, forced, already or given-up, reason or null}, for each VM that ends.")]
pub(super) struct Stop {
    /// The VMs' names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Name>,
    #[command(flatten)]
    how: Order,
}

/// How VMs are to end.
#[derive(Debug, Clone, Copy, Args)]
struct Order {
    /// How many seconds a guest may take before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    time: u32,
    /// When the VM's monitor does not answer within seconds, kill it and the VM; what was not written is
    /// lost. Without it that is told, and the VM stays as it is
    #[arg(long)]
    force: bool,
}

/// What has become of a VM; its first three are what is printed as JSON.
#[derive(Debug, Serialize)]
struct Stopped {
    name: Name,
    how: &'static str,
    reason: Option<String>,
    #[serde(skip)]
    line: String,
}

impl Stop {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        // All at once: together they take no longer than the slowest.
        let mut asked = Vec::new();
        let mut names = HashSet::new();
        for name in self.names {
            if !names.insert(name.clone()) {
                continue;
            }
            let one = One {
                folders: folders.clone(),
                name,
                order: self.how,
            };
            asked.push(tokio::spawn(one.stop()));
        }
        let mut failure = None;
        for one in asked {
            match one.await.context("this is a fault in opengcs")? {
                Ok(stopped) => context.done(&stopped, &stopped.line)?,
                Err(error) => {
                    if let Some(before) = failure.replace(error) {
                        failure::tell(&before, FAILED, context.verbose > 0);
                    }
                }
            }
        }
        failure.map_or(Ok(0), Err)
    }
}

/// A VM that is to end.
struct One {
    folders: Folders,
    name: Name,
    order: Order,
}

impl One {
    async fn stop(self) -> Result<Stopped> {
        let mut client = match Client::look_for(&self.folders, &self.name).await {
            Ok(Looked::Living(client)) => client,
            Ok(Looked::Ended(record, _)) => return self.forget(record),
            Err(error) => return self.kill(error).await,
        };
        let grace = Duration::from_secs(self.order.time.into());
        let (how, said) = match client.stop(grace).await {
            Ok(How::Killed) => (
                "killed",
                "was killed: what it had not written to its disks is lost",
            ),
            Ok(How::GivenUp) => ("given-up", "was still starting, and is no more"),
            Ok(How::Gracefully | How::Unspecified) => ("gracefully", "has stopped in order"),
            // It was ending already; its monitor may have gone before it could say so.
            Ok(How::Already) => return self.gone(None),
            Err(error) if error.kind() == ErrorKind::Ended => {
                return self.gone(Some(error));
            }
            Err(error) => return self.kill(error).await,
        };
        Ok(self.done(how, None, format!("{} {said}", self.name)))
    }

    /// Ends a VM whose monitor does not answer, if that is wanted.
    async fn kill(&self, error: Error) -> Result<Stopped> {
        if error.kind() != ErrorKind::Silent || !self.order.force {
            return Err(error.into());
        }
        if !self.folders.kill(&self.name).await? {
            return self.gone(None);
        }
        let line = format!(
            "{} was killed with its monitor, which did not answer: what it had not written to its \
             disks is lost",
            self.name
        );
        Ok(self.done("forced", None, line))
    }

    /// What has become of a VM that ended while it was asked to.
    fn gone(&self, error: Option<Error>) -> Result<Stopped> {
        match (self.folders.find(&self.name), error) {
            (Ok(Found::Ended(record, _)), _) => self.forget(record),
            (Ok(Found::Living(..)), Some(error)) => Err(error.into()),
            _ => {
                let line = format!("{} ended by itself before it was asked", self.name);
                Ok(self.done("already", None, line))
            }
        }
    }

    /// Removes what was kept of a VM that has ended by itself.
    fn forget(&self, record: Ended) -> Result<Stopped> {
        self.folders.forget(&self.name)?;
        let line = format!("{} had ended by itself: {}", self.name, record.reason);
        Ok(self.done("already", Some(record.reason), line))
    }

    fn done(&self, how: &'static str, reason: Option<String>, line: String) -> Stopped {
        Stopped {
            name: self.name.clone(),
            how,
            reason,
            line,
        }
    }
}
