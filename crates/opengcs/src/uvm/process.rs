//! How a process in the VM is described, started, fed, read and waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use opengcs_bridge::FIRST_STDIO_PORT;
use opengcs_bridge::message::{
    ExecuteRequest, ExecuteSettings, Nested, ProcessParameters, Request, RequestBase, StdioPorts,
};
use opengcs_machine::{Listener, Port, Stream};

use super::{Inner, UtilityVm, machine_error};
use crate::error::{Error, ErrorKind, Result};

mod control;
mod run;
mod signal;
mod spec;
mod stdio;

use control::Control;
pub use control::ProcessHandle;
pub use run::Output;
pub(in crate::uvm) use run::read_bounded;
pub use signal::Signal;
pub use spec::ProcessSpec;
pub use stdio::{ProcessInput, ProcessOutput};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatus {
    code: u32,
}

impl ExitStatus {
    /// The exit code; 128 + n after signal n, or `u32::MAX` from an agent that does not tell which.
    #[must_use]
    pub fn code(self) -> u32 {
        self.code
    }

    /// Whether the code is 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.code == 0
    }

    /// The signal that ended it, as far as the code tells: a program can also exit with such a code.
    #[must_use]
    pub fn signal(self) -> Option<u32> {
        (129..=192).contains(&self.code).then(|| self.code - 128)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal() {
            // What an agent in Go says of a process that a signal ended.
            None if self.code == u32::MAX => write!(f, "a signal that is not known"),
            Some(signal) => write!(f, "exit code {} (signal {signal})", self.code),
            None => write!(f, "exit code {}", self.code),
        }
    }
}

/// A process in the VM.
///
/// Take the streams out to use them in other tasks. A process whose output is connected and that
/// nobody reads stands still when the pipe is full, as anywhere. Dropping the handle closes the
/// streams and kills the process, unless [`ProcessSpec::kill_on_drop`] was told otherwise;
/// [`close`](Self::close) lets it go on.
#[derive(Debug)]
pub struct Process {
    /// Its standard input; closing or dropping it is the process's end of file.
    pub stdin: Option<ProcessInput>,
    /// Its standard output.
    pub stdout: Option<ProcessOutput>,
    /// Its standard error.
    pub stderr: Option<ProcessOutput>,
    control: Control,
}

impl UtilityVm {
    /// Starts a process in the VM.
    ///
    /// ```no_run
    /// # async fn example(vm: opengcs::UtilityVm) -> opengcs::Result<()> {
    /// let mut process = vm.run_process(["sleep", "60"]).await?;
    /// process.kill().await?;
    /// assert_eq!(process.wait().await?.signal(), Some(9));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The command makes no sense, the program is not in the VM or cannot be run, or the VM has
    /// ended.
    #[doc(alias = "RunProcess")]
    pub async fn run_process(&self, command: impl Into<ProcessSpec>) -> Result<Process> {
        let spec = command.into();
        spec.check()?;
        let parameters = spec.parameters()?;
        start(&self.inner, RequestBase::utility_vm(), &spec, parameters).await
    }
}

/// Starts a process of the VM or of a container, and connects its streams.
pub(in crate::uvm) async fn start(
    inner: &Arc<Inner>,
    base: RequestBase,
    spec: &ProcessSpec,
    parameters: ProcessParameters,
) -> Result<Process> {
    inner.link.alive()?;
    let mut listeners = StdioListeners::open(inner, &parameters)?;
    let request = Request::ExecuteProcess(ExecuteRequest {
        base,
        settings: ExecuteSettings {
            process_parameters: Nested(parameters),
            stdio: listeners.ports(),
        },
    });
    let control = control::start(inner, request, spec.shown()).await?;
    // From here on a dropped future kills the process, which nobody would know of otherwise.
    let mut process = Process {
        stdin: None,
        stdout: None,
        stderr: None,
        control,
    };
    let accepted = tokio::time::timeout(inner.timeout(), listeners.accept()).await;
    let [stdin, stdout, stderr] = match accepted {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            return Err(Error::new(
                ErrorKind::ConnectionLost,
                format!("the streams of {:?} did not come up", spec.shown()),
            )
            .caused_by(error));
        }
        Err(_) => {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the agent did not connect the streams of {:?}",
                    spec.shown()
                ),
            ));
        }
    };
    process.stdin = stdin.map(ProcessInput::new);
    process.stdout = stdout.map(ProcessOutput::new);
    process.stderr = stderr.map(ProcessOutput::new);
    process.control.kill_on_drop = spec.kill_on_drop;
    Ok(process)
}

impl Process {
    /// Its id in the VM.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.control.handle.id
    }

    /// The process without its streams, for other tasks.
    #[must_use]
    pub fn handle(&self) -> ProcessHandle {
        self.control.handle.clone()
    }

    /// Waits until it has ended. Its standard input is closed first, if it is still here. Every byte
    /// that it wrote can still be read from its outputs after that.
    ///
    /// # Errors
    /// The VM has ended, or the agent no longer knows the process.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        self.control.handle.wait().await
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let handle = &self.control.handle;
        let outcome = handle.exit.borrow().clone();
        outcome.map(|outcome| handle.known(outcome)).transpose()
    }

    /// As [`ProcessHandle::kill`].
    ///
    /// # Errors
    /// The agent does not serve that, or the VM has ended.
    pub async fn kill(&self) -> Result<()> {
        self.control.handle.kill().await
    }

    /// As [`ProcessHandle::signal`].
    ///
    /// # Errors
    /// There is no such signal, the process has ended, the agent does not serve that, or the VM has
    /// ended.
    pub async fn signal(&self, signal: impl Into<Signal>) -> Result<()> {
        self.control.handle.signal(signal).await
    }

    /// As [`ProcessHandle::resize`].
    ///
    /// # Errors
    /// It has no terminal, the agent does not serve that, or the VM has ended.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.control.handle.resize(rows, columns).await
    }

    /// Closes its streams and lets go of it; it goes on in the VM.
    #[doc(alias = "Close")]
    pub fn close(mut self) {
        self.control.kill_on_drop = false;
    }
}

/// Where the guest will dial for the process's streams.
struct StdioListeners {
    each: [Option<Listener>; 3],
}

impl StdioListeners {
    fn open(inner: &Inner, parameters: &ProcessParameters) -> Result<Self> {
        let wanted = [
            parameters.create_stdin_pipe,
            parameters.create_stdout_pipe,
            parameters.create_stderr_pipe,
        ];
        let mut each = [None, None, None];
        for (listener, wanted) in each.iter_mut().zip(wanted) {
            if wanted {
                *listener = Some(inner.listen_for_stdio()?);
            }
        }
        Ok(Self { each })
    }

    fn ports(&self) -> StdioPorts {
        let [stdin, stdout, stderr] = self
            .each
            .each_ref()
            .map(|listener| listener.as_ref().map_or(0, |listener| listener.port().0));
        StdioPorts {
            stdin,
            stdout,
            stderr,
        }
    }

    async fn accept(&mut self) -> std::io::Result<[Option<Stream>; 3]> {
        let mut streams = [None, None, None];
        for (listener, stream) in self.each.iter_mut().zip(&mut streams) {
            if let Some(listener) = listener {
                *stream = Some(listener.accept().await?);
            }
        }
        Ok(streams)
    }
}

impl Inner {
    fn listen_for_stdio(&self) -> Result<Listener> {
        /// Ports of the streams of processes that still run are passed over.
        const TRIES: usize = 4096;
        let next: &AtomicU32 = &self.next_port;
        for _ in 0..TRIES {
            let port = next.fetch_add(1, Ordering::Relaxed);
            if port < FIRST_STDIO_PORT {
                // It went round.
                next.store(FIRST_STDIO_PORT, Ordering::Relaxed);
                continue;
            }
            match self.machine.listen(Port(port)) {
                Ok(listener) => return Ok(listener),
                Err(error) if error.kind() == opengcs_machine::ErrorKind::PortInUse => {}
                Err(error) => {
                    return Err(machine_error(
                        "cannot listen for a process's streams",
                        error,
                    ));
                }
            }
        }
        Err(Error::new(
            ErrorKind::Io,
            "no port is free for a process's streams",
        ))
    }
}
