//! Bytes between a process and the host, each way, until one of them has had enough.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{SendFlags, send},
    time::Timespec,
};

const BUFFER: usize = 64 << 10;

/// How long output that has stopped coming is waited for when the process itself has ended: others
/// may hold its streams open for ever.
const LINGER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// How often a terminal that nobody has open is looked at again. Nothing is lost meanwhile.
const OPENED_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Carries what the host sends until its end, and gives the last byte of it. It is an error when that
/// end does not come: the process takes no more, or the connection broke.
pub(crate) fn input(host: &OwnedFd, process: &OwnedFd) -> rustix::io::Result<Option<u8>> {
    let mut buffer = vec![0; BUFFER];
    let mut last = None;
    loop {
        match rustix::io::read(host, &mut buffer) {
            Ok(0) => return Ok(last),
            Ok(size) => {
                let input = buffer.get(..size).unwrap_or_default();
                write_all(process, input)?;
                last = input.last().copied();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Carries what a process writes until its end, or until the host has gone; without a host it is
/// dropped. When `ended` becomes readable the process has ended: what it wrote is still carried.
///
/// A terminal that nobody has open is no end of it: the process may have closed its streams only, and
/// may open its terminal again.
pub(crate) fn output(process: &OwnedFd, host: Option<&OwnedFd>, ended: &OwnedFd) {
    let mut buffer = vec![0; BUFFER];
    let mut waiting = Waiting {
        process,
        host,
        ended,
        over: false,
        closed: false,
        half_closed: false,
    };
    loop {
        match waiting.next() {
            Wanted::Output => {}
            Wanted::Nothing => return,
            Wanted::Again => continue,
        }
        match rustix::io::read(process, &mut buffer) {
            // No process has the other side of the terminal open.
            Err(Errno::IO) if !waiting.over => waiting.closed = true,
            Ok(0) | Err(Errno::IO) => return,
            Ok(size) => {
                waiting.closed = false;
                let output = buffer.get(..size).unwrap_or_default();
                if host.is_some_and(|host| write_all(host, output).is_err()) {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

enum Wanted {
    Output,
    Again,
    Nothing,
}

struct Waiting<'a> {
    process: &'a OwnedFd,
    host: Option<&'a OwnedFd>,
    ended: &'a OwnedFd,
    /// Whether the process had ended before what was read last.
    over: bool,
    /// Whether nobody had the other side of the terminal open when it was read last.
    closed: bool,
    half_closed: bool,
}

impl Waiting<'_> {
    /// Waits for output, for the end of the process, or for the host to go.
    fn next(&mut self) -> Wanted {
        self.over = self.over || has_ended(self.ended);
        if self.over && self.closed {
            return Wanted::Output;
        }
        // The end of what the host sends is told once; that it has gone entirely is then asked for.
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let gone = PollFlags::HUP | PollFlags::ERR;
        let watched = if self.half_closed {
            PollFlags::empty()
        } else {
            PollFlags::RDHUP
        };
        let limit = match (self.over, self.closed, self.half_closed) {
            (true, ..) => Some(&LINGER),
            (_, true, _) => Some(&OPENED_AGAIN),
            (_, _, true) => Some(&second),
            (_, _, false) => None,
        };
        let mut polled = Vec::with_capacity(3);
        let mut place = |descriptor, flags| {
            polled.push(PollFd::new(descriptor, flags));
            polled.len() - 1
        };
        let host = self.host.map(|host| place(host, watched));
        // A closed terminal would be told of at once, again and again.
        let output = (!self.closed).then(|| place(self.process, PollFlags::IN));
        if !self.over {
            place(self.ended, PollFlags::IN);
        }
        let count = match poll(&mut polled, limit) {
            Ok(count) => count,
            Err(Errno::INTR) => return Wanted::Again,
            Err(_) => return Wanted::Nothing,
        };
        if count == 0 && self.over {
            return Wanted::Nothing;
        }
        let revents = |place: Option<usize>| {
            place
                .and_then(|place| polled.get(place))
                .map_or(PollFlags::empty(), PollFd::revents)
        };
        let (output, of_host) = (!revents(output).is_empty(), revents(host));
        if let Some(host) = self.host {
            if of_host.intersects(gone) {
                return Wanted::Nothing;
            }
            if self.half_closed || of_host.contains(PollFlags::RDHUP) {
                self.half_closed = true;
                if send(host.as_fd(), &[], SendFlags::NOSIGNAL) == Err(Errno::PIPE) {
                    return Wanted::Nothing;
                }
            }
        }
        if output || self.closed {
            Wanted::Output
        } else {
            Wanted::Again
        }
    }
}

/// Whether what tells of the end has told it.
fn has_ended(ended: &OwnedFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(ended, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}

/// Writes all of it, however often the call is interrupted.
pub(crate) fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
