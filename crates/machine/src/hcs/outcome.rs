//! Decides what the Host Compute Service's answers mean: codes, result documents and the news of an end.
//!
//! Its documents are read as any foreign text is: what is not understood is left out, and the code remains.

use serde::Deserialize;

use crate::error::{Error, ErrorKind};
use crate::machine::ExitReason;

/// A code as Windows gives it: negative is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HResult(pub i32);

impl HResult {
    /// From the form in which they are written down.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        Self(code.cast_signed())
    }

    /// In the form in which they are written down.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// Whether it is a failure.
    #[must_use]
    pub fn failed(self) -> bool {
        self.0 < 0
    }
}

/// What a code means, for people, and the kind of error it makes.
fn meaning(result: HResult) -> (ErrorKind, &'static str) {
    use ErrorKind as Kind;
    match result.code() {
        0x8037_0102 => (Kind::NotInstalled, NOT_ENABLED),
        0x8037_0114 | 0x8037_011E => (Kind::NotInstalled, NO_SERVICE),
        0x8037_011B | 0x8007_0005 => (
            Kind::Refused,
            "access is denied: run as administrator, and see that the account may use the files",
        ),
        0x8037_0105 => (Kind::WrongState, "the machine's state does not allow it"),
        0x8037_0100 | 0x8037_0106 | 0x8037_0107 | 0x8037_0110 | 0x8037_010E => {
            (Kind::GuestDied, "the machine has ended")
        }
        0x8037_0109 | 0x8037_0118 | 0x8007_05B4 => (Kind::TimedOut, "it took too long"),
        0x8037_010D => (
            Kind::InvalidConfig,
            "hyper-v does not understand the document",
        ),
        0x8037_010F => (Kind::WrongState, "a machine of that name is there already"),
        0x8007_0002 | 0x8007_0003 => (Kind::NotFound, "a file is not there"),
        0x8007_0020 | 0x8007_0021 => (Kind::DiskLocked, "another process is using the file"),
        0x8007_000E | 0x8007_05AA | 0x8007_05AF => (
            Kind::Refused,
            "this host does not have that much memory free",
        ),
        0xC035_1000..=0xC035_FFFF => (Kind::Refused, "the hypervisor refuses"),
        _ => (Kind::Refused, "hyper-v refuses"),
    }
}

/// Why nothing works where the features are off, and what to do.
pub const NOT_ENABLED: &str = "hyper-v is not enabled: enable the windows features \
     Microsoft-Hyper-V and Containers, and restart";

/// Why nothing works where the library is there and the service is not: usually for the same reason.
const NO_SERVICE: &str = "the host compute service does not answer: enable the windows features \
     Microsoft-Hyper-V and Containers and restart, or else see that the service vmcompute runs";

/// Events of one failure that are told; a document may hold any number.
const MAX_EVENTS: usize = 4;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ResultDocument {
    error_message: Option<String>,
    error_events: Vec<ErrorEvent>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorEvent {
    message: Option<String>,
}

/// The error of an operation: `what` was tried, the code, and what its result document says.
#[must_use]
pub fn failure(what: &str, result: HResult, document: Option<&str>) -> Error {
    let (kind, meaning) = meaning(result);
    let mut text = format!("{what}: {meaning} ({:#010x}", result.code());
    for words in said(document.unwrap_or_default()) {
        text.push_str(": ");
        text.push_str(&words);
    }
    text.push(')');
    Error::new(kind, text)
}

/// The texts of a result document, each once.
fn said(document: &str) -> Vec<String> {
    const LONGEST: usize = 300;
    let parsed: ResultDocument = serde_json::from_str(document).unwrap_or_default();
    let events = parsed
        .error_events
        .into_iter()
        .filter_map(|event| event.message);
    let mut texts: Vec<String> = Vec::new();
    for text in parsed
        .error_message
        .into_iter()
        .chain(events.take(MAX_EVENTS))
    {
        let text: String = text.trim().chars().take(LONGEST).collect();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ExitDocument {
    status: i32,
    exit_type: String,
    attribution: Vec<Attribution>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Attribution {
    worker_exit: Option<WorkerExit>,
    guest_crash: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct WorkerExit {
    #[serde(rename = "Type")]
    kind: String,
    detail: String,
    initiator: String,
}

/// Why the machine ended, from the document of the event that told it. `asked`: the end was our wish.
#[must_use]
pub fn exit_reason(document: &str, asked: bool) -> ExitReason {
    let Ok(exit) = serde_json::from_str::<ExitDocument>(document) else {
        return if asked {
            ExitReason::Terminated
        } else {
            ExitReason::Crashed(-1)
        };
    };
    let workers = || {
        exit.attribution
            .iter()
            .filter_map(|one| one.worker_exit.as_ref())
    };
    let crash = exit
        .attribution
        .iter()
        .find_map(|one| one.guest_crash.as_ref());
    if let Some(crash) = crash {
        return ExitReason::Panicked(format!("hyper-v reports a crash of the guest: {crash}"));
    }
    if workers().any(|worker| worker.detail == "GuestCrash") {
        return ExitReason::Panicked("hyper-v reports a crash of the guest".into());
    }
    if workers().any(|worker| worker.kind == "StoppedOnReset" || worker.detail == "Reset") {
        return ExitReason::Reset;
    }
    let by_guest = workers().any(|worker| worker.initiator == "GuestOS");
    match exit.exit_type.as_str() {
        "GracefulExit" => ExitReason::PoweredOff,
        "ForcedExit" if by_guest => ExitReason::PoweredOff,
        _ if asked => ExitReason::Terminated,
        _ => ExitReason::Crashed(exit.status),
    }
}

/// One machine of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Who made it.
    #[serde(default)]
    pub owner: String,
}

/// The machines of a listing; what is not understood of it is left out.
#[must_use]
pub fn listed(document: &str) -> Vec<Listed> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(document).unwrap_or_default();
    let machines = entries.into_iter().map(serde_json::from_value);
    machines.filter_map(Result::ok).collect()
}

/// The GUID by which a machine's sockets are reached, from its properties.
#[must_use]
pub fn runtime_id(properties: &str) -> Option<uuid::Uuid> {
    let properties: serde_json::Value = serde_json::from_str(properties).ok()?;
    properties.get("RuntimeId")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_failure_has_the_code_and_what_the_events_say_once() {
        let document = r#"{"Error":-2147467259,"ErrorMessage":"The VM\r\ndid not start",
            "ErrorEvents":[{"Message":"The VM\r\ndid not start","Provider":"x"},
            {"Message":"out of memory","Data":[{"Type":"String","Value":"1"}]},{}]}"#;
        let error = failure(
            "cannot start",
            HResult::from_code(0x8007_05AA),
            Some(document),
        );
        assert_eq!(
            error.to_string(),
            "cannot start: this host does not have that much memory free (0x800705aa: The VM  did not start: \
             out of memory)"
        );
    }

    #[test]
    fn a_document_that_is_none_leaves_the_code() {
        for document in [
            None,
            Some(""),
            Some("{"),
            Some("[1]"),
            Some("{\"ErrorEvents\":7}"),
        ] {
            let error = failure("cannot start", HResult::from_code(0x8037_0102), document);
            assert_eq!(error.kind(), ErrorKind::NotInstalled);
            let text = error.to_string();
            assert!(
                text.contains("enable") && text.ends_with("(0x80370102)"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_end_is_told_by_who_wanted_it() {
        let forced = |worker: &str| {
            format!(
                r#"{{"Status":-1070137084,"ExitType":"ForcedExit","Attribution":[{{"WorkerExit":{worker}}}]}}"#
            )
        };
        let by_client = forced(r#"{"Type":"Stopped","Detail":"PowerOff","Initiator":"Client"}"#);
        let by_guest = forced(r#"{"Type":"Stopped","Detail":"PowerOff","Initiator":"GuestOS"}"#);
        let reset = forced(r#"{"Type":"StoppedOnReset","Initiator":"GuestOS"}"#);
        let graceful = r#"{"Status":0,"ExitType":"GracefulExit"}"#.to_owned();
        let crash = r#"{"Status":1,"ExitType":"UnexpectedExit","Attribution":
            [{"GuestCrash":{"CrashParameters":[1,2]}}]}"#;
        assert_eq!(exit_reason(&by_client, true), ExitReason::Terminated);
        assert_eq!(
            exit_reason(&by_client, false),
            ExitReason::Crashed(-1_070_137_084)
        );
        assert_eq!(exit_reason(&by_guest, true), ExitReason::PoweredOff);
        assert_eq!(exit_reason(&reset, false), ExitReason::Reset);
        assert_eq!(exit_reason(&graceful, true), ExitReason::PoweredOff);
        let ExitReason::Panicked(words) = exit_reason(crash, false) else {
            panic!("a crash is one");
        };
        assert!(words.contains("[1,2]"), "{words}");
        assert_eq!(exit_reason("nonsense", true), ExitReason::Terminated);
        assert_eq!(exit_reason("nonsense", false), ExitReason::Crashed(-1));
    }

    #[test]
    fn a_listing_keeps_what_it_understands() {
        let found = listed(r#"[{"Id":"a","Owner":"opengcs-1"},{"Owner":"x"},7,{"Id":"b"}]"#);
        let owners: Vec<_> = found.iter().map(|one| (&*one.id, &*one.owner)).collect();
        assert_eq!(owners, [("a", "opengcs-1"), ("b", "")]);
        assert_eq!(listed("null"), []);
    }

    #[test]
    fn a_runtime_id_is_a_guid() {
        let id = "8f3c2a10-0000-4000-8000-000000000001";
        let properties = format!(r#"{{"Id":"x","RuntimeId":"{id}"}}"#);
        assert_eq!(runtime_id(&properties).unwrap().to_string(), id);
        assert_eq!(runtime_id(r#"{"RuntimeId":"x"}"#), None);
        assert_eq!(runtime_id(""), None);
    }

    proptest! {
        #[test]
        fn no_document_panics(document in ".{0,200}", code in any::<u32>(), asked in any::<bool>()) {
            let error = failure("x", HResult::from_code(code), Some(&document));
            prop_assert!(!error.to_string().contains('\n'));
            let _ = exit_reason(&document, asked);
            let _ = listed(&document);
            let _ = runtime_id(&document);
        }
    }
}
