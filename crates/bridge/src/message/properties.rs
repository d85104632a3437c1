//! `GetProperties` and `DumpStacks`.

use serde::{Deserialize, Serialize};

use super::{Nested, RequestBase, ResponseBase, is_zero};

/// Asks for properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PropertiesRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// Which.
    pub query: Nested<PropertyQuery>,
}

/// Which properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PropertyQuery {
    /// `ProcessList`, `Statistics`; others are not answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub property_types: Vec<String>,
}

/// The properties asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PropertiesResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// The properties.
    pub properties: Nested<Properties>,
}

/// Properties; those not asked for are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Properties {
    /// The processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub process_list: Vec<ProcessDetails>,
    /// The statistics.
    #[serde(rename = "LCOWMetrics", skip_serializing_if = "Option::is_none")]
    pub metrics: Option<GuestMetrics>,
}

/// One process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProcessDetails {
    /// Its id.
    pub process_id: u32,
}

/// Statistics, in the words of cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestMetrics {
    /// Of processes.
    pub pids: GuestPids,
    /// Of processors.
    pub cpu: GuestCpu,
    /// Of memory.
    pub memory: GuestMemory,
}

/// How many processes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestPids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// At most.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// The use of processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestCpu {
    /// Since the boot.
    pub usage: CpuUsage,
}

/// Processor time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// In the kernel.
    #[serde(skip_serializing_if = "is_zero")]
    pub kernel: u64,
    /// In programs.
    #[serde(skip_serializing_if = "is_zero")]
    pub user: u64,
}

/// The use of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestMemory {
    /// In caches.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Of programs.
    #[serde(skip_serializing_if = "is_zero")]
    pub rss: u64,
    /// All of it.
    pub usage: MemoryUsage,
}

/// Memory against its limit, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryUsage {
    /// What there is.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
    /// What is used.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was used at once, where that is known.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
}

/// The stacks of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StacksResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// As text.
    pub guest_stacks: String,
}
