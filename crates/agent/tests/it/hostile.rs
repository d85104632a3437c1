//! A host that means no good.

use std::io::{Read as _, Write as _};

use opengcs_bridge::{
    HResult, MessageType,
    frame::{self, HEADER_SIZE},
    message::{
        MappedVirtualDisk, Modification, ModifyRequest, ModifySettings, Request, RequestBase,
        RequestType,
    },
};

use crate::support::Host;

#[test]
fn a_bad_frame_ends_the_connection_but_not_the_agent() {
    for size in [0u32, 15, 65_537, u32::MAX] {
        let mut host = Host::negotiated();
        let mut header = [0; HEADER_SIZE];
        header[4..8].copy_from_slice(&size.to_le_bytes());
        host.bridge.write_all(&header).unwrap();
        let mut rest = Vec::new();
        host.bridge.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        host.reconnect();
        host.negotiate();
    }
}

#[test]
fn nothing_is_served_before_negotiation() {
    let mut host = Host::connected();
    let bytes = frame::encode(MessageType::DUMP_STACKS, 44, b"{}").unwrap();
    host.bridge.write_all(&bytes).unwrap();
    let answer = host.frame().unwrap();
    assert_eq!(
        (answer.id, answer.message_type),
        (44, MessageType::DUMP_STACKS.response())
    );
    assert!(String::from_utf8_lossy(&answer.body).contains("-2147467263"));
}

#[test]
fn the_same_id_twice_is_answered_twice() {
    let mut host = Host::negotiated();
    let body = br#"{"ContainerId":"00000000-0000-0000-0000-000000000000"}"#;
    let bytes = frame::encode(MessageType::START, 7, body).unwrap();
    host.bridge
        .write_all(&[bytes.clone(), bytes].concat())
        .unwrap();
    for _ in 0..2 {
        assert_eq!(host.frame().unwrap().id, 7);
    }
}

#[test]
fn a_frame_byte_by_byte_is_a_frame() {
    let mut host = Host::negotiated();
    let bytes = frame::encode(MessageType(0x1010_7701), 9, b"{}").unwrap();
    for byte in bytes {
        host.bridge.write_all(&[byte]).unwrap();
    }
    assert_eq!(host.frame().unwrap().id, 9);
}

#[test]
fn paths_that_lead_astray_are_refused() {
    let mut host = Host::negotiated();
    for path in ["/", "relative", "/a/../etc", "/a\0b", "/."] {
        for request_type in [RequestType::add(), RequestType::remove()] {
            let disk = MappedVirtualDisk {
                mount_path: path.to_owned(),
                lun: 255,
                controller: 255,
                partition: u64::MAX,
                ..MappedVirtualDisk::default()
            };
            let change = ModifySettings::new(
                request_type,
                &Modification::MappedVirtualDisk(Box::new(disk)),
            )
            .unwrap();
            let failure = host
                .call(&Request::ModifySettings(ModifyRequest {
                    base: RequestBase::utility_vm(),
                    change,
                }))
                .unwrap_err();
            assert_eq!(failure.result, HResult::INVALID_ARGUMENT, "{failure}");
        }
    }
}

#[test]
fn a_flood_of_waits_is_answered() {
    let mut host = Host::negotiated();
    let request = crate::support::wait(u32::MAX, 1);
    // As many as fit in the buffers of a socket: this host reads no answer before it has sent all.
    let ids: Vec<_> = (0..100).map(|_| host.send(&request)).collect();
    for id in ids {
        assert_eq!(host.exit_code(id).unwrap_err().result, HResult::NOT_FOUND);
    }
}
