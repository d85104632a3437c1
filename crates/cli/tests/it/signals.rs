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

/// Runs the program on a pipe at the other end of which nobody is, and interrupts it there.
fn interrupted_at_a_pipe(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let child = Command::new(assert_cmd::cargo::cargo_bin("opengcs"))
        .args(arguments)
        .current_dir(place.work())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    // Once the program takes signals over, it opens its files.
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let interrupt = 1_u64 << 1;
    let listens = || {
        let text = std::fs::read_to_string(&status).unwrap();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(caught.unwrap().trim(), 16).unwrap() & interrupt != 0
    };
    while !listens() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Whatever is stuck is left behind after ten seconds: that is not what is wanted here.
    let mut patience = Command::new("sleep").arg("9").spawn().unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let at_once = patience.try_wait().unwrap().is_none();
    patience.kill().unwrap();
    patience.wait().unwrap();
    assert!(at_once, "{arguments:?}");
    (output.status.code(), crate::fixture::said(&output))
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_without_another_end_is_left_at_once() {
    let place = Place::new().with_layer();
    place.ok(&[
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "b.vhd",
        "--receipt",
        "b.json",
    ]);
    let made = Command::new("mkfifo").arg(place.path("pipe")).status();
    assert!(made.unwrap().success());
    let before = place.names();
    for arguments in [
        &["vhd2tar", "layer.vhd", "-o", "pipe"][..],
        &["tar2vhd", "-i", "pipe", "-o", "c.vhd"],
        &["tar2vhd", "-i", "pipe", "--plan"],
        &["verify", "b.vhd", "--receipt", "pipe"],
        &["verify", "b.vhd", "--receipt", "b.json", "--tar", "pipe"],
    ] {
        let (code, said) = interrupted_at_a_pipe(&place, arguments);
        assert_eq!(code, Some(130), "{arguments:?}: {said}");
        assert!(said.contains("stopped by an interrupt"), "{said}");
    }
    assert_eq!(place.names(), before);
}

#[test]
fn a_pipe_is_waited_for() {
    let place = Place::new().with_layer();
    let made = Command::new("mkfifo").arg(place.path("pipe")).status();
    assert!(made.unwrap().success());
    let writer = {
        let pipe = place.path("pipe");
        std::thread::spawn(move || {
            let mut pipe = std::fs::File::options().write(true).open(pipe).unwrap();
            pipe.write_all(&tar()).unwrap();
        })
    };
    place.ok(&["tar2vhd", "-i", "pipe", "-o", "b.vhd"]);
    writer.join().unwrap();
    let same = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(same("b.vhd") == same("layer.vhd"));
    let reader = {
        let pipe = place.path("pipe");
        std::thread::spawn(move || std::fs::read(pipe).unwrap())
    };
    place.ok(&["vhd2tar", "b.vhd", "-o", "pipe"]);
    let plain = place.opengcs(["vhd2tar", "b.vhd"]).output().unwrap();
    assert!(reader.join().unwrap() == plain.stdout);
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_is_no_pipe_and_none_is_waited_for() {
    let place = Place::new().with_layer();
    let made = Command::new("mkfifo").arg(place.path("pipe")).status();
    assert!(made.unwrap().success());
    for arguments in [
        &["inspect", "pipe"][..],
        &["vhd2tar", "pipe", "-o", "b.tar"],
        &["squash", "layer.vhd", "pipe", "-o", "b.vhd"],
        &["reclaim", "pipe"],
    ] {
        place.fails(arguments, 1, &["pipe"]);
    }
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
