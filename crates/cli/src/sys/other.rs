//! What asks the process to end, and waiting for input, on Windows.

use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle as _;
use std::path::Path;
use std::time::Duration;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close,
    ctrl_logoff, ctrl_shutdown,
};

// The numbers that Unix has for the same.
const HANGUP: u8 = 1;
const INTERRUPT: u8 = 2;
const TERMINATE: u8 = 15;

/// What asks this process to end: keys, the console's window, and the end of the session. For all but
/// the keys the system waits some seconds and then ends the process.
pub(crate) struct Signals {
    keys: CtrlC,
    pause: CtrlBreak,
    window: CtrlClose,
    logoff: CtrlLogoff,
    shutdown: CtrlShutdown,
}

impl Signals {
    /// Takes them over from the system, which would end the process at once.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            keys: ctrl_c()?,
            pause: ctrl_break()?,
            window: ctrl_close()?,
            logoff: ctrl_logoff()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Waits for one and returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.keys.recv() => INTERRUPT,
            _ = self.pause.recv() => INTERRUPT,
            _ = self.window.recv() => HANGUP,
            _ = self.logoff.recv() => TERMINATE,
            _ = self.shutdown.recv() => TERMINATE,
        }
    }
}

/// Files cannot be waited for here: a read blocks until it has something.
#[allow(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(crate) fn wait_readable<T>(_source: &T, _patience: Duration) -> io::Result<bool> {
    Ok(true)
}

/// A write that would block does.
#[allow(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(crate) fn wait_writable<T>(_target: &T, _patience: Duration) -> io::Result<bool> {
    Ok(true)
}

/// Standard input without the buffer that the standard library puts before it.
pub(crate) fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_handle().try_clone_to_owned()?))
}

/// Standard output without the buffer that the standard library puts before it.
pub(crate) fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_handle().try_clone_to_owned()?))
}

/// Opens a file to read from.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Opens a device to write to.
pub(crate) fn open_to_write(path: &Path) -> io::Result<Option<File>> {
    File::options().write(true).open(path).map(Some)
}

/// Terminals are left as they are here.
pub(crate) struct Terminal;

impl Terminal {
    /// Not known.
    pub(crate) fn size() -> Option<(u16, u16)> {
        None
    }

    /// As it is.
    pub(crate) fn raw() -> Self {
        Self
    }

    /// As it is.
    pub(crate) fn restore() {}
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing was changed, and whoever drops it need not know.
    }
}

/// There are none here.
pub(crate) struct OtherSignals;

impl OtherSignals {
    /// Nothing to listen to.
    pub(crate) fn listen() -> Self {
        Self
    }

    /// None will ever come.
    pub(crate) async fn next(&mut self) -> u8 {
        std::future::pending().await
    }
}

/// Nobody tells here when the terminal has another size.
pub(crate) struct Resized;

impl Resized {
    /// Nothing to listen to.
    pub(crate) fn listen() -> Self {
        Self
    }

    /// It will never be told.
    #[allow(clippy::unused_async, reason = "it waits elsewhere")]
    pub(crate) async fn next(&mut self) -> bool {
        false
    }
}

/// Lets a write past a limit on the sizes of files fail: here it does by itself.
pub(crate) fn outlive_file_limit() {}

/// A new file has the rights of its folder.
pub(crate) fn private() -> Option<std::fs::Permissions> {
    None
}

/// What a failure of the system is told with: Unix's words, for the system's own are in the language of its
/// user, in the middle of a line that is not. Nothing for what is rare.
pub(crate) fn words(error: &io::Error) -> Option<&'static str> {
    const SHARING_VIOLATION: i32 = 32;
    const LOCK_VIOLATION: i32 = 33;
    if let SHARING_VIOLATION | LOCK_VIOLATION = error.raw_os_error()? {
        return Some("another program has it open");
    }
    Some(match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::AlreadyExists => "file exists",
        io::ErrorKind::NotADirectory => "not a directory",
        io::ErrorKind::DirectoryNotEmpty => "directory not empty",
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system",
        io::ErrorKind::StorageFull => "no space left on device",
        io::ErrorKind::QuotaExceeded => "disk quota exceeded",
        io::ErrorKind::InvalidFilename => "windows takes no such name",
        _ => return None,
    })
}

/// What to do about a file that one may not open, or a folder that one may not write to.
pub(crate) const LOOK_AT_RIGHTS: &str = "see who may with icacls, of the file and of its folder";

/// The command that makes a folder and those above it. In its place a slash begins an option.
pub(crate) fn make_folder(folder: &Path) -> String {
    format!("mkdir {}", folder.display()).replace('/', "\\")
}
