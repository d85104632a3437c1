//! The parts of the OCI runtime specification that the agent itself reads.
//!
//! A container's own documents go to its runtime as they came; these are read where a process of
//! the VM itself is described by one, and where a name has to become a number.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{is_zero, json::from_value};
use crate::{Error, Result};

/// A process as the OCI runtime specification describes it ("process"). Zero values are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OciProcess {
    /// Give it a terminal.
    #[serde(skip_serializing_if = "is_zero")]
    pub terminal: bool,
    /// The size of its terminal.
    #[serde(skip_serializing_if = "is_zero")]
    pub console_size: ConsoleSize,
    /// Whom it runs as.
    #[serde(skip_serializing_if = "is_zero")]
    pub user: OciUser,
    /// The command as its words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The folder to start in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cwd: String,
    /// Its capabilities.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub capabilities: Value,
    /// Its resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<OciRlimit>,
    /// Whether it may gain no rights by running other programs.
    #[serde(skip_serializing_if = "is_zero")]
    pub no_new_privileges: bool,
    /// How willingly the kernel kills it when memory is short: -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// In rows.
    pub height: u16,
    /// In columns.
    pub width: u16,
}

/// Whom a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OciUser {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The mask of new files' permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// More groups, by number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    /// `user` or `user:group`, each by name or number, to be looked up in the guest; wins over the
    /// numbers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
}

/// One resource limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OciRlimit {
    /// Which, as `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the process may raise it to.
    pub hard: u64,
    /// Where it is.
    pub soft: u64,
}

impl OciProcess {
    /// Reads a process from a document; `null` is one with nothing in it. Members that are not
    /// known here are passed over.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Json`] when a member is not of its type.
    pub fn parse(document: &Value) -> Result<Self> {
        from_value(document.clone())
            .map_err(|error| Error::json("invalid JSON in the OCI process", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_members_are_zero_and_unknown_ones_no_error() {
        assert_eq!(
            OciProcess::parse(&Value::Null).unwrap(),
            OciProcess::default()
        );
        let document = serde_json::json!({
            "args": ["a"], "user": {"uid": 5, "username": null}, "ioPriority": {"class": "x"},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": u64::MAX}], "consoleSize": {"width": 80}
        });
        let process = OciProcess::parse(&document).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (5, 0));
        assert_eq!(process.rlimits[0].hard, u64::MAX);
        assert_eq!(process.console_size.width, 80);
        for bad in [
            serde_json::json!([]),
            serde_json::json!({"args": "a"}),
            serde_json::json!({"user": {"uid": -1}}),
        ] {
            assert!(OciProcess::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zero_values_are_left_out() {
        let text = serde_json::to_string(&OciProcess {
            console_size: ConsoleSize {
                height: 3,
                width: 4,
            },
            ..OciProcess::default()
        });
        assert_eq!(text.unwrap(), r#"{"consoleSize":{"height":3,"width":4}}"#);
    }
}
