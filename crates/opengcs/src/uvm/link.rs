//! What becomes of requests to the agent, whichever connection carries them and when it breaks.
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

use opengcs_bridge::host::{RequestId, Session};
use opengcs_bridge::message::{Capabilities, Request, Response};
use opengcs_bridge::{ErrorKind as BridgeErrorKind, Failure};
use tokio::sync::{mpsc, oneshot, watch};

use super::container::ContainerExit;
use super::timeline::Marks;
use crate::error::{Error, ErrorKind, Result};

mod serve;

pub(super) use serve::run;

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
