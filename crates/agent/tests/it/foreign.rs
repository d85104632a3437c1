//! A host of another maker, byte by byte from `testdata/foreign-host.txt`.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
};

use opengcs_bridge::{MessageType, frame};
use serde_json::Value;

use crate::support::{Host, accept};

const SCRIPT: &str = include_str!("../../testdata/foreign-host.txt");

/// Whether `actual` has at least what `expected` says. Values that are to be kept go to `kept`.
fn agrees(expected: &Value, actual: &Value, kept: &mut HashMap<String, String>) -> bool {
    match (expected, actual) {
        (Value::String(name), actual) if name.starts_with('$') && !name.contains('{') => {
            kept.insert(name.clone(), actual.to_string());
            true
        }
        (Value::Object(expected), Value::Object(actual)) => expected.iter().all(|(name, value)| {
            let found = actual.get(name);
            found.is_some_and(|found| agrees(value, found, kept))
        }),
        (Value::Array(expected), Value::Array(actual)) => {
            let mut pairs = expected.iter().zip(actual);
            expected.len() == actual.len() && pairs.all(|(one, other)| agrees(one, other, kept))
        }
        (expected, actual) => expected == actual,
    }
}

fn text(escaped: &str) -> String {
    escaped.replace("\\n", "\n")
}

#[test]
fn a_foreign_host_is_answered_as_it_expects() {
    let mut host = Host::connected();
    let mut kept: HashMap<String, String> = HashMap::new();
    let mut listeners: HashMap<String, UnixListener> = HashMap::new();
    let mut answers = 0;
    for (number, line) in SCRIPT.lines().enumerate() {
        let place = format!("line {}: {line}", number + 1);
        let mut line = line.to_owned();
        for (name, value) in &kept {
            line = line.replace(name, value);
        }
        let mut words = line.splitn(2, ' ');
        let (what, rest) = (words.next().unwrap(), words.next().unwrap_or_default());
        match what {
            "" | "#" => {}
            "listen" => {
                let path = host.folder.path().join(rest);
                listeners.insert(rest.to_owned(), UnixListener::bind(path).unwrap());
            }
            "reads" | "writes" => {
                let (port, content) = rest.split_once(' ').unwrap();
                let mut stream = accept(&listeners[port]);
                if what == "writes" {
                    stream.write_all(text(content).as_bytes()).unwrap();
                } else {
                    let mut said = String::new();
                    stream.read_to_string(&mut said).unwrap();
                    assert_eq!(said, text(content), "{place}");
                }
            }
            "redial" => host.reconnect(),
            ">" | "<" => {
                let parts: Vec<&str> = rest.splitn(3, ' ').collect();
                let message_type = MessageType(u32::from_str_radix(parts[0], 16).unwrap());
                let id: u64 = parts[1].parse().unwrap();
                if what == ">" {
                    let bytes = frame::encode(message_type, id, parts[2].as_bytes()).unwrap();
                    host.bridge.write_all(&bytes).unwrap();
                    continue;
                }
                let answer = host.frame().expect("the bridge is open");
                assert_eq!(
                    (answer.message_type, answer.id),
                    (message_type, id),
                    "{place}"
                );
                let actual: Value = serde_json::from_slice(&answer.body).unwrap();
                let expected: Value = serde_json::from_str(parts[2]).unwrap();
                assert!(agrees(&expected, &actual, &mut kept), "{place}\n{actual}");
                answers += 1;
            }
            other => panic!("{place}: what is {other}?"),
        }
    }
    assert!(answers > 45, "only {answers} answers");
}
