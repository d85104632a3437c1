//! `ExecuteProcess`, `WaitForProcess`, `SignalProcess` and `ResizeConsole`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::{Nested, RequestBase, ResponseBase, is_zero};
use crate::UTILITY_VM_ID;

/// Starts a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecuteRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// What to start, and where its stdio goes.
    pub settings: ExecuteSettings,
}

/// What to start, and where its stdio goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecuteSettings {
    /// What to start.
    pub process_parameters: Nested<ProcessParameters>,
    /// The host's ports for its stdio.
    #[serde(rename = "VsockStdioRelaySettings")]
    pub stdio: StdioPorts,
}

/// The ports on which the host listens for a process's stdio; 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StdioPorts {
    /// For standard input.
    #[serde(rename = "StdIn", skip_serializing_if = "is_zero")]
    pub stdin: u32,
    /// For standard output.
    #[serde(rename = "StdOut", skip_serializing_if = "is_zero")]
    pub stdout: u32,
    /// For standard error.
    #[serde(rename = "StdErr", skip_serializing_if = "is_zero")]
    pub stderr: u32,
}

/// What to start. Zero values are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProcessParameters {
    /// The command as one string, to be split into words as a shell would; no shell runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command_line: String,
    /// The command as its words; wins over `command_line`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command_args: Vec<String>,
    /// The folder to start in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_directory: String,
    /// The whole environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Give it a terminal.
    #[serde(skip_serializing_if = "is_zero")]
    pub emulate_console: bool,
    /// Connect its standard input.
    #[serde(skip_serializing_if = "is_zero", rename = "CreateStdInPipe")]
    pub create_stdin_pipe: bool,
    /// Connect its standard output.
    #[serde(skip_serializing_if = "is_zero", rename = "CreateStdOutPipe")]
    pub create_stdout_pipe: bool,
    /// Connect its standard error.
    #[serde(skip_serializing_if = "is_zero", rename = "CreateStdErrPipe")]
    pub create_stderr_pipe: bool,
    /// Run it outside any container. Some hosts spell it differently, which Go does not mind, and
    /// some name the VM in it instead of saying `true`.
    #[serde(
        skip_serializing_if = "is_zero",
        rename = "CreateInUtilityVM",
        alias = "CreateInUtilityVm",
        deserialize_with = "in_utility_vm"
    )]
    pub create_in_utility_vm: bool,
    /// For a container's further processes: the OCI process.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub oci_process: Value,
}

/// `true`, or the id of the VM itself.
fn in_utility_vm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(outside) => Ok(outside),
        Value::String(id) if id.is_empty() => Ok(false),
        Value::String(id) if id == UTILITY_VM_ID => Ok(true),
        _ => Err(de::Error::custom(
            "CreateInUtilityVM is a truth value or the id of the VM itself",
        )),
    }
}

/// A process has been started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecuteResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// Its id.
    pub process_id: u32,
}

/// Waits for a process to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// The process.
    pub process_id: u32,
    /// The limit in milliseconds; [`crate::WAIT_FOREVER`] is none.
    pub timeout_in_ms: u32,
}

/// A process has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitResponse {
    /// What every response has.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// Its exit code; 128 + n after signal n.
    pub exit_code: u32,
}

/// Sends a signal to a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SignalRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// The process.
    pub process_id: u32,
    /// Which signal.
    #[serde(skip_serializing_if = "is_zero")]
    pub options: SignalOptions,
}

/// Which signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SignalOptions {
    /// Its number; 0 is SIGKILL.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal: i32,
}

/// Changes the size of a process's terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResizeRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// The process.
    pub process_id: u32,
    /// In rows.
    pub height: u16,
    /// In columns.
    pub width: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_is_said_by_truth_or_by_the_id_of_the_vm() {
        for (text, outside) in [
            ("true", Some(true)),
            ("false", Some(false)),
            (r#""00000000-0000-0000-0000-000000000000""#, Some(true)),
            (r#""""#, Some(false)),
            (r#""c1""#, None),
            ("1", None),
        ] {
            for name in ["CreateInUtilityVM", "CreateInUtilityVm"] {
                let text = format!(r#"{{"{name}":{text}}}"#);
                let parsed: Option<ProcessParameters> = serde_json::from_str(&text).ok();
                let parsed = parsed.map(|parsed| parsed.create_in_utility_vm);
                assert_eq!(parsed, outside, "{text}");
            }
        }
    }
}
