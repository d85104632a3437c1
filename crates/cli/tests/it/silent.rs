//! Monitors that are there and do not answer.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{kernel, said};
use crate::monitor::{Runtime, dead};

/// A monitor that has its name and its socket, and takes clients without a word.
struct Silent {
    runtime: Runtime,
    listener: UnixListener,
    clients: Vec<UnixStream>,
    _lock: OwnedFd,
}

impl Silent {
    fn new() -> Self {
        let runtime = Runtime::new();
        let folder = runtime.place.path("run/opengcs/a");
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).recursive(true).create(&folder).unwrap();
        let lock = rustix::fs::open(&folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let lock = lock.unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let listener = UnixListener::bind(folder.join("monitor.sock")).unwrap();
        Self {
            runtime,
            listener,
            clients: Vec::new(),
            _lock: lock,
        }
    }

    /// Begins a command, and returns when it has come as a client.
    fn begin(&mut self, arguments: &[&str]) -> Child {
        let child = begin(&self.runtime, arguments);
        self.clients.push(self.listener.accept().unwrap().0);
        child
    }
}

fn begin(runtime: &Runtime, arguments: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("opengcs"))
        .args(arguments)
        .current_dir(runtime.place.work())
        .env("XDG_RUNTIME_DIR", runtime.place.path("run"))
        .env("OPENGCS_DATA_DIR", runtime.place.data())
        .env("HOME", runtime.place.work())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Every command that asks one monitor, and its exit code for a failure of its own.
const COMMANDS: &[(&[&str], i32)] = &[
    (&["vm", "stop", "a"], 1),
    (&["vm", "inspect", "a"], 1),
    (&["vm", "logs", "a"], 1),
    (&["vm", "stats", "a"], 1),
    (&["exec", "a", "--", "true"], 125),
    (&["disk", "add", "a", "x.vhd"], 1),
    (&["disk", "rm", "a", "x.vhd"], 1),
    (&["disk", "ls", "a"], 1),
    (&["debug", "a"], 1),
];

fn ended(child: Child) -> (Option<i32>, String) {
    let output: Output = child.wait_with_output().unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn who_waits_for_a_silent_monitor_is_told_of_it_and_can_leave_at_once() {
    let mut monitor = Silent::new();
    let leaving = [COMMANDS, &[(&["vm", "ls"], 0)]].concat();
    let leaving: Vec<_> = leaving
        .iter()
        .map(|(arguments, _)| (monitor.begin(arguments), *arguments))
        .collect();
    let mut waiting: Vec<_> = COMMANDS
        .iter()
        .map(|(arguments, code)| (monitor.begin(arguments), *arguments, *code))
        .collect();
    for (child, _) in &leaving {
        kill_process(Pid::from_child(child), Signal::INT).unwrap();
    }
    for (child, arguments) in leaving {
        let (code, said) = ended(child);
        assert_eq!(code, Some(130), "{arguments:?}: {said}");
    }
    // Those have not waited for what these are told in the end.
    let (last, ..) = waiting.last_mut().unwrap();
    assert!(last.try_wait().unwrap().is_none());
    let process = std::process::id();
    for (child, arguments, expected) in waiting {
        let (code, said) = ended(child);
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        let (line, hint) = said.split_once('\n').unwrap();
        assert_eq!(
            line,
            format!("opengcs: the monitor of the VM a, process {process}, does not answer")
        );
        assert!(hint.starts_with("hint: "), "{hint}");
        for words in [
            format!("kill -CONT {process}"),
            "vm stop --force a".to_owned(),
        ] {
            assert!(hint.contains(&words), "{hint}");
        }
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[test]
fn the_list_has_the_others_beside_a_silent_monitor() {
    let monitor = Silent::new();
    dead(&monitor.runtime, "b");
    let all = monitor.runtime.ok(&["vm", "ls", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(
        (&all[0]["name"], &all[1]["name"]),
        (&"a".into(), &"b".into())
    );
    assert_eq!(all[0]["state"], "silent");
    assert_eq!(all[0]["monitor_pid"], std::process::id());
    assert_eq!(all[1]["state"], "ended");
}

#[test]
fn a_stopped_monitor_is_killed_when_that_is_wanted() {
    let runtime = Runtime::new();
    let data = runtime.place.data();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("bootx64.efi"), kernel("6.9.1")).unwrap();
    fs::write(data.join("initrd.img"), b"070701").unwrap();
    // A hypervisor that never gets anywhere: its monitor waits for it.
    let programs = runtime.place.path("bin");
    fs::create_dir(&programs).unwrap();
    let hypervisor = programs.join("qemu-system-x86_64");
    fs::write(&hypervisor, "#!/bin/sh\nexec /bin/sleep 1010\n").unwrap();
    fs::set_permissions(&hypervisor, fs::Permissions::from_mode(0o755)).unwrap();
    let start = Command::new(assert_cmd::cargo::cargo_bin("opengcs"))
        .args(["vm", "start", "a"])
        .current_dir(runtime.place.work())
        .env("XDG_RUNTIME_DIR", runtime.place.path("run"))
        .env("OPENGCS_DATA_DIR", data)
        .env("HOME", runtime.place.work())
        .env("PATH", programs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let socket = runtime.place.path("run/opengcs/a/monitor.sock");
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let shown = runtime.ok(&["vm", "inspect", "a", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["state"], "starting");
    let monitor = shown["monitor_pid"].as_i64().unwrap();
    let monitor = Pid::from_raw(i32::try_from(monitor).unwrap()).unwrap();
    kill_process(monitor, Signal::STOP).unwrap();
    let stopped = runtime.ok(&["vm", "stop", "--force", "a", "--json"]);
    let stopped: serde_json::Value = serde_json::from_str(&stopped).unwrap();
    assert_eq!(stopped["how"], "forced");
    assert_eq!(runtime.ok(&["vm", "ls", "--json"]), "[]\n");
    let (code, said) = ended(start);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("signal: 9"), "{said}");
}
