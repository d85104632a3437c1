//! Signals, the terminal, and waiting for input, on Unix.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

const HANGUP: u8 = 1;
const INTERRUPT: u8 = 2;
const TERMINATE: u8 = 15;

/// The signals that ask this process to end.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over from the system, which would end the process at once.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one and returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.hangup.recv() => HANGUP,
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
        }
    }
}

/// `SIGXFSZ` of Linux: a write went past the limit on the sizes of files.
const FILE_SIZE: i32 = 25;

/// Lets a write past the limit on the sizes of files fail, where the system would end the process:
/// then it is told, and nothing is left behind. Must be called inside the runtime.
pub(crate) fn outlive_file_limit() {
    if let Err(error) = signal(SignalKind::from_raw(FILE_SIZE)) {
        tracing::debug!(%error, "cannot take over SIGXFSZ");
    }
}

/// Waits until reading would not block, for at most `patience`; false when it still would.
pub(crate) fn wait_readable(source: &impl AsFd, patience: Duration) -> io::Result<bool> {
    wait(source, PollFlags::IN, patience)
}

/// Waits until writing would not block, for at most `patience`; false when it still would.
pub(crate) fn wait_writable(target: &impl AsFd, patience: Duration) -> io::Result<bool> {
    wait(target, PollFlags::OUT, patience)
}

fn wait(on: &impl AsFd, what: PollFlags, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut descriptors = [PollFd::new(on, what)];
    match poll(&mut descriptors, Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Standard input without the buffer that the standard library puts before it.
pub(crate) fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Standard output without the buffer that the standard library puts before it. A pipe that is full
/// says so, where it can be told to, instead of having the writer wait.
pub(crate) fn stdout() -> io::Result<File> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if !file.metadata()?.file_type().is_fifo() {
        return Ok(file);
    }
    // Not waiting is a property of an open pipe, which others may share; opened again, it is ours.
    let again = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/proc/self/fd/1");
    Ok(again.unwrap_or(file))
}

/// Opens a file to read from, at once: a pipe to which nobody writes yet has nothing to read until then.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
}

/// Opens a device or a pipe to write to, at once; nothing when it is a pipe that nobody reads from yet.
pub(crate) fn open_to_write(path: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path);
    match opened {
        Err(error)
            if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NXIO)
                && std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) =>
        {
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

/// The terminal that stdin is, in raw mode until this is dropped; nothing when it is none.
pub(crate) struct Terminal;

/// How the terminal was before it was put into raw mode.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

impl Terminal {
    /// How many rows and columns the terminal has that stdout is, if it is one.
    pub(crate) fn size() -> Option<(u16, u16)> {
        let size = tcgetwinsize(io::stdout()).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }

    /// Has every key go through as it is.
    pub(crate) fn raw() -> Self {
        let before = tcgetattr(io::stdin()).ok().filter(|before| {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw).is_ok()
        });
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Self
    }

    /// Makes it again what it was, also where the process ends without dropping anything.
    pub(crate) fn restore() {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        Self::restore();
    }
}

/// Signals that programs give a meaning of their own, and that this one hands on.
pub(crate) struct OtherSignals {
    all: [(u8, Option<Signal>); 3],
}

impl OtherSignals {
    /// Takes them over from the system, which would end the process.
    pub(crate) fn listen() -> Self {
        let kinds = [
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let number = |kind: SignalKind| u8::try_from(kind.as_raw_value()).unwrap_or_default();
        Self {
            all: kinds.map(|kind| (number(kind), signal(kind).ok())),
        }
    }

    /// Waits for one and returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        let [quit, first, second] = &mut self.all;
        tokio::select! {
            () = come(&mut quit.1) => quit.0,
            () = come(&mut first.1) => first.0,
            () = come(&mut second.1) => second.0,
        }
    }
}

async fn come(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Tells when the terminal has another size.
pub(crate) struct Resized {
    signal: Option<Signal>,
}

impl Resized {
    /// Begins to listen.
    pub(crate) fn listen() -> Self {
        Self {
            signal: signal(SignalKind::window_change()).ok(),
        }
    }

    /// Waits for it; false when it will never be told.
    pub(crate) async fn next(&mut self) -> bool {
        match &mut self.signal {
            Some(signal) => signal.recv().await.is_some(),
            None => false,
        }
    }
}

/// What a file that only its owner may read is given.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is no such thing")]
pub(crate) fn private() -> Option<std::fs::Permissions> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(std::fs::Permissions::from_mode(0o600))
}

/// What a failure of the system is told with: the system's own words.
pub(crate) fn words(_error: &io::Error) -> Option<&'static str> {
    None
}

/// What to do about a file that one may not open, or a folder that one may not write to.
pub(crate) const LOOK_AT_RIGHTS: &str = "see who may with ls -ld, of the file and of its folder";

/// The command that makes a folder and those above it.
pub(crate) fn make_folder(folder: &Path) -> String {
    format!("mkdir -p {}", folder.display())
}
