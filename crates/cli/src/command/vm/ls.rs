//! `opengcs vm ls`: which VMs there are.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs_monitor::{Client, Folders, Found, Name};

use super::view::{self, Vm};
use crate::context::Context;
use crate::output;
use crate::report;
use crate::size::Size;

/// A monitor answers in milliseconds; one that is stopped or starved must not hold up the list.
const PATIENCE: Duration = Duration::from_secs(5);

/// List the VMs that `opengcs vm start` has started
///
/// VMs that have ended by themselves are listed too, with the reason, until their name is started again or
/// stopped; of such the ten newest are kept. What killed monitors have left is cleared away. A VM is silent
/// when its monitor does not answer within seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm ls
  opengcs vm ls --json

JSON: a list of what `opengcs vm inspect --json` prints.")]
pub(super) struct Ls {}

impl Ls {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        let mut all = Vec::new();
        // All are asked at once: those that do not answer take no longer together than one.
        let mut asked = Vec::new();
        for found in folders.look().await? {
            asked.push(tokio::spawn(async move {
                match found {
                    Found::Ended(record, folder) => Some(Vm::ended(record, folder)),
                    Found::Living(name, folder) => ask(&name, folder).await,
                }
            }));
        }
        for one in asked {
            all.extend(one.await.context("this is a fault in opengcs")?);
        }
        if context.json {
            output::json(&all)?;
        } else if all.is_empty() {
            output::note(format_args!(
                "there is no VM: `opengcs vm start NAME` starts one"
            ));
        } else {
            print(&all)?;
        }
        Ok(0)
    }
}

/// What a monitor says of its VM; nothing of one that has just gone.
async fn ask(name: &Name, folder: PathBuf) -> Option<Vm> {
    let silent = |monitor| Some(Vm::silent(name.as_str(), folder.clone(), monitor));
    let mut client = match tokio::time::timeout(PATIENCE, Client::dial(name, &folder)).await {
        Ok(Ok(Some(client))) => client,
        Ok(Ok(None)) if !folder.exists() => return None,
        _ => return silent(None),
    };
    match tokio::time::timeout(PATIENCE, client.inspect()).await {
        Ok(Ok(vm)) => Some(Vm::living(vm, folder)),
        _ => silent(client.monitor()),
    }
}

fn print(all: &[Vm]) -> Result<()> {
    let mut table = report::table(&["NAME", "STATE", "SINCE", "MEMORY", "CPUS", "DISKS", "NOTE"]);
    for vm in all {
        let since = vm
            .ended_ms
            .or(vm.started_ms)
            .map_or_else(|| "-".to_owned(), view::ago);
        let known = |text: String| {
            if vm.memory_mib > 0 {
                text
            } else {
                "-".to_owned()
            }
        };
        let note = match (&vm.reason, vm.state) {
            (Some(reason), _) => reason.clone(),
            (None, "silent") => match vm.monitor_pid {
                Some(process) => format!("its monitor, process {process}, does not answer"),
                None => "its monitor does not answer".to_owned(),
            },
            _ => String::new(),
        };
        table.add_row([
            vm.name.clone(),
            vm.state.to_owned(),
            since,
            known(Size(u64::from(vm.memory_mib) << 20).to_string()),
            known(vm.cpus.to_string()),
            known(vm.disks.len().to_string()),
            note,
        ]);
    }
    report::print_table(&table)
}
