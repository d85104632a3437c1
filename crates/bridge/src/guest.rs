//! The guest's end: what is answered at once, and what becomes a request to serve.

use crate::{
    ErrorKind, Failure, HResult, MessageType, PROTOCOL_VERSION,
    frame::{self, Frame},
    message::{
        Capabilities, ErrorRecord, NegotiateRequest, NegotiateResponse, Notification,
        PlainResponse, Request, RequestBase, Response, ResponseBase,
    },
};

/// The longest reason that is sent, in bytes. It goes out twice and may grow sixfold in JSON.
const LONGEST_MESSAGE: usize = 4096;

/// The line of a record that knows none.
const NO_LINE: u32 = u32::MAX;

/// One connection, from its start to its end.
///
/// ```text
///             NegotiateProtocol, version 4 in range
///  un-negotiated ───────────────────────────────► negotiated
///    │ anything else: 0x80004001                    │ NegotiateProtocol, unknown types: 0x80004001
///    │ other versions: 0xC037010C                   │ bad JSON: 0xC037010D
///    ▼                                              ▼ else: a request to serve
/// ```
#[derive(Debug)]
pub struct Session {
    capabilities: Capabilities,
    negotiated: bool,
}

/// What a frame from the host comes to.
#[derive(Debug)]
pub enum Incoming {
    /// Send these bytes; nothing else is to be done.
    Reply(Vec<u8>),
    /// Serve this request, and answer with [`Ticket::answer`].
    Request(Ticket, Box<Request>),
}

/// What the answer to one request must repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    request: MessageType,
    id: u64,
    activity_id: String,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A new connection of our own agent.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capabilities(Capabilities::agent())
    }

    /// A new connection of a guest that can do `capabilities`.
    #[must_use]
    pub fn with_capabilities(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            negotiated: false,
        }
    }

    /// Whether the host has negotiated the protocol version.
    #[must_use]
    pub fn is_negotiated(&self) -> bool {
        self.negotiated
    }

    /// Decides about one frame. No frame of a legal length ends the connection.
    pub fn receive(&mut self, frame: &Frame) -> Incoming {
        let negotiates = frame.message_type == MessageType::NEGOTIATE_PROTOCOL;
        let known = Request::is_known(frame.message_type) && negotiates != self.negotiated;
        if !known {
            let failure = Failure::new(
                HResult::NOT_IMPLEMENTED,
                format!("{} is not supported here", frame.message_type),
            );
            return Incoming::Reply(Ticket::guess(frame).answer(Err(failure)));
        }
        let mut ticket = Ticket::bare(frame);
        match Request::parse(frame.message_type, &frame.body) {
            Err(error) => {
                debug_assert_eq!(error.kind(), ErrorKind::Json, "{error}");
                let failure = Failure::from(&error);
                Incoming::Reply(ticket.answer(Err(failure)))
            }
            Ok(None) => Incoming::Reply(ticket.answer(Err(Failure::new(
                HResult::NOT_IMPLEMENTED,
                "unknown message",
            )))),
            Ok(Some(request)) => {
                ticket.activity_id.clone_from(&request.base().activity_id);
                match request {
                    Request::NegotiateProtocol(request) => {
                        Incoming::Reply(ticket.answer(self.negotiate(&request)))
                    }
                    request => Incoming::Request(ticket, Box::new(request)),
                }
            }
        }
    }

    fn negotiate(&mut self, request: &NegotiateRequest) -> Result<Response, Failure> {
        if !(request.minimum_version..=request.maximum_version).contains(&PROTOCOL_VERSION) {
            return Err(Failure::new(
                HResult::UNSUPPORTED_PROTOCOL_VERSION,
                format!(
                    "the host speaks protocol versions {} to {}, the guest only {PROTOCOL_VERSION}",
                    request.minimum_version, request.maximum_version
                ),
            ));
        }
        self.negotiated = true;
        Ok(Response::Negotiated(NegotiateResponse {
            base: ResponseBase::default(),
            version: PROTOCOL_VERSION,
            capabilities: self.capabilities.clone(),
        }))
    }
}

impl Ticket {
    fn bare(frame: &Frame) -> Self {
        Self {
            request: frame.message_type,
            id: frame.id,
            activity_id: String::new(),
        }
    }

    /// The ticket of a body whose type is not served: its activity, if it has one.
    fn guess(frame: &Frame) -> Self {
        let base: Option<RequestBase> = crate::message::parse(&frame.body).ok();
        Self {
            activity_id: base.map(|base| base.activity_id).unwrap_or_default(),
            ..Self::bare(frame)
        }
    }

    /// The request's type.
    #[must_use]
    pub fn request(&self) -> MessageType {
        self.request
    }

    /// The request's id, as the host chose it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The bytes of the answer. It always fits in one message: a reason or stacks that are too
    /// long are cut, and another answer that is too long becomes a failure.
    #[must_use]
    pub fn answer(&self, outcome: Result<Response, Failure>) -> Vec<u8> {
        let mut response = outcome.unwrap_or_else(|failure| Self::failed(&failure));
        self.activity_id
            .clone_into(&mut response.base_mut().activity_id);
        loop {
            let encoded = response
                .encode_body()
                .and_then(|body| frame::encode(self.request.response(), self.id, &body));
            response = match (encoded, response) {
                (Ok(bytes), _) => return bytes,
                (Err(_), Response::Stacks(mut stacks)) if stacks.guest_stacks.len() > 64 => {
                    let half = stacks.guest_stacks.len().div_euclid(2);
                    shorten(&mut stacks.guest_stacks, half);
                    Response::Stacks(stacks)
                }
                (Err(error), _) => {
                    // A failure without an activity always fits, so the loop ends.
                    Self::failed(&Failure::from(&error))
                }
            };
        }
    }

    fn failed(failure: &Failure) -> Response {
        let mut message = failure.message.clone();
        shorten(&mut message, LONGEST_MESSAGE);
        let result = if failure.result.is_success() {
            HResult::FAIL
        } else {
            failure.result
        };
        if message.is_empty() {
            message = result.to_string();
        }
        Response::Plain(PlainResponse {
            base: ResponseBase {
                result,
                activity_id: String::new(),
                error_records: vec![ErrorRecord {
                    result,
                    message: message.clone(),
                    module_name: "gcs".to_owned(),
                    line: NO_LINE,
                    ..ErrorRecord::default()
                }],
                error_message: message,
            },
        })
    }
}

/// The bytes of a notification.
///
/// # Errors
/// [`ErrorKind::TooLarge`] when it does not fit in a message.
pub fn notify(notification: &Notification) -> crate::Result<Vec<u8>> {
    let body = serde_json::to_vec(notification)
        .map_err(|error| crate::Error::json("a notification has no JSON form", error))?;
    frame::encode(MessageType::NOTIFY_CONTAINER, 0, &body)
}

fn shorten(text: &mut String, limit: usize) {
    const MARK: &str = "… (cut)";
    if text.len() > limit {
        let end = (0..=limit.saturating_sub(MARK.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str(MARK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::StacksResponse;

    fn ticket() -> Ticket {
        Ticket {
            request: MessageType::DUMP_STACKS,
            id: 9,
            activity_id: crate::NO_ACTIVITY.to_owned(),
        }
    }

    #[test]
    fn long_reasons_are_cut_to_fit() {
        for text in ["\u{1}", "é", "\"", "x"] {
            let failure = Failure::new(HResult::FAIL, text.repeat(1 << 20));
            let bytes = ticket().answer(Err(failure));
            assert!(bytes.len() <= frame::MAX_SIZE);
            let body = String::from_utf8(bytes[16..].to_vec()).unwrap();
            assert!(body.contains("… (cut)"));
        }
    }

    #[test]
    fn long_stacks_are_cut_to_fit() {
        let response = Response::Stacks(StacksResponse {
            guest_stacks: "\u{1}".repeat(1 << 20),
            ..StacksResponse::default()
        });
        let bytes = ticket().answer(Ok(response));
        assert!(bytes.len() <= frame::MAX_SIZE && bytes.len() > 30_000);
        assert!(String::from_utf8_lossy(&bytes).contains("\"Result\":0"));
    }

    #[test]
    fn a_failure_is_never_sent_as_success() {
        let bytes = ticket().answer(Err(Failure::new(HResult::OK, "")));
        assert!(String::from_utf8_lossy(&bytes).contains("\"Result\":-2147467259"));
    }
}
