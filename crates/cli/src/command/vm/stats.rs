//! `opengcs vm stats`: what a VM uses.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs_monitor::{Client, Folders, Name, proto};
use serde::Serialize;

use crate::context::Context;
use crate::output;
use crate::size::Size;

/// Show what a VM uses, on the host and inside
///
/// HOST is the hypervisor's process: its resident memory, the guest's included, and its processor time.
/// GUEST is what the kernel in the VM counts. Processor time is since the start; CPU is its share of one
/// processor between two lines.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm stats build
  opengcs vm stats build --follow --every 5
  opengcs vm stats build --json

JSON: {at_ms, host: {memory, processor_ns} or null, guest: {memory_total, memory_used, memory_cache,
processes, processor_ns} or null}; memory is in bytes. With --follow, one such object on each line.")]
pub(super) struct Stats {
    /// The VM's name
    name: Name,
    /// Go on until the VM ends
    #[arg(short, long)]
    follow: bool,
    /// How many seconds are between two lines
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "follow",
          value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
}

/// What is printed as JSON.
#[derive(Debug, Clone, Copy, Serialize)]
struct Use {
    at_ms: u64,
    host: Option<Host>,
    guest: Option<Guest>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Host {
    memory: u64,
    processor_ns: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Guest {
    memory_total: u64,
    memory_used: u64,
    memory_cache: u64,
    processes: u64,
    processor_ns: u64,
}

impl From<proto::StatsResponse> for Use {
    fn from(told: proto::StatsResponse) -> Self {
        Self {
            at_ms: told.at_ms,
            host: told.host.map(|host| Host {
                memory: host.memory,
                processor_ns: host.processor_ns,
            }),
            guest: told.guest.map(|guest| Guest {
                memory_total: guest.memory_total,
                memory_used: guest.memory_used,
                memory_cache: guest.memory_cache,
                processes: guest.processes,
                processor_ns: guest.processor_ns,
            }),
        }
    }
}

impl Stats {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        let mut client = Client::connect(&folders, &self.name).await?;
        let every = self.follow.then(|| Duration::from_secs(self.every.into()));
        let mut all = client.stats(every).await?;
        let mut out = output::data(context.stop.flag())?;
        let mut print = |text: &str| writeln!(out, "{text}").context("cannot write to stdout");
        if !context.json {
            print(HEADER)?;
        }
        let mut before = None;
        loop {
            let Some(told) = all.next().await? else {
                return Ok(0);
            };
            let now = Use::from(told);
            if !context.json {
                print(&line(&now, before.as_ref()))?;
            } else if self.follow {
                print(&serde_json::to_string(&now)?)?;
            } else {
                print(&serde_json::to_string_pretty(&now)?)?;
            }
            before = Some(now);
        }
    }
}

const HEADER: &str =
    "HOST MEMORY   TIME      CPU     GUEST MEMORY          CACHE       TIME      CPU     PROCESSES";

/// A line below the header. Lines come one after the other, so that each column has a width of its own.
fn line(now: &Use, before: Option<&Use>) -> String {
    let elapsed = before.map(|before| now.at_ms.saturating_sub(before.at_ms));
    let share = |now: u64, before: Option<u64>| match (before, elapsed) {
        (Some(before), Some(elapsed)) if elapsed > 0 => {
            let per_mille = now.saturating_sub(before) / elapsed / 1000;
            format!("{}.{} %", per_mille / 10, per_mille % 10)
        }
        _ => "-".to_owned(),
    };
    let host = match now.host {
        Some(host) => {
            let before = before.and_then(|before| before.host);
            [
                Size(host.memory).to_string(),
                seconds(host.processor_ns),
                share(host.processor_ns, before.map(|host| host.processor_ns)),
            ]
        }
        None => [const { String::new() }; 3].map(|_| "-".to_owned()),
    };
    let guest = match now.guest {
        Some(guest) => {
            let before = before.and_then(|before| before.guest);
            [
                format!(
                    "{} of {}",
                    Size(guest.memory_used),
                    Size(guest.memory_total)
                ),
                Size(guest.memory_cache).to_string(),
                seconds(guest.processor_ns),
                share(guest.processor_ns, before.map(|guest| guest.processor_ns)),
                guest.processes.to_string(),
            ]
        }
        None => [const { String::new() }; 5].map(|_| "-".to_owned()),
    };
    let [memory, time, cpu] = host;
    let [guest_memory, cache, guest_time, guest_cpu, processes] = guest;
    format!(
        "{memory:<12}  {time:<8}  {cpu:<6}  {guest_memory:<20}  {cache:<10}  {guest_time:<8}  \
         {guest_cpu:<6}  {processes}"
    )
}

fn seconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds / 100_000_000;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_one_processor_between_two_lines() {
        let at = |at_ms, processor_ns| Use {
            at_ms,
            host: Some(Host {
                memory: 100 << 20,
                processor_ns,
            }),
            guest: None,
        };
        let first = at(1000, 0);
        let text = line(&first, None);
        assert!(text.starts_with("100 MiB       0.0 s     -"), "{text}");
        let text = line(&at(3000, 500_000_000), Some(&first));
        assert!(
            text.starts_with("100 MiB       0.5 s     25.0 %  -"),
            "{text}"
        );
        assert_eq!(text.split_whitespace().count(), 11, "{text}");
    }

    #[test]
    fn columns_stand_below_their_names() {
        let full = Use {
            at_ms: 1,
            host: None,
            guest: None,
        };
        let text = line(&full, None);
        let columns: Vec<_> = text.match_indices('-').map(|(at, _)| at).collect();
        let names = ["HOST", "TIME", "CPU", "GUEST", "CACHE", "PROCESSES"];
        let at: Vec<_> = names.iter().filter_map(|name| HEADER.find(name)).collect();
        assert!(
            at.iter().all(|at| columns.contains(at)),
            "{columns:?}, {at:?}"
        );
    }
}
