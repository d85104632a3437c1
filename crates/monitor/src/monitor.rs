//! The life of a monitor: it starts a VM, answers its clients, and clears up when the VM has ended.
//!
//! ```text
//!   claim the name ─► serve ─► start the VM ─► report ─► be taken over ─► wait ─► stop ─► release ─► answer
//!                                   │                         └ the starter goes ──┘
//!                                   └ fails, or the starter goes: release, report
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opengcs::{Config, Stopped, UtilityVm};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::error::{Error, ErrorKind, Result};
use crate::folder::{Claim, Ended, now_ms};
use crate::logs;
use crate::proto::monitor_server::MonitorServer;
use crate::proto::stop_response::How;
use crate::serve::{Facts, Phase, Service, StopOrder};
use crate::sys::{self, Listener, Socket};
use crate::vm::Vm;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

/// How long answers that are under way may take when the VM has ended.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a VM that nobody asked for by `vm stop` may take to end, as when the host shuts down.
const USUAL_GRACE: Duration = Duration::from_secs(5);
/// A listener that cannot accept, for want of file descriptors perhaps, tries again after this.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of one stream that may be under way; all streams of a client have room for many such, so that no
/// stream that stands still holds up a signal.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all streams of a client that may be under way.
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;

/// What a monitor is told by its surroundings.
pub struct Surroundings<Stop, Taken> {
    /// Ends when this process is asked to end.
    pub stop: Stop,
    /// Whether whoever waits for the VM to come up takes it over when it has; false when they have gone.
    pub taken: Taken,
    /// Where the record of a VM that dies goes.
    pub bundles: Option<PathBuf>,
}

/// How the monitor's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The VM was stopped.
    Stopped,
    /// The VM ended by itself.
    Died,
}

/// Holds a VM from its start to its end. `report` is called once: when the VM has come up, or when it has
/// not; then nothing is left of it.
///
/// # Errors
/// The VM did not come up; what `report` was given.
pub async fn hold(
    claim: Claim,
    mut config: Config,
    surroundings: Surroundings<impl Future<Output = ()>, impl Future<Output = bool>>,
    report: impl FnOnce(std::result::Result<(), &Error>),
) -> Result<Outcome> {
    let folder = claim.path().to_owned();
    config.name = claim.name().to_string();
    config.console_path = Some(logs::console(&folder));
    config.agent_log_path = Some(logs::agent(&folder));
    let facts = Facts::new(claim.name().clone(), folder, &config);
    let start = async move {
        let vm: Arc<dyn Vm> = Arc::new(UtilityVm::start(config).await?);
        Ok(vm)
    };
    hold_this(claim, facts, start, surroundings, report).await
}

/// [`hold`] with a VM of any sort.
async fn hold_this(
    claim: Claim,
    facts: Facts,
    start: impl Future<Output = Result<Arc<dyn Vm>>>,
    surroundings: Surroundings<impl Future<Output = ()>, impl Future<Output = bool>>,
    report: impl FnOnce(std::result::Result<(), &Error>),
) -> Result<Outcome> {
    let Surroundings {
        stop,
        taken,
        bundles,
    } = surroundings;
    tokio::pin!(stop, taken);
    let started_ms = facts.started_ms;
    let (phase, seen) = watch::channel(Phase::Starting);
    let (orders, mut ordered) = mpsc::channel(8);
    let (finish, finished) = watch::channel(false);
    let service = Service::new(facts, seen, orders);
    let serving = match Listener::bind(claim.path()) {
        Ok(listener) => tokio::spawn(serve(clients(listener), service, finished)),
        Err(error) => {
            let error = Error::io("listen in", claim.path(), &error);
            report(Err(&error));
            release(claim, None).await;
            return Err(error);
        }
    };
    let up = bring_up(start, &mut ordered, &mut stop, &mut taken).await;
    let (outcome, answers, how) = match up {
        Ok(vm) => {
            phase.send_replace(Phase::Running(Arc::clone(&vm)));
            report(Ok(()));
            // A starter that goes in this moment wanted no VM, and nobody else knows of it.
            let unwanted = async {
                if taken.await {
                    std::future::pending::<()>().await;
                }
                tracing::info!("whoever asked for the VM has gone without taking it over");
            };
            let stop = async {
                tokio::select! {
                    () = stop => {}
                    () = unwanted => {}
                }
            };
            let end = until_the_end(&vm, &phase, &mut ordered, stop).await;
            phase.send_replace(Phase::Ended);
            let died = end.died.map(|reason| {
                tracing::warn!(%reason, "the VM has ended by itself");
                let bundle = bundles.and_then(|folder| vm.write_bundle(&folder).ok());
                (reason, bundle)
            });
            drop(vm);
            let record = died.map(|(reason, bundle)| Ended {
                name: claim.name().clone(),
                started_ms,
                ended_ms: now_ms(),
                reason,
                bundle,
            });
            let outcome = match record {
                Some(_) => Outcome::Died,
                None => Outcome::Stopped,
            };
            release(claim, record).await;
            (Ok(outcome), end.answers, end.how)
        }
        Err((error, answers)) => {
            phase.send_replace(Phase::Ended);
            release(claim, None).await;
            report(Err(&error));
            (Err(error), answers, How::GivenUp)
        }
    };
    // Whoever asked for the end is answered when the name is free again.
    ordered.close();
    let mut answers = answers;
    while let Some(order) = ordered.recv().await {
        answers.push(order);
    }
    for order in answers {
        let _ = order.answer.send(how);
    }
    finish.send_replace(true);
    if tokio::time::timeout(FAREWELL, serving).await.is_err() {
        tracing::info!("a client has not taken its last answer");
    }
    outcome
}

/// Waits for the VM to come up, unless somebody no longer wants it.
async fn bring_up(
    start: impl Future<Output = Result<Arc<dyn Vm>>>,
    ordered: &mut mpsc::Receiver<StopOrder>,
    stop: impl Future<Output = ()>,
    taken: impl Future<Output = bool>,
) -> std::result::Result<Arc<dyn Vm>, (Error, Vec<StopOrder>)> {
    let given_up =
        |why: &str| Error::new(ErrorKind::Ended, format!("the start was given up: {why}"));
    tokio::select! {
        outcome = start => outcome.map_err(|error| (error, Vec::new())),
        Some(order) = ordered.recv() => {
            Err((given_up("the VM was stopped before it was up"), vec![order]))
        }
        () = stop => Err((given_up("the monitor was asked to end"), Vec::new())),
        _ = taken => Err((given_up("whoever asked for it has gone"), Vec::new())),
    }
}

/// How a VM that was up came to its end.
struct End {
    /// Why, when nobody had asked for it.
    died: Option<String>,
    how: How,
    answers: Vec<StopOrder>,
}

async fn until_the_end(
    vm: &Arc<dyn Vm>,
    phase: &watch::Sender<Phase>,
    ordered: &mut mpsc::Receiver<StopOrder>,
    stop: impl Future<Output = ()>,
) -> End {
    let (grace, answers) = tokio::select! {
        reason = vm.wait() => return End { died: Some(reason), how: How::Already, answers: Vec::new() },
        Some(order) = ordered.recv() => (order.grace, vec![order]),
        () = stop => (USUAL_GRACE, Vec::new()),
    };
    phase.send_replace(Phase::Stopping(Arc::clone(vm)));
    let how = if grace.is_zero() {
        vm.terminate().await;
        How::Killed
    } else {
        match vm.stop(grace).await {
            Ok(Stopped::Gracefully) => How::Gracefully,
            Ok(Stopped::Already) => How::Already,
            Ok(_) => How::Killed,
            Err(error) => {
                tracing::warn!(%error, "the VM does not stop when asked");
                vm.terminate().await;
                How::Killed
            }
        }
    };
    tracing::info!(?how, "the VM was stopped");
    End {
        died: None,
        how,
        answers,
    }
}

async fn release(claim: Claim, record: Option<Ended>) {
    let released = tokio::task::spawn_blocking(move || claim.release(record.as_ref())).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(%error, "the VM's folder is not cleared away");
    }
}

/// Accepts clients for as long as somebody takes them.
fn clients(listener: Listener) -> mpsc::Receiver<std::io::Result<Socket>> {
    let (sender, clients) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok(client) => {
                    if sender.send(Ok(client)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    clients
}

/// Serves clients until `finished`, and then to the end of the answers that are under way.
async fn serve(
    clients: mpsc::Receiver<std::io::Result<Socket>>,
    service: Service,
    mut finished: watch::Receiver<bool>,
) {
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(MonitorServer::new(service))
        .serve_with_incoming_shutdown(ReceiverStream::new(clients), async move {
            let _ = finished.wait_for(|finished| *finished).await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "clients are no longer served");
    }
}

/// Leaves the session of the terminal from which this process was started.
///
/// # Errors
/// The system refuses.
pub fn begin_session() -> Result<()> {
    sys::begin_session().map_err(|error| {
        Error::new(
            ErrorKind::Other,
            format!("cannot leave the terminal: {error}"),
        )
    })
}
