//! What differs between operating systems: locked folders, sockets in them, and sessions.
//!
//! Elsewhere than on Linux there is none of it yet: whatever needs it says so.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{
    Listener, Lock, Socket, begin_session, connect, host_use, inherit_nothing, is_at,
    is_own_folder, kill_listener, leave_starter, lock_folder, log_to, make_private, peer,
    remove_socket, runtime_folder, supported,
};

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{
    Listener, Lock, Socket, begin_session, connect, host_use, inherit_nothing, is_at,
    is_own_folder, kill_listener, leave_starter, lock_folder, log_to, make_private, peer,
    remove_socket, runtime_folder, supported,
};
