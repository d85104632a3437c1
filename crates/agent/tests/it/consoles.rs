//! Processes with a terminal.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
};

use opengcs_bridge::{
    HResult,
    message::{ProcessParameters, Request, RequestBase, ResizeRequest},
};

use crate::support::{Host, command, text};

fn terminal(script: &str) -> ProcessParameters {
    ProcessParameters {
        emulate_console: true,
        create_stdin_pipe: true,
        create_stdout_pipe: true,
        ..command(&["sh", "-c", script])
    }
}

fn resize(pid: u32) -> Request {
    Request::ResizeConsole(ResizeRequest {
        base: RequestBase::utility_vm(),
        process_id: pid,
        height: 43,
        width: 132,
    })
}

#[test]
fn it_is_the_controlling_terminal_and_all_output_is_one() {
    let mut host = Host::negotiated();
    let streams = host
        .execute(terminal(
            "test -t 0 && : </dev/tty && tty; echo err >&2; exit 3",
        ))
        .unwrap();
    let out = text(streams.stdout.unwrap());
    assert!(out.starts_with("/dev/pts/"), "{out}");
    assert!(out.ends_with("err\r\n"), "{out}");
    assert_eq!(host.wait(streams.pid).unwrap(), 3);
}

#[test]
fn input_is_echoed_and_its_end_is_an_end() {
    let mut host = Host::negotiated();
    let streams = host.execute(terminal("cat; echo done")).unwrap();
    let mut stdin = streams.stdin.unwrap();
    stdin.write_all(b"hello\n").unwrap();
    stdin.shutdown(Shutdown::Write).unwrap();
    let out = text(streams.stdout.unwrap());
    assert_eq!(out, "hello\r\nhello\r\ndone\r\n");
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}

#[test]
fn the_exit_code_is_the_processs_own() {
    let mut host = Host::negotiated();
    for _ in 0..40 {
        let streams = host.execute(terminal("exec cat")).unwrap();
        let mut stdin = streams.stdin.unwrap();
        stdin.write_all(b"abc\n").unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
        assert_eq!(text(streams.stdout.unwrap()), "abc\r\nabc\r\n");
        assert_eq!(host.wait(streams.pid).unwrap(), 0);
    }
}

#[test]
fn input_ends_after_a_line_without_its_newline() {
    let mut host = Host::negotiated();
    for (input, expected) in [
        ("abc", "abcabcdone\r\n"),
        ("a\nbc", "a\r\nbca\r\nbcdone\r\n"),
        ("", "done\r\n"),
    ] {
        let streams = host.execute(terminal("cat; echo done")).unwrap();
        let mut stdin = streams.stdin.unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
        let out = text(streams.stdout.unwrap());
        assert_eq!(out.len(), expected.len(), "{out:?} of {input:?}");
        assert!(out.ends_with("done\r\n"), "{out:?} of {input:?}");
        assert_eq!(host.wait(streams.pid).unwrap(), 0);
    }
}

#[test]
fn one_end_of_input_is_for_one_reader() {
    let mut host = Host::negotiated();
    // The second reader has what the first has left: nothing, and no end either.
    let script = "cat >/dev/null; echo first; timeout --foreground 0.3 cat >/dev/null; exit $?";
    for input in ["abc", "abc\n", "abc\r", "abc\x04\n", ""] {
        let streams = host.execute(terminal(script)).unwrap();
        let mut stdin = streams.stdin.unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
        let out = text(streams.stdout.unwrap());
        assert!(out.ends_with("first\r\n"), "{out:?} of {input:?}");
        assert_eq!(host.wait(streams.pid).unwrap(), 124, "{input:?}");
    }
}

#[test]
fn a_raw_terminal_is_given_no_end() {
    let mut host = Host::negotiated();
    let script = "stty raw -echo; echo ready.; timeout --foreground 0.5 cat; exit 8";
    let streams = host.execute(terminal(script)).unwrap();
    let (mut stdin, mut stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    let mut ready = [0; 7];
    stdout.read_exact(&mut ready).unwrap();
    stdin.write_all(b"abc").unwrap();
    stdin.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(stdout), "abc");
    assert_eq!(host.wait(streams.pid).unwrap(), 8);
}

#[test]
fn it_may_be_closed_before_the_process_exits() {
    let mut host = Host::negotiated();
    let script = "echo seen; exec 0<&- 1>&- 2>&-; sleep 0.3; exit 7";
    let streams = host.execute(terminal(script)).unwrap();
    assert_eq!(text(streams.stdout.unwrap()), "seen\r\n");
    assert_eq!(host.wait(streams.pid).unwrap(), 7);
}

#[test]
fn it_may_be_opened_again() {
    let mut host = Host::negotiated();
    let script = "exec 0<&- 1>&- 2>&-; sleep 0.2; echo again >/dev/tty; sleep 0.2; \
                  head -c 30000 /dev/zero | tr '\\0' x >/dev/tty; exit 7";
    let streams = host.execute(terminal(script)).unwrap();
    let out = text(streams.stdout.unwrap());
    assert!(out.starts_with("again\r\nxxx"), "{out}");
    assert_eq!(out.len(), 30_007);
    assert_eq!(host.wait(streams.pid).unwrap(), 7);
}

#[test]
fn when_the_host_goes_a_process_that_has_closed_it_is_hung_up() {
    let mut host = Host::negotiated();
    let script = "exec 0<&- 1>&- 2>&-; exec sleep 100";
    let streams = host.execute(terminal(script)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop((streams.stdin, streams.stdout));
    assert_eq!(host.wait(streams.pid).unwrap(), 128 + 1);
}

#[test]
fn it_is_resized() {
    let mut host = Host::negotiated();
    let streams = host
        .execute(terminal("read line; stty size; exit 4"))
        .unwrap();
    host.call(&resize(streams.pid)).unwrap();
    streams.stdin.unwrap().write_all(b"go\n").unwrap();
    let out = text(streams.stdout.unwrap());
    assert!(out.ends_with("43 132\r\n"), "{out}");
    assert_eq!(host.wait(streams.pid).unwrap(), 4);
    let failure = host.call(&resize(streams.pid)).unwrap_err();
    assert_eq!(failure.result, HResult::NOT_FOUND);
}

#[test]
fn a_process_without_one_is_not_resized() {
    let mut host = Host::negotiated();
    let pid = host
        .execute_at(command(&["sleep", "100"]), Default::default())
        .unwrap();
    let failure = host.call(&resize(pid)).unwrap_err();
    assert_eq!(failure.result, HResult::FAIL);
    assert!(failure.message.contains("no terminal"), "{failure}");
    host.signal(pid, 9).unwrap();
    assert_eq!(host.wait(pid).unwrap(), 137);
}

#[test]
fn much_output_arrives_whole() {
    let mut host = Host::negotiated();
    let streams = host
        .execute(terminal("head -c 300000 /dev/zero | tr '\\0' x"))
        .unwrap();
    let mut out = Vec::new();
    streams.stdout.unwrap().read_to_end(&mut out).unwrap();
    assert_eq!(out.len(), 300_000);
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}

#[test]
fn when_the_host_goes_the_process_is_hung_up() {
    let mut host = Host::negotiated();
    let streams = host.execute(terminal("exec sleep 100")).unwrap();
    drop((streams.stdin, streams.stdout));
    assert_eq!(host.wait(streams.pid).unwrap(), 128 + 1);
}

#[test]
fn it_works_without_streams() {
    let mut host = Host::negotiated();
    let mut parameters = terminal("echo unseen; exit 6");
    parameters.create_stdin_pipe = false;
    parameters.create_stdout_pipe = false;
    let pid = host.execute_at(parameters, Default::default()).unwrap();
    assert_eq!(host.wait(pid).unwrap(), 6);
}

#[test]
fn it_has_its_size_from_the_start() {
    let mut host = Host::negotiated();
    let mut parameters = terminal("stty size");
    parameters.oci_process = serde_json::json!({"consoleSize": {"height": 30, "width": 90}});
    let streams = host.execute(parameters).unwrap();
    assert_eq!(text(streams.stdout.unwrap()), "30 90\r\n");
    assert_eq!(host.wait(streams.pid).unwrap(), 0);
}
