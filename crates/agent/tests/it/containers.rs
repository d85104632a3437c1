//! Containers, with a runtime that is a shell script: what the agent makes of them without a VM.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use opengcs_bridge::{
    Failure, HResult, MessageType, WAIT_FOREVER,
    message::{
        ContainerConfig, CreateRequest, ExecuteRequest, ExecuteSettings, Nested, Notification,
        PlainRequest, ProcessParameters, PropertiesRequest, PropertyQuery, Request, RequestBase,
        Response, SignalOptions, SignalRequest, StdioPorts, WaitRequest,
    },
};
use serde_json::{Value, json};

use crate::support::{Host, accept, text};

/// Does as `crun` does, with processes of this machine: a created one waits for its start.
const RUNTIME: &str = r#"#!/bin/sh
while [ $# -gt 1 ]; do case "$1" in
    --root) root=$2; shift 2;; --log) log=$2; shift 2;; --bundle) bundle=$2; shift 2;;
    --pid-file) pid=$2; shift 2;; --process) process=$2; shift 2;;
    --console-socket) shift 2;;
    --*) shift;;
    *) what=$1; shift;;
esac; done
id=$1; state=$root/$id
case $what in
create)
    grep -q refuse $bundle/config.json && { echo "it is refused" >$log; exit 1; }
    mkdir $state
    (while [ ! -e $state/started ]; do sleep 0.01; done; exec sh $bundle/first) &
    echo -n $! >$pid;;
start) touch $state/started;;
exec) sh $root/../further & echo -n $! >$pid;;
delete) rm -r $state;;
esac
"#;

struct Containers {
    host: Host,
    bundle: PathBuf,
}

fn base(id: &str) -> RequestBase {
    RequestBase {
        container_id: id.to_owned(),
        ..RequestBase::default()
    }
}

fn plain(id: &str) -> PlainRequest {
    PlainRequest { base: base(id) }
}

impl Containers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("crun");
        std::fs::write(&runtime, RUNTIME).unwrap();
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut host = Host::in_folder(folder, &["--runtime".as_ref(), runtime.as_ref()]);
        host.negotiate();
        let bundle = host.folder.path().join("bundle");
        Self { host, bundle }
    }

    fn create(&mut self, id: &str, first: &str, note: &str) -> Result<Response, Failure> {
        std::fs::create_dir_all(&self.bundle).unwrap();
        std::fs::write(self.bundle.join("first"), first).unwrap();
        self.host.call(&Request::Create(CreateRequest {
            base: base(id),
            container_config: Nested(ContainerConfig {
                oci_bundle_path: self.bundle.to_str().unwrap().to_owned(),
                oci_specification: json!({
                    "process": {"args": ["x"]}, "root": {"path": "rootfs"}, "note": note
                }),
                ..ContainerConfig::default()
            }),
        }))
    }

    fn execute(
        &mut self,
        id: &str,
        parameters: ProcessParameters,
        stdio: StdioPorts,
    ) -> Result<u32, Failure> {
        let execute = Request::ExecuteProcess(ExecuteRequest {
            base: base(id),
            settings: ExecuteSettings {
                process_parameters: Nested(parameters),
                stdio,
            },
        });
        match self.host.call(&execute)? {
            Response::Executed(executed) => Ok(executed.process_id),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// The first process, its output connected.
    fn first(&mut self, id: &str) -> (u32, std::os::unix::net::UnixStream) {
        let (port, listener) = self.host.listen();
        let parameters = ProcessParameters {
            create_stdout_pipe: true,
            ..ProcessParameters::default()
        };
        let stdio = StdioPorts {
            stdout: port,
            ..StdioPorts::default()
        };
        let pid = self.execute(id, parameters, stdio).unwrap();
        (pid, accept(&listener))
    }

    fn wait(id: &str, process_id: u32) -> Request {
        Request::WaitForProcess(WaitRequest {
            base: base(id),
            process_id,
            timeout_in_ms: WAIT_FOREVER,
        })
    }

    /// The next frame, which must be a notification.
    fn notification(&mut self) -> Notification {
        let frame = self.host.frame().unwrap();
        assert_eq!(frame.message_type, MessageType::NOTIFY_CONTAINER);
        assert_eq!(frame.id, 0);
        serde_json::from_slice(&frame.body).unwrap()
    }
}

fn result(outcome: Result<impl std::fmt::Debug, Failure>) -> HResult {
    outcome.unwrap_err().result
}

#[test]
fn one_lives_from_create_to_delete() {
    let mut all = Containers::new();
    let first = "trap 'echo got term; exit 42' TERM; echo started; while :; do sleep 0.02; done";
    all.create("c1", first, "").unwrap();
    assert_eq!(
        result(all.create("c1", first, "")),
        HResult::SYSTEM_ALREADY_EXISTS
    );
    all.host.call(&Request::Start(plain("c1"))).unwrap();
    let early = ProcessParameters {
        command_line: "true".into(),
        ..ProcessParameters::default()
    };
    let outcome = all.execute("c1", early.clone(), StdioPorts::default());
    assert_eq!(result(outcome), HResult::INVALID_STATE);

    let (pid, stdout) = all.first("c1");
    let again = all.execute("c1", ProcessParameters::default(), StdioPorts::default());
    assert_eq!(result(again), HResult::INVALID_STATE);
    let delete = Request::DeleteContainerState(plain("c1"));
    assert_eq!(result(all.host.call(&delete)), HResult::INVALID_STATE);

    // One beside it, which the VM itself and other containers know nothing of.
    let gate = all.host.folder.path().join("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exit 5",
        gate.display()
    );
    std::fs::write(all.host.folder.path().join("further"), script).unwrap();
    let further = all.execute("c1", early, StdioPorts::default()).unwrap();
    std::fs::write(gate, "").unwrap();
    let vm = crate::support::wait(further, WAIT_FOREVER);
    assert_eq!(result(all.host.call(&vm)), HResult::NOT_FOUND);
    let id = all.host.send(&Containers::wait("c1", further));
    assert_eq!(all.host.exit_code(id).unwrap(), 5);

    let waiting = all.host.send(&Containers::wait("c1", pid));
    // The trap is set when it has said so.
    let mut stdout = std::io::BufReader::new(stdout);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "started\n");
    all.host
        .call(&Request::ShutdownGraceful(plain("c1")))
        .unwrap();
    // The answer to who waits comes first, then the notification.
    assert_eq!(all.host.exit_code(waiting).unwrap(), 42);
    let told = all.notification();
    assert_eq!(told.notification_type.0, "GracefulExit");
    assert_eq!((&*told.container_id, &*told.operation), ("c1", "None"));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "got term\n");

    let forced = Request::ShutdownForced(plain("c1"));
    assert_eq!(
        result(all.host.call(&forced)),
        HResult::SYSTEM_ALREADY_STOPPED
    );
    let query = Request::GetProperties(PropertiesRequest {
        base: base("c1"),
        query: Nested(PropertyQuery {
            property_types: vec!["ProcessList".into(), "Statistics".into()],
        }),
    });
    let Response::Properties(properties) = all.host.call(&query).unwrap() else {
        panic!("no properties");
    };
    assert_eq!(properties.properties, Nested::default());
    all.host.call(&delete).unwrap();
    assert_eq!(result(all.host.call(&delete)), HResult::SYSTEM_NOT_FOUND);
    assert_eq!(
        std::fs::read_dir(all.host.folder.path().join("runtime"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn how_one_ended_is_told_also_after_the_bridge_was_lost() {
    let mut all = Containers::new();
    for (first, signal, expected) in [
        ("exec sleep 1000", Some(9), "ForcedExit"),
        ("exec sleep 1000", Some(10), "UnexpectedExit"),
        ("exit 3", None, "UnexpectedExit"),
    ] {
        all.create("c", first, "").unwrap();
        let (pid, _stdout) = all.first("c");
        if let Some(signal) = signal {
            let signal = Request::SignalProcess(SignalRequest {
                base: base("c"),
                process_id: pid,
                options: SignalOptions { signal },
            });
            // The notification may come before the answer does.
            all.host.send_unanswered(&signal);
        }
        let told = loop {
            let frame = all.host.frame().unwrap();
            if frame.message_type == MessageType::NOTIFY_CONTAINER {
                break serde_json::from_slice::<Notification>(&frame.body).unwrap();
            }
        };
        assert_eq!(told.notification_type.0, expected);
        all.host.reconnect();
        all.host.negotiate();
        let id = all.host.send(&Containers::wait("c", pid));
        let code = all.host.exit_code(id).unwrap();
        assert_eq!(code, signal.map_or(3, |signal| 128 + signal.unsigned_abs()));
        all.host
            .call(&Request::DeleteContainerState(plain("c")))
            .unwrap();
    }

    // It ends while nobody is connected: the next host is told once it has negotiated.
    let gate = all.host.folder.path().join("gate");
    let first = format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
    all.create("c", &first, "").unwrap();
    let (pid, _stdout) = all.first("c");
    all.host.hang_up();
    std::fs::write(gate, "").unwrap();
    // Its shim has gone when the agent has seen the end.
    while PathBuf::from(format!("/proc/{pid}/exe"))
        .read_link()
        .is_ok()
    {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    all.host.take_bridge();
    all.host.negotiate();
    assert_eq!(all.notification().notification_type.0, "UnexpectedExit");
}

#[test]
fn what_cannot_be_made_is_told_and_leaves_its_name_free() {
    let mut all = Containers::new();
    let failure = all.create("c", "", "refuse").unwrap_err();
    assert_eq!(failure.result, HResult::FAIL);
    assert!(failure.message.contains("it is refused"), "{failure}");
    for id in ["", "a/b", ".", "-x"] {
        assert_eq!(result(all.create(id, "", "")), HResult::INVALID_ARGUMENT);
    }
    all.create("c", "exit 0", "").unwrap();
    // One that was never started can be forgotten.
    all.host
        .call(&Request::DeleteContainerState(plain("c")))
        .unwrap();
    let none = ContainerConfig {
        system_type: "Container".into(),
        oci_specification: Value::Null,
        ..ContainerConfig::default()
    };
    let create = Request::Create(CreateRequest {
        base: base("d"),
        container_config: Nested(none),
    });
    assert_eq!(result(all.host.call(&create)), HResult::INVALID_ARGUMENT);
}

#[test]
fn output_arrives_whole_before_the_code() {
    let mut all = Containers::new();
    let first = "head -c 3000000 /dev/zero; exit 7";
    all.create("c", first, "").unwrap();
    let (pid, stdout) = all.first("c");
    let id = all.host.send(&Containers::wait("c", pid));
    assert_eq!(text(stdout).len(), 3_000_000);
    assert_eq!(all.host.exit_code(id).unwrap(), 7);
}
