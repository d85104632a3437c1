//! Processes outside any container.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
};

use opengcs_bridge::{
    HResult, WAIT_FOREVER,
    message::{ProcessParameters, StdioPorts},
};

use crate::support::{Host, command, shell, text, wait};

#[test]
fn output_errors_and_exit_code_come_back_apart() {
    let mut host = Host::negotiated();
    let (code, out, err) = host.run("echo out; echo err >&2; exit 7");
    assert_eq!((code, &*out, &*err), (7, "out\n", "err\n"));
}

#[test]
fn the_command_line_is_split_and_the_list_wins() {
    let mut host = Host::negotiated();
    let line = ProcessParameters {
        command_line: "/bin/sh -c \"pwd; echo $A; exit 3\"".to_owned(),
        working_directory: "/tmp".to_owned(),
        environment: [("A".to_owned(), "b c".to_owned())].into(),
        create_stdout_pipe: true,
        ..ProcessParameters::default()
    };
    let streams = host.execute(line.clone()).unwrap();
    assert_eq!(text(streams.stdout.unwrap()), "/tmp\nb c\n");
    assert_eq!(host.wait(streams.pid).unwrap(), 3);

    let both = ProcessParameters {
        command_args: vec!["echo".into(), "the; list".into()],
        ..line
    };
    let streams = host.execute(both).unwrap();
    assert_eq!(text(streams.stdout.unwrap()), "the; list\n");
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}

#[test]
fn the_environment_is_exactly_the_one_given() {
    let mut host = Host::negotiated();
    let mut parameters = command(&["env"]);
    parameters.create_stdout_pipe = true;
    parameters.environment = [("ONE".to_owned(), "1=1".to_owned())].into();
    let streams = host.execute(parameters).unwrap();
    assert_eq!(text(streams.stdout.unwrap()), "ONE=1=1\n");
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}

#[test]
fn input_goes_through_to_its_end() {
    let mut host = Host::negotiated();
    let mut parameters = command(&["sh", "-c", "cat; echo end"]);
    parameters.create_stdin_pipe = true;
    parameters.create_stdout_pipe = true;
    let streams = host.execute(parameters).unwrap();
    let mut stdin = streams.stdin.unwrap();
    let sent: Vec<u8> = (0..3_000_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let expected = [sent.as_slice(), b"end\n"].concat();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&sent).unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    streams.stdout.unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}

#[test]
fn unwanted_streams_are_null_and_their_ports_ignored() {
    let mut host = Host::negotiated();
    let ports = StdioPorts {
        stdin: 9,
        stdout: 9,
        stderr: 9,
    };
    let script = "test $(readlink /proc/self/fd/0) = /dev/null && exit 5";
    let pid = host
        .execute_at(command(&["sh", "-c", script]), ports)
        .unwrap();
    assert_eq!(host.wait(pid).unwrap(), 5);
}

#[test]
fn no_descriptor_of_the_agent_leaks_into_a_process() {
    let mut host = Host::negotiated();
    let script = "ls /proc/self/fd | wc -w";
    let (_, out, _) = host.run(script);
    // Whoever runs the tests may leak some of its own, to every child alike.
    let here = std::process::Command::new("sh")
        .args(["-c", script])
        .output()
        .unwrap();
    assert_eq!(out.as_bytes(), here.stdout);
}

#[test]
fn a_process_leads_a_session_with_default_signals() {
    let mut host = Host::negotiated();
    // In place of the shell, which blocks signals for a moment whenever it starts a program.
    let script = "exec grep -hE '^[0-9]|Sig(Blk|Ign)' /proc/self/stat /proc/self/status";
    let (_, out, _) = host.run(script);
    let (stat, signals) = out.split_once('\n').unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    let [id, group, session] = [fields[0], fields[4], fields[5]];
    assert!(id == group && id == session, "{out}");
    // Whoever runs the tests may have some ignored, in every child alike.
    let here = std::process::Command::new("sh")
        .args(["-c", script])
        .output()
        .unwrap();
    let here = String::from_utf8(here.stdout).unwrap();
    assert_eq!(masks(signals), masks(here.split_once('\n').unwrap().1));
}

/// The ordinary signals of each line; those above 31 are the C library's own.
fn masks(lines: &str) -> Vec<u64> {
    let mask = |line: &str| u64::from_str_radix(line.split_once(':').unwrap().1.trim(), 16);
    lines
        .lines()
        .map(|line| mask(line).unwrap() & 0x7FFF_FFFF)
        .collect()
}

#[test]
fn what_cannot_be_started_says_why() {
    let mut host = Host::negotiated();
    let mut folder = command(&["true"]);
    folder.working_directory = "/no/such/folder".to_owned();
    let mut file = command(&["true"]);
    file.working_directory = "/etc/passwd".to_owned();
    for (parameters, words) in [
        (command(&["/no/such"]), "/no/such: No such file"),
        (
            command(&["no-such"]),
            "no-such: no such program in /bin:/usr/bin",
        ),
        (command(&["/etc/passwd"]), "/etc/passwd: Permission denied"),
        (command(&["/tmp"]), "/tmp: Permission denied"),
        (folder, "/no/such/folder: No such file"),
        (file, "/etc/passwd: not a directory"),
    ] {
        let failure = host
            .execute_at(parameters, StdioPorts::default())
            .unwrap_err();
        assert_eq!(failure.result, HResult::FAIL, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    let failure = host
        .execute_at(ProcessParameters::default(), StdioPorts::default())
        .unwrap_err();
    assert_eq!(failure.result, HResult::INVALID_ARGUMENT);
}

#[test]
fn a_port_without_a_listener_is_named() {
    let mut host = Host::negotiated();
    let ports = StdioPorts {
        stdout: 1_073_781_145,
        ..StdioPorts::default()
    };
    let mut parameters = command(&["true"]);
    parameters.create_stdout_pipe = true;
    let failure = host.execute_at(parameters, ports).unwrap_err();
    assert_eq!(failure.result, HResult::FAIL);
    assert!(failure.message.contains("1073781145"), "{failure}");
}

#[test]
fn several_wait_and_one_is_out_of_time() {
    let mut host = Host::negotiated();
    let pid = host.execute_at(command(&["sleep", "100"]), StdioPorts::default());
    let pid = pid.unwrap();
    let long = [
        host.send(&wait(pid, WAIT_FOREVER)),
        host.send(&wait(pid, WAIT_FOREVER - 1)),
    ];
    let short = host.send(&wait(pid, 30));
    let none = host.send(&wait(pid, 0));
    for late in [none, short] {
        assert_eq!(host.exit_code(late).unwrap_err().result, HResult::TIMEOUT);
    }
    host.signal(pid, 15).unwrap();
    for id in long {
        assert_eq!(host.exit_code(id).unwrap(), 128 + 15);
    }
    assert_eq!(host.wait(pid).unwrap_err().result, HResult::NOT_FOUND);
    assert_eq!(host.signal(pid, 9).unwrap_err().result, HResult::NOT_FOUND);
}

#[test]
fn an_exit_code_waits_until_it_is_asked_for() {
    let mut host = Host::negotiated();
    let mut first = shell("exit 9");
    first.create_stderr_pipe = false;
    let streams = host.execute(first).unwrap();
    assert_eq!(text(streams.stdout.unwrap()), "");
    // The end of the stream may be seen a moment before the end of the process.
    while host.signal(streams.pid, 18).is_ok() {}
    let others: Vec<u32> = (0..20)
        .map(|_| {
            host.execute_at(command(&["true"]), StdioPorts::default())
                .unwrap()
        })
        .collect();
    assert!(!others.contains(&streams.pid));
    assert_eq!(host.wait(streams.pid).unwrap(), 9);
    for pid in others {
        assert_eq!(host.wait(pid).unwrap(), 0);
    }
}

#[test]
fn signals_are_checked_and_zero_kills() {
    let mut host = Host::negotiated();
    let pid = host.execute_at(command(&["sleep", "100"]), StdioPorts::default());
    let pid = pid.unwrap();
    for number in [-1, 65, i32::MIN] {
        let failure = host.signal(pid, number).unwrap_err();
        assert_eq!(failure.result, HResult::INVALID_ARGUMENT);
    }
    for stranger in [0, 1, std::process::id(), u32::MAX] {
        let failure = host.signal(stranger, 9).unwrap_err();
        assert_eq!(failure.result, HResult::NOT_FOUND);
    }
    host.signal(pid, 0).unwrap();
    assert_eq!(host.wait(pid).unwrap(), 137);
}

#[test]
fn many_at_once_are_not_confused() {
    let mut host = Host::negotiated();
    let waits: Vec<_> = (0..60u32)
        .map(|n| {
            let script = format!("exit {n}");
            let pid = host
                .execute_at(command(&["sh", "-c", &script]), StdioPorts::default())
                .unwrap();
            (n, host.send(&wait(pid, WAIT_FOREVER)))
        })
        .collect();
    for (n, id) in waits {
        assert_eq!(host.exit_code(id).unwrap(), n);
    }
}

fn oci(document: serde_json::Value) -> ProcessParameters {
    ProcessParameters {
        create_stdout_pipe: true,
        oci_process: document,
        ..ProcessParameters::default()
    }
}

#[test]
fn limits_folder_and_rights_come_from_the_oci_process() {
    let mut host = Host::negotiated();
    let script = "ulimit -n; ulimit -Hn; pwd; umask; grep NoNewPrivs /proc/self/status; \
                  cat /proc/self/oom_score_adj; env | grep ONE";
    let streams = host
        .execute(oci(serde_json::json!({
            "args": ["sh", "-c", script],
            "env": ["PATH=/usr/bin:/bin", "ONE=1"],
            "cwd": "/tmp",
            "user": {"uid": 0, "gid": 0, "umask": 0o027},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 300, "soft": 200}],
            "noNewPrivileges": true,
            "oomScoreAdj": 500
        })))
        .unwrap();
    assert_eq!(
        text(streams.stdout.unwrap()),
        "200\n300\n/tmp\n0027\nNoNewPrivs:\t1\n500\nONE=1\n"
    );
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}

#[test]
fn odd_oci_processes_are_refused_with_the_reason() {
    let mut host = Host::negotiated();
    for (document, words) in [
        (
            serde_json::json!({"args": ["true"], "user": {"username": "no-such-user"}}),
            "no-such-user",
        ),
        (
            serde_json::json!({"args": ["true"], "user": {"uid": u32::MAX}}),
            "4294967295",
        ),
        (
            serde_json::json!({"args": ["true"], "user": {"uid": 1, "additionalGids": [u32::MAX]}}),
            "4294967295",
        ),
        (
            serde_json::json!({"args": ["true"], "user": {"username": "4294967295:0"}}),
            "4294967295",
        ),
        (
            serde_json::json!({"args": ["true"], "rlimits": [{"type": "RLIMIT_ODD"}]}),
            "RLIMIT_ODD",
        ),
        (
            serde_json::json!({"args": ["true"], "capabilities": {}}),
            "capabilities",
        ),
        (serde_json::json!({"args": "true"}), "OCI process"),
    ] {
        let failure = host.execute(oci(document)).map(drop).unwrap_err();
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[test]
fn a_killed_process_takes_along_what_it_has_started() {
    let mut host = Host::negotiated();
    let mut parameters = shell("sleep 1000 & echo $!; wait");
    parameters.create_stderr_pipe = false;
    let streams = host.execute(parameters).unwrap();
    let mut stdout = BufReader::new(streams.stdout.unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    host.signal(streams.pid, 9).unwrap();
    assert_eq!(host.wait(streams.pid).unwrap(), 137);
    // The other held the stream as well: its end is the end of both.
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
