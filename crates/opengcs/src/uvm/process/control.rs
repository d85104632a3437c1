//! How a process is started, known of, signalled and ended, its streams apart.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opengcs_bridge::WAIT_FOREVER;
use opengcs_bridge::message::{
    ExecuteRequest, ExecuteSettings, Nested, ProcessParameters, Request, RequestBase,
    ResizeRequest, Response, SignalOptions, SignalRequest, StdioPorts, WaitRequest,
};
use tokio::sync::{oneshot, watch};

use super::{ExitStatus, Signal};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::uvm::link::Link;
use crate::uvm::{Inner, kind_of_refusal, unexpected};

/// How it ended, or why nobody knows.
type Outcome = Result<ExitStatus, (ErrorKind, String)>;

/// A process without its streams: to signal it, to resize its terminal and to wait for it from
/// anywhere. Copies are of the same process, and dropping one does nothing to it.
#[derive(Clone)]
pub struct ProcessHandle {
    /// To whom requests about it go: the VM, or its container.
    base: RequestBase,
    pub(super) id: u32,
    pub(super) command: String,
    link: Link,
    pub(super) limit: Duration,
    pub(super) environment: Environment,
    pub(super) exit: watch::Receiver<Option<Outcome>>,
}

/// The part of a [`Process`](super::Process) without its streams.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) handle: ProcessHandle,
    pub(super) kill_on_drop: bool,
}

impl fmt::Debug for ProcessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.id, self.command)
    }
}

/// Has the agent start what `request` says. The exchange goes on when the future is dropped: a process
/// that nobody has asked for any more is killed, and not left alone in the guest.
pub(super) async fn start(inner: &Arc<Inner>, request: Request, shown: String) -> Result<Control> {
    let (tell, told) = oneshot::channel();
    let base = request.base().clone();
    let task = {
        let (inner, shown) = (Arc::clone(inner), shown.clone());
        tokio::spawn(async move {
            let outcome = inner.link.request(&request, Some(inner.timeout())).await;
            let started = outcome.and_then(|response| match response {
                Response::Executed(response) => Ok(response.process_id),
                _ => Err(unexpected("ExecuteProcess")),
            });
            let control = started.map(|id| Control::new(&inner, base, id, shown));
            // A control that nobody takes kills its process when it is dropped.
            drop(tell.send(control));
        })
    };
    inner.keep(task.abort_handle());
    let started = told.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::MachineEnded,
            "the VM was dropped by its owner",
        ))
    });
    started.map_err(|error| {
        Error::new(error.kind(), format!("cannot run {shown:?} in the VM")).caused_by(error)
    })
}

/// Waits in the guest until the process ends; over every reconnection, because processes outlive
/// connections.
async fn wait_for(link: Link, base: RequestBase, id: u32, exit: watch::Sender<Option<Outcome>>) {
    let request = Request::WaitForProcess(WaitRequest {
        base,
        process_id: id,
        timeout_in_ms: WAIT_FOREVER,
    });
    let outcome = loop {
        match link.request(&request, None).await {
            Ok(Response::Exited(response)) => {
                break Ok(ExitStatus {
                    code: response.exit_code,
                });
            }
            Ok(_) => break Err((ErrorKind::Protocol, unexpected("WaitForProcess").report())),
            Err(error) if error.kind() == ErrorKind::ConnectionLost => {}
            Err(error) => break Err((error.kind(), error.report())),
        }
    };
    exit.send_replace(Some(outcome));
}

fn signal_request(base: RequestBase, id: u32, signal: Signal) -> Request {
    Request::SignalProcess(SignalRequest {
        base,
        process_id: id,
        options: SignalOptions {
            signal: signal.number(),
        },
    })
}

/// Signals a process by the guest's own `kill`. Gives whether that went well.
async fn kill_in_guest(link: &Link, id: u32, signal: Signal, limit: Duration) -> bool {
    let command = [
        "kill".to_owned(),
        format!("-{}", signal.number()),
        id.to_string(),
    ];
    let execute = Request::ExecuteProcess(ExecuteRequest {
        base: RequestBase::utility_vm(),
        settings: ExecuteSettings {
            process_parameters: Nested(ProcessParameters {
                command_args: command.to_vec(),
                environment: BTreeMap::from([(
                    "PATH".to_owned(),
                    super::spec::USUAL_PATH.to_owned(),
                )]),
                create_in_utility_vm: true,
                ..ProcessParameters::default()
            }),
            stdio: StdioPorts::default(),
        },
    });
    let Ok(Response::Executed(started)) = link.request(&execute, Some(limit)).await else {
        return false;
    };
    let wait = Request::WaitForProcess(WaitRequest {
        base: RequestBase::utility_vm(),
        process_id: started.process_id,
        timeout_in_ms: WAIT_FOREVER,
    });
    matches!(
        link.request(&wait, Some(limit)).await,
        Ok(Response::Exited(exited)) if exited.exit_code == 0
    )
}

impl Control {
    /// Watches a process that has been started, and kills it when dropped, until told otherwise.
    fn new(inner: &Inner, base: RequestBase, id: u32, command: String) -> Self {
        let (sender, exit) = watch::channel(None);
        let waiter = wait_for(inner.link.clone(), base.clone(), id, sender);
        inner.keep(tokio::spawn(waiter).abort_handle());
        Self {
            handle: ProcessHandle {
                base,
                id,
                command,
                link: inner.link.clone(),
                limit: inner.timeout(),
                environment: inner.config.environment.clone(),
                exit,
            },
            kill_on_drop: true,
        }
    }
}

impl ProcessHandle {
    /// Its id in the VM.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// The VM has ended, or the agent no longer knows the process.
    pub async fn wait(&self) -> Result<ExitStatus> {
        let mut exit = self.exit.clone();
        let outcome = match exit.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        self.known(outcome.unwrap_or_else(|| {
            Err((
                ErrorKind::MachineEnded,
                "the VM was dropped by its owner".into(),
            ))
        }))
    }

    /// Kills it (SIGKILL), and with it what it has started as far as that is still in its process
    /// group. A process that has ended is left alone.
    ///
    /// # Errors
    /// The agent does not serve that, or the VM has ended.
    pub async fn kill(&self) -> Result<()> {
        if self.exit.borrow().is_some() {
            return Ok(());
        }
        match self.signal(Signal::KILL).await {
            // It ended in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Sends it a signal, by name or number.
    ///
    /// # Errors
    /// There is no such signal, the process has ended, the agent does not serve that, or the VM has
    /// ended.
    pub async fn signal(&self, signal: impl Into<Signal>) -> Result<()> {
        let signal = signal.into();
        signal.check()?;
        let request = signal_request(self.base.clone(), self.id, signal);
        match self.ask(&request, "signal").await {
            // Some agents signal only what runs in containers.
            Err(error) if error.kind() == ErrorKind::Unsupported && self.base.is_utility_vm() => {
                if kill_in_guest(&self.link, self.id, signal, self.limit).await {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            outcome => outcome,
        }
    }

    /// Tells its terminal how large the user's is, in characters.
    ///
    /// # Errors
    /// It has no terminal, the agent does not serve that, or the VM has ended.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let request = Request::ResizeConsole(ResizeRequest {
            base: self.base.clone(),
            process_id: self.id,
            height: rows,
            width: columns,
        });
        self.ask(&request, "resize the terminal of").await
    }

    /// Why the process ended without a status, when that turns out within a moment: a stream that
    /// breaks is often the first sign of a VM that has died.
    pub(super) async fn why_ended(&self) -> Option<Error> {
        const MOMENT: Duration = Duration::from_secs(2);
        tokio::time::timeout(MOMENT, self.wait()).await.ok()?.err()
    }

    pub(super) fn known(&self, outcome: Outcome) -> Result<ExitStatus> {
        outcome.map_err(|(kind, why)| {
            Error::new(
                kind,
                format!("how {:?} ended is not known: {why}", self.command),
            )
        })
    }

    async fn ask(&self, request: &Request, what: &str) -> Result<()> {
        match self.link.request(request, Some(self.limit)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(
                kind_of_refusal(&error),
                format!("cannot {what} process {} ({})", self.id, self.command),
            )
            .caused_by(error)),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if !self.kill_on_drop || self.handle.exit.borrow().is_some() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let handle = self.handle.clone();
            runtime.spawn(async move {
                if let Err(error) = handle.kill().await {
                    tracing::debug!(%error, "a process that nobody waits for was not killed");
                }
            });
        }
    }
}
