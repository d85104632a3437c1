//! Decides how Hyper-V's sockets are listened on, accepted and dialled: as Winsock's, with an address of
//! their own. Once connected they are like any other stream socket, and tokio drives them as such.
//!
//! Where there is no Hyper-V, sockets of the loopback stand in ([`StandIn`]) and take the same way through
//! this module.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::windows::io::{
    AsRawHandle as _, AsRawSocket as _, FromRawHandle as _, FromRawSocket as _, OwnedHandle,
    OwnedSocket,
};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::task::JoinHandle;
use uuid::Uuid;
use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
use windows_sys::Win32::Networking::WinSock::{
    AF_HYPERV, AF_INET, FD_CONNECT, FD_CONNECT_BIT, IN_ADDR, IN_ADDR_0, INVALID_SOCKET,
    IPPROTO_TCP, SOCK_STREAM, SOCKADDR_IN, WSA_FLAG_NO_HANDLE_INHERIT, WSA_FLAG_OVERLAPPED,
    WSADATA, WSAEWOULDBLOCK, WSAEnumNetworkEvents, WSAEventSelect, WSAGetLastError,
    WSANETWORKEVENTS, WSASocketW, WSAStartup, accept, bind, connect, getsockname, listen,
    setsockopt,
};
use windows_sys::Win32::System::Hypervisor::{
    HV_PROTOCOL_RAW, HVSOCKET_CONNECT_TIMEOUT, SOCKADDR_HV,
};
use windows_sys::Win32::System::Threading::{CreateEventW, WaitForSingleObject};
use windows_sys::core::GUID;

use crate::hcs::document::service_id;
use crate::machine::Port;

/// Connections that the system keeps until they are taken.
const BACKLOG: i32 = 128;

/// After a connection that could not be taken, so that a broken listener keeps no processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Which sockets a machine's ports are.
#[derive(Debug, Clone)]
pub(crate) enum Family {
    HyperV,
    StandIn(Arc<StandIn>),
}

/// Loopback sockets that stand in for Hyper-V's: which real port stands for which of the machine's.
///
/// For tests of what is above the address family, on hosts without Hyper-V.
#[derive(Debug, Default)]
pub struct StandIn {
    host: Mutex<HashMap<u32, u16>>,
    guest: Mutex<HashMap<u32, u16>>,
}

impl StandIn {
    /// The TCP port of 127.0.0.1 that stands for `port` of the host, while somebody listens there.
    #[must_use]
    pub fn host_port(&self, port: Port) -> Option<u16> {
        lock(&self.host).get(&port.0).copied()
    }

    /// Makes a TCP port of 127.0.0.1 stand for `port` of the guest.
    pub fn guest_listens(&self, port: Port, stand_in: u16) {
        lock(&self.guest).insert(port.0, stand_in);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address in the form of its family.
enum Address {
    HyperV(SOCKADDR_HV),
    Loopback(SOCKADDR_IN),
}

impl Address {
    fn hyper_v(vm: Uuid, port: Port) -> Self {
        Self::HyperV(SOCKADDR_HV {
            Family: AF_HYPERV,
            Reserved: 0,
            VmId: guid(vm),
            ServiceId: guid(service_id(port)),
        })
    }

    fn loopback(port: u16) -> Self {
        Self::Loopback(SOCKADDR_IN {
            sin_family: AF_INET,
            sin_port: port.to_be(),
            sin_addr: IN_ADDR {
                S_un: IN_ADDR_0 {
                    S_addr: u32::from_ne_bytes([127, 0, 0, 1]),
                },
            },
            sin_zero: [0; 8],
        })
    }

    fn socket(&self) -> io::Result<OwnedSocket> {
        start();
        let (family, protocol) = match self {
            Self::HyperV(_) => (i32::from(AF_HYPERV), HV_PROTOCOL_RAW.cast_signed()),
            Self::Loopback(_) => (i32::from(AF_INET), IPPROTO_TCP),
        };
        let flags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
        // SAFETY: null is no protocol information.
        let socket =
            unsafe { WSASocketW(family, SOCK_STREAM, protocol, std::ptr::null(), 0, flags) };
        if socket == INVALID_SOCKET {
            return Err(last_error());
        }
        // SAFETY: the socket is open and nobody else's.
        Ok(unsafe { OwnedSocket::from_raw_socket(socket as u64) })
    }

    fn raw(
        &self,
    ) -> (
        *const windows_sys::Win32::Networking::WinSock::SOCKADDR,
        i32,
    ) {
        match self {
            Self::HyperV(address) => (std::ptr::from_ref(address).cast(), size_of_i32(address)),
            Self::Loopback(address) => (std::ptr::from_ref(address).cast(), size_of_i32(address)),
        }
    }
}

fn size_of_i32<T>(value: &T) -> i32 {
    i32::try_from(size_of_val(value)).unwrap_or(0)
}

fn guid(id: Uuid) -> GUID {
    let (data1, data2, data3, data4) = id.as_fields();
    GUID {
        data1,
        data2,
        data3,
        data4: *data4,
    }
}

/// Winsock wants to be greeted once.
fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let mut data = WSADATA::default();
        // SAFETY: there is a place for the answer. A failure shows at the first socket.
        unsafe { WSAStartup(0x0202, &raw mut data) };
    });
}

fn last_error() -> io::Error {
    // SAFETY: it takes nothing.
    io::Error::from_raw_os_error(unsafe { WSAGetLastError() })
}

fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(last_error()) }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a socket is an address-sized number"
)]
fn raw(socket: &OwnedSocket) -> usize {
    socket.as_raw_socket() as usize
}

/// An event that is reset by whoever waits for it.
fn event() -> io::Result<OwnedHandle> {
    // SAFETY: neither security nor a name is given.
    let event = unsafe { CreateEventW(std::ptr::null(), 0, 0, std::ptr::null()) };
    if event.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is open and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(event) })
}

/// An event as Winsock takes it.
fn number(event: &OwnedHandle) -> isize {
    event.as_raw_handle().addr().cast_signed()
}

/// Has `event` set when one of `events` happens to the socket, which does not block from then on.
fn select(socket: &OwnedSocket, event: Option<&OwnedHandle>, events: u32) -> io::Result<()> {
    let event = event.map_or(0, number);
    // SAFETY: the socket is open, and so is the event if there is one.
    check(unsafe { WSAEventSelect(raw(socket), event, events.cast_signed()) })
}

/// Gives each connection to one port away as it comes, until it is dropped.
pub(crate) struct Acceptor {
    socket: Listening,
    task: JoinHandle<()>,
    /// The stand-in and the port, to be forgotten.
    stand_in: Option<(Arc<StandIn>, Port)>,
}

/// A socket that listens, until the acceptor closes it. tokio takes it for a stream: it looks at the
/// readiness alone, which AFD tells of either, while its own listener wants an address that it knows.
type Listening = Arc<Mutex<Option<tokio::net::TcpStream>>>;

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Listens on `port` for connections from the machine `vm`. `deliver` must not wait. Must be called in a
    /// tokio runtime.
    pub(crate) fn listen(
        family: &Family,
        vm: Uuid,
        port: Port,
        deliver: impl Fn(TcpStream) + Send + 'static,
    ) -> io::Result<Self> {
        let address = match family {
            Family::HyperV => Address::hyper_v(vm, port),
            Family::StandIn(_) => Address::loopback(0),
        };
        let socket = address.socket()?;
        let (name, length) = address.raw();
        // SAFETY: the socket is open, and the address has the length that is said.
        check(unsafe { bind(raw(&socket), name, length) })?;
        // SAFETY: the socket is open.
        check(unsafe { listen(raw(&socket), BACKLOG) })?;
        let stand_in = match family {
            Family::HyperV => None,
            Family::StandIn(stand_in) => {
                lock(&stand_in.host).insert(port.0, loopback_port(&socket)?);
                Some((Arc::clone(stand_in), port))
            }
        };
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpStream::from_std(socket)?;
        let socket = Arc::new(Mutex::new(Some(socket)));
        let task = tokio::spawn(take_all(Arc::clone(&socket), deliver));
        Ok(Self {
            socket,
            task,
            stand_in,
        })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Closed now, not when the runtime comes to it: the port is free when this returns.
        drop(lock(&self.socket).take());
        self.task.abort();
        if let Some((stand_in, port)) = self.stand_in.take() {
            lock(&stand_in.host).remove(&port.0);
        }
    }
}

/// Takes connections in the order in which they come, until the socket is closed.
async fn take_all(socket: Listening, deliver: impl Fn(TcpStream)) {
    let next = |cx: &mut Context<'_>| match lock(&socket).as_ref() {
        Some(listening) => poll_take(listening, cx).map(Some),
        None => Poll::Ready(None),
    };
    while let Some(taken) = std::future::poll_fn(next).await {
        match taken {
            Ok(connection) => deliver(connection),
            Err(error) => {
                tracing::warn!(%error, "a connection of the guest's could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn poll_take(
    listening: &tokio::net::TcpStream,
    cx: &mut Context<'_>,
) -> Poll<io::Result<TcpStream>> {
    loop {
        ready!(listening.poll_read_ready(cx))?;
        match listening.try_io(Interest::READABLE, || take(listening)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return Poll::Ready(taken),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a socket is an address-sized number"
)]
fn take(listening: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    let listening = listening.as_raw_socket() as usize;
    // SAFETY: the socket is open; nobody wants to know the peer's address.
    let taken = unsafe { accept(listening, std::ptr::null_mut(), std::ptr::null_mut()) };
    if taken == INVALID_SOCKET {
        return Err(last_error());
    }
    // SAFETY: the socket is open and nobody else's.
    Ok(unsafe { TcpStream::from_raw_socket(taken as u64) })
}

fn loopback_port(socket: &OwnedSocket) -> io::Result<u16> {
    let mut address = SOCKADDR_IN::default();
    let mut length = size_of_i32(&address);
    // SAFETY: the socket is open, and the place has the length that is said.
    check(unsafe {
        getsockname(
            raw(socket),
            std::ptr::from_mut(&mut address).cast(),
            &raw mut length,
        )
    })?;
    Ok(u16::from_be(address.sin_port))
}

/// Dials `port` of the machine `vm`, for at most `limit`. Blocks.
pub(crate) fn dial(
    family: &Family,
    vm: Uuid,
    port: Port,
    limit: Duration,
) -> io::Result<TcpStream> {
    let address = match family {
        Family::HyperV => Address::hyper_v(vm, port),
        Family::StandIn(stand_in) => {
            let stands = lock(&stand_in.guest).get(&port.0).copied();
            Address::loopback(stands.ok_or(io::ErrorKind::ConnectionRefused)?)
        }
    };
    let socket = address.socket()?;
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX - 1);
    if matches!(address, Address::HyperV(_)) {
        // Hyper-V itself would wait half a minute for somebody to listen.
        // SAFETY: the socket is open, and the option is a number of this size.
        check(unsafe {
            setsockopt(
                raw(&socket),
                HV_PROTOCOL_RAW.cast_signed(),
                HVSOCKET_CONNECT_TIMEOUT.cast_signed(),
                (&raw const milliseconds).cast(),
                size_of_i32(&milliseconds),
            )
        })?;
    }
    let event = event()?;
    select(&socket, Some(&event), FD_CONNECT)?;
    let (name, length) = address.raw();
    // SAFETY: the socket is open, and the address has the length that is said.
    if let Err(error) = check(unsafe { connect(raw(&socket), name, length) })
        && error.raw_os_error() != Some(WSAEWOULDBLOCK)
    {
        return Err(error);
    }
    // SAFETY: the event is open.
    if unsafe { WaitForSingleObject(event.as_raw_handle(), milliseconds) } != WAIT_OBJECT_0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut happened = WSANETWORKEVENTS::default();
    // SAFETY: socket and event are open, and there is a place for the answer.
    check(unsafe { WSAEnumNetworkEvents(raw(&socket), number(&event), &raw mut happened) })?;
    match happened.iErrorCode.get(FD_CONNECT_BIT as usize) {
        Some(0) => {}
        Some(code) => return Err(io::Error::from_raw_os_error(*code)),
        None => return Err(io::ErrorKind::InvalidData.into()),
    }
    select(&socket, None, 0)?;
    Ok(TcpStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_hyper_v_is_36_bytes_with_the_port_in_the_service() {
        let vm = "8f3c2a10-0001-4002-8003-0405060708ff".parse().unwrap();
        let address = Address::hyper_v(vm, Port(0x4000_0001));
        let (name, length) = address.raw();
        assert_eq!(length, 36);
        // SAFETY: the address is that long.
        let bytes = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), 36) };
        assert_eq!(bytes[..4], [34, 0, 0, 0]);
        assert_eq!(bytes[4..8], [0x10, 0x2a, 0x3c, 0x8f]);
        assert_eq!(bytes[8..12], [1, 0, 2, 0x40]);
        assert_eq!(bytes[12..20], [0x80, 3, 4, 5, 6, 7, 8, 0xff]);
        assert_eq!(bytes[20..24], [1, 0, 0, 0x40]);
        assert_eq!(bytes[24..28], [0xcb, 0xfa, 0xe6, 0x11]);
        assert_eq!(bytes[28..], [0xbd, 0x58, 0x64, 0, 0x6a, 0x79, 0x86, 0xd3]);
    }

    #[test]
    fn hyper_v_is_not_here_and_says_so() {
        // Of a family that Windows does not know; where it does, of a machine that is not there.
        let refused = dial(
            &Family::HyperV,
            Uuid::from_u128(1),
            Port(1),
            Duration::from_secs(1),
        );
        assert!(refused.is_err());
    }

    #[test]
    fn a_dial_that_nobody_answers_ends_within_its_limit() {
        const LIMIT: Duration = Duration::from_millis(300);
        // A queue of one that is full: the system lets the next caller wait, or turns it away.
        let listener = Address::loopback(0).socket().unwrap();
        let address = Address::loopback(0);
        let (name, length) = address.raw();
        // SAFETY: the socket is open, and the address has the length that is said.
        unsafe {
            check(bind(raw(&listener), name, length)).unwrap();
            check(listen(raw(&listener), 0)).unwrap();
        }
        let stand_in = Arc::new(StandIn::default());
        stand_in.guest_listens(Port(1), loopback_port(&listener).unwrap());
        let family = Family::StandIn(stand_in);
        let mut taken = Vec::new();
        let refused = loop {
            let begin = std::time::Instant::now();
            match dial(&family, Uuid::nil(), Port(1), LIMIT) {
                Ok(connection) => taken.push(connection),
                Err(error) => break (error, begin.elapsed()),
            }
            assert!(taken.len() < 1000, "it takes everybody");
        };
        let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused];
        assert!(kinds.contains(&refused.0.kind()), "{refused:?}");
        if refused.0.kind() == io::ErrorKind::TimedOut {
            assert!(refused.1 >= LIMIT, "{refused:?}");
        }
    }
}
