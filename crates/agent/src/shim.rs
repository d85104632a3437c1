//! Who looks after one process of a container: has the runtime make it, carries its streams, and
//! ends with its exit code.
//!
//! ```text
//!   agent ──start──► shim ──► runtime create or exec ──► the process
//!     ◄── number ───┘ │ (a subreaper: the process becomes its child when the runtime has ended)
//!     ── streams ────►│ pipes or terminal ◄──► connections to the host
//!     ◄── exit code ──┘ the shim's own
//! ```
//!
//! Runtimes leave their containers to whoever reaps orphans. In the agent that would take exit codes
//! from under those who wait for their own children, so that each process has a shim of its own.

pub(crate) mod message;
mod streams;

use std::{
    fs,
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, set_child_subreaper,
        wait,
    },
    termios::tcsetwinsize,
};

use self::{
    message::{FromAgent, FromShim, Start},
    streams::{Process, Relays},
};
use crate::serve::winsize;

/// The exit code of a shim whose process did not come up.
const NOT_STARTED: i32 = 127;

/// What is kept of what a runtime says when it fails, in bytes.
const LONGEST_REASON: u64 = 2048;

/// Runs as a shim: its standard input is the socket to the agent. It does not return.
///
/// # Errors
/// The agent has gone, or says what makes no sense.
pub(crate) fn run() -> Result<(), String> {
    let control = control().map_err(|error| format!("take the agent's socket: {error}"))?;
    set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("become a subreaper: {error}"))?;
    let (first, connections) = message::receive(&control).map_err(|error| error.to_string())?;
    let FromAgent::Start(start) = first else {
        return Err("the agent's first word is not to start".to_owned());
    };
    let (pid, process) = match begin(&start) {
        Ok(begun) => begun,
        Err(why) => {
            let _ = message::send(&control, &FromShim::Failed(why), &[]);
            std::process::exit(NOT_STARTED);
        }
    };
    let relays = Arc::new(Relays::new(process).map_err(|error| error.to_string())?);
    if let Some(streams) = start.streams {
        relays.begin(message::three(streams, connections));
    }
    let handle = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| format!("watch process {pid}: {error}"))?;
    let number = pid.as_raw_nonzero().get().unsigned_abs();
    message::send(&control, &FromShim::Started(number), &[handle.as_fd()])
        .map_err(|error| format!("tell the agent of process {pid}: {error}"))?;
    {
        let relays = Arc::clone(&relays);
        std::thread::spawn(move || {
            obey(&control, &relays);
            // A process that nobody looks after any more ends, and this one with it.
            let _ = pidfd_send_signal(handle, Signal::KILL);
        });
    }
    let code = reap(pid);
    relays.finish();
    std::process::exit(code)
}

/// The socket to the agent, which no child inherits.
fn control() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

/// Serves the agent until it has gone.
fn obey(control: &OwnedFd, relays: &Relays) {
    loop {
        let Ok((message, connections)) = message::receive(control) else {
            return;
        };
        match message {
            FromAgent::Streams(streams) => {
                relays.begin(message::three(streams, connections));
                let _ = message::send(control, &FromShim::Connected, &[]);
            }
            FromAgent::Resize { rows, columns } => {
                if let Some(terminal) = relays.terminal() {
                    let _ = tcsetwinsize(terminal, winsize(rows, columns));
                }
            }
            FromAgent::Start(_) => {}
        }
    }
}

/// Has the runtime make the process. Gives its number and our side of its streams.
fn begin(start: &Start) -> Result<(Pid, Process), String> {
    let (program, arguments) = start.words.split_first().ok_or("there is no runtime")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/");
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    let process = if let Some(socket) = &start.console_socket {
        let listener =
            UnixListener::bind(socket).map_err(|error| failed("listen for the terminal", error))?;
        command.stdin(Stdio::null());
        command.stdout(Stdio::null());
        command.stderr(Stdio::null());
        let outcome = run_runtime(&mut command, &start.log);
        let _ = fs::remove_file(socket);
        outcome?;
        let terminal = message::terminal(&listener)
            .map_err(|error| failed("take the terminal from the runtime", error))?;
        Process::Terminal(terminal)
    } else {
        let wanted = start.streams.unwrap_or([true; 3]);
        let pipes = streams::pipes(&mut command, wanted)
            .map_err(|error| failed("make the pipes of a process", error))?;
        let outcome = run_runtime(&mut command, &start.log);
        // The process alone holds its side now.
        drop(command);
        outcome?;
        pipes
    };
    let text = fs::read_to_string(&start.pid_file)
        .map_err(|error| failed("read the process's number", error))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("the runtime gave {text:?} for a number"))?;
    Ok((pid, process))
}

/// How willingly the kernel ends this process when memory is short. What it starts has the same.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

fn run_runtime(command: &mut Command, log: &Path) -> Result<(), String> {
    // Ours is the agent's, whom the kernel spares. A container that it spared as well could never be
    // held to its memory.
    let ours = fs::read(OOM_SCORE);
    let _ = fs::write(OOM_SCORE, "0");
    let spawned = command.spawn();
    if let Ok(ours) = ours {
        let _ = fs::write(OOM_SCORE, ours);
    }
    let status = spawned
        .and_then(|mut child| child.wait())
        .map_err(|error| {
            let program = command.get_program().to_string_lossy();
            format!("run {program}: {error}")
        })?;
    if status.success() {
        return Ok(());
    }
    Err(reason(log, &status.to_string()))
}

/// What a runtime wrote to its log, in one line; what is known without it when there is none.
pub(crate) fn reason(log: &Path, otherwise: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(log) {
        let mut bytes = Vec::new();
        let _ = file.take(LONGEST_REASON).read_to_end(&mut bytes);
        text = String::from_utf8_lossy(&bytes).trim().replace('\n', "; ");
    }
    if text.is_empty() {
        format!("the runtime failed with {otherwise} and said nothing")
    } else {
        format!("the runtime failed: {text}")
    }
}

/// Reaps orphans until the process has ended. Gives its exit code: 128 + n after signal n.
fn reap(process: Pid) -> i32 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == process => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return signal.or(status.exit_status()).unwrap_or(255);
            }
            // An orphan of the container's.
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 255,
        }
    }
}
