//! Which connection carries the bridge, and what becomes of requests when it breaks.
//!
//! ```text
//!             dialled, negotiated
//!    Down ─────────────────────────► Up
//!     ▲ │                            │ │
//!     │ │   connection lost, or the  │ │
//!     │ └──  guest dials anew ◄──────┘ │
//!     │                                │
//!     └───────► Ended ◄────────────────┘   the machine ended
//! ```
//!
//! A request waits for Up, goes out, and is answered, or lost with its connection. Lost requests fail
//! and are never sent again by themselves: nobody knows whether the guest did them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opengcs_bridge::frame::Decoder;
use opengcs_bridge::host::{Incoming, RequestId, Session};
use opengcs_bridge::message::{Capabilities, Request, Response};
use opengcs_bridge::{ErrorKind as BridgeErrorKind, Failure};
use opengcs_machine::{Exit, ExitReason, Listener, Machine, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::container::ContainerExit;
use super::timeline::Marks;
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for the machine's own end when a connection has broken, to tell the one reason
/// from the other.
const GRACE: Duration = Duration::from_millis(1500);

type Reply = oneshot::Sender<Result<Response, Failure>>;

/// The host's end of the bridge, across reconnections.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Mutex<Connection>,
    /// Who is told how a container has ended.
    containers: Mutex<HashMap<String, watch::Sender<Option<ContainerExit>>>>,
    state: watch::Sender<LinkState>,
    marks: Arc<Marks>,
}

struct Connection {
    session: Session<Reply>,
    outgoing: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Counts connections, so that an old one's requests do not touch a new one's.
    number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkState {
    /// No negotiated connection; why the last one went.
    Down(Option<String>),
    /// Negotiated.
    Up,
    /// The machine has ended; why.
    Ended(String),
}

impl Link {
    pub(super) fn new(marks: Arc<Marks>) -> Self {
        Self {
            shared: Arc::new(Shared {
                connection: Mutex::new(Connection {
                    session: Session::new(),
                    outgoing: None,
                    number: 0,
                }),
                containers: Mutex::default(),
                state: watch::Sender::new(LinkState::Down(None)),
                marks,
            }),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state.subscribe()
    }

    /// What the agent said it can do; `None` while there is no connection.
    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        self.shared.lock().session.capabilities().cloned()
    }

    /// Fails when the machine has ended.
    pub(super) fn alive(&self) -> Result<()> {
        match &*self.shared.state.borrow() {
            LinkState::Ended(reason) => Err(ended(reason)),
            _ => Ok(()),
        }
    }

    /// Waits until the machine has ended.
    pub(super) async fn ended(&self) {
        let mut state = self.state();
        let ended = state.wait_for(|state| matches!(state, LinkState::Ended(_)));
        drop(ended.await);
    }

    /// Tells how a container ends that is created now or already there.
    pub(super) fn watch_container(&self, id: &str) -> watch::Receiver<Option<ContainerExit>> {
        let mut containers = self.shared.containers();
        let sender = containers
            .entry(id.to_owned())
            .or_insert_with(|| watch::Sender::new(None));
        sender.subscribe()
    }

    /// The container was not created; one of the same name may be there.
    pub(super) fn forget_unwatched(&self, id: &str) {
        let mut containers = self.shared.containers();
        if containers
            .get(id)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            containers.remove(id);
        }
    }

    /// The container is gone, and its name is free.
    pub(super) fn forget_container(&self, id: &str) {
        self.shared.containers().remove(id);
    }

    /// Nothing more will come: everything pending fails with this reason.
    pub(super) fn end(&self, reason: &str) {
        self.shared.end(reason);
    }

    /// Sends a request and waits for its answer; `limit` bounds the whole.
    pub(super) async fn request(
        &self,
        request: &Request,
        limit: Option<Duration>,
    ) -> Result<Response> {
        let work = self.request_once(request);
        let Some(limit) = limit else {
            return work.await;
        };
        match tokio::time::timeout(limit, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                match &*self.shared.state.borrow() {
                    LinkState::Down(_) => format!(
                        "{} was not sent: the agent was not connected for {} s",
                        request.message_type(),
                        limit.as_secs()
                    ),
                    _ => format!(
                        "the agent did not answer {} within {} s",
                        request.message_type(),
                        limit.as_secs()
                    ),
                },
            )),
        }
    }

    async fn request_once(&self, request: &Request) -> Result<Response> {
        let (pending, answer) = loop {
            self.up().await?;
            if let Some(sent) = self.send(request)? {
                break sent;
            }
        };
        let outcome = answer.await;
        drop(pending);
        match outcome {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(failure)) => Err(refused(failure)),
            Err(_) => Err(self.lost(request).await),
        }
    }

    async fn up(&self) -> Result<()> {
        let mut state = self.state();
        let state = state
            .wait_for(|state| !matches!(state, LinkState::Down(_)))
            .await;
        match state.as_deref() {
            Ok(LinkState::Ended(reason)) => Err(ended(reason)),
            _ => Ok(()),
        }
    }

    /// `None` when the connection went down in the meantime.
    #[allow(
        clippy::type_complexity,
        reason = "two things that are used once, side by side"
    )]
    fn send(
        &self,
        request: &Request,
    ) -> Result<Option<(Pending<'_>, oneshot::Receiver<Result<Response, Failure>>)>> {
        let mut connection = self.shared.lock();
        let (reply, answer) = oneshot::channel();
        match connection.session.request(request, reply) {
            Ok((id, bytes)) => {
                if let Some(outgoing) = &connection.outgoing {
                    // A writer that is gone closes the session; the answer is lost with it.
                    let _ = outgoing.send(bytes);
                }
                let number = connection.number;
                Ok(Some((
                    Pending {
                        link: self,
                        id,
                        number,
                    },
                    answer,
                )))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    BridgeErrorKind::Closed | BridgeErrorKind::NotNegotiated
                ) =>
            {
                Ok(None)
            }
            Err(error) if error.kind() == BridgeErrorKind::TooLarge => Err(Error::invalid(
                "what is asked of the agent is longer than a message may be (64 KiB)",
            )
            .caused_by(error)),
            Err(error) => {
                Err(Error::new(ErrorKind::Protocol, "cannot send a request").caused_by(error))
            }
        }
    }

    async fn lost(&self, request: &Request) -> Error {
        let mut state = self.state();
        let ended_soon = tokio::time::timeout(
            GRACE,
            state.wait_for(|state| matches!(state, LinkState::Ended(_))),
        )
        .await;
        if let Ok(Ok(state)) = ended_soon
            && let LinkState::Ended(reason) = &*state
        {
            return ended(reason);
        }
        Error::new(
            ErrorKind::ConnectionLost,
            format!(
                "the connection to the agent was lost before it answered {}",
                request.message_type()
            ),
        )
    }
}

fn ended(reason: &str) -> Error {
    Error::new(
        ErrorKind::MachineEnded,
        format!("the VM has ended: {reason}"),
    )
}

fn refused(failure: Failure) -> Error {
    Error::new(ErrorKind::GuestRefused, "the agent in the VM refused").caused_by(failure)
}

/// A request that is out. Dropped, it is given up: the answer will be dropped when it comes.
struct Pending<'a> {
    link: &'a Link,
    id: RequestId,
    number: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut connection = self.link.shared.lock();
        if connection.number == self.number {
            connection.session.abandon(self.id);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Option<ContainerExit>>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Dropping the replies is what fails the requests, after the state says why.
    fn close(&self, next: LinkState) {
        let mut connection = self.lock();
        connection.outgoing = None;
        let lost = connection.session.close();
        self.state.send_if_modified(|state| {
            let ended = matches!(state, LinkState::Ended(_));
            if !ended {
                *state = next;
            }
            !ended
        });
        drop(connection);
        drop(lost);
    }

    fn end(&self, reason: &str) {
        self.close(LinkState::Ended(reason.to_owned()));
    }
}

/// Serves the guest's dials until the machine ends.
pub(super) async fn run(link: Link, mut listener: Listener, machine: Arc<dyn Machine>) {
    let shared = &link.shared;
    let exit = machine.wait();
    tokio::pin!(exit);
    let mut serving = None;
    loop {
        tokio::select! {
            exit = &mut exit => {
                shared.end(&reason(&exit, &machine.console_tail()));
                return;
            }
            dialled = listener.accept() => {
                let Ok(stream) = dialled else {
                    let exit = (&mut exit).await;
                    shared.end(&reason(&exit, &machine.console_tail()));
                    return;
                };
                shared.marks.mark("dialled");
                // The guest has one bridge: a new one means that it has given the old one up.
                shared.close(LinkState::Down(Some("the agent dialled again".into())));
                serving = Some(Box::pin(serve(shared, stream)));
            }
            trouble = async {
                match serving.as_mut() {
                    Some(serving) => serving.await,
                    None => std::future::pending().await,
                }
            } => {
                tracing::debug!(%trouble, "the bridge went down");
                shared.close(LinkState::Down(Some(trouble)));
                serving = None;
            }
        }
    }
}

/// Why a machine has ended, for people. An agent that dies has the guest powered off, which by itself
/// tells nobody what happened: PID 1 says it on the console.
fn reason(exit: &Exit, console: &str) -> String {
    const MARK: &str = "the agent has ended (";
    let told = (exit.reason == ExitReason::PoweredOff)
        .then(|| console.rsplit_once(MARK)?.1.split_once(')'))
        .flatten();
    match told {
        Some((how, _)) if how.len() < 64 && !how.contains(char::is_control) => {
            format!("its agent died ({how}), and {exit}")
        }
        _ => exit.to_string(),
    }
}

/// One connection from its negotiation to its end; gives the reason of the end.
async fn serve(shared: &Shared, stream: Stream) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (outgoing, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    {
        let mut connection = shared.lock();
        connection.session = Session::new();
        connection.number += 1;
        let (reply, _) = oneshot::channel();
        match connection.session.request(&Request::negotiate(), reply) {
            Ok((_, bytes)) => {
                let _ = outgoing.send(bytes);
            }
            Err(error) => return error.to_string(),
        }
        connection.outgoing = Some(outgoing);
    }
    let write = async {
        while let Some(bytes) = queue.recv().await {
            if let Err(error) = writer.write_all(&bytes).await {
                return format!("cannot send to the agent: {error}");
            }
        }
        // The queue ends when this connection has been given up, which ends this future too.
        std::future::pending().await
    };
    let read = async {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match reader.read(&mut buffer).await {
                Ok(0) => return "the agent closed the bridge".to_owned(),
                Ok(count) => count,
                Err(error) => return format!("cannot receive from the agent: {error}"),
            };
            let mut input = buffer.get(..count).unwrap_or_default();
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(frame)) => {
                        if let Err(trouble) = receive(shared, &frame) {
                            return trouble;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return format!("the agent broke the protocol: {error}"),
                }
            }
        }
    };
    tokio::select! {
        trouble = write => trouble,
        trouble = read => trouble,
    }
}

fn receive(shared: &Shared, frame: &opengcs_bridge::frame::Frame) -> Result<(), String> {
    let mut connection = shared.lock();
    let negotiated_before = connection.session.is_negotiated();
    match connection.session.receive(frame) {
        Ok(Incoming::Response {
            token, response, ..
        }) => {
            if !negotiated_before {
                match &response {
                    Ok(_) if connection.session.is_negotiated() => {
                        shared.marks.mark("negotiated");
                        shared.state.send_if_modified(|state| {
                            let alive = !matches!(state, LinkState::Ended(_));
                            if alive {
                                *state = LinkState::Up;
                            }
                            alive
                        });
                    }
                    Ok(_) => return Err("the agent answered out of order".into()),
                    Err(failure) => return Err(format!("the agent refused the bridge: {failure}")),
                }
            }
            drop(connection);
            if let Some(token) = token {
                let _ = token.send(response);
            }
        }
        Ok(Incoming::Notification(notification)) => {
            tracing::debug!(?notification, "notification from the agent");
            if let Some(watched) = shared.containers().get(&notification.container_id) {
                watched.send_replace(Some((&notification.notification_type).into()));
            }
        }
        Ok(Incoming::UnknownNotification(kind)) => {
            tracing::debug!(%kind, "notification of an unknown type is ignored");
        }
        Err(error) => {
            return Err(format!(
                "the agent broke the protocol: {}",
                with_source(&error)
            ));
        }
    }
    Ok(())
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_died_is_told_as_the_reason() {
        let console = "gcs: +1.0s init\r\ngcs: +9.0s the agent has ended (signal 9): power off\r\n";
        let off = Exit::new(ExitReason::PoweredOff, "");
        assert_eq!(
            reason(&off, console),
            "its agent died (signal 9), and the guest powered off"
        );
        assert_eq!(reason(&off, "reboot: Power down"), "the guest powered off");
        let hostile = "the agent has ended (\u{1b}[2J)";
        assert_eq!(reason(&off, hostile), "the guest powered off");
        let killed = Exit::new(ExitReason::Killed(9), "");
        assert!(!reason(&killed, console).contains("agent"));
    }
}
