//! `opengcs vm logs`: what a VM's console and its monitor say.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use opengcs_monitor::proto::logs_request::Source;
use opengcs_monitor::{Client, Folders, Follow, Looked, Name};

use crate::context::Context;
use crate::output;

/// Bytes read at once of a VM that has ended.
const PIECE: usize = 64 << 10;

/// Show what a VM's console and its monitor have said
///
/// Of several logs each line begins with the name of its log; a single one comes as it is. The end of the
/// logs of a VM that has ended by itself is kept too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm logs build
  opengcs vm logs -f build
  opengcs vm logs build --log console")]
pub(super) struct Logs {
    /// The VM's name
    name: Name,
    /// Go on with what the logs get, until the VM ends
    #[arg(short, long)]
    follow: bool,
    /// Which log; may be given again. Without it: console and monitor
    #[arg(long, value_name = "LOG")]
    log: Vec<Log>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    /// The VM's console
    Console,
    /// The monitor's own log
    Monitor,
    /// The log of the agent in the VM
    Agent,
}

impl Log {
    fn source(self) -> Source {
        match self {
            Self::Console => Source::Console,
            Self::Monitor => Source::Monitor,
            Self::Agent => Source::Agent,
        }
    }
}

impl Logs {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        let sources: Vec<_> = self.log.iter().map(|log| log.source()).collect();
        let mut lines = Lines::new(sources.len() != 1);
        match Client::look_for(&folders, &self.name).await? {
            Looked::Living(mut client) => {
                let mut pieces = client.logs(&sources, self.follow).await?;
                while let Some(piece) = pieces.next().await? {
                    lines.print(piece.source(), &piece.data)?;
                }
            }
            Looked::Ended(_, folder) => {
                let mut logs = Follow::new(&folder, sources);
                while let Some((source, data)) = logs.next(PIECE) {
                    lines.print(source, &data)?;
                }
            }
        }
        lines.finish()?;
        Ok(0)
    }
}

/// Lines of several logs: each is printed when it is whole.
struct Lines {
    named: bool,
    pending: [Vec<u8>; 3],
}

impl Lines {
    fn new(named: bool) -> Self {
        Self {
            named,
            pending: [const { Vec::new() }; 3],
        }
    }

    fn print(&mut self, source: Source, data: &[u8]) -> Result<()> {
        let mut out = output::stdout();
        let printed = if self.named {
            let (name, pending) = self.of(source);
            pending.extend_from_slice(data);
            let whole = pending.iter().rposition(|byte| *byte == b'\n');
            let lines: Vec<u8> = pending.drain(..whole.map_or(0, |end| end + 1)).collect();
            lines
                .split_inclusive(|byte| *byte == b'\n')
                .try_for_each(|line| write!(out, "{name} ").and_then(|()| out.write_all(line)))
        } else {
            out.write_all(data)
        };
        printed
            .and_then(|()| out.flush())
            .context("cannot write to stdout")
    }

    /// Prints what had no end of its line.
    fn finish(&mut self) -> Result<()> {
        for source in [Source::Console, Source::Monitor, Source::Agent] {
            if !self.of(source).1.is_empty() {
                self.print(source, b"\n")?;
            }
        }
        Ok(())
    }

    fn of(&mut self, source: Source) -> (&'static str, &mut Vec<u8>) {
        let [console, monitor, agent] = &mut self.pending;
        match source {
            Source::Console => ("console |", console),
            Source::Agent => ("agent   |", agent),
            Source::Monitor | Source::Unspecified => ("monitor |", monitor),
        }
    }
}
