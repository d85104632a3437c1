//! A process's terminal, and the relay between it and the host.
//!
//! One thread carries input, one output. The terminal is held by these two alone: when the host
//! has gone they let go of it, and the kernel hangs up on the process.

use std::{io, os::fd::OwnedFd, sync::Arc};

use opengcs_bridge::message::ConsoleSize;
use rustix::{
    fs::{Mode, OFlags, fchown},
    net::{Shutdown, shutdown},
    process::Uid,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{InputModes, LocalModes, SpecialCodeIndex, tcgetattr, tcsetwinsize},
};

use super::{
    processes::{Resize, winsize},
    spawn,
};
use crate::relay;

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

    /// The process's side of the terminal as its streams, which is `owner`'s when that is not us.
    pub(super) fn attach(&self, owner: Option<u32>) -> io::Result<[OwnedFd; 3]> {
        let name = ptsname(&*self.terminal, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let stdin = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        if let Some(owner) = owner {
            fchown(&stdin, Some(Uid::from_raw(owner)), None)?;
        }
        let (stdout, stderr) = (stdin.try_clone()?, stdin.try_clone()?);
        Ok([stdin, stdout, stderr])
    }

    /// Sets its size; 0 by 0 is none.
    pub(super) fn resize(&self, size: ConsoleSize) -> io::Result<()> {
        if size == ConsoleSize::default() {
            return Ok(());
        }
        tcsetwinsize(&*self.terminal, winsize(size.height, size.width)).map_err(io::Error::from)
    }

    /// What resizes it for as long as it is relayed.
    pub(super) fn resizer(&self) -> Resize {
        let terminal = Arc::downgrade(&self.terminal);
        Box::new(move |size| match terminal.upgrade() {
            Some(terminal) => tcsetwinsize(&*terminal, size).map_err(io::Error::from),
            None => Err(io::Error::other("it is closed")),
        })
    }

    /// Relays until the process has ended, which is when `process` becomes readable, or the host has
    /// gone. Until then the terminal is held, even when the process has closed its side: without it
    /// the kernel would hang up on a process that is just about to exit.
    pub(super) fn relay(
        self,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        process: OwnedFd,
    ) -> io::Result<()> {
        let stdin = stdin.map(Arc::new);
        if let Some(stdin) = stdin.clone() {
            let terminal = Arc::clone(&self.terminal);
            spawn("terminal-in", move || input(&stdin, &terminal))?;
        }
        spawn("terminal-out", move || {
            relay::output(&self.terminal, stdout.as_ref(), &process);
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
pub(crate) fn input(host: &OwnedFd, terminal: &OwnedFd) {
    if let Ok(last) = relay::input(host, terminal)
        && let Ok(modes) = tcgetattr(terminal)
        && modes.local_modes.contains(LocalModes::ICANON)
    {
        let end = modes.special_codes[SpecialCodeIndex::VEOF];
        let ends_line = |byte| match byte {
            b'\n' => true,
            b'\r' => modes.input_modes.contains(InputModes::ICRNL),
            byte => byte == end,
        };
        // After the beginning of a line the first one only hands that over.
        let ends: &[u8] = match last.is_none_or(ends_line) {
            true => &[end],
            false => &[end, end],
        };
        let _ = relay::write_all(terminal, ends);
    }
}
