//! The host's end: which answer belongs to which request.

use std::collections::BTreeMap;

use crate::{
    Error, ErrorKind, Failure, MessageType, PROTOCOL_VERSION, Result,
    frame::{self, Frame},
    message::{Capabilities, NegotiateResponse, Notification, Request, Response, parse},
};

/// The id of a request on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One connection, from its start to its end. `T` is the caller's token: what is to be told when
/// a request is answered or lost.
///
/// ```text
///   request() ──► pending ──► receive(): Incoming::Response
///                    │  └────► abandon(): the answer is dropped when it comes
///                    └───────► close(): lost
/// ```
#[derive(Debug)]
pub struct Session<T> {
    next_id: u64,
    pending: BTreeMap<u64, Pending<T>>,
    state: State,
}

#[derive(Debug)]
struct Pending<T> {
    request: MessageType,
    /// `None` when the caller no longer wants the answer.
    token: Option<T>,
}

#[derive(Debug, PartialEq)]
enum State {
    Fresh,
    Negotiating,
    Negotiated(Box<Capabilities>),
    Closed,
}

/// What a frame from the guest comes to.
#[derive(Debug)]
pub enum Incoming<T> {
    /// A request is answered.
    Response {
        /// Which request.
        id: RequestId,
        /// Its token; `None` when it was abandoned.
        token: Option<T>,
        /// The answer.
        response: Result<Response, Failure>,
    },
    /// A container has ended.
    Notification(Notification),
    /// A notification of a type that we do not know; to be ignored.
    UnknownNotification(MessageType),
}

impl<T> Default for Session<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Session<T> {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next_id: 0,
            pending: BTreeMap::new(),
            state: State::Fresh,
        }
    }

    /// Whether a protocol version is agreed.
    #[must_use]
    pub fn is_negotiated(&self) -> bool {
        matches!(self.state, State::Negotiated(_))
    }

    /// What the guest can do, once negotiated.
    #[must_use]
    pub fn capabilities(&self) -> Option<&Capabilities> {
        match &self.state {
            State::Negotiated(capabilities) => Some(capabilities),
            State::Fresh | State::Negotiating | State::Closed => None,
        }
    }

    /// The number of requests whose answer has not come.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Notes a request as pending, and gives the bytes to send.
    ///
    /// # Errors
    /// [`ErrorKind::NotNegotiated`] for anything but `NegotiateProtocol` on a fresh connection,
    /// [`ErrorKind::Unexpected`] for a second negotiation, [`ErrorKind::TooLarge`] when it does
    /// not fit, [`ErrorKind::Closed`] after [`Session::close`]. Nothing is pending then.
    pub fn request(&mut self, request: &Request, token: T) -> Result<(RequestId, Vec<u8>)> {
        let message_type = request.message_type();
        let negotiates = message_type == MessageType::NEGOTIATE_PROTOCOL;
        match (&self.state, negotiates) {
            (State::Fresh, true) | (State::Negotiated(_), false) => {}
            (State::Closed, _) => {
                return Err(Error::new(
                    ErrorKind::Closed,
                    format!("{message_type}: the connection to the guest is closed"),
                ));
            }
            (State::Negotiating | State::Negotiated(_), true) => {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "the protocol version is negotiated once a connection",
                ));
            }
            (State::Fresh | State::Negotiating, false) => {
                return Err(Error::new(
                    ErrorKind::NotNegotiated,
                    format!("{message_type} before the protocol version is negotiated"),
                ));
            }
        }
        let id = self.next_id;
        let bytes = frame::encode(message_type, id, &request.encode_body()?)?;
        self.next_id = id.wrapping_add(1);
        self.pending.insert(
            id,
            Pending {
                request: message_type,
                token: Some(token),
            },
        );
        if negotiates {
            self.state = State::Negotiating;
        }
        Ok((RequestId(id), bytes))
    }

    /// The caller no longer wants the answer: it is dropped when it comes. Gives the token back.
    pub fn abandon(&mut self, id: RequestId) -> Option<T> {
        self.pending.get_mut(&id.0)?.token.take()
    }

    /// Decides about one frame.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] for a response to nothing, of another type than its request, or
    /// for a message that no guest sends; [`ErrorKind::Json`] for a body that is not of its type;
    /// [`ErrorKind::Version`] when the guest answers with a version that was not asked for. The
    /// connection is then of no more use: close it and [`Session::close`] the session. A request
    /// whose answer was bad stays pending until then.
    pub fn receive(&mut self, frame: &Frame) -> Result<Incoming<T>> {
        use crate::Kind;
        match frame.message_type.kind() {
            Kind::Response => self.response(frame),
            Kind::Notification if frame.message_type == MessageType::NOTIFY_CONTAINER => {
                parse(&frame.body).map(Incoming::Notification)
            }
            Kind::Notification => Ok(Incoming::UnknownNotification(frame.message_type)),
            Kind::Request | Kind::Unknown => Err(Error::new(
                ErrorKind::Unexpected,
                format!("the guest sent a {}", frame.message_type),
            )),
        }
    }

    fn response(&mut self, frame: &Frame) -> Result<Incoming<T>> {
        let received = frame.message_type;
        let Some(pending) = self.pending.get(&frame.id) else {
            return Err(Error::new(
                ErrorKind::Unexpected,
                format!("{received} to request {}, which is not pending", frame.id),
            ));
        };
        if pending.request.response() != received {
            return Err(Error::new(
                ErrorKind::Unexpected,
                format!(
                    "{received} to request {}, which is a {}",
                    frame.id, pending.request
                ),
            ));
        }
        let request = pending.request;
        let mut response = Response::parse(request, &frame.body)?;
        let base = std::mem::take(response.base_mut());
        let response = if base.result.is_success() {
            *response.base_mut() = base;
            Ok(response)
        } else {
            Err(Failure {
                request: Some(request),
                result: base.result,
                message: base.error_message,
                records: base.error_records,
            })
        };
        match &response {
            Ok(Response::Negotiated(negotiated)) => self.negotiated(negotiated)?,
            Err(_) if request == MessageType::NEGOTIATE_PROTOCOL => self.state = State::Fresh,
            Ok(_) | Err(_) => {}
        }
        let token = self
            .pending
            .remove(&frame.id)
            .and_then(|pending| pending.token);
        Ok(Incoming::Response {
            id: RequestId(frame.id),
            token,
            response,
        })
    }

    fn negotiated(&mut self, response: &NegotiateResponse) -> Result<()> {
        if response.version != PROTOCOL_VERSION {
            return Err(Error::new(
                ErrorKind::Version,
                format!(
                    "the guest wants protocol version {}, only {PROTOCOL_VERSION} was offered",
                    response.version
                ),
            ));
        }
        self.state = State::Negotiated(Box::new(response.capabilities.clone()));
        Ok(())
    }

    /// The connection is gone: gives everything that was pending and still wanted, to be failed.
    pub fn close(&mut self) -> Vec<(RequestId, T)> {
        self.state = State::Closed;
        std::mem::take(&mut self.pending)
            .into_iter()
            .filter_map(|(id, pending)| Some((RequestId(id), pending.token?)))
            .collect()
    }
}
