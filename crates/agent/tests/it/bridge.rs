//! The bridge itself: negotiation, loss, log, shutdown.

use std::io::{BufRead as _, BufReader};

use opengcs_bridge::{
    HResult, MessageType, UTILITY_VM_ID, WAIT_FOREVER,
    message::{
        CreateRequest, MappedVirtualDisk, Modification, ModifyRequest, ModifySettings, Nested,
        PlainRequest, PropertiesRequest, PropertyQuery, Request, RequestBase, RequestType,
        Response, ScsiDevice, SignalOptions, SignalRequest, StdioPorts, WaitRequest,
    },
};

use crate::support::{Host, accept, command, wait};

fn plain() -> PlainRequest {
    PlainRequest {
        base: RequestBase::utility_vm(),
    }
}

#[test]
fn a_lost_bridge_is_dialled_again_and_processes_live_on() {
    let mut host = Host::negotiated();
    let pid = host
        .execute_at(command(&["sleep", "100"]), Default::default())
        .unwrap();
    host.send(&wait(pid, WAIT_FOREVER));
    host.reconnect();
    host.negotiate();
    let id = host.send(&wait(pid, WAIT_FOREVER));
    host.signal(pid, 10).unwrap();
    assert_eq!(host.exit_code(id).unwrap(), 138);
}

#[test]
fn an_exit_while_nobody_is_connected_is_kept() {
    let mut host = Host::negotiated();
    let pid = host
        .execute_at(command(&["sh", "-c", "exit 6"]), Default::default())
        .unwrap();
    host.reconnect();
    host.negotiate();
    assert_eq!(host.wait(pid).unwrap(), 6);
    assert_eq!(host.wait(pid).unwrap_err().result, HResult::NOT_FOUND);
}

#[test]
fn an_exit_code_that_was_lost_with_its_connection_is_given_again() {
    let mut host = Host::negotiated();
    let pid = host
        .execute_at(command(&["sh", "-c", "exit 9"]), Default::default())
        .unwrap();
    // The answer is on its way when the connection goes: this host never reads it.
    host.send(&wait(pid, WAIT_FOREVER));
    host.call(&Request::Start(plain())).unwrap();
    host.reconnect();
    host.negotiate();
    assert_eq!(host.wait(pid).unwrap(), 9);
    assert_eq!(host.wait(pid).unwrap_err().result, HResult::NOT_FOUND);
    host.reconnect();
    host.negotiate();
    assert_eq!(host.wait(pid).unwrap(), 9);
}

#[test]
fn the_log_is_lines_of_json() {
    let host = Host::connected();
    let mut log = BufReader::new(accept(&host.log));
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for field in ["level", "msg", "time"] {
        assert!(line[field].is_string(), "{line}");
    }
}

#[test]
fn the_machine_itself_is_created_and_started_already() {
    let mut host = Host::negotiated();
    host.call(&Request::Start(plain())).unwrap();
    host.call(&Request::Create(CreateRequest {
        base: RequestBase::utility_vm(),
        ..CreateRequest::default()
    }))
    .unwrap();
}

#[test]
fn containers_are_refused() {
    let mut host = Host::negotiated();
    let base = RequestBase {
        container_id: "c1".into(),
        ..RequestBase::default()
    };
    let create = Request::Create(CreateRequest {
        base: base.clone(),
        ..CreateRequest::default()
    });
    let failure = host.call(&create).unwrap_err();
    assert_eq!(failure.result, HResult::NOT_IMPLEMENTED);
    // A process of the VM itself is not found by way of a container that is not there.
    let process_id = host
        .execute_at(command(&["true"]), StdioPorts::default())
        .unwrap();
    for request in [
        Request::Start(PlainRequest { base: base.clone() }),
        Request::ShutdownForced(PlainRequest { base: base.clone() }),
        Request::DeleteContainerState(PlainRequest { base: base.clone() }),
        Request::SignalProcess(SignalRequest {
            base: base.clone(),
            process_id,
            options: SignalOptions { signal: 9 },
        }),
        Request::WaitForProcess(WaitRequest {
            base,
            process_id,
            timeout_in_ms: WAIT_FOREVER,
        }),
    ] {
        let failure = host.call(&request).unwrap_err();
        assert_eq!(failure.result, HResult::SYSTEM_NOT_FOUND);
        assert!(failure.message.contains("c1"), "{failure}");
    }
    assert_eq!(host.wait(process_id).unwrap(), 0);
}

#[test]
fn properties_and_stacks_are_told() {
    let mut host = Host::negotiated();
    let pid = host
        .execute_at(command(&["sleep", "100"]), Default::default())
        .unwrap();
    let query = |types: &[&str]| {
        Request::GetProperties(PropertiesRequest {
            base: RequestBase::utility_vm(),
            query: Nested(PropertyQuery {
                property_types: types.iter().map(ToString::to_string).collect(),
            }),
        })
    };
    let Response::Properties(all) = host
        .call(&query(&["ProcessList", "Statistics", "Colour"]))
        .unwrap()
    else {
        panic!("no properties");
    };
    let properties = all.properties.0;
    assert_eq!(properties.process_list.len(), 1);
    assert_eq!(properties.process_list[0].process_id, pid);
    assert!(properties.metrics.unwrap().memory.usage.limit > 0);
    let Response::Properties(none) = host.call(&query(&[])).unwrap() else {
        panic!("no properties");
    };
    assert_eq!(none.properties, Nested::default());

    let Response::Stacks(stacks) = host.call(&Request::DumpStacks(plain())).unwrap() else {
        panic!("no stacks");
    };
    assert!(stacks.guest_stacks.contains("processes"), "{stacks:?}");
}

#[test]
fn what_is_not_done_is_said() {
    let mut host = Host::negotiated();
    for (resource_type, request_type, result) in [
        ("Nonsense", "Add", HResult::FAIL),
        ("Network", "Add", HResult::NOT_IMPLEMENTED),
        ("MappedDirectory", "Add", HResult::NOT_IMPLEMENTED),
        ("VPMemDevice", "Add", HResult::NOT_IMPLEMENTED),
        ("MappedVirtualDisk", "Update", HResult::NOT_IMPLEMENTED),
        ("SCSIDevice", "Add", HResult::INVALID_ARGUMENT),
    ] {
        let mut change = ModifySettings::new(
            RequestType(request_type.to_owned()),
            &Modification::ScsiDevice(ScsiDevice::default()),
        )
        .unwrap();
        change.resource_type.0 = resource_type.to_owned();
        let failure = host
            .call(&Request::ModifySettings(ModifyRequest {
                base: RequestBase::utility_vm(),
                change,
            }))
            .unwrap_err();
        assert_eq!(failure.result, result, "{failure}");
        assert!(failure.message.contains(resource_type), "{failure}");
    }
}

#[test]
fn encrypted_disks_are_refused_before_anything_is_made() {
    let mut host = Host::negotiated();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("mount");
    let disk = MappedVirtualDisk {
        mount_path: place.to_str().unwrap().to_owned(),
        encrypted: true,
        ..MappedVirtualDisk::default()
    };
    let disk = Modification::MappedVirtualDisk(Box::new(disk));
    let failure = host
        .call(&Request::ModifySettings(ModifyRequest {
            base: RequestBase::utility_vm(),
            change: ModifySettings::new(RequestType::add(), &disk).unwrap(),
        }))
        .unwrap_err();
    assert_eq!(failure.result, HResult::NOT_IMPLEMENTED);
    assert!(failure.message.contains("encrypted"), "{failure}");
    assert!(!place.exists());
}

#[test]
fn a_shutdown_has_no_answer() {
    for request in [
        Request::ShutdownGraceful(plain()),
        Request::ShutdownForced(plain()),
    ] {
        let mut host = Host::negotiated();
        host.send(&request);
        assert!(host.frame().is_none(), "{}", MessageType::SHUTDOWN_FORCED);
        assert!(host.agent.wait().unwrap().success());
    }
    assert!(UTILITY_VM_ID.starts_with("0000"));
}
