//! The numbers that tell one message from another.

use std::fmt;

/// Who sends a message and whether it is an answer: the top four bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From host to guest, answered by a response.
    Request,
    /// From guest to host, the answer to a request.
    Response,
    /// From guest to host, unasked.
    Notification,
    /// Anything else.
    Unknown,
}

/// A message's type: kind, category, call and version. Unknown values survive.
///
/// ```
/// use opengcs_bridge::MessageType;
/// assert_eq!(MessageType::EXECUTE_PROCESS.response(), MessageType(0x2010_0501));
/// assert_eq!(MessageType::EXECUTE_PROCESS.to_string(), "request ExecuteProcess");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageType(pub u32);

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl MessageType {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            fn call_name(self) -> Option<&'static str> {
                match self.request().0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

calls! {
    /// Create a container.
    CREATE = 0x1010_0101, "Create";
    /// Start a container.
    START = 0x1010_0201, "Start";
    /// Ask a container or the VM to end.
    SHUTDOWN_GRACEFUL = 0x1010_0301, "ShutdownGraceful";
    /// End a container or the VM.
    SHUTDOWN_FORCED = 0x1010_0401, "ShutdownForced";
    /// Start a process.
    EXECUTE_PROCESS = 0x1010_0501, "ExecuteProcess";
    /// Wait for a process to end.
    WAIT_FOR_PROCESS = 0x1010_0601, "WaitForProcess";
    /// Send a signal to a process.
    SIGNAL_PROCESS = 0x1010_0701, "SignalProcess";
    /// Change the size of a process's terminal.
    RESIZE_CONSOLE = 0x1010_0801, "ResizeConsole";
    /// Ask for process lists and statistics.
    GET_PROPERTIES = 0x1010_0901, "GetProperties";
    /// Add, remove or update a resource.
    MODIFY_SETTINGS = 0x1010_0a01, "ModifySettings";
    /// Agree on a protocol version.
    NEGOTIATE_PROTOCOL = 0x1010_0b01, "NegotiateProtocol";
    /// Ask for the stacks of the agent.
    DUMP_STACKS = 0x1010_0c01, "DumpStacks";
    /// Forget a container.
    DELETE_CONTAINER_STATE = 0x1010_0d01, "DeleteContainerState";
    /// Change a container.
    UPDATE_CONTAINER = 0x1010_0e01, "UpdateContainer";
    /// Tell of a container's life.
    LIFECYCLE_NOTIFICATION = 0x1010_0f01, "LifecycleNotification";
}

const KIND_MASK: u32 = 0xF000_0000;
const REQUEST: u32 = 0x1000_0000;
const RESPONSE: u32 = 0x2000_0000;
const NOTIFICATION: u32 = 0x3000_0000;

impl MessageType {
    /// The one notification: a container has ended.
    pub const NOTIFY_CONTAINER: Self = Self(0x3010_0101);

    /// The kind.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.0 & KIND_MASK {
            REQUEST => Kind::Request,
            RESPONSE => Kind::Response,
            NOTIFICATION => Kind::Notification,
            _ => Kind::Unknown,
        }
    }

    /// The type of the response to this type.
    #[must_use]
    pub fn response(self) -> Self {
        Self((self.0 & !KIND_MASK) | RESPONSE)
    }

    /// The type of the request that this type is the response to.
    #[must_use]
    pub fn request(self) -> Self {
        Self((self.0 & !KIND_MASK) | REQUEST)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind() {
            Kind::Request => "request",
            Kind::Response => "response",
            Kind::Notification if *self == Self::NOTIFY_CONTAINER => {
                return write!(f, "notification");
            }
            Kind::Notification | Kind::Unknown => return write!(f, "message {:#010x}", self.0),
        };
        match self.call_name() {
            Some(name) => write!(f, "{kind} {name}"),
            None => write!(f, "{kind} {:#010x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_survive_and_are_shown_as_numbers() {
        let odd = MessageType(0x1FF1_2345);
        assert_eq!(odd.response(), MessageType(0x2FF1_2345));
        assert_eq!(odd.response().request(), odd);
        assert_eq!(odd.to_string(), "request 0x1ff12345");
        assert_eq!(MessageType(0).kind(), Kind::Unknown);
        assert_eq!(MessageType(0).to_string(), "message 0x00000000");
        assert_eq!(
            MessageType::CREATE.response().to_string(),
            "response Create"
        );
        assert_eq!(MessageType::NOTIFY_CONTAINER.kind(), Kind::Notification);
    }
}
