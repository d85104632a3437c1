//! Frames that no good host sends, from `testdata/malformed.txt`.

use opengcs_bridge::{
    ErrorKind, HResult, MessageType,
    frame::{Decoder, Frame},
    guest,
    message::Request,
};

/// A line is `name | expected | header in hex | body`.
const CASES: &str = include_str!("../../testdata/malformed.txt");

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
        .collect()
}

fn negotiated() -> guest::Session {
    let mut session = guest::Session::new();
    let request = Request::negotiate();
    session.receive(&Frame {
        message_type: request.message_type(),
        id: 0,
        body: request.encode_body().unwrap(),
    });
    assert!(session.is_negotiated());
    session
}

#[test]
fn each_malformed_frame_has_its_answer() {
    let mut cases = 0;
    for line in CASES.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
        let [name, expected, header, body] = fields[..] else {
            panic!("not four fields: {line}");
        };
        cases += 1;
        let mut bytes = hex(header);
        if bytes.len() == 16 && bytes[4..8] == [0; 4] && expected != "frame" {
            // A size of zero in the file stands for the right one.
            let size = u32::try_from(16 + body.len()).unwrap();
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
        }
        bytes.extend_from_slice(body.as_bytes());
        let mut decoder = Decoder::new();
        let frame = match (expected, decoder.decode(&mut bytes.as_slice())) {
            ("frame", outcome) => {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Frame, "{name}");
                continue;
            }
            ("partial", outcome) => {
                assert_eq!(outcome.unwrap(), None, "{name}");
                assert!(decoder.finish().is_err(), "{name}");
                continue;
            }
            (_, outcome) => outcome
                .unwrap()
                .unwrap_or_else(|| panic!("{name}: partial")),
        };
        match negotiated().receive(&frame) {
            guest::Incoming::Request(ticket, request) => {
                assert_eq!(expected, "request", "{name}: {request:?}");
                assert_eq!(ticket.id(), frame.id, "{name}");
            }
            guest::Incoming::Reply(reply) => {
                let reply = Decoder::new()
                    .decode(&mut reply.as_slice())
                    .unwrap()
                    .unwrap();
                assert_eq!(reply.id, frame.id, "{name}");
                assert_eq!(reply.message_type, frame.message_type.response(), "{name}");
                let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
                let result: HResult = serde_json::from_value(body["Result"].clone()).unwrap();
                assert_eq!(format!("{:#010x}", result.0), expected, "{name}: {body}");
                assert_eq!(body["ErrorRecords"][0]["Message"], body["ErrorMessage"]);
            }
        }
    }
    assert!(cases > 20, "only {cases} cases");
}

#[test]
fn everything_is_refused_before_negotiation() {
    for call in 1..=0xF {
        let message_type = MessageType(0x1010_0001 | (call << 8));
        if message_type == MessageType::NEGOTIATE_PROTOCOL {
            continue;
        }
        let frame = Frame {
            message_type,
            id: 3,
            body: b"{nope".to_vec(),
        };
        let guest::Incoming::Reply(reply) = guest::Session::new().receive(&frame) else {
            panic!("{message_type} was let through");
        };
        assert!(String::from_utf8_lossy(&reply).contains("-2147467263"));
    }
}
