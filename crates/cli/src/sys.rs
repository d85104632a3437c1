//! What differs between operating systems.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{Signals, stdin, stdout, wait_readable};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{Signals, stdin, stdout, wait_readable};
