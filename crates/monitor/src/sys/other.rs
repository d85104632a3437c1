//! Where VMs do not outlive the command yet.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::proto::HostUse;

/// A connection between a client and a monitor; there are none.
pub(crate) type Socket = tokio::io::DuplexStream;

/// Says that there is none of it here.
pub(crate) fn supported() -> Result<()> {
    Err(Error::new(
        ErrorKind::Unsupported,
        "VMs that outlive the command are for Linux hosts yet",
    )
    .hint("`opengcs run` has a VM for one command"))
}

fn none<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Never used: [`supported`] is asked before.
pub(crate) fn runtime_folder(user: Option<PathBuf>) -> PathBuf {
    user.unwrap_or_else(std::env::temp_dir).join("opengcs")
}

/// Not here.
pub(crate) fn make_private(_path: &Path) -> io::Result<()> {
    none()
}

/// Not here.
pub(crate) fn is_own_folder(_path: &Path) -> bool {
    false
}

/// Not here.
pub(crate) fn is_at(_file: &std::fs::File, _path: &Path) -> bool {
    true
}

/// A lock on a folder; nobody can have one.
#[derive(Debug)]
pub(crate) struct Lock {
    _nobody: std::convert::Infallible,
}

/// Not here.
pub(crate) fn lock_folder(_path: &Path) -> io::Result<Option<Lock>> {
    none()
}

/// Accepts clients; there can be none.
#[derive(Debug)]
pub(crate) struct Listener {
    nobody: std::convert::Infallible,
}

impl Listener {
    /// Not here.
    pub(crate) fn bind(_folder: &Path) -> io::Result<Self> {
        none()
    }

    /// Nobody will ever ask.
    #[allow(clippy::unused_async, reason = "it waits elsewhere")]
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match self.nobody {}
    }
}

/// Not here.
pub(crate) fn remove_socket(_folder: &Path) -> io::Result<()> {
    none()
}

/// Not here.
#[allow(clippy::unused_async, reason = "it waits elsewhere")]
pub(crate) async fn connect(_folder: &Path) -> io::Result<Socket> {
    none()
}

/// Not here.
pub(crate) fn peer(_socket: &Socket) -> Option<u32> {
    None
}

/// Not here.
#[allow(clippy::unused_async, reason = "it waits elsewhere")]
pub(crate) async fn kill_listener(_folder: &Path) -> io::Result<()> {
    none()
}

/// Not here.
pub(crate) fn inherit_nothing() {}

/// Not here.
pub(crate) fn begin_session() -> io::Result<()> {
    none()
}

/// Not here.
pub(crate) fn leave_starter() -> io::Result<()> {
    none()
}

/// Not here.
pub(crate) fn log_to<F>(_file: &F) -> io::Result<()> {
    none()
}

/// Not here.
pub(crate) fn host_use(_process: u32) -> Option<HostUse> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_vm_that_outlives_the_command_is_told_in_one_line() {
        let folders = crate::Folders::of(&opengcs::Environment::process());
        let error = folders.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string().lines().count(), 1);
        assert!(error.to_string().contains("Linux hosts"), "{error}");
    }
}
