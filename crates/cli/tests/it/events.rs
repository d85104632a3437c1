//! `--json`: what a program reads while a command works, and when it fails.

use std::process::Output;

use serde_json::Value;

use crate::fixture::{Place, said, tar};

/// Every line of stderr, each of which must be JSON.
#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    said(output).lines().map(parse).collect()
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["event"].as_str().unwrap_or_default())
        .collect()
}

#[test]
fn a_conversion_tells_its_start_its_progress_and_its_result() {
    let place = Place::new();
    let bytes = tar();
    place.write("layer.tar", &bytes);
    let output = place
        .opengcs(["tar2vhd", "-i", "layer.tar", "-o", "layer.vhd", "--json"])
        .output()
        .unwrap();
    let events = lines(&output);
    assert_eq!(names(&events), ["start", "progress"]);
    assert_eq!(events[0]["total_bytes"], bytes.len());
    let progress = &events[1];
    assert_eq!(progress["bytes"], bytes.len());
    assert_eq!(progress["total_bytes"], bytes.len());
    assert_eq!(progress["left_ms"], 0);
    for field in ["bytes_per_second", "elapsed_ms"] {
        assert!(progress[field].is_u64(), "{progress}");
    }
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let done: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&done["event"], &done["output"]),
        (&"done".into(), &"layer.vhd".into())
    );

    let output = place
        .opengcs(["vhd2tar", "layer.vhd", "-o", "b.tar", "--json"])
        .output()
        .unwrap();
    let events = lines(&output);
    assert_eq!(names(&events), ["start", "progress"]);
    let length = std::fs::metadata(place.path("b.tar")).unwrap().len();
    assert_eq!(events[1]["bytes"], length);
    assert!(events[1]["total_bytes"].as_u64() >= Some(length));
}

#[test]
fn data_on_stdout_leave_the_events_on_stderr() {
    let place = Place::new().with_layer();
    let disk = std::fs::read(place.path("layer.vhd")).unwrap();
    let piped = place
        .opengcs(["tar2vhd", "-o", "-", "--json"])
        .write_stdin(tar())
        .output()
        .unwrap();
    assert!(piped.stdout == disk);
    let events = lines(&piped);
    let expected = ["start", "progress", "start", "progress", "done"];
    assert_eq!(names(&events), expected);
    assert_eq!(events[4]["size"], disk.len());
    let tar = place.opengcs(["vhd2tar", "layer.vhd"]).output().unwrap();
    let output = place
        .opengcs(["vhd2tar", "-", "--json"])
        .write_stdin(disk)
        .output()
        .unwrap();
    assert!(output.stdout == tar.stdout);
    let events = lines(&output);
    assert_eq!(names(&events), expected);
    assert_eq!(events[4]["size"], tar.stdout.len());
}

#[test]
fn quiet_leaves_the_result() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    let words = ["-q", "tar2vhd", "-i", "layer.tar", "-o", "a.vhd", "--json"];
    let output = place.opengcs(words).output().unwrap();
    assert_eq!(said(&output), "");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["event"], "done");
}

#[test]
fn a_failure_is_an_event_with_its_exit_code() {
    let place = Place::new().with_layer();
    for (words, code, message, has_hint) in [
        (
            &["inspect", "gone", "--json"][..],
            1,
            "gone: cannot open: no such file or directory",
            false,
        ),
        (
            &["tar2vhd", "-i", "layer.vhd", "-o", "b.vhd", "--json"],
            1,
            "layer.vhd is a disk file, not a tar",
            true,
        ),
        (
            &["tar2vhd", "--json", "--sise", "1G"],
            2,
            "unexpected argument '--sise' found",
            true,
        ),
        (&["scratch", "--json"], 2, "missing: <FILE>", true),
    ] {
        let output = place.opengcs(words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
        let events = lines(&output);
        let error = events.last().unwrap();
        assert_eq!(error["event"], "error", "{error}");
        assert_eq!(error["exit_code"], code, "{error}");
        let told = error["message"].as_str().unwrap();
        assert!(told.starts_with(message), "{error}");
        assert_eq!(error["hint"].is_string(), has_hint, "{error}");
    }
    // A program's own arguments are none of ours.
    let output = place
        .opengcs(["run", "--nonsense", "--", "ls", "--json"])
        .output()
        .unwrap();
    let said = said(&output);
    assert!(said.starts_with("opengcs: unexpected"), "{said}");
}

#[test]
fn records_have_the_form_that_is_asked_for() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    let words = ["tar2vhd", "-i", "layer.tar", "-o", "layer.vhd"];
    let asked = |more: &[&str], log: &str| {
        place
            .opengcs([&words[..], more].concat())
            .env("OPENGCS_LOG", log)
            .output()
            .unwrap()
    };
    // A filter that makes no sense is passed over, and told of.
    let text = said(&asked(&[], "opengcs[="));
    assert!(text.contains("warning: OPENGCS_LOG is ignored"), "{text}");
    let text = said(&asked(&["-v"], ""));
    assert!(text.contains("INFO writing layer.vhd"), "{text}");
    assert_eq!(said(&asked(&[], "")), "");
    for (more, events) in [(&["--log-format", "json"][..], 0), (&["--json"], 2)] {
        let all = lines(&asked(more, "info"));
        let records: Vec<_> = all.iter().filter(|line| line["event"].is_null()).collect();
        assert_eq!(all.len() - records.len(), events, "{all:?}");
        assert!(
            records.iter().any(|record| record["level"] == "INFO"
                && record["fields"]["message"] == "writing layer.vhd"),
            "{records:?}"
        );
    }
}
