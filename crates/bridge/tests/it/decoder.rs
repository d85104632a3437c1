//! Frames come out the same whatever the chunks.

use opengcs_bridge::{
    MessageType,
    frame::{self, Decoder, Frame},
};
use proptest::prelude::*;

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (
        any::<u32>(),
        any::<u64>(),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(message_type, id, body)| Frame {
            message_type: MessageType(message_type),
            id,
            body,
        });
    prop::collection::vec(frame, 0..8)
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_frames(
        frames in frames(),
        cuts in prop::collection::vec(1usize..40, 1..60),
    ) {
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|f| frame::encode(f.message_type, f.id, &f.body).unwrap())
            .collect();
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        let mut rest = bytes.as_slice();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (mut chunk, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = tail;
            while let Some(frame) = decoder.decode(&mut chunk).unwrap() {
                out.push(frame);
            }
            prop_assert!(chunk.is_empty());
        }
        prop_assert_eq!(out, frames);
        prop_assert!(decoder.finish().is_ok());
    }

    #[test]
    fn any_bytes_give_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::new();
        let mut rest = bytes.as_slice();
        while let Ok(Some(frame)) = decoder.decode(&mut rest) {
            prop_assert!(frame.body.len() <= frame::MAX_SIZE - frame::HEADER_SIZE);
        }
    }

    #[test]
    fn any_body_is_answered_by_the_guest(
        message_type in prop_oneof![
            any::<u32>(),
            (1u32..=0xf).prop_map(|call| 0x1010_0001 | (call << 8)),
        ],
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"[\[\]{}":,0-9a-zA-Z ]{0,60}"#.prop_map(String::into_bytes),
        ],
        negotiated: bool,
    ) {
        use opengcs_bridge::{guest, message::Request};
        let mut session = guest::Session::new();
        if negotiated {
            let request = Request::negotiate();
            session.receive(&Frame {
                message_type: request.message_type(),
                id: 0,
                body: request.encode_body().unwrap(),
            });
        }
        let frame = Frame { message_type: MessageType(message_type), id: 5, body };
        if let guest::Incoming::Reply(bytes) = session.receive(&frame) {
            let reply = Decoder::new().decode(&mut bytes.as_slice()).unwrap().unwrap();
            prop_assert_eq!(reply.id, 5);
            prop_assert_eq!(reply.message_type, frame.message_type.response());
        }
    }
}
