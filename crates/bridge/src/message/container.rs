//! Create, and the notification of a container's end.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Nested, RequestBase, ResponseBase, SchemaVersion, is_zero};
use crate::HResult;

/// Creates a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// What to create.
    pub container_config: Nested<ContainerConfig>,
}

/// What to create: a container, or (with `SystemType` alone) the VM itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `Container`, when it is the VM itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_type: String,
    /// The schema of this document.
    #[serde(skip_serializing_if = "is_zero")]
    pub schema_version: SchemaVersion,
    /// The folder of the OCI bundle in the guest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub oci_bundle_path: String,
    /// The OCI runtime specification.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub oci_specification: Value,
    /// Where the container may keep files in the guest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scratch_dir_path: String,
}

/// A container has been created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// A relic: always 0.
    pub selected_protocol_version: u32,
}

/// How a container has ended. Unknown values survive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NotificationType(pub String);

impl NotificationType {
    /// After SIGTERM.
    pub const GRACEFUL_EXIT: &str = "GracefulExit";
    /// After SIGKILL.
    pub const FORCED_EXIT: &str = "ForcedExit";
    /// By itself.
    pub const UNEXPECTED_EXIT: &str = "UnexpectedExit";
}

/// The guest tells, unasked, that a container has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Notification {
    /// The container.
    pub container_id: String,
    /// The activity.
    pub activity_id: String,
    /// How it has ended.
    #[serde(rename = "Type")]
    pub notification_type: NotificationType,
    /// What it was doing: `None` and others.
    pub operation: String,
    /// The result.
    pub result: HResult,
    /// A JSON document; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_info: String,
}
