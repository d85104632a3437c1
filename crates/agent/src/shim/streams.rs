//! A process's streams in its shim: pipes or a terminal on one side, the host on the other.
//!
//! They are pipes and not the connections themselves because programs open `/dev/stdout` again,
//! which a socket refuses, and because a container's first process is made before the host says
//! where its streams go.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    net::{Shutdown, shutdown},
};

use super::message::Which;
use crate::{relay, serve::relay_terminal_input};

/// Our side of a process's streams.
pub(super) enum Process {
    Terminal(OwnedFd),
    Pipes {
        stdin: Option<PipeWriter>,
        stdout: Option<PipeReader>,
        stderr: Option<PipeReader>,
    },
}

/// Gives a command pipes for the streams that are wanted, and nothing for the others.
pub(super) fn pipes(command: &mut Command, wanted: Which) -> io::Result<Process> {
    let [stdin, stdout, stderr] = wanted;
    let mut ours = (None, None, None);
    command.stdin(Stdio::null());
    command.stdout(Stdio::null());
    command.stderr(Stdio::null());
    if stdin {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::from(reader));
        ours.0 = Some(writer);
    }
    if stdout {
        let (reader, writer) = io::pipe()?;
        command.stdout(Stdio::from(writer));
        ours.1 = Some(reader);
    }
    if stderr {
        let (reader, writer) = io::pipe()?;
        command.stderr(Stdio::from(writer));
        ours.2 = Some(reader);
    }
    let (stdin, stdout, stderr) = ours;
    Ok(Process::Pipes {
        stdin,
        stdout,
        stderr,
    })
}

/// The threads that carry bytes.
pub(super) struct Relays {
    process: Mutex<Option<Process>>,
    terminal: Option<Arc<OwnedFd>>,
    outputs: Mutex<Vec<JoinHandle<()>>>,
    /// Readable once the process has ended.
    ended: Arc<OwnedFd>,
}

impl Relays {
    pub(super) fn new(process: Process) -> io::Result<Self> {
        let (process, terminal) = match process {
            Process::Terminal(terminal) => (None, Some(Arc::new(terminal))),
            pipes @ Process::Pipes { .. } => (Some(pipes), None),
        };
        Ok(Self {
            process: Mutex::new(process),
            terminal,
            outputs: Mutex::default(),
            ended: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?),
        })
    }

    /// The terminal, if it has one.
    pub(super) fn terminal(&self) -> Option<&OwnedFd> {
        self.terminal.as_deref()
    }

    /// Begins to carry, with the connections that there are. What has none goes nowhere.
    pub(super) fn begin(&self, connections: [Option<OwnedFd>; 3]) {
        let [host_in, host_out, host_err] = connections;
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terminal) = &self.terminal {
            if let Some(host) = host_in {
                let terminal = Arc::clone(terminal);
                std::thread::spawn(move || relay_terminal_input(&host, &terminal));
            }
            // A terminal has one output: the host sees the end of the other at once.
            drop(host_err);
            outputs.push(self.output(Arc::clone(terminal), host_out));
            return;
        }
        let process = self
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Process::Pipes {
            stdin,
            stdout,
            stderr,
        }) = process
        else {
            return;
        };
        if let (Some(stdin), Some(host)) = (stdin, host_in) {
            let stdin = OwnedFd::from(stdin);
            std::thread::spawn(move || {
                let _ = relay::input(&host, &stdin);
                // The process sees the end, and a host that goes on to send sees that too.
                drop(stdin);
                let _ = shutdown(&host, Shutdown::Both);
            });
        }
        for (from, host) in [(stdout, host_out), (stderr, host_err)] {
            if let Some(from) = from {
                outputs.push(self.output(Arc::new(OwnedFd::from(from)), host));
            }
        }
    }

    fn output(&self, from: Arc<OwnedFd>, host: Option<OwnedFd>) -> JoinHandle<()> {
        let ended = Arc::clone(&self.ended);
        std::thread::spawn(move || {
            relay::output(&from, host.as_ref(), &ended);
            if let Some(host) = &host {
                let _ = shutdown(host, Shutdown::Write);
            }
        })
    }

    /// The process has ended: waits until all that it wrote is with the host.
    pub(super) fn finish(&self) {
        let _ = rustix::io::write(&*self.ended, &1u64.to_ne_bytes());
        let outputs =
            std::mem::take(&mut *self.outputs.lock().unwrap_or_else(PoisonError::into_inner));
        for output in outputs {
            let _ = output.join();
        }
    }
}
