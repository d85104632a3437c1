//! One bridge connection: frames in, answers out.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opengcs_bridge::{
    frame::Decoder,
    guest::{Incoming, Session},
    message::Capabilities,
};
use rustix::net::{Shutdown, sockopt};

use super::{Agent, requests};
use crate::log;

/// How long a host may leave an answer unread before its connection is given up.
const STALLED: Duration = Duration::from_secs(60);

/// Where answers are written. It outlives the connection: then nothing is sent.
pub(crate) struct Answers {
    connection: OwnedFd,
    /// Counts connections.
    number: u64,
    /// Whether the connection has failed; held while a frame is written, so frames stay whole.
    broken: Mutex<bool>,
}

impl Answers {
    /// Which connection it is: later ones have larger numbers.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Sends one frame. Tells whether all of it was taken.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if *broken {
            return false;
        }
        if let Err(error) = write_all(&self.connection, frame) {
            log::info(format_args!("an answer was not taken: {error}"));
            *broken = true;
            // Part of a frame may be out: the host can make no sense of what would follow.
            let _ = rustix::net::shutdown(&self.connection, Shutdown::Both);
        }
        !*broken
    }

    /// Ends the connection, now.
    pub(crate) fn close(&self) {
        let _ = rustix::net::shutdown(&self.connection, Shutdown::Both);
    }
}

fn write_all(connection: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(connection, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Serves a connection, the `number`th, to its end.
pub(super) fn serve(agent: &Arc<Agent>, connection: OwnedFd, number: u64) {
    // Without the limit a host that stops reading would hold the thread that waits for processes.
    let _ = sockopt::set_socket_timeout(&connection, sockopt::Timeout::Send, Some(STALLED));
    let answers = Arc::new(Answers {
        connection,
        number,
        broken: Mutex::new(false),
    });
    if let Err(reason) = read(agent, &answers) {
        log::warning(format_args!("bridge closed: {reason}"));
    }
    *answers
        .broken
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = true;
    answers.close();
    agent.news.disconnected();
    agent.processes.forget_waiters(&answers);
}

fn read(agent: &Arc<Agent>, answers: &Arc<Answers>) -> Result<(), String> {
    let mut capabilities = Capabilities::agent();
    capabilities
        .guest_defined_capabilities
        .delete_container_state_supported = agent.containers.supported();
    let mut session = Session::with_capabilities(capabilities);
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let size = match rustix::io::read(&answers.connection, &mut buffer) {
            Ok(0) => return decoder.finish().map_err(|error| error.to_string()),
            Ok(size) => size,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.to_string()),
        };
        let mut chunk = buffer.get(..size).unwrap_or_default();
        while let Some(frame) = decoder
            .decode(&mut chunk)
            .map_err(|error| error.to_string())?
        {
            log::debug(format_args!("{} {}", frame.message_type, frame.id));
            match session.receive(&frame) {
                Incoming::Reply(reply) => {
                    answers.send(&reply);
                    if session.is_negotiated() {
                        agent.news.connected(answers);
                    }
                }
                Incoming::Request(ticket, request) => {
                    requests::serve(agent, answers, ticket, *request);
                }
            }
        }
    }
}
