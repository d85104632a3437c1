//! Conversations of host and guest.

use opengcs_bridge::{host, message::Request};

use crate::Corpus;

/// The malformed frames of the protocol's own tests, and how a conversation begins.
pub fn make() {
    let corpus = Corpus::open("bridge");
    let (_, negotiate) = host::Session::new()
        .request(&Request::negotiate(), ())
        .expect("a request");
    corpus.put("negotiate", &negotiate);
    let lines = include_str!("../../../crates/bridge/testdata/malformed.txt");
    for line in lines.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
        let [name, _, header, body] = fields[..] else {
            continue;
        };
        let digits = header
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16));
        let mut bytes: Vec<u8> = digits.collect::<Result<_, _>>().expect("hexadecimal");
        if bytes.len() == 16 && bytes[4..8] == [0; 4] {
            bytes[4..8].copy_from_slice(&(16 + body.len() as u32).to_le_bytes());
        }
        bytes.extend(body.as_bytes());
        corpus.put(
            &name.replace([' ', '/'], "-"),
            &[&negotiate[..], &bytes].concat(),
        );
    }
    let lines = include_str!("../../../crates/bridge/testdata/conversation.txt");
    let lines: Vec<&str> = lines.lines().collect();
    for end in ["host", "guest"] {
        let mut bytes = Vec::new();
        for pair in lines.windows(2) {
            if let (Some(header), Some(body)) =
                (pair[0].strip_prefix(end), pair[1].strip_prefix("      "))
            {
                let digits = header
                    .split_whitespace()
                    .map(|byte| u8::from_str_radix(byte, 16));
                bytes.extend(digits.collect::<Result<Vec<u8>, _>>().expect("hexadecimal"));
                bytes.extend(body.as_bytes());
            }
        }
        corpus.put(&format!("conversation-{end}"), &bytes);
    }
}
