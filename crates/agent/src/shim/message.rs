//! What the agent and a shim say to each other: JSON in packets, with descriptors beside it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// No message is longer: most of it is a runtime's command line.
const LONGEST: usize = 64 << 10;

/// Of which streams of three there is a connection.
pub(crate) type Which = [bool; 3];

/// From the agent to a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromAgent {
    /// The first word: make the process.
    Start(Start),
    /// The connections of its streams, for a process that was made without.
    Streams(Which),
    /// Its terminal has another size.
    Resize { rows: u16, columns: u16 },
}

/// How a process is made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The runtime and its arguments.
    pub(crate) words: Vec<String>,
    /// Where the runtime puts the process's number.
    pub(crate) pid_file: PathBuf,
    /// Where it says what went wrong.
    pub(crate) log: PathBuf,
    /// For a process with a terminal: where the runtime sends it.
    pub(crate) console_socket: Option<PathBuf>,
    /// Which streams have connections, which come with this word; `None`: they come later.
    pub(crate) streams: Option<Which>,
}

/// From a shim to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// The process's number; a handle to it comes along.
    Started(u32),
    /// It did not come up.
    Failed(String),
    /// Its streams have their connections.
    Connected,
}

/// Sends one message with up to three descriptors.
pub(crate) fn send<T: Serialize>(
    socket: &OwnedFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(|_| rustix::io::Errno::INVAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags).map(drop)
}

/// Receives one message with its descriptors.
pub(crate) fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut buffer = vec![0; LONGEST];
    let (count, descriptors) = packet(socket.as_fd(), &mut buffer)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let bytes = buffer.get(..count).unwrap_or_default();
    let message = serde_json::from_slice(bytes).map_err(io::Error::other)?;
    Ok((message, descriptors))
}

fn packet(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

/// Takes a terminal that a runtime has sent: it has ended, so that it has connected already.
pub(crate) fn terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let (connection, _) = listener.accept()?;
    connection.set_nonblocking(false)?;
    let (_, descriptors) = packet(connection.as_fd(), &mut [0; 4096])?;
    let first = descriptors.into_iter().next();
    first.ok_or_else(|| io::Error::other("it sent none"))
}

/// Sorts descriptors that came to where they belong.
pub(crate) fn three(which: Which, descriptors: Vec<OwnedFd>) -> [Option<OwnedFd>; 3] {
    let mut descriptors = descriptors.into_iter();
    which.map(|there| if there { descriptors.next() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn messages_come_whole_and_with_their_descriptors() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        let streams = FromAgent::Streams([true, false, true]);
        send(&ours, &streams, &[file.as_fd(), file.as_fd()]).unwrap();
        let resize = FromAgent::Resize {
            rows: 1,
            columns: 2,
        };
        send(&ours, &resize, &[]).unwrap();
        drop(ours);
        let (first, descriptors) = receive::<FromAgent>(&theirs).unwrap();
        let FromAgent::Streams(which) = first else {
            panic!("{first:?}");
        };
        let sorted = three(which, descriptors).map(|one| one.is_some());
        assert_eq!(sorted, [true, false, true]);
        let (second, none) = receive::<FromAgent>(&theirs).unwrap();
        assert!(matches!(
            second,
            FromAgent::Resize {
                rows: 1,
                columns: 2
            }
        ));
        assert!(none.is_empty());
        assert!(receive::<FromAgent>(&theirs).is_err());
    }
}
