//! `opengcs vm stop`: a VM ends in order, or else by force.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use opengcs_monitor::proto::stop_response::How;
use opengcs_monitor::{Client, Folders, Looked, Name};
use serde::Serialize;

use crate::context::Context;
use crate::report::Json;

/// End a VM: its guest is asked, and killed when it takes too long
///
/// The guest ends its processes, writes everything to its disks, unmounts them and powers off. When this
/// command returns, the VM's name is free. For a VM that has ended by itself, what was kept of it goes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm stop build
  opengcs vm stop build --time 60
  opengcs vm stop build --time 0        at once; what was not written is lost

JSON: {name, how: gracefully, killed, already or given-up, reason or null}.")]
pub(super) struct Stop {
    /// The VM's name
    name: Name,
    /// How many seconds the guest may take before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    #[command(flatten)]
    json: Json,
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
        let name = &self.name;
        let (how, line, reason) = match Client::look_for(&folders, name).await? {
            Looked::Living(mut client) => {
                let grace = Duration::from_secs(self.time.into());
                let (how, said) = match client.stop(grace).await? {
                    How::Killed => (
                        "killed",
                        "was killed: what it had not written to its disks is lost",
                    ),
                    How::Already => ("already", "ended by itself before it was asked"),
                    How::GivenUp => ("given-up", "was still starting, and is no more"),
                    How::Gracefully | How::Unspecified => ("gracefully", "has stopped in order"),
                };
                (how, format!("{name} {said}"), None)
            }
            Looked::Ended(record, _) => {
                folders.forget(name)?;
                let line = format!("{name} had ended by itself: {}", record.reason);
                ("already", line, Some(record.reason))
            }
        };
        let stopped = Stopped {
            name: name.as_str(),
            how,
            reason,
        };
        self.json.done(context, &stopped, &line)?;
        Ok(0)
    }
}
