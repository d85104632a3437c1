//! Running a process to its end with its three streams moving together.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::{ExitStatus, Process, ProcessSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::uvm::UtilityVm;
use crate::uvm::copy::{CopyError, DataLog, copy};

/// What a process wrote and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl UtilityVm {
    /// Runs a process to its end: feeds it `stdin` and writes what it says to `stdout` and `stderr`,
    /// all three at once. Every byte of its outputs is written before this returns.
    ///
    /// ```no_run
    /// # async fn example(vm: opengcs::UtilityVm) -> opengcs::Result<()> {
    /// let mut found = Vec::new();
    /// let status = vm
    ///     .run_process_with("grep -c a", &b"a\nb\na\n"[..], &mut found, tokio::io::sink())
    ///     .await?;
    /// assert!(status.success() && found == b"2\n");
    /// # Ok(()) }
    /// ```
    ///
    /// A process that closes its input early is no failure. Dropping the future kills the process.
    ///
    /// # Errors
    /// As for [`run_process`](Self::run_process), and when `stdin` cannot be read or an output cannot
    /// be written (the process is killed then).
    #[doc(alias = "RunProcess")]
    pub async fn run_process_with(
        &self,
        command: impl Into<ProcessSpec>,
        stdin: impl AsyncRead + Send + Unpin,
        stdout: impl AsyncWrite + Send + Unpin,
        stderr: impl AsyncWrite + Send + Unpin,
    ) -> Result<ExitStatus> {
        let process = self.run_process(command.into().kill_on_drop(true)).await?;
        process.run(stdin, stdout, stderr).await
    }

    /// Runs a process to its end without input and keeps what it wrote, at most `limit` bytes of each
    /// output; the rest is read and dropped.
    ///
    /// # Errors
    /// As for [`run_process`](Self::run_process).
    pub async fn output(&self, command: impl Into<ProcessSpec>, limit: usize) -> Result<Output> {
        let mut stdout = Bounded::new(limit);
        let mut stderr = Bounded::new(limit);
        let status = self
            .run_process_with(
                command.into().stdin(false),
                tokio::io::empty(),
                &mut stdout,
                &mut stderr,
            )
            .await?;
        Ok(Output {
            status,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
        })
    }
}

impl Process {
    /// Runs it to its end: feeds it `stdin` and writes what it says to `stdout` and `stderr`, all
    /// three at once, as far as its streams are still here. Every byte of its outputs is written
    /// before this returns.
    ///
    /// # Errors
    /// `stdin` cannot be read or an output cannot be written (the process is killed then, unless it
    /// is to be kept), or the VM has ended.
    pub async fn run(
        self,
        mut stdin: impl AsyncRead + Send + Unpin,
        mut stdout: impl AsyncWrite + Send + Unpin,
        mut stderr: impl AsyncWrite + Send + Unpin,
    ) -> Result<ExitStatus> {
        let mut process = self;
        let handle = process.handle();
        let (id, environment, command) = (handle.id, &handle.environment, &handle.command);
        let log =
            |name: &str| DataLog::new(format!("{name} of process {id} ({command})"), environment);
        let progress = watch::Sender::new(0_u64);
        let moved = |_| progress.send_modify(|count| *count = count.wrapping_add(1));

        let input = process.stdin.take();
        let (in_log, out_log, err_log) = (log("stdin"), log("stdout"), log("stderr"));
        let feed = async {
            if let Some(mut input) = input {
                match copy(&mut stdin, &mut input, in_log, moved).await {
                    // Like a broken pipe: the process does not want more.
                    Ok(_) | Err(CopyError::Write(_)) => {}
                    Err(CopyError::Read(error)) => return Err(error),
                }
                let _ = input.shutdown().await;
            }
            Ok(())
        };
        let (out, err) = (process.stdout.take(), process.stderr.take());
        let out = drain(out, &mut stdout, out_log, moved);
        let err = drain(err, &mut stderr, err_log, moved);
        let drained = async { tokio::try_join!(out, err).map(drop) };

        tokio::pin!(feed, drained);
        let (mut fed, mut dry) = (false, false);
        let failed = |what: &str, error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("{what} of {command:?} in the VM")).caused_by(error)
        };
        let status = loop {
            tokio::select! {
                status = handle.wait() => break status?,
                outcome = &mut feed, if !fed => {
                    outcome.map_err(|error| failed("cannot read what goes to the standard input", error))?;
                    fed = true;
                }
                outcome = &mut drained, if !dry => {
                    if let Err(error) = outcome {
                        return Err(match error {
                            CopyError::Write(error) => failed("cannot write the output", error),
                            CopyError::Read(error) => handle
                                .why_ended()
                                .await
                                .unwrap_or_else(|| failed("cannot read the output", error)),
                        });
                    }
                    dry = true;
                }
            }
        };
        if !dry {
            // The process has ended; what it wrote is still coming. Its children may hold the
            // streams open for ever, so that silence ends the wait.
            let seen = progress.subscribe();
            tokio::select! {
                outcome = &mut drained => outcome.map_err(|error| match error {
                    CopyError::Write(error) => failed("cannot write the output", error),
                    CopyError::Read(error) => failed("cannot read the output", error),
                })?,
                () = silence(seen, handle.limit) => {
                    tracing::warn!(%command, "its children keep its output open; the wait is given up");
                }
            }
        }
        Ok(status)
    }
}

/// Ends when nothing has moved for `limit`.
pub(in crate::uvm) async fn silence(mut progress: watch::Receiver<u64>, limit: Duration) {
    progress.mark_unchanged();
    while let Ok(Ok(())) = tokio::time::timeout(limit, progress.changed()).await {}
}

async fn drain(
    output: Option<super::ProcessOutput>,
    writer: &mut (impl AsyncWrite + Unpin),
    log: DataLog,
    moved: impl FnMut(u64),
) -> Result<(), CopyError> {
    if let Some(mut output) = output {
        copy(&mut output, writer, log, moved).await?;
    }
    Ok(())
}

/// Keeps the first bytes and takes the rest.
pub(in crate::uvm) struct Bounded {
    pub(in crate::uvm) bytes: Vec<u8>,
    limit: usize,
}

impl Bounded {
    pub(in crate::uvm) fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    pub(in crate::uvm) fn take(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.take(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Reads a stream to its end and keeps its first bytes.
pub(in crate::uvm) async fn read_bounded(
    mut reader: impl AsyncRead + Unpin,
    limit: usize,
) -> Vec<u8> {
    let mut kept = Bounded::new(limit);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = reader.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        kept.take(buffer.get(..count).unwrap_or_default());
    }
    kept.bytes
}
