//! A signal while a program of the host is waited for: it ends too, and nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::fixture::Place;

#[test]
fn a_download_is_given_up() {
    let place = Place::new();
    let programs = place.path("programs");
    fs::create_dir(&programs).unwrap();
    let script = |name: &str, text: &str| {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let pid_file = place.path("pid");
    script("apt-cache", "printf 'Package: %s\\nVersion: 1\\n' \"$4\"");
    let text = format!(
        "echo half > half.deb; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        pid_file.display()
    );
    script("apt-get", &text);
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("opengcs"))
        .args(["kernel", "install", "--package", "some-kernel"])
        .current_dir(place.work())
        .env("PATH", path)
        .env("OPENGCS_DATA_DIR", place.data())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = loop {
        if let Ok(text) = fs::read_to_string(&pid_file) {
            break Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(10));
    };
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(said.contains("stopped by a request to terminate"), "{said}");
    assert!(test_kill_process(pid).is_err(), "the download goes on");
    assert_eq!(fs::read_dir(place.data()).unwrap().count(), 0);
}
