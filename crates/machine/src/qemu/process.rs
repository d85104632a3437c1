//! Decides how QEMU's process lives and dies: it never outlives us.
//!
//! - A thread of its own starts QEMU, waits for it and reaps it. The kernel sends QEMU SIGKILL when that
//!   thread ends (`PR_SET_PDEATHSIG`), which is when QEMU has ended or our whole process has, however that
//!   happened. A thread of a runtime's pool could end sooner.
//! - Signals go through a pidfd, so they can never reach a stranger with a recycled process id.
//! - QEMU has a process group of its own: a Ctrl-C at the terminal is the owner's to handle.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use super::output::Output;
use crate::console::ConsoleFile;

/// A running or ended QEMU.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: u32,
    handle: OwnedFd,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `command`, which keeps `inherited` open under their numbers.
    pub(crate) async fn spawn(
        mut command: Command,
        inherited: Vec<OwnedFd>,
        output: Output,
        console: UnixStream,
        file: ConsoleFile,
    ) -> io::Result<Self> {
        let (tell, told) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let work = move || {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .process_group(0);
            let borrowed: Vec<_> = inherited.iter().map(AsFd::as_fd).collect();
            crate::sys::child::tie(&mut command, &borrowed);
            let started = command.spawn().and_then(|child| {
                let id = i32::try_from(child.id()).map_err(io::Error::other)?;
                let pid = rustix::process::Pid::from_raw(id).ok_or(io::ErrorKind::NotFound)?;
                let handle = pidfd_open(pid, PidfdFlags::empty())?;
                Ok((child, handle))
            });
            drop(borrowed);
            drop(inherited);
            let mut child = match started {
                Ok((child, handle)) => {
                    let id = child.id();
                    // If nobody waits for the answer, the handle is dropped and QEMU must go.
                    if tell.send(Ok((id, handle))).is_err() {
                        let mut child = child;
                        let _ = child.kill();
                        let _ = child.wait();
                        return;
                    }
                    child
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            if let Some(stderr) = child.stderr.take() {
                // Ends when QEMU, the only holder of the other ends, does.
                output.record(stderr, console, file);
            }
            let status = child.wait();
            let _ = end.send(Some(status.unwrap_or_default()));
        };
        std::thread::Builder::new()
            .name("qemu-owner".to_owned())
            .spawn(work)?;
        let (id, handle) = told.await.map_err(io::Error::other)??;
        Ok(Self { id, handle, ended })
    }

    /// Sends a signal; one to a process that has ended goes nowhere.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Waits for the end, and for the last of its output to be recorded.
    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // The owner thread is gone without a word: QEMU was killed with it.
            Err(_) => ExitStatus::default(),
        }
    }

    pub(crate) async fn wait_for(&self, time: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(time, self.wait()).await.ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Whether the process is stopped (SIGSTOP) and so will not answer.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap_or_default();
        // The name in parentheses may hold anything.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    }

    /// Kills it and waits a moment for the kernel to have done so. Blocks.
    pub(crate) fn kill_now(&self) {
        self.signal(Signal::KILL);
        let mut polled = [rustix::event::PollFd::new(
            &self.handle,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec {
            tv_sec: 2,
            tv_nsec: 0,
        };
        let _ = rustix::event::poll(&mut polled, Some(&limit));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill_now();
        }
    }
}
