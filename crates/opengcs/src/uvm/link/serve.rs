//! Which connection carries the bridge, and what is done with each frame that it brings.

use std::sync::Arc;

use opengcs_bridge::frame::{Decoder, Frame};
use opengcs_bridge::host::{Incoming, Session};
use opengcs_bridge::message::Request;
use opengcs_machine::{Exit, ExitReason, Listener, Machine, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::{Link, LinkState, Shared};

/// Serves the guest's dials until the machine ends.
pub(in crate::uvm) async fn run(link: Link, mut listener: Listener, machine: Arc<dyn Machine>) {
    let shared = &link.shared;
    let exit = machine.wait();
    tokio::pin!(exit);
    let mut serving = None;
    loop {
        tokio::select! {
            exit = &mut exit => {
                shared.end(&reason(&exit, &machine.console_tail()));
                return;
            }
            dialled = listener.accept() => {
                let Ok(stream) = dialled else {
                    let exit = (&mut exit).await;
                    shared.end(&reason(&exit, &machine.console_tail()));
                    return;
                };
                shared.marks.mark("dialled");
                // The guest has one bridge: a new one means that it has given the old one up.
                shared.close(LinkState::Down(Some("the agent dialled again".into())));
                serving = Some(Box::pin(serve(shared, stream)));
            }
            trouble = async {
                match serving.as_mut() {
                    Some(serving) => serving.await,
                    None => std::future::pending().await,
                }
            } => {
                tracing::debug!(%trouble, "the bridge went down");
                shared.close(LinkState::Down(Some(trouble)));
                serving = None;
            }
        }
    }
}

/// Why a machine has ended, for people. An agent that dies has the guest powered off, which by itself
/// tells nobody what happened: PID 1 says it on the console.
fn reason(exit: &Exit, console: &str) -> String {
    const MARK: &str = "the agent has ended (";
    let told = (exit.reason == ExitReason::PoweredOff)
        .then(|| console.rsplit_once(MARK)?.1.split_once(')'))
        .flatten();
    match told {
        Some((how, _)) if how.len() < 64 && !how.contains(char::is_control) => {
            format!("its agent died ({how}), and {exit}")
        }
        _ => exit.to_string(),
    }
}

/// One connection from its negotiation to its end; gives the reason of the end.
async fn serve(shared: &Shared, stream: Stream) -> String {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (outgoing, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    {
        let mut connection = shared.lock();
        connection.session = Session::new();
        connection.number += 1;
        let (reply, _) = oneshot::channel();
        match connection.session.request(&Request::negotiate(), reply) {
            Ok((_, bytes)) => {
                let _ = outgoing.send(bytes);
            }
            Err(error) => return error.to_string(),
        }
        connection.outgoing = Some(outgoing);
    }
    let write = async {
        while let Some(bytes) = queue.recv().await {
            if let Err(error) = writer.write_all(&bytes).await {
                return format!("cannot send to the agent: {error}");
            }
        }
        // The queue ends when this connection has been given up, which ends this future too.
        std::future::pending().await
    };
    let read = async {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match reader.read(&mut buffer).await {
                Ok(0) => return "the agent closed the bridge".to_owned(),
                Ok(count) => count,
                Err(error) => return format!("cannot receive from the agent: {error}"),
            };
            let mut input = buffer.get(..count).unwrap_or_default();
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(frame)) => {
                        if let Err(trouble) = receive(shared, &frame) {
                            return trouble;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return format!("the agent broke the protocol: {error}"),
                }
            }
        }
    };
    tokio::select! {
        trouble = write => trouble,
        trouble = read => trouble,
    }
}

fn receive(shared: &Shared, frame: &Frame) -> Result<(), String> {
    let mut connection = shared.lock();
    let negotiated_before = connection.session.is_negotiated();
    match connection.session.receive(frame) {
        Ok(Incoming::Response {
            token, response, ..
        }) => {
            if !negotiated_before {
                match &response {
                    Ok(_) if connection.session.is_negotiated() => {
                        shared.marks.mark("negotiated");
                        shared.state.send_if_modified(|state| {
                            let alive = !matches!(state, LinkState::Ended(_));
                            if alive {
                                *state = LinkState::Up;
                            }
                            alive
                        });
                    }
                    Ok(_) => return Err("the agent answered out of order".into()),
                    Err(failure) => return Err(format!("the agent refused the bridge: {failure}")),
                }
            }
            drop(connection);
            if let Some(token) = token {
                let _ = token.send(response);
            }
        }
        Ok(Incoming::Notification(notification)) => {
            tracing::debug!(?notification, "notification from the agent");
            if let Some(watched) = shared.containers().get(&notification.container_id) {
                watched.send_replace(Some((&notification.notification_type).into()));
            }
        }
        Ok(Incoming::UnknownNotification(kind)) => {
            tracing::debug!(%kind, "notification of an unknown type is ignored");
        }
        Err(error) => {
            return Err(format!(
                "the agent broke the protocol: {}",
                with_source(&error)
            ));
        }
    }
    Ok(())
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_died_is_told_as_the_reason() {
        let console = "gcs: +1.0s init\r\ngcs: +9.0s the agent has ended (signal 9): power off\r\n";
        let off = Exit::new(ExitReason::PoweredOff, "");
        assert_eq!(
            reason(&off, console),
            "its agent died (signal 9), and the guest powered off"
        );
        assert_eq!(reason(&off, "reboot: Power down"), "the guest powered off");
        let hostile = "the agent has ended (\u{1b}[2J)";
        assert_eq!(reason(&off, hostile), "the guest powered off");
        let killed = Exit::new(ExitReason::Killed(9), "");
        assert!(!reason(&killed, console).contains("agent"));
    }
}
