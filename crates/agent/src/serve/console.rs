//! A process's terminal, and the relay between it and the host.
//!
//! One thread carries input, one output. The terminal is held by these two alone: when the host
//! has gone they let go of it, and the kernel hangs up on the process.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
    sync::{Arc, Weak},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    io::Errno,
    net::{SendFlags, Shutdown, send, shutdown},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, SpecialCodeIndex, tcgetattr},
    time::Timespec,
};

use super::spawn;

const BUFFER: usize = 16 << 10;

pub(super) struct Console {
    terminal: Arc<OwnedFd>,
}

impl Console {
    /// A new terminal.
    pub(super) fn open() -> io::Result<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        Ok(Self {
            terminal: Arc::new(terminal),
        })
    }

    /// Gives the process's side of the terminal to a command.
    pub(super) fn attach(&self, command: &mut Command) -> io::Result<()> {
        let name = ptsname(&*self.terminal, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let stdin = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        let stdout = stdin.try_clone()?;
        let stderr = stdin.try_clone()?;
        command.stdin(Stdio::from(stdin));
        command.stdout(Stdio::from(stdout));
        command.stderr(Stdio::from(stderr));
        Ok(())
    }

    /// The terminal for as long as it is relayed.
    pub(super) fn terminal(&self) -> Weak<OwnedFd> {
        Arc::downgrade(&self.terminal)
    }

    /// Relays until the process's side is closed or the host has gone.
    pub(super) fn relay(self, stdin: Option<OwnedFd>, stdout: Option<OwnedFd>) -> io::Result<()> {
        let stdin = stdin.map(Arc::new);
        if let Some(stdin) = stdin.clone() {
            let terminal = Arc::clone(&self.terminal);
            spawn("terminal-in", move || relay_input(&stdin, &terminal))?;
        }
        spawn("terminal-out", move || {
            relay_output(&self.terminal, stdout.as_ref());
            // The last byte is out. The host sees the end of it, and input ends as well.
            if let Some(stdout) = &stdout {
                let _ = shutdown(stdout, Shutdown::Write);
            }
            if let Some(stdin) = &stdin {
                let _ = shutdown(stdin, Shutdown::Both);
            }
        })
    }
}

/// Carries input until the host ends it. The end becomes the character that means so.
fn relay_input(stdin: &OwnedFd, terminal: &OwnedFd) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match rustix::io::read(stdin, &mut buffer) {
            Ok(0) => break,
            Ok(size) => {
                if write_all(terminal, buffer.get(..size).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
    if let Ok(modes) = tcgetattr(terminal)
        && modes.local_modes.contains(LocalModes::ICANON)
    {
        let end = modes.special_codes[SpecialCodeIndex::VEOF];
        let _ = write_all(terminal, &[end]);
    }
}

fn relay_output(terminal: &OwnedFd, stdout: Option<&OwnedFd>) {
    let mut buffer = vec![0; BUFFER];
    let mut half_closed = false;
    loop {
        match wait_for_output(terminal, stdout, &mut half_closed) {
            Wanted::Output => {}
            Wanted::Nothing => return,
            Wanted::Again => continue,
        }
        match rustix::io::read(terminal, &mut buffer) {
            // No process has the other side open: EIO.
            Ok(0) | Err(Errno::IO) => return,
            Ok(size) => {
                let output = buffer.get(..size).unwrap_or_default();
                if stdout.is_some_and(|stdout| write_all(stdout, output).is_err()) {
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

/// Waits for output, or for the host to go.
fn wait_for_output(terminal: &OwnedFd, stdout: Option<&OwnedFd>, half_closed: &mut bool) -> Wanted {
    let gone = PollFlags::HUP | PollFlags::ERR;
    let watched = if *half_closed {
        PollFlags::empty()
    } else {
        PollFlags::RDHUP
    };
    let mut polled = vec![PollFd::new(terminal, PollFlags::IN)];
    polled.extend(stdout.map(|stdout| PollFd::new(stdout, watched)));
    // The end of what the host sends is told once; that it has gone entirely is then asked for.
    let second = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    match poll(&mut polled, half_closed.then_some(&second)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(_) => return Wanted::Nothing,
    }
    let output = polled.first().is_some_and(|fd| !fd.revents().is_empty());
    let host = polled.get(1).map_or(PollFlags::empty(), PollFd::revents);
    if host.intersects(gone) {
        return Wanted::Nothing;
    }
    if let Some(stdout) = stdout
        && (*half_closed || host.contains(PollFlags::RDHUP))
    {
        *half_closed = true;
        if send(stdout.as_fd(), &[], SendFlags::NOSIGNAL) == Err(Errno::PIPE) {
            return Wanted::Nothing;
        }
    }
    if output {
        Wanted::Output
    } else {
        Wanted::Again
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
