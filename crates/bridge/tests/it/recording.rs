//! A whole conversation of our two ends, byte for byte as in `testdata/conversation.txt`.
//!
//! `OPENGCS_RECORD=1` writes the file anew; the difference is then to be read before it is kept.

use std::fmt::Write as _;

use opengcs_bridge::{
    Failure, HResult, UTILITY_VM_ID,
    frame::{Decoder, Frame, HEADER_SIZE},
    guest, host,
    message::{
        CombinedLayers, ContainerConfig, ContainerConstraints, CreateResponse, ExecuteRequest,
        ExecuteResponse, ExecuteSettings, GuestMetrics, Layer, MappedVirtualDisk, Modification,
        ModifyRequest, ModifySettings, Nested, Notification, NotificationType, PlainRequest,
        PlainResponse, ProcessDetails, ProcessParameters, Properties, PropertiesRequest,
        PropertiesResponse, PropertyQuery, Request, RequestBase, RequestType, ResizeRequest,
        Response, SchemaVersion, ScsiDevice, SignalOptions, SignalRequest, StacksResponse,
        StdioPorts, VerityInfo, WaitRequest, WaitResponse,
    },
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/conversation.txt");
const RECORDED: &str = include_str!("../../testdata/conversation.txt");

fn modify(request_type: RequestType, modification: &Modification) -> Request {
    Request::ModifySettings(ModifyRequest {
        base: RequestBase::utility_vm(),
        change: ModifySettings::new(request_type, modification).unwrap(),
    })
}

fn execute(parameters: ProcessParameters, stdio: StdioPorts) -> Request {
    Request::ExecuteProcess(ExecuteRequest {
        base: RequestBase::utility_vm(),
        settings: ExecuteSettings {
            process_parameters: Nested(parameters),
            stdio,
        },
    })
}

fn plain() -> PlainRequest {
    PlainRequest {
        base: RequestBase {
            container_id: UTILITY_VM_ID.to_owned(),
            activity_id: "6fa459ea-ee8a-3ca4-894e-db77e160355e".to_owned(),
            trace: None,
        },
    }
}

type Scene = (Request, Option<Result<Response, Failure>>);

fn done() -> Option<Result<Response, Failure>> {
    Some(Ok(Response::Plain(PlainResponse::default())))
}

/// Every message once. `None`: the session answers by itself.
fn scenes() -> Vec<Scene> {
    let base = RequestBase::utility_vm();
    let disk = MappedVirtualDisk {
        mount_path: "/run/layers/0".to_owned(),
        lun: 5,
        read_only: true,
        ..MappedVirtualDisk::default()
    };
    let disk = Modification::MappedVirtualDisk(Box::new(disk));
    let exit = |exit_code| {
        Some(Ok(Response::Exited(WaitResponse {
            exit_code,
            ..WaitResponse::default()
        })))
    };
    let wait = |timeout_in_ms| {
        Request::WaitForProcess(WaitRequest {
            base: base.clone(),
            process_id: 77,
            timeout_in_ms,
        })
    };
    vec![
        (Request::negotiate(), None),
        (Request::Start(plain()), done()),
        (
            execute(
                ProcessParameters {
                    command_args: vec!["sh".into(), "-c".into(), "cat; exit 3".into()],
                    working_directory: "/tmp".into(),
                    environment: [("PATH".to_owned(), "/bin".to_owned())].into(),
                    create_stdin_pipe: true,
                    create_stdout_pipe: true,
                    ..ProcessParameters::default()
                },
                StdioPorts {
                    stdin: 0x4000_0001,
                    stdout: 0x4000_0002,
                    stderr: 0,
                },
            ),
            Some(Ok(Response::Executed(ExecuteResponse {
                process_id: 77,
                ..ExecuteResponse::default()
            }))),
        ),
        (
            wait(50),
            Some(Err(Failure::new(
                HResult::TIMEOUT,
                "process 77 runs on after 50 ms",
            ))),
        ),
        (
            Request::ResizeConsole(ResizeRequest {
                base: base.clone(),
                process_id: 77,
                height: 24,
                width: 80,
            }),
            Some(Err(Failure::new(
                HResult::FAIL,
                "process 77 has no terminal",
            ))),
        ),
        (
            Request::SignalProcess(SignalRequest {
                base: base.clone(),
                process_id: 77,
                options: SignalOptions { signal: 15 },
            }),
            done(),
        ),
        (wait(opengcs_bridge::WAIT_FOREVER), exit(143)),
        (
            execute(
                ProcessParameters {
                    command_line: "\"/no such\" program".into(),
                    emulate_console: true,
                    create_in_utility_vm: true,
                    ..ProcessParameters::default()
                },
                StdioPorts::default(),
            ),
            Some(Err(Failure::new(
                HResult::FAIL,
                "/no such: no such file or directory",
            ))),
        ),
        (
            Request::GetProperties(PropertiesRequest {
                base: base.clone(),
                query: Nested(PropertyQuery {
                    property_types: vec!["ProcessList".into(), "Statistics".into()],
                }),
            }),
            Some(Ok(Response::Properties(PropertiesResponse {
                properties: Nested(Properties {
                    process_list: vec![ProcessDetails { process_id: 77 }],
                    metrics: Some(GuestMetrics::default()),
                }),
                ..PropertiesResponse::default()
            }))),
        ),
        (modify(RequestType::add(), &disk), done()),
        (
            modify(
                RequestType::add(),
                &Modification::CombinedLayers(CombinedLayers {
                    container_id: "c1".into(),
                    container_root_path: "/run/c1/rootfs".into(),
                    layers: vec![Layer {
                        id: String::new(),
                        path: "/run/layers/0".into(),
                    }],
                    scratch_path: "/run/c1/scratch".into(),
                }),
            ),
            done(),
        ),
        (
            modify(
                RequestType::remove(),
                &Modification::CombinedLayers(CombinedLayers {
                    container_root_path: "/run/c1/rootfs".into(),
                    ..CombinedLayers::default()
                }),
            ),
            done(),
        ),
        (
            modify(RequestType::remove(), &disk),
            Some(Err(Failure::new(
                HResult::FAIL,
                "/run/layers/0 is in use: process 78 (sh)",
            ))),
        ),
        (modify(RequestType::remove(), &disk), done()),
        (
            modify(
                RequestType::remove(),
                &Modification::ScsiDevice(ScsiDevice {
                    controller: 0,
                    lun: 5,
                }),
            ),
            done(),
        ),
        (
            modify(
                RequestType::add(),
                &Modification::MappedVirtualDisk(Box::new(MappedVirtualDisk {
                    mount_path: "/run/layers/1".into(),
                    controller: 3,
                    lun: 63,
                    partition: 2,
                    read_only: true,
                    options: vec!["noatime".into()],
                    filesystem: "ext4".into(),
                    verity_info: Some(VerityInfo {
                        ext4_size_in_bytes: 4096,
                        version: 1,
                        algorithm: "sha256".into(),
                        super_block: true,
                        root_digest: "ab".repeat(32),
                        salt: String::new(),
                        block_size: 4096,
                    }),
                    size_in_bytes: 16_384,
                    ..MappedVirtualDisk::default()
                })),
            ),
            Some(Err(Failure::new(
                HResult::FAIL,
                "the disk at controller 3, LUN 63, partition 2, did not appear within 15 s",
            ))),
        ),
        (
            modify(
                RequestType::add(),
                &Modification::MappedVirtualDisk(Box::new(MappedVirtualDisk {
                    mount_path: "/run/link".into(),
                    block_dev: true,
                    ..MappedVirtualDisk::default()
                })),
            ),
            done(),
        ),
        (
            Request::DumpStacks(plain()),
            Some(Ok(Response::Stacks(StacksResponse {
                guest_stacks: "gcs: futex_wait\n".into(),
                ..StacksResponse::default()
            }))),
        ),
        (
            Request::Create(opengcs_bridge::message::CreateRequest {
                base: RequestBase {
                    container_id: "c1".into(),
                    ..base.clone()
                },
                ..Default::default()
            }),
            Some(Ok(Response::Created(CreateResponse::default()))),
        ),
        (
            Request::DeleteContainerState(plain()),
            Some(Err(Failure::new(HResult::SYSTEM_NOT_FOUND, ""))),
        ),
        (
            Request::Create(opengcs_bridge::message::CreateRequest {
                base: RequestBase {
                    container_id: "c2".into(),
                    ..base.clone()
                },
                container_config: Nested(ContainerConfig {
                    schema_version: SchemaVersion { major: 2, minor: 1 },
                    oci_bundle_path: "/run/gcs/c/c2".into(),
                    oci_specification: serde_json::json!({"ociVersion": "1.0.2"}),
                    scratch_dir_path: "/run/gcs/c/c2/scratch".into(),
                    ..ContainerConfig::default()
                }),
            }),
            Some(Err(Failure::new(
                HResult::SYSTEM_ALREADY_EXISTS,
                "there is a container c2 already",
            ))),
        ),
        (
            execute(
                ProcessParameters {
                    oci_process: serde_json::json!({"args": ["id"], "user": {"uid": 7, "gid": 8}}),
                    create_stdout_pipe: true,
                    ..ProcessParameters::default()
                },
                StdioPorts {
                    stdout: 0x4000_0003,
                    ..StdioPorts::default()
                },
            ),
            Some(Ok(Response::Executed(ExecuteResponse {
                process_id: 78,
                ..ExecuteResponse::default()
            }))),
        ),
        (
            modify(
                RequestType::update(),
                &Modification::ContainerConstraints(ContainerConstraints {
                    linux: serde_json::json!({"memory": {"limit": 1024}}),
                }),
            ),
            done(),
        ),
        (Request::ShutdownForced(plain()), done()),
        (Request::ShutdownGraceful(plain()), done()),
    ]
}

fn show(out: &mut String, who: &str, bytes: &[u8]) {
    let (header, body) = bytes.split_at(HEADER_SIZE);
    let header: Vec<String> = header.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = std::str::from_utf8(body).unwrap();
    writeln!(out, "{who} {}\n      {body}", header.join(" ")).unwrap();
}

fn one_frame(bytes: &[u8]) -> Frame {
    let mut rest = bytes;
    let frame = Decoder::new().decode(&mut rest).unwrap().unwrap();
    assert!(rest.is_empty());
    frame
}

fn play() -> String {
    let mut host = host::Session::new();
    let mut guest = guest::Session::new();
    let mut out = String::new();
    for (token, (request, response)) in scenes().into_iter().enumerate() {
        let (id, bytes) = host.request(&request, token).unwrap();
        show(&mut out, "host ", &bytes);
        let reply = match (guest.receive(&one_frame(&bytes)), &response) {
            (guest::Incoming::Reply(reply), None) => reply,
            (guest::Incoming::Request(ticket, served), Some(response)) => {
                assert_eq!(*served, request, "the request came through");
                ticket.answer(response.clone())
            }
            (incoming, _) => panic!("{request:?} came to {incoming:?}"),
        };
        show(&mut out, "guest", &reply);
        let host::Incoming::Response {
            id: answered,
            token: returned,
            response: got,
        } = host.receive(&one_frame(&reply)).unwrap()
        else {
            panic!("not a response");
        };
        assert_eq!((answered, returned), (id, Some(token)));
        match (response, got) {
            (None, got) => assert!(got.is_ok()),
            (Some(Ok(mut sent)), Ok(got)) => {
                let activity = &request.base().activity_id;
                activity.clone_into(&mut sent.base_mut().activity_id);
                assert_eq!(got, sent);
            }
            (Some(Err(sent)), Err(got)) => {
                assert_eq!(got.result, sent.result);
                assert!(got.message.contains(&sent.message));
                assert_eq!(got.request, Some(request.message_type()));
            }
            (sent, got) => panic!("sent {sent:?}, got {got:?}"),
        }
    }
    let notification = Notification {
        container_id: "c1".into(),
        activity_id: opengcs_bridge::NO_ACTIVITY.into(),
        notification_type: NotificationType(NotificationType::GRACEFUL_EXIT.into()),
        operation: "None".into(),
        ..Notification::default()
    };
    let bytes = guest::notify(&notification).unwrap();
    show(&mut out, "guest", &bytes);
    let incoming = host.receive(&one_frame(&bytes)).unwrap();
    assert!(matches!(incoming, host::Incoming::Notification(got) if got == notification));
    out
}

#[test]
fn the_conversation_is_as_recorded() {
    let now = play();
    if std::env::var_os("OPENGCS_RECORD").is_some() {
        std::fs::write(FILE, &now).unwrap();
        return;
    }
    for (line, (now, recorded)) in now.lines().zip(RECORDED.lines()).enumerate() {
        assert_eq!(now, recorded, "line {}", line + 1);
    }
    assert_eq!(now, RECORDED);
}
