//! What each message says: the request and response of every type, and the notification.

mod container;
mod json;
mod modify;
mod negotiate;
mod oci;
mod process;
mod properties;

use serde::{Deserialize, Serialize};

pub use container::{
    ContainerConfig, CreateRequest, CreateResponse, Notification, NotificationType,
};
pub use json::Nested;
pub(crate) use json::parse;
pub use modify::{
    CombinedLayers, ContainerConstraints, Layer, MappedDirectory, MappedVirtualDisk, Modification,
    ModifyRequest, ModifySettings, RequestType, ResourceType, ScsiDevice, VerityInfo,
};
pub use negotiate::{
    Capabilities, GuestDefinedCapabilities, NegotiateRequest, NegotiateResponse, SchemaVersion,
};
pub use oci::{ConsoleSize, OciProcess, OciRlimit, OciUser};
pub use process::{
    ExecuteRequest, ExecuteResponse, ExecuteSettings, ProcessParameters, ResizeRequest,
    SignalOptions, SignalRequest, StdioPorts, WaitRequest, WaitResponse,
};
pub use properties::{
    CpuUsage, GuestCpu, GuestMemory, GuestMetrics, GuestPids, MemoryUsage, ProcessDetails,
    Properties, PropertiesRequest, PropertiesResponse, PropertyQuery, StacksResponse,
};

use crate::{
    Error, ErrorKind, HResult, MessageType, NO_ACTIVITY, PROTOCOL_VERSION, Result, UTILITY_VM_ID,
};

/// Whether a value is the one that is left out of a message.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What every request has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RequestBase {
    /// Whom the request is for: a container, or [`UTILITY_VM_ID`].
    pub container_id: String,
    /// A GUID that the response repeats, for logs.
    pub activity_id: String,
    /// The `OpenCensus` span of the caller; ours to carry, not to read.
    #[serde(rename = "otsc", skip_serializing_if = "Option::is_none")]
    pub trace: Option<serde_json::Value>,
}

impl Default for RequestBase {
    fn default() -> Self {
        Self {
            container_id: String::new(),
            activity_id: NO_ACTIVITY.to_owned(),
            trace: None,
        }
    }
}

impl RequestBase {
    /// The base of a request for the utility VM itself.
    #[must_use]
    pub fn utility_vm() -> Self {
        Self {
            container_id: UTILITY_VM_ID.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the request is for the utility VM itself.
    #[must_use]
    pub fn is_utility_vm(&self) -> bool {
        self.container_id == UTILITY_VM_ID
    }

    /// The container that the request is for; `None` is the utility VM itself.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        (!self.is_utility_vm()).then_some(self.container_id.as_str())
    }

    /// An absent or empty activity is "no activity"; anything else must look like a GUID.
    fn check(&mut self) -> Result<()> {
        if self.activity_id.is_empty() {
            NO_ACTIVITY.clone_into(&mut self.activity_id);
        }
        let guid =
            self.activity_id.len() == NO_ACTIVITY.len()
                && self.activity_id.bytes().zip(NO_ACTIVITY.bytes()).all(
                    |(byte, model)| match model {
                        b'-' => byte == b'-',
                        _ => byte.is_ascii_hexdigit(),
                    },
                );
        if guid {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Json, "ActivityId is not a GUID"))
        }
    }
}

/// What every response has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResponseBase {
    /// 0, or why not.
    pub result: HResult,
    /// The request's activity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub activity_id: String,
    /// The reason in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
    /// Where it went wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_records: Vec<ErrorRecord>,
}

/// One place where something went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ErrorRecord {
    /// The code.
    pub result: HResult,
    /// The reason in words.
    pub message: String,
    /// Where in the program, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack_trace: String,
    /// The program.
    pub module_name: String,
    /// The source file, if known.
    pub file_name: String,
    /// The line, or 4294967295.
    pub line: u32,
    /// The function, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function_name: String,
}

/// A request without fields of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlainRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
}

/// A response without fields of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlainResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
}

macro_rules! requests {
    ($($(#[$doc:meta])* $variant:ident($body:ty) -> $response:ident($response_body:ty) = $constant:ident;)*) => {
        /// A request of a known type.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Request {
            $($(#[$doc])* $variant($body),)*
        }

        impl Request {
            /// The type on the wire.
            #[must_use]
            pub fn message_type(&self) -> MessageType {
                match self {
                    $(Self::$variant(_) => MessageType::$constant,)*
                }
            }

            /// What every request has.
            #[must_use]
            pub fn base(&self) -> &RequestBase {
                match self {
                    $(Self::$variant(body) => &body.base,)*
                }
            }

            /// What every request has, to be changed.
            pub fn base_mut(&mut self) -> &mut RequestBase {
                match self {
                    $(Self::$variant(body) => &mut body.base,)*
                }
            }

            /// The body on the wire.
            ///
            /// # Errors
            /// [`ErrorKind::Json`] when a value has no JSON form.
            pub fn encode_body(&self) -> Result<Vec<u8>> {
                match self {
                    $(Self::$variant(body) => json::encode(body),)*
                }
            }

            /// Reads a request's body. `None`: the type is not one that we know.
            ///
            /// # Errors
            /// [`ErrorKind::Json`] when the body is not the JSON of its type.
            pub fn parse(message_type: MessageType, body: &[u8]) -> Result<Option<Self>> {
                let mut request = match message_type {
                    $(MessageType::$constant => Self::$variant(parse(body)?),)*
                    _ => return Ok(None),
                };
                request.base_mut().check()?;
                Ok(Some(request))
            }

            /// Whether a request of this type is one that we know.
            #[must_use]
            pub fn is_known(message_type: MessageType) -> bool {
                matches!(message_type, $(MessageType::$constant)|*)
            }
        }

        impl Response {
            /// Reads a response's body by its request's type; an unknown type is read as
            /// [`Response::Plain`].
            pub(crate) fn parse(request: MessageType, body: &[u8]) -> Result<Self> {
                Ok(match request {
                    $(MessageType::$constant => Self::$response(parse::<$response_body>(body)?),)*
                    _ => Self::Plain(parse(body)?),
                })
            }
        }
    };
}

requests! {
    /// Agree on a protocol version.
    NegotiateProtocol(NegotiateRequest) -> Negotiated(NegotiateResponse) = NEGOTIATE_PROTOCOL;
    /// Create a container.
    Create(CreateRequest) -> Created(CreateResponse) = CREATE;
    /// Start a container: no work, its first process is started by `ExecuteProcess`.
    Start(PlainRequest) -> Plain(PlainResponse) = START;
    /// Ask a container or the VM to end.
    ShutdownGraceful(PlainRequest) -> Plain(PlainResponse) = SHUTDOWN_GRACEFUL;
    /// End a container or the VM.
    ShutdownForced(PlainRequest) -> Plain(PlainResponse) = SHUTDOWN_FORCED;
    /// Start a process.
    ExecuteProcess(ExecuteRequest) -> Executed(ExecuteResponse) = EXECUTE_PROCESS;
    /// Wait for a process to end.
    WaitForProcess(WaitRequest) -> Exited(WaitResponse) = WAIT_FOR_PROCESS;
    /// Send a signal to a process.
    SignalProcess(SignalRequest) -> Plain(PlainResponse) = SIGNAL_PROCESS;
    /// Change the size of a process's terminal.
    ResizeConsole(ResizeRequest) -> Plain(PlainResponse) = RESIZE_CONSOLE;
    /// Ask for process lists and statistics.
    GetProperties(PropertiesRequest) -> Properties(PropertiesResponse) = GET_PROPERTIES;
    /// Add, remove or update a resource.
    ModifySettings(ModifyRequest) -> Plain(PlainResponse) = MODIFY_SETTINGS;
    /// Ask for the stacks of the agent.
    DumpStacks(PlainRequest) -> Stacks(StacksResponse) = DUMP_STACKS;
    /// Forget a container.
    DeleteContainerState(PlainRequest) -> Plain(PlainResponse) = DELETE_CONTAINER_STATE;
}

impl Request {
    /// The first request of every connection: the one protocol version that we speak.
    #[must_use]
    pub fn negotiate() -> Self {
        Self::NegotiateProtocol(NegotiateRequest {
            base: RequestBase::utility_vm(),
            minimum_version: PROTOCOL_VERSION,
            maximum_version: PROTOCOL_VERSION,
        })
    }
}

/// A response of a known type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Response {
    /// To `NegotiateProtocol`.
    Negotiated(NegotiateResponse),
    /// To `Create`.
    Created(CreateResponse),
    /// To `ExecuteProcess`.
    Executed(ExecuteResponse),
    /// To `WaitForProcess`.
    Exited(WaitResponse),
    /// To `GetProperties`.
    Properties(PropertiesResponse),
    /// To `DumpStacks`.
    Stacks(StacksResponse),
    /// To everything else.
    Plain(PlainResponse),
}

impl Response {
    /// What every response has.
    #[must_use]
    pub fn base(&self) -> &ResponseBase {
        match self {
            Self::Negotiated(body) => &body.base,
            Self::Created(body) => &body.base,
            Self::Executed(body) => &body.base,
            Self::Exited(body) => &body.base,
            Self::Properties(body) => &body.base,
            Self::Stacks(body) => &body.base,
            Self::Plain(body) => &body.base,
        }
    }

    /// What every response has, to be changed.
    pub fn base_mut(&mut self) -> &mut ResponseBase {
        match self {
            Self::Negotiated(body) => &mut body.base,
            Self::Created(body) => &mut body.base,
            Self::Executed(body) => &mut body.base,
            Self::Exited(body) => &mut body.base,
            Self::Properties(body) => &mut body.base,
            Self::Stacks(body) => &mut body.base,
            Self::Plain(body) => &mut body.base,
        }
    }

    /// The body on the wire.
    pub(crate) fn encode_body(&self) -> Result<Vec<u8>> {
        match self {
            Self::Negotiated(body) => json::encode(body),
            Self::Created(body) => json::encode(body),
            Self::Executed(body) => json::encode(body),
            Self::Exited(body) => json::encode(body),
            Self::Properties(body) => json::encode(body),
            Self::Stacks(body) => json::encode(body),
            Self::Plain(body) => json::encode(body),
        }
    }
}
