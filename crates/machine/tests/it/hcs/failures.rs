//! What goes wrong: each failure is told as what it is, and no handle, machine or right is left.

use std::time::Duration;

use opengcs_machine::hcs::{Hcs, Host};
use opengcs_machine::{ErrorKind, ExitReason, Machine, Port, Slot, State};
use serde_json::json;

use super::{FORCED, GRACEFUL, Place, config};
use crate::double::Report;

const EVENTS: &str = r#"{"Error":-2143878885,"ErrorMessage":"the worker said no",
    "ErrorEvents":[{"Message":"because of this","Provider":"{x}","EventId":1}]}"#;

/// A start that fails: the error's kind and words, and the calls there were.
async fn fails(place: Place, kind: ErrorKind, words: &[&str], calls: &[&str]) -> Report {
    let mut listener = place.machine.listen(Port(5)).unwrap();
    let error = place.machine.power_on().await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(place.machine.state().is_end());
    assert!(listener.accept().await.is_err());
    let again = place.machine.power_on().await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WrongState);
    place.machine.terminate().await;
    let report = place.double.balanced().await;
    assert_eq!(report.names(), calls);
    assert!(!place.machine.console().exists());
    report
}

#[tokio::test]
async fn a_create_that_is_refused_is_told_with_the_events() {
    let script = json!({ "create": { "begin": "0x8037011b" } });
    let place = Place::new("create-begin", script);
    fails(
        place,
        ErrorKind::Refused,
        &["administrator", "0x8037011b"],
        &["create"],
    )
    .await;

    let script = json!({ "create": { "result": "0x8037010d", "document": EVENTS } });
    let place = Place::new("create-result", script);
    let words = ["0x8037010d", "the worker said no: because of this"];
    fails(
        place,
        ErrorKind::InvalidConfig,
        &words,
        &["create", "cancel", "close"],
    )
    .await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_watched_is_not_kept() {
    let place = Place::new("callback", json!({ "callback": { "begin": "0x80370119" } }));
    fails(
        place,
        ErrorKind::Refused,
        &["cannot watch"],
        &["create", "close"],
    )
    .await;
}

#[tokio::test]
async fn a_start_that_fails_ends_what_was_created() {
    for (name, script) in [
        ("start-begin", json!({ "start": { "begin": "0x800705aa" } })),
        (
            "start-result",
            json!({ "start": { "result": "0x800705aa", "document": EVENTS } }),
        ),
    ] {
        let mut calls = vec!["create", "start", "terminate", "close"];
        if name == "start-result" {
            calls.insert(2, "cancel");
        }
        let place = Place::new(name, script);
        let report = fails(
            place,
            ErrorKind::Refused,
            &["cannot start", "memory"],
            &calls,
        )
        .await;
        assert_eq!(report.texts("grant").len(), report.texts("revoke").len());
    }
}

#[tokio::test]
async fn a_start_that_never_ends_is_given_up() {
    let script = json!({ "start": { "never": true } });
    let limited = |host: Host| host.limit(Duration::from_millis(300));
    let place = Place::with("start-never", script, limited);
    let calls = ["create", "start", "cancel", "terminate", "close"];
    fails(
        place,
        ErrorKind::TimedOut,
        &["cannot start", "too long"],
        &calls,
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_takes_its_time_is_waited_for() {
    // Longer than any single wait.
    let slow = json!({ "start": { "delay": 1200 }, "modify": { "delay": 1200 } });
    let place = Place::new("slow", slow);
    place.machine.power_on().await.unwrap();
    place.machine.attach(place.disk("a.vhdx")).await.unwrap();
    let late = json!({ "delay": 1200, "result": "0x80070020", "document": EVENTS });
    place.double.script(&json!({ "modify": late }));
    let disk = place.disk("b.vhdx");
    let error = place.machine.attach(disk).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskLocked, "{error}");
    assert!(error.to_string().contains("the worker said no"), "{error}");
    drop(place.machine);
    place.double.balanced().await;
}

#[tokio::test]
async fn a_machine_that_ends_while_it_starts_never_ran() {
    let script = json!({ "start": { "never": true, "exit": FORCED } });
    let place = Place::new("start-exit", script);
    // The wait for Hyper-V's answer has a minute: the end comes first.
    let error = place.machine.power_on().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GuestDied, "{error}");
    assert_eq!(place.machine.state(), State::Failed);
    assert_eq!(
        place.double.report().names(),
        ["create", "start", "terminate"]
    );
}

#[tokio::test]
async fn an_answer_that_is_none_fails_the_start() {
    for (name, document) in [
        ("properties-empty", ""),
        ("properties-list", "[]"),
        ("properties-half", r#"{"RuntimeId":"#),
        ("properties-wrong", r#"{"RuntimeId":"no guid"}"#),
    ] {
        let place = Place::new(name, json!({ "properties": { "document": document } }));
        let calls = ["create", "terminate", "close"];
        fails(place, ErrorKind::StartFailed, &["runtime id"], &calls).await;
    }
    for (name, document) in [("garbage", "{{{"), ("shape", r#"{"ErrorEvents":{}}"#)] {
        let script = json!({ "create": { "result": "0x80370106", "document": document } });
        let place = Place::new(&format!("create-{name}"), script);
        let calls = ["create", "cancel", "close"];
        fails(place, ErrorKind::GuestDied, &["0x80370106"], &calls).await;
    }
}

#[tokio::test]
async fn a_refused_change_leaves_the_slot_free_and_no_right_behind() {
    let place = Place::new("modify", json!({}));
    place.machine.power_on().await.unwrap();
    let disk = place.disk("a.vhdx");
    let refused = json!({
        "modify": { "result": "0x80070005", "document": EVENTS },
        "grant": { "begin": "0x80070005" },
    });
    place.double.script(&refused);
    let error = place.machine.attach(disk.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = error.to_string();
    for words in ["a.vhdx", "the worker said no", "cannot let the machine use"] {
        assert!(text.contains(words), "{text}");
    }
    let path = disk.path.to_str().unwrap();
    let mut revoked = place.double.report().texts("revoke").into_iter();
    assert!(revoked.any(|texts| texts[1] == path));

    // A right that cannot be given is no failure where it is there already.
    place
        .double
        .script(&json!({ "grant": { "begin": "0x80070005" } }));
    let slot = place.machine.attach(disk).await.unwrap();
    assert_eq!(
        slot,
        Slot {
            controller: 0,
            lun: 0
        }
    );
    place
        .double
        .script(&json!({ "modify": { "begin": "0x80370105" } }));
    let error = place.machine.detach(slot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState);
    // It is still there, and can be detached later.
    place.double.script(&json!({}));
    place.machine.detach(slot).await.unwrap();
    assert_eq!(
        place.machine.detach(slot).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn the_end_comes_before_an_answer_that_never_comes() {
    let place = Place::new("modify-exit", json!({}));
    place.machine.power_on().await.unwrap();
    let crash = r#"{"Status":-1070137075,"ExitType":"UnexpectedExit"}"#;
    place
        .double
        .script(&json!({ "modify": { "never": true, "exit": crash } }));
    let error = place
        .machine
        .attach(place.disk("a.vhdx"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GuestDied);
    assert!(error.to_string().contains("-1070137075"), "{error}");
    assert_eq!(
        place.machine.wait().await.reason,
        ExitReason::Crashed(-1_070_137_075)
    );
    assert_eq!(place.machine.state(), State::Stopped);
}

#[tokio::test]
async fn a_terminate_that_is_not_answered_ends_all_the_same() {
    let limited = |host: Host| host.limit(Duration::from_millis(300));
    let script = json!({ "terminate": { "never": true } });
    let place = Place::with("terminate-never", script, limited);
    place.machine.power_on().await.unwrap();
    assert_eq!(
        place.machine.terminate().await.reason,
        ExitReason::Terminated
    );
    assert_eq!(place.machine.state(), State::Stopped);
    drop(place.machine);
    place.double.balanced().await;
}

#[tokio::test]
async fn news_that_is_nonsense_or_comes_twice_ends_the_machine_once() {
    let place = Place::new("nonsense", json!({}));
    place.machine.power_on().await.unwrap();
    place.double.exit("\u{1F427} no document");
    place.double.exit(GRACEFUL);
    assert_eq!(place.machine.wait().await.reason, ExitReason::Crashed(-1));
    // The power button of a machine that is gone.
    let error = place.machine.power_off().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GuestDied);
    drop(place.machine);
    place.double.balanced().await;
}

#[tokio::test]
async fn the_power_button_that_nobody_hears_is_refused() {
    let place = Place::new("button", json!({ "shut_down": { "result": "0x80370108" } }));
    place.machine.power_on().await.unwrap();
    let error = place.machine.power_off().await.unwrap_err();
    assert!(error.to_string().contains("power button"), "{error}");
    assert_eq!(place.machine.state(), State::Running);
}

#[tokio::test]
async fn files_that_are_not_there_are_told_before_hyper_v_is_asked() {
    let place = Place::new("files", json!({}));
    std::fs::remove_file(place.folder.path().join("initrd.img")).unwrap();
    fails(place, ErrorKind::NotFound, &["initrd"], &[]).await;
}

#[tokio::test]
async fn a_windows_without_hyper_v_says_how_to_enable_it() {
    let folder = tempfile::tempdir().unwrap();
    // The system's own, which wine does not have.
    let machine = Hcs::create(config(folder.path()), Host::new()).unwrap();
    let error = machine.power_on().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    let text = error.to_string();
    assert!(
        text.contains("Microsoft-Hyper-V") && text.contains("computecore.dll"),
        "{text}"
    );

    let other = Host::new().library(r"C:\windows\system32\kernel32.dll");
    let machine = Hcs::create(config(folder.path()), other).unwrap();
    let error = machine.power_on().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    let text = error.to_string();
    assert!(
        text.contains("too old") && text.contains("HcsCreateOperation"),
        "{text}"
    );
}
