use super::*;
use proptest::prelude::*;

const CID: u64 = 3;
const KEY: Key = Key {
    host_port: 10,
    guest_port: 20,
};

fn from_guest(op: Op) -> Header {
    Header {
        src_cid: CID,
        dst_cid: super::super::packet::HOST_CID,
        src_port: KEY.guest_port,
        dst_port: KEY.host_port,
        len: 0,
        kind: super::super::packet::TYPE_STREAM,
        op,
        flags: 0,
        buf_alloc: 1000,
        fwd_cnt: 0,
    }
}

fn data(len: u32) -> Header {
    Header {
        len,
        ..from_guest(Op::RW)
    }
}

fn shutdown(flags: Shutdown) -> Header {
    Header {
        flags: flags.0,
        ..from_guest(Op::SHUTDOWN)
    }
}

fn open() -> Connection {
    let mut connection = Connection::accepted(&from_guest(Op::REQUEST));
    assert_eq!(connection.control(CID).unwrap().op, Op::RESPONSE);
    connection
}

#[test]
fn nothing_is_sent_before_the_response() {
    let connection = Connection::accepted(&from_guest(Op::REQUEST));
    assert_eq!(connection.allowance(), 0);
    assert_eq!(open().allowance(), 1000);
}

#[test]
fn our_request_is_open_after_the_response_only() {
    let mut connection = Connection::requested(KEY);
    assert_eq!(connection.control(CID).unwrap().op, Op::REQUEST);
    assert_eq!(connection.allowance(), 0);
    assert_eq!(connection.on_packet(&data(0), 0), Verdict::Violation);
    let response = from_guest(Op::RESPONSE);
    assert_eq!(connection.on_packet(&response, 0), Verdict::Established);
    assert_eq!(connection.allowance(), 1000);
    assert_eq!(connection.on_packet(&response, 0), Verdict::Violation);
}

#[test]
fn an_answer_before_the_question_is_a_violation() {
    let mut connection = Connection::requested(KEY);
    assert_eq!(
        connection.on_packet(&from_guest(Op::RESPONSE), 0),
        Verdict::Violation
    );
}

#[test]
fn each_direction_closes_apart() {
    let mut connection = open();
    assert_eq!(
        connection.on_packet(&shutdown(Shutdown::SEND), 0),
        Verdict::HalfClosed(Shutdown::SEND)
    );
    assert_eq!(connection.allowance(), 1000, "we may still send");
    assert_eq!(connection.on_packet(&data(1), 1), Verdict::Violation);

    let mut connection = open();
    connection.host_sends_no_more();
    let packet = connection.control(CID).unwrap();
    assert_eq!((packet.op, packet.flags), (Op::SHUTDOWN, Shutdown::SEND.0));
    assert!(connection.control(CID).is_none(), "told once");
    assert_eq!(connection.on_packet(&data(5), 5), Verdict::Data(5));
    connection.host_takes_no_more();
    let packet = connection.control(CID).unwrap();
    assert_eq!((packet.op, packet.flags), (Op::SHUTDOWN, Shutdown::BOTH.0));
}

#[test]
fn two_half_closes_of_the_guest_are_its_end() {
    let mut connection = open();
    connection.on_packet(&shutdown(Shutdown::RECEIVE), 0);
    assert_eq!(connection.allowance(), 0);
    assert_eq!(
        connection.on_packet(&shutdown(Shutdown::SEND), 0),
        Verdict::Finished
    );
}

#[test]
fn more_than_the_buffer_is_a_violation() {
    let mut connection = open();
    assert_eq!(
        connection.on_packet(&data(BUFFER), BUFFER as usize),
        Verdict::Data(BUFFER)
    );
    assert_eq!(connection.on_packet(&data(1), 1), Verdict::Violation);
}

#[test]
fn a_length_beyond_the_payload_is_a_violation() {
    assert_eq!(open().on_packet(&data(10), 9), Verdict::Violation);
    assert_eq!(open().on_packet(&data(u32::MAX), 9), Verdict::Violation);
}

/// A connection with a guest that holds `buf_alloc` bytes.
fn open_with(buf_alloc: u32) -> Connection {
    let request = Header {
        buf_alloc,
        ..from_guest(Op::REQUEST)
    };
    let mut connection = Connection::accepted(&request);
    connection.control(CID);
    connection
}

#[test]
fn the_guest_hears_of_freed_space_in_halves() {
    let mut connection = open_with(BUFFER);
    let header = Header {
        buf_alloc: BUFFER,
        ..data(BUFFER)
    };
    connection.on_packet(&header, BUFFER as usize);
    connection.forwarded(BUFFER / 2 - 1);
    assert!(!connection.owes());
    connection.forwarded(1);
    let packet = connection.control(CID).unwrap();
    assert_eq!(packet.op, Op::CREDIT_UPDATE);
    assert_eq!(packet.fwd_cnt, BUFFER / 2);
    assert!(!connection.owes());
}

#[test]
fn a_guest_that_sends_no_more_than_it_holds_hears_in_time() {
    let mut connection = open_with(8192);
    connection.on_packet(&data(8192), 8192);
    connection.forwarded(4096);
    assert!(connection.owes());
}

#[test]
fn the_buffer_grows_to_the_guests_and_no_further() {
    for (guests, grown) in [
        (1000, BUFFER),
        (BUFFER, BUFFER),
        (2 * BUFFER, 2 * BUFFER),
        (u32::MAX, LARGE_BUFFER),
    ] {
        let mut connection = open_with(guests);
        let header = |op, len| Header {
            len,
            buf_alloc: guests,
            ..from_guest(op)
        };
        for _ in 0..2 {
            assert_eq!(connection.wants_growth(), 0, "it has not moved much");
            connection.on_packet(&header(Op::RW, BUFFER), BUFFER as usize);
            connection.forwarded(BUFFER);
            while connection.control(CID).is_some() {}
        }
        connection.grow(connection.wants_growth());
        let packet = connection.control(CID).unwrap();
        assert_eq!((packet.op, packet.buf_alloc), (Op::CREDIT_UPDATE, grown));
        assert_eq!(connection.wants_growth(), 0);
        assert_eq!(connection.growth(), grown - BUFFER);
    }
}

#[test]
fn five_gigabytes_each_way_wrap_the_counters_and_lose_no_credit() {
    const PACKET: u32 = 65536;
    let mut connection = open_with(BUFFER);
    // The guest counts as the specification says.
    let (mut sent, mut heard, mut buf_alloc) = (0_u32, 0, BUFFER);
    for _ in 0..5 * (1 << 30) / u64::from(PACKET) {
        let room = buf_alloc - sent.wrapping_sub(heard);
        assert!(room >= PACKET, "{sent} {heard}");
        let header = Header {
            buf_alloc: BUFFER,
            ..data(PACKET)
        };
        let verdict = connection.on_packet(&header, PACKET as usize);
        assert_eq!(verdict, Verdict::Data(PACKET));
        sent = sent.wrapping_add(PACKET);
        connection.forwarded(PACKET);
        while let Some(told) = connection.control(CID) {
            (heard, buf_alloc) = (told.fwd_cnt, told.buf_alloc);
        }
    }
    let mut read = 0_u32;
    for _ in 0..5 * (1 << 30) / u64::from(PACKET) {
        assert_eq!(connection.allowance(), BUFFER);
        connection.data_packet(CID, PACKET);
        assert_eq!(connection.allowance(), BUFFER - PACKET);
        read = read.wrapping_add(PACKET);
        let update = Header {
            buf_alloc: BUFFER,
            fwd_cnt: read,
            ..from_guest(Op::CREDIT_UPDATE)
        };
        connection.on_packet(&update, 0);
    }
}

#[test]
fn a_credit_request_is_answered() {
    let mut connection = open();
    connection.on_packet(&from_guest(Op::CREDIT_REQUEST), 0);
    assert_eq!(connection.control(CID).unwrap().op, Op::CREDIT_UPDATE);
}

#[test]
fn we_keep_to_the_guests_credit() {
    let mut connection = open();
    connection.data_packet(CID, 1000);
    assert_eq!(connection.allowance(), 0);
    assert!(connection.lacks_credit());
    let update = Header {
        fwd_cnt: 400,
        ..from_guest(Op::CREDIT_UPDATE)
    };
    assert_eq!(connection.on_packet(&update, 0), Verdict::Nothing);
    assert_eq!(connection.allowance(), 400);
    connection.data_packet(CID, 400);
    assert!(connection.lacks_credit());
}

#[test]
fn a_guest_that_claims_to_have_read_too_much_gets_nothing() {
    let mut connection = open();
    let lie = Header {
        fwd_cnt: 1,
        ..from_guest(Op::CREDIT_UPDATE)
    };
    connection.on_packet(&lie, 0);
    assert_eq!(connection.allowance(), 0);
}

#[test]
fn unknown_operations_are_violations() {
    for op in [0, 1, 2, 8, 9, u16::MAX] {
        assert_eq!(
            open().on_packet(&from_guest(Op(op)), 0),
            Verdict::Violation,
            "op {op}"
        );
    }
}

proptest! {
    /// Whatever a guest says, we never hold more than the buffer, never send beyond its credit, and stop.
    #[test]
    fn any_conversation_keeps_the_accounts(
        packets in proptest::collection::vec(
            (0_u16..10, any::<u32>(), 0_u32..8, any::<u32>(), any::<u32>(), any::<u16>()), 0..64
        )
    ) {
        let mut connection = open();
        let mut held: u64 = 0;
        for (op, len, flags, buf_alloc, fwd_cnt, payload) in packets {
            let header = Header {
                len: len % 100_000,
                flags,
                buf_alloc,
                fwd_cnt,
                ..from_guest(Op(op))
            };
            match connection.on_packet(&header, usize::from(payload)) {
                Verdict::Data(n) => {
                    held += u64::from(n);
                    prop_assert!(held <= u64::from(BUFFER));
                    let part = n / 2;
                    connection.forwarded(part);
                    held -= u64::from(part);
                }
                Verdict::Finished | Verdict::Reset | Verdict::Violation => break,
                _ => {}
            }
            let allowance = connection.allowance();
            prop_assert!(allowance <= buf_alloc);
            connection.data_packet(CID, allowance / 2);
            for _ in 0..4 {
                connection.control(CID);
            }
            prop_assert!(!connection.owes());
        }
    }
}
