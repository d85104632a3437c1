//! Ctrl-C and its kin: a clean end, nothing left, and the exit code that shells expect.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Place, tar};

/// Sends `signal` while the program waits for more of a tar, and returns its exit code and words.
fn interrupted(place: &Place, signal: Signal) -> (Option<i32>, String) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("opengcs"))
        .args(["-v", "tar2vhd", "-o", "b.vhd"])
        .current_dir(place.work())
        .env("TMPDIR", place.work())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: when this is through, the program reads, and listens for signals.
    let tar = tar();
    stdin.write_all(&tar[..tar.len() - 2048]).unwrap();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let code = child.wait().unwrap().code();
    drop(stdin);
    (code, said)
}

#[test]
fn a_signal_leaves_nothing_behind() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        let before = place.names();
        let (found, said) = interrupted(&place, signal);
        assert_eq!(found, Some(code), "{signal:?}: {said}");
        assert_eq!(place.names(), before, "{signal:?}: {said}");
        assert!(said.contains("stopped by"), "{said}");
    }
}
