//! What differs between operating systems.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    LOOK_AT_RIGHTS, OtherSignals, Resized, Signals, Terminal, make_folder, open_to_read,
    open_to_write, outlive_file_limit, private, stdin, stdout, wait_readable, wait_writable, words,
};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::{
    LOOK_AT_RIGHTS, OtherSignals, Resized, Signals, Terminal, make_folder, open_to_read,
    open_to_write, outlive_file_limit, private, stdin, stdout, wait_readable, wait_writable, words,
};
