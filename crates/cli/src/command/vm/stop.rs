//! `opengcs vm stop`: a VM ends in order, or else by force.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use opengcs_monitor::proto::stop_response::How;
use opengcs_monitor::{Client, Ended, Error, ErrorKind, Folders, Found, Looked, Name};
use serde::Serialize;

use crate::context::Context;

/// End a VM: its guest is asked, and killed when it takes too long
///
/// The guest ends its processes, writes everything to its disks, unmounts them and powers off. When this
/// command returns, the VM's name is free. For a VM that has ended by itself, what was kept of it goes. Whoever
/// interrupts this command (Ctrl-C) has not taken the order back: the VM ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm stop build
  opengcs vm stop build --time 60
  opengcs vm stop build --time 0        at once; what was not written is lost
  opengcs vm stop build --force         also when its monitor does not answer

JSON: {name, how: gracefully, killed, forced, already or given-up, reason or null}.")]
pub(super) struct Stop {
    /// The VM's name
    name: Name,
    /// How many seconds the guest may take before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    /// When the VM's monitor does not answer within seconds, kill it and the VM; what was not written is
    /// lost. Without it that is told, and the VM stays as it is
    #[arg(long)]
    force: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Stopped<'a> {
    name: &'a str,
    how: &'static str,
    reason: Option<String>,
}

impl Stop {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        let mut client = match Client::look_for(&folders, &self.name).await {
            Ok(Looked::Living(client)) => client,
            Ok(Looked::Ended(record, _)) => return self.forget(&folders, record, context),
            Err(error) => return self.kill(&folders, error, context).await,
        };
        let grace = Duration::from_secs(self.time.into());
        let (how, said) = match client.stop(grace).await {
            Ok(How::Killed) => (
                "killed",
                "was killed: what it had not written to its disks is lost",
            ),
            Ok(How::GivenUp) => ("given-up", "was still starting, and is no more"),
            Ok(How::Gracefully | How::Unspecified) => ("gracefully", "has stopped in order"),
            // It was ending already; its monitor may have gone before it could say so.
            Ok(How::Already) => return self.gone(&folders, None, context),
            Err(error) if error.kind() == ErrorKind::Ended => {
                return self.gone(&folders, Some(error), context);
            }
            Err(error) => return self.kill(&folders, error, context).await,
        };
        self.done(how, None, &format!("{} {said}", self.name), context)
    }

    /// Ends a VM whose monitor does not answer, if that is wanted.
    async fn kill(&self, folders: &Folders, error: Error, context: &Context) -> Result<u8> {
        if error.kind() != ErrorKind::Silent || !self.force {
            return Err(error.into());
        }
        if !folders.kill(&self.name).await? {
            return self.gone(folders, None, context);
        }
        let line = format!(
            "{} was killed with its monitor, which did not answer: what it had not written to its \
             disks is lost",
            self.name
        );
        self.done("forced", None, &line, context)
    }

    /// What has become of a VM that ended while it was asked to.
    fn gone(&self, folders: &Folders, error: Option<Error>, context: &Context) -> Result<u8> {
        match (folders.find(&self.name), error) {
            (Ok(Found::Ended(record, _)), _) => self.forget(folders, record, context),
            (Ok(Found::Living(..)), Some(error)) => Err(error.into()),
            _ => {
                let line = format!("{} ended by itself before it was asked", self.name);
                self.done("already", None, &line, context)
            }
        }
    }

    /// Removes what was kept of a VM that has ended by itself.
    fn forget(&self, folders: &Folders, record: Ended, context: &Context) -> Result<u8> {
        folders.forget(&self.name)?;
        let line = format!("{} had ended by itself: {}", self.name, record.reason);
        self.done("already", Some(record.reason), &line, context)
    }

    fn done(
        &self,
        how: &'static str,
        reason: Option<String>,
        line: &str,
        context: &Context,
    ) -> Result<u8> {
        let stopped = Stopped {
            name: self.name.as_str(),
            how,
            reason,
        };
        context.done(&stopped, line)?;
        Ok(0)
    }
}
