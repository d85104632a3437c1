//! `opengcs vm logs`: what a VM's console and its monitor say.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use opengcs_monitor::proto::logs_request::Source;
use opengcs_monitor::{Client, Folders, Follow, Looked, Name};
use serde::Serialize;

use crate::context::Context;
use crate::output::{self, Data, Output};

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
  opengcs vm logs build --log console
  opengcs vm logs build --tail 20

JSON: a line {log: console, monitor or agent, line} for each line of a log; bytes that are not UTF-8
are replaced in it.")]
pub(super) struct Logs {
    /// The VM's name
    name: Name,
    /// Go on with what the logs get, until the VM ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of each log, and with -f what comes after them
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
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
        let form = if context.json {
            Form::Json
        } else if sources.len() == 1 {
            Form::Plain
        } else {
            Form::Named
        };
        let mut lines = Lines::new(output::data(context.stop.flag())?, form);
        match Client::look_for(&folders, &self.name).await? {
            Looked::Living(mut client) => {
                let mut pieces = client.logs(&sources, self.follow, self.tail).await?;
                while let Some(piece) = pieces.next().await? {
                    lines.print(piece.source(), &piece.data)?;
                }
            }
            Looked::Ended(_, folder) => {
                let mut logs = Follow::new(&folder, sources);
                if let Some(lines) = self.tail {
                    logs = logs.last(lines);
                }
                while let Some((source, data)) = logs.next(PIECE) {
                    lines.print(source, &data)?;
                }
            }
        }
        lines.finish()?;
        Ok(0)
    }
}

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As they come: not even in lines.
    Plain,
    /// With the name of their log before each.
    Named,
    Json,
}

/// Lines of several logs: each is printed when it is whole.
struct Lines {
    out: Output<Data>,
    form: Form,
    pending: [Vec<u8>; 3],
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    log: &'static str,
    line: &'a str,
}

impl Lines {
    fn new(out: Output<Data>, form: Form) -> Self {
        Self {
            out,
            form,
            pending: [const { Vec::new() }; 3],
        }
    }

    fn print(&mut self, source: Source, data: &[u8]) -> Result<()> {
        let written = if self.form == Form::Plain {
            self.out.write_all(data)
        } else {
            let (name, pending) = of(&mut self.pending, source);
            pending.extend_from_slice(data);
            let whole = pending.iter().rposition(|byte| *byte == b'\n');
            let whole: Vec<u8> = pending.drain(..whole.map_or(0, |end| end + 1)).collect();
            let mut lines = Vec::with_capacity(whole.len());
            whole
                .split_inclusive(|byte| *byte == b'\n')
                .try_for_each(|line| self.form.add(name, line, &mut lines))
                .and_then(|()| self.out.write_all(&lines))
        };
        written.context("cannot write to stdout")
    }

    /// Prints what had no end of its line.
    fn finish(&mut self) -> Result<()> {
        for source in [Source::Console, Source::Monitor, Source::Agent] {
            if !of(&mut self.pending, source).1.is_empty() {
                self.print(source, b"\n")?;
            }
        }
        Ok(())
    }
}

impl Form {
    /// Adds a line of the log `name` to `lines`.
    fn add(self, name: &'static str, line: &[u8], lines: &mut Vec<u8>) -> io::Result<()> {
        if self == Self::Json {
            let text = String::from_utf8_lossy(line);
            let line = Line {
                log: name,
                line: text.trim_end_matches(['\r', '\n']),
            };
            serde_json::to_writer(&mut *lines, &line)?;
            return lines.write_all(b"\n");
        }
        write!(lines, "{name:<7} | ")?;
        lines.write_all(line)
    }
}

/// The name of a log, and what it has of a line that is not whole.
fn of(pending: &mut [Vec<u8>; 3], source: Source) -> (&'static str, &mut Vec<u8>) {
    let [console, monitor, agent] = pending;
    match source {
        Source::Console => ("console", console),
        Source::Agent => ("agent", agent),
        Source::Monitor | Source::Unspecified => ("monitor", monitor),
    }
}
