//! Decides which of the system's sockets carries a connection with the guest: on Unix a socket pair's end,
//! on Windows a stream socket of Winsock, whatever its address family (Hyper-V's, or the loopback's).

use std::io;

#[cfg(unix)]
pub(crate) type Socket = std::os::unix::net::UnixStream;
#[cfg(unix)]
pub(crate) type AsyncSocket = tokio::net::UnixStream;

#[cfg(windows)]
pub(crate) type Socket = std::net::TcpStream;
#[cfg(windows)]
pub(crate) type AsyncSocket = tokio::net::TcpStream;

/// Two sockets that are connected with each other and with nobody else.
#[cfg(unix)]
pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
    Socket::pair()
}

/// Two sockets that are connected with each other and with nobody else.
#[cfg(windows)]
pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let ours = Socket::connect(listener.local_addr()?)?;
    loop {
        let (theirs, from) = listener.accept()?;
        // Anybody on this host can dial a loopback port: only our own end is taken.
        if from == ours.local_addr()? {
            ours.set_nodelay(true)?;
            theirs.set_nodelay(true)?;
            return Ok((ours, theirs));
        }
    }
}
