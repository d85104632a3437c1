//! VMs that outlive the command, as far as that goes without one.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use crate::fixture::{Place, kernel, said};

/// A place with a runtime folder.
pub(crate) struct Runtime {
    pub(crate) place: Place,
}

impl Runtime {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).create(place.path("run")).unwrap();
        Self { place }
    }

    fn opengcs(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = self.place.opengcs(arguments);
        command.env("XDG_RUNTIME_DIR", self.place.path("run"));
        command
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.opengcs(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let mut command = self.opengcs(arguments);
        self.place.fails_as(&mut command, code, words);
    }
}

/// What a monitor has left that died with its VM.
pub(crate) fn dead(runtime: &Runtime, name: &str) {
    let all = runtime.place.path("run").join("opengcs");
    let folder = all.join(name);
    let mut private = fs::DirBuilder::new();
    private.mode(0o700).recursive(true).create(&folder).unwrap();
    let record = format!(
        r#"{{"name":"{name}","started_ms":1,"ended_ms":2,"reason":"the guest powered off","bundle":null}}"#
    );
    fs::write(folder.join("ended.json"), record).unwrap();
    fs::write(folder.join("console.log"), "last words\n").unwrap();
}

#[test]
fn where_there_is_no_vm_the_list_is_empty_and_the_rest_says_so() {
    let runtime = Runtime::new();
    assert_eq!(runtime.ok(&["vm", "ls"]), "");
    assert_eq!(runtime.ok(&["vm", "ls", "--json"]), "[]\n");
    for command in ["stop", "inspect", "logs", "stats"] {
        runtime.fails(&["vm", command, "a"], 1, &["there is no VM a"]);
    }
    for arguments in [
        &["disk", "ls", "a"][..],
        &["disk", "add", "a", "x.vhd"],
        &["disk", "rm", "a", "x.vhd"],
        &["debug", "a", "-o", "x"],
    ] {
        runtime.fails(arguments, 1, &["there is no VM a"]);
    }
    let arguments = ["disk", "add", "a", "x.vhd:/mnt/x:ro"];
    runtime.fails(&arguments, 2, &["there is no file x.vhd:/mnt/x:ro"]);
    let text = said(&runtime.opengcs(&arguments).output().unwrap());
    let apart = "opengcs disk add a x.vhd /mnt/x --read-only";
    assert!(text.contains(apart), "{text}");
    runtime.fails(&["exec", "a", "--", "true"], 125, &["there is no VM a"]);
    let no_terminal = ["exec", "-it", "a", "--", "sh"];
    runtime.fails(&no_terminal, 2, &["stdin is no terminal"]);
    runtime.fails(&["run", "-it", "--", "sh"], 2, &["stdin is no terminal"]);
    runtime.fails(&["exec", "-e", "=x", "a", "--", "true"], 2, &["=x"]);
}

#[test]
fn a_start_that_cannot_work_leaves_nothing() {
    let runtime = Runtime::new();
    runtime.fails(&["vm", "start", "a"], 1, &["kernel", "bootx64.efi"]);
    let data = runtime.place.data();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("bootx64.efi"), kernel("6.9.1")).unwrap();
    fs::write(data.join("initrd.img"), b"070701").unwrap();
    // The monitor's words, by way of the command.
    let output = runtime
        .opengcs(&["vm", "start", "a"])
        .env("PATH", "")
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("hint: install QEMU"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(runtime.ok(&["vm", "ls", "--json"]), "[]\n");
    let left = fs::read_dir(runtime.place.path("run").join("opengcs")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_vm_that_died_is_told_of_until_it_is_stopped() {
    let runtime = Runtime::new();
    dead(&runtime, "a");
    let listed = runtime.ok(&["vm", "ls"]);
    assert!(
        listed.contains("ended") && listed.contains("the guest powered off"),
        "{listed}"
    );
    let shown = runtime.ok(&["vm", "inspect", "a", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["state"], "ended");
    assert_eq!(shown["ended_ms"], 2);
    assert_eq!(
        runtime.ok(&["vm", "logs", "a", "--log", "console"]),
        "last words\n"
    );
    assert_eq!(runtime.ok(&["vm", "logs", "a"]), "console | last words\n");
    assert_eq!(runtime.ok(&["vm", "logs", "a", "--tail", "0"]), "");
    let line = "{\"log\":\"console\",\"line\":\"last words\"}\n";
    assert_eq!(runtime.ok(&["vm", "logs", "a", "--json"]), line);
    assert_eq!(
        runtime.ok(&["--json", "vm", "logs", "a", "--tail", "1"]),
        line
    );
    runtime.fails(
        &["vm", "stats", "a"],
        1,
        &["a has ended: the guest powered off"],
    );
    runtime.fails(&["exec", "a", "--", "true"], 125, &["a has ended"]);
    let bundle = runtime.ok(&["debug", "a", "-o", "-"]);
    assert!(bundle.contains("the guest powered off"), "{bundle}");
    assert!(bundle.contains("last words"), "{bundle}");
    let file = runtime.ok(&["debug", "a", "-o", "bundle.txt"]);
    assert_eq!(file, "bundle.txt\n");
    assert_eq!(
        fs::read_to_string(runtime.place.path("bundle.txt")).unwrap(),
        bundle
    );
    let stopped = runtime.ok(&["vm", "stop", "a"]);
    assert!(stopped.contains("the guest powered off"), "{stopped}");
    assert_eq!(runtime.ok(&["vm", "ls"]), "");
}

#[test]
fn several_are_stopped_at_once_and_each_is_told_of() {
    let runtime = Runtime::new();
    dead(&runtime, "a");
    dead(&runtime, "b");
    let output = runtime
        .opengcs(&["vm", "stop", "a", "none", "b", "a", "nobody"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap() + &said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (words, times) in [
        ("a had ended by itself", 1),
        ("b had ended by itself", 1),
        ("there is no VM none", 1),
        ("there is no VM nobody", 1),
    ] {
        assert_eq!(text.matches(words).count(), times, "{words}: {text}");
    }
    assert_eq!(runtime.ok(&["vm", "ls"]), "");
}

#[test]
fn an_interrupt_ends_logs_that_nobody_reads() {
    let runtime = Runtime::new();
    dead(&runtime, "a");
    let console = runtime.place.path("run/opengcs/a/console.log");
    fs::write(console, vec![b'x'; 1 << 20]).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_opengcs"));
    let mut logs = command
        .args(["vm", "logs", "a", "--log", "console"])
        .env("XDG_RUNTIME_DIR", runtime.place.path("run"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun once a byte is there; the rest does not fit into the pipe.
    let mut unread = logs.stdout.take().unwrap();
    unread.read_exact(&mut [0]).unwrap();
    let pid = rustix::process::Pid::from_child(&logs);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = logs.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    drop(unread);
}

#[test]
fn what_a_killed_monitor_left_is_cleared_away_by_a_look() {
    let runtime = Runtime::new();
    dead(&runtime, "a");
    let folder = runtime.place.path("run").join("opengcs/a");
    fs::remove_file(folder.join("ended.json")).unwrap();
    assert_eq!(runtime.ok(&["vm", "ls"]), "");
    assert!(!folder.exists());
}

#[test]
fn a_folder_that_others_can_enter_is_not_used() {
    let runtime = Runtime::new();
    dead(&runtime, "a");
    let all = runtime.place.path("run").join("opengcs");
    fs::set_permissions(&all, fs::Permissions::from_mode(0o755)).unwrap();
    runtime.fails(&["vm", "ls"], 1, &["0755", "run/opengcs"]);
    fs::set_permissions(&all, fs::Permissions::from_mode(0o700)).unwrap();
    runtime.ok(&["vm", "ls"]);
}

#[test]
fn nobody_becomes_a_monitor_by_hand() {
    let runtime = Runtime::new();
    runtime.fails(&["vm", "monitor", "a"], 1, &["which VM"]);
}
