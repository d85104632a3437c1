//! `opengcs exec`: a process in a VM that runs already.

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs::Signal;
use opengcs_monitor::{
    Client, ErrorKind, Event, Exec as Process, ExecControl, Folders, Name, proto,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::process_options::{self, ProcessOptions};
use crate::context::Context;
use crate::detach_keys::DetachKeys;
use crate::events;
use crate::failure::Code;
use crate::output;
use crate::stdio;
use crate::sys::{OtherSignals, Resized, Terminal};

/// Bytes of stdin that are sent at once.
const CHUNK: usize = 64 << 10;

/// Run a command in a VM that `opengcs vm start` has started
///
/// Its output comes out here, and the exit code is its own. Signals (HUP, INT, QUIT, TERM, USR1, USR2) are
/// handed on to it. When this command is killed, the command in the VM is hung up, and killed if it does
/// not end of that.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs exec build -- uname -a
  opengcs exec -it build -- sh
  tar c . | opengcs exec -i build -- tar x -C /mnt/data
  opengcs exec -u 1000:1000 -w /tmp build -- id
  opengcs exec --detach build -- sleep 1000

Exit codes: the command's own; 128+n when signal n ended it; 125 opengcs failed, 126 the command
cannot be run, 127 it is not in the VM, 2 wrong usage. After the detach keys it is 0.

Who was detached from cannot be attached to again: `opengcs vm inspect` lists it, and
`opengcs exec build -- kill NUMBER` ends it.

JSON: {name, process: its number in the VM, exit_code: null if it goes on}; on stderr when stdout has
the command's output, which comes as it is.")]
pub(crate) struct Exec {
    /// The VM's name
    name: Name,
    #[command(flatten)]
    process: ProcessOptions,
    /// With -it: the keys after which the command goes on alone; its output then goes nowhere
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Let the command go on alone from its start, and print its number in the VM
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    name: &'a str,
    process: u32,
    /// Nothing when the process goes on.
    exit_code: Option<u8>,
}

/// Why nobody looks at the process any more.
enum Left {
    Exited(u32),
    Detached,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        if !self.detach {
            self.process.check()?;
        }
        let folders = Folders::of(&context.environment)?;
        let start = self.start()?;
        let started = async {
            let mut client = Client::connect(&folders, &self.name).await?;
            client.exec(start).await.map_err(|error| {
                let not_found = error.kind() == ErrorKind::NotFound;
                let code = process_options::failure_code(not_found, &error.to_string());
                anyhow::Error::new(error).context(Code(code))
            })
        };
        let process = context.unless_stopped(started).await?;
        let id = process.id();
        let done = |exit_code| Done {
            name: self.name.as_str(),
            process: id,
            exit_code,
        };
        if self.detach {
            if context.json {
                events::done(&done(None))?;
            } else {
                output::print(format_args!("{id}"))?;
            }
            return Ok(0);
        }
        match self.attend(process, context).await? {
            Left::Exited(code) => {
                let code = process_options::exit_code(code);
                context.done_beside_data(&done(Some(code)));
                Ok(code)
            }
            Left::Detached => {
                context.done_beside_data(&done(None));
                if !context.quiet && !context.json {
                    output::note(format_args!(
                        "\ndetached: process {id} of {} goes on",
                        self.name
                    ));
                }
                Ok(0)
            }
        }
    }

    fn start(&self) -> Result<proto::ExecStart> {
        let process = &self.process;
        let size = process.tty.then(Terminal::size).flatten();
        let (rows, columns) = size.unwrap_or_default();
        Ok(proto::ExecStart {
            command: self.command.clone(),
            environment: process.environment()?.into_iter().collect(),
            folder: process.workdir.clone(),
            user: process.user.clone().unwrap_or_default(),
            stdin: process.interactive,
            terminal: process.tty,
            rows: rows.into(),
            columns: columns.into(),
            detached: self.detach,
        })
    }

    /// Carries the streams and the signals until the process ends, or is let go.
    async fn attend(&self, mut process: Process, context: &Context) -> Result<Left> {
        let taken = context.stop.take_over();
        let control = process.control();
        let input = process.take_input();
        // What is typed is the command's from here on, Ctrl-C too.
        let keys_apart = self.process.tty && self.process.interactive;
        let raw = keys_apart.then(Terminal::raw);
        let typing = async {
            let Some(input) = input else {
                return std::future::pending().await;
            };
            let mut stdin = stdio::Stdin::open(true, context)?;
            let mut keys = keys_apart.then(|| self.detach_keys.clone());
            let mut chunk = vec![0; CHUNK];
            loop {
                let count = stdin
                    .read(&mut chunk)
                    .await
                    .context("cannot read from stdin")?;
                let read = chunk.get(..count).unwrap_or_default();
                let (mut bytes, mut detached) = (Vec::new(), false);
                match &mut keys {
                    Some(keys) if count == 0 => bytes.extend_from_slice(keys.rest()),
                    Some(keys) => detached = keys.feed(read, &mut bytes),
                    None => bytes.extend_from_slice(read),
                }
                if !bytes.is_empty() && !input.send(bytes.into()).await {
                    return std::future::pending().await;
                }
                if detached {
                    return Ok(input);
                }
                if count == 0 {
                    drop(input);
                    return std::future::pending().await;
                }
            }
        };
        let left = tokio::select! {
            left = show(&mut process) => left,
            // Its input stays open until the monitor has let it go.
            input = typing => match input {
                Ok(_input) => control.detach().await.map(|()| Left::Detached).map_err(Into::into),
                Err(error) => Err(error),
            },
            () = hand_on(taken, &control, self.process.tty) => unreachable!("it goes on for ever"),
        };
        drop(raw);
        left
    }
}

/// Writes what the process says, until it ends.
async fn show(process: &mut Process) -> Result<Left> {
    let (mut stdout, mut stderr) = (stdio::stdout(), stdio::stderr());
    loop {
        match process.next().await? {
            Event::Stdout(bytes) => {
                stdout
                    .write_all(&bytes)
                    .await
                    .context("cannot write to stdout")?;
                stdout.flush().await.context("cannot write to stdout")?;
            }
            Event::Stderr(bytes) => {
                stderr
                    .write_all(&bytes)
                    .await
                    .context("cannot write to stderr")?;
                stderr.flush().await.context("cannot write to stderr")?;
            }
            Event::Exited(code) => return Ok(Left::Exited(code)),
        }
    }
}

/// Hands signals on, and the size of the terminal, for as long as it is polled.
async fn hand_on(mut taken: mpsc::UnboundedReceiver<u8>, control: &ExecControl, tty: bool) {
    let mut others = OtherSignals::listen();
    let mut resized = Resized::listen();
    loop {
        let told = tokio::select! {
            Some(signal) = taken.recv() => control.signal(Signal::from(i32::from(signal))).await,
            signal = others.next() => control.signal(Signal::from(i32::from(signal))).await,
            true = resized.next(), if tty => match Terminal::size() {
                Some((rows, columns)) => control.resize(rows, columns).await,
                None => Ok(()),
            },
            else => return std::future::pending().await,
        };
        if let Err(error) = told {
            // It has just ended, as a rule.
            tracing::debug!(%error, "the process was not told");
        }
    }
}
