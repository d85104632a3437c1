//! Signals, and waiting for input, where there is only Ctrl-C.

use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle as _;
use std::time::Duration;

const INTERRUPT: u8 = 2;

/// What asks this process to end.
pub(crate) struct Signals;

impl Signals {
    /// Takes Ctrl-C over from the system.
    #[allow(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for one and returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPT
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
