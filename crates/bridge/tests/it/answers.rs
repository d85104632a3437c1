//! What a host makes of agents' answers, good and bad: `testdata/answers.txt`.

use opengcs_bridge::{
    MessageType,
    frame::{Decoder, HEADER_SIZE},
    host::{Incoming, Session},
    message::Request,
};

const ANSWERS: &str = include_str!("../../testdata/answers.txt");

fn request(name: &str) -> Request {
    let call = (1..=0xF_u32)
        .map(|call| MessageType(0x1010_0001 | (call << 8)))
        .find(|message_type| message_type.to_string() == format!("request {name}"));
    Request::parse(call.unwrap(), b"{}").unwrap().unwrap()
}

/// A session that has negotiated, with one request out.
fn session(name: &str) -> Session<&'static str> {
    let mut session = Session::new();
    session
        .request(&Request::negotiate(), "negotiation")
        .unwrap();
    let body = br#"{"Result":0,"Version":4,"Capabilities":{"RuntimeOsType":"Linux"}}"#;
    let answer = opengcs_bridge::frame::Frame {
        message_type: MessageType::NEGOTIATE_PROTOCOL.response(),
        id: 0,
        body: body.to_vec(),
    };
    session.receive(&answer).unwrap();
    session.request(&request(name), "asked").unwrap();
    session
}

fn bytes(header: &str, body: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = header
        .split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    if bytes[4..8] == [0; 4] {
        let size = u32::try_from(HEADER_SIZE + body.len()).unwrap();
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
    }
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

#[test]
fn answers_come_to_what_the_table_says() {
    let mut cases = 0;
    let lines = ANSWERS.lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        cases += 1;
        let place = format!("line {}: {line}", number + 1);
        let mut parts = line.splitn(4, '|').map(str::trim);
        let mut part = || parts.next().unwrap();
        let (name, expected, header, body) = (part(), part(), part(), part());
        let mut session = session(name);
        let bytes = bytes(header, body);
        let frame = Decoder::new().decode(&mut bytes.as_slice());
        let outcome = frame.and_then(|frame| session.receive(&frame.unwrap()));
        let came = match outcome {
            Err(_) => "broken".to_owned(),
            Ok(Incoming::UnknownNotification(_)) => "ignored".to_owned(),
            Ok(Incoming::Notification(told)) => format!("notified {}", told.notification_type.0)
                .trim()
                .to_owned(),
            Ok(Incoming::Response {
                token, response, ..
            }) => {
                assert_eq!(token, Some("asked"), "{place}");
                match response {
                    Err(failure) => format!("{:#010x}", failure.result.0),
                    Ok(response) => {
                        let shown = format!("{response:?}");
                        let word = expected.strip_prefix("ok ").unwrap_or("\0");
                        assert!(shown.contains(word), "{place}\n{shown}");
                        expected.to_owned()
                    }
                }
            }
        };
        assert_eq!(came, expected, "{place}");
        // What was asked and not answered is still there to be failed.
        let answered = expected.starts_with("ok") || expected.starts_with("0x");
        assert_eq!(session.close().len(), usize::from(!answered), "{place}");
    }
    assert!(cases > 35, "only {cases} cases");
}
