//! `NegotiateProtocol`: the version, and what the guest can do.

use serde::{Deserialize, Serialize};

use super::{RequestBase, ResponseBase, is_zero};

/// Asks for a protocol version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NegotiateRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// The lowest version that the host speaks.
    pub minimum_version: u32,
    /// The highest version that the host speaks.
    pub maximum_version: u32,
}

/// The version that both speak from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NegotiateResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// The version.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u32,
    /// What the guest can do.
    pub capabilities: Capabilities,
}

/// What a guest can do. False members are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Capabilities {
    /// The host is to send Create for the VM itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub send_host_create_message: bool,
    /// The host is to send Start for the VM itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub send_host_start_message: bool,
    /// The host is to send the Hyper-V socket configuration at start.
    #[serde(skip_serializing_if = "is_zero", rename = "HvSocketConfigOnStartup")]
    pub hv_socket_config_on_startup: bool,
    /// The guest takes lifecycle notifications.
    #[serde(skip_serializing_if = "is_zero")]
    pub send_lifecycle_notifications: bool,
    /// The guest takes changes of service settings.
    #[serde(skip_serializing_if = "is_zero")]
    pub modify_service_settings_supported: bool,
    /// The schema versions of documents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_schema_versions: Vec<SchemaVersion>,
    /// The operating system: `Linux`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime_os_type: String,
    /// What this kind of guest can do beyond that.
    pub guest_defined_capabilities: GuestDefinedCapabilities,
}

/// What a Linux guest can do beyond the common capabilities. False members are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GuestDefinedCapabilities {
    /// Network namespaces can be added before a container.
    #[serde(skip_serializing_if = "is_zero")]
    pub namespace_add_request_supported: bool,
    /// `SignalProcess` is served.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal_process_supported: bool,
    /// `DumpStacks` is served.
    #[serde(skip_serializing_if = "is_zero")]
    pub dump_stacks_supported: bool,
    /// `DeleteContainerState` is served.
    #[serde(skip_serializing_if = "is_zero")]
    pub delete_container_state_supported: bool,
}

/// The version of a document's schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SchemaVersion {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl Capabilities {
    /// What our own agent can do.
    #[must_use]
    pub fn agent() -> Self {
        Self {
            supported_schema_versions: vec![SchemaVersion { major: 2, minor: 1 }],
            runtime_os_type: "Linux".to_owned(),
            guest_defined_capabilities: GuestDefinedCapabilities {
                namespace_add_request_supported: false,
                signal_process_supported: true,
                dump_stacks_supported: true,
                delete_container_state_supported: false,
            },
            ..Self::default()
        }
    }
}
