//! What differs between operating systems.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    OtherSignals, Resized, Signals, Terminal, outlive_file_limit, private, stdin, stdout,
    wait_readable, wait_writable,
};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{
    OtherSignals, Resized, Signals, Terminal, outlive_file_limit, private, stdin, stdout,
    wait_readable, wait_writable,
};
