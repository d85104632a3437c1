//! A host's session against good and bad guests.

use opengcs_bridge::{
    ErrorKind, HResult, MessageType,
    frame::{Decoder, Frame},
    guest, host,
    message::{PlainRequest, Request, RequestBase, Response, WaitRequest},
};

fn frame(message_type: MessageType, id: u64, body: &str) -> Frame {
    Frame {
        message_type,
        id,
        body: body.as_bytes().to_vec(),
    }
}

fn negotiated() -> host::Session<u32> {
    let mut session = host::Session::new();
    session.request(&Request::negotiate(), 0).unwrap();
    let reply = frame(
        MessageType::NEGOTIATE_PROTOCOL.response(),
        0,
        r#"{"Result":0,"Version":4,"Capabilities":{"RuntimeOsType":"Linux","New":true}}"#,
    );
    session.receive(&reply).unwrap();
    assert_eq!(session.capabilities().unwrap().runtime_os_type, "Linux");
    session
}

fn wait(process_id: u32) -> Request {
    Request::WaitForProcess(WaitRequest {
        base: RequestBase::utility_vm(),
        process_id,
        timeout_in_ms: opengcs_bridge::WAIT_FOREVER,
    })
}

#[test]
fn requests_before_negotiation_are_refused_here() {
    let mut session = host::Session::new();
    let error = session.request(&wait(1), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotNegotiated);
    session.request(&Request::negotiate(), 0).unwrap();
    let error = session.request(&Request::negotiate(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert_eq!(session.pending(), 1);
}

#[test]
fn refused_negotiation_may_be_tried_again() {
    let mut session = host::Session::new();
    session.request(&Request::negotiate(), 7).unwrap();
    let reply = frame(
        MessageType::NEGOTIATE_PROTOCOL.response(),
        0,
        r#"{"Result":-1070137076,"ErrorMessage":"no"}"#,
    );
    let host::Incoming::Response {
        response, token, ..
    } = session.receive(&reply).unwrap()
    else {
        panic!("no response");
    };
    let failure = response.unwrap_err();
    assert_eq!(failure.result, HResult::UNSUPPORTED_PROTOCOL_VERSION);
    assert_eq!(
        failure.to_string(),
        "request NegotiateProtocol failed: no [0xc037010c]"
    );
    assert_eq!(token, Some(7));
    assert!(!session.is_negotiated());
    session.request(&Request::negotiate(), 8).unwrap();
}

#[test]
fn another_version_than_offered_is_an_error() {
    for body in [r#"{"Result":0,"Version":5}"#, r#"{"Result":0}"#, "{}"] {
        let mut session = host::Session::new();
        session.request(&Request::negotiate(), 0).unwrap();
        let reply = frame(MessageType::NEGOTIATE_PROTOCOL.response(), 0, body);
        let error = session.receive(&reply).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Version);
        assert_eq!(session.close().len(), 1);
    }
}

#[test]
fn responses_find_their_requests_in_any_order() {
    let mut session = negotiated();
    let ids: Vec<_> = (10..13)
        .map(|n| session.request(&wait(n), n).unwrap().0)
        .collect();
    for (index, code) in [(2usize, 5u32), (0, 6), (1, 7)] {
        let body = format!(r#"{{"Result":0,"ExitCode":{code}}}"#);
        let reply = frame(
            MessageType::WAIT_FOR_PROCESS.response(),
            ids[index].0,
            &body,
        );
        let host::Incoming::Response {
            id,
            token,
            response,
        } = session.receive(&reply).unwrap()
        else {
            panic!("no response");
        };
        assert_eq!(id, ids[index]);
        assert_eq!(token, Some(10 + u32::try_from(index).unwrap()));
        assert!(matches!(response, Ok(Response::Exited(exit)) if exit.exit_code == code));
    }
    assert_eq!(session.pending(), 0);
}

#[test]
fn bad_responses_are_refused() {
    let wait_response = MessageType::WAIT_FOR_PROCESS.response();
    for (message_type, id_offset, body, kind) in [
        (wait_response, 1, "{}", ErrorKind::Unexpected),
        (
            MessageType::START.response(),
            0,
            "{}",
            ErrorKind::Unexpected,
        ),
        (
            MessageType::WAIT_FOR_PROCESS,
            0,
            "{}",
            ErrorKind::Unexpected,
        ),
        (MessageType(0), 0, "{}", ErrorKind::Unexpected),
        (wait_response, 0, "", ErrorKind::Json),
        (wait_response, 0, "{nope", ErrorKind::Json),
        (wait_response, 0, r#"{"ExitCode":"0"}"#, ErrorKind::Json),
        (MessageType::NOTIFY_CONTAINER, 0, "[]", ErrorKind::Json),
    ] {
        let mut session = negotiated();
        let (id, _) = session.request(&wait(1), 1).unwrap();
        let reply = frame(message_type, id.0 + id_offset, body);
        let error = session.receive(&reply).unwrap_err();
        assert_eq!(error.kind(), kind, "{message_type} {body}");
        assert_eq!(session.close(), vec![(id, 1)]);
    }
}

#[test]
fn an_answer_counts_once() {
    let mut session = negotiated();
    let (id, _) = session.request(&wait(1), 1).unwrap();
    let reply = frame(
        MessageType::WAIT_FOR_PROCESS.response(),
        id.0,
        r#"{"Result":0}"#,
    );
    session.receive(&reply).unwrap();
    let error = session.receive(&reply).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
}

#[test]
fn the_answer_to_an_abandoned_request_is_dropped() {
    let mut session = negotiated();
    let (id, _) = session.request(&wait(1), 4).unwrap();
    assert_eq!(session.abandon(id), Some(4));
    assert_eq!(session.abandon(id), None);
    let reply = frame(
        MessageType::WAIT_FOR_PROCESS.response(),
        id.0,
        r#"{"Result":0}"#,
    );
    let incoming = session.receive(&reply).unwrap();
    assert!(matches!(
        incoming,
        host::Incoming::Response { token: None, .. }
    ));
}

#[test]
fn a_lost_connection_fails_all_that_is_pending() {
    let mut session = negotiated();
    let ids: Vec<_> = (0..3)
        .map(|n| (session.request(&wait(n), n).unwrap().0, n))
        .collect();
    session.abandon(ids[1].0);
    assert_eq!(session.close(), vec![ids[0], ids[2]]);
    let error = session.request(&wait(9), 9).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(!session.is_negotiated());
}

#[test]
fn too_large_a_request_is_not_pending() {
    let mut session = negotiated();
    let mut request = PlainRequest::default();
    request.base.container_id = "x".repeat(70_000);
    let error = session.request(&Request::Start(request), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(session.pending(), 0);
}

#[test]
fn unknown_notifications_are_passed_over() {
    let incoming = negotiated().receive(&frame(MessageType(0x3010_0201), 0, "?"));
    assert!(matches!(
        incoming,
        Ok(host::Incoming::UnknownNotification(_))
    ));
}

#[test]
fn a_response_of_a_large_activity_is_still_answered() {
    let body = format!(r#"{{"ActivityId":"{}"}}"#, "a".repeat(65_000));
    let guest::Incoming::Reply(reply) =
        guest::Session::new().receive(&frame(MessageType(0x1010_9901), 2, &body))
    else {
        panic!("not answered");
    };
    assert!(
        Decoder::new()
            .decode(&mut reply.as_slice())
            .unwrap()
            .is_some()
    );
}
