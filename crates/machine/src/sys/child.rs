//! Decides how a child process is tied to us: which descriptors it inherits, and that it dies with us.
#![allow(
    unsafe_code,
    reason = "code between fork and exec can only be given to std through an unsafe call"
)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal};

/// Lets the child keep `inherited` under their numbers, and has the kernel kill it when the thread that
/// spawns it ends.
pub(crate) fn tie(command: &mut Command, inherited: &[BorrowedFd<'_>]) {
    let numbers: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let owner = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died between fork and the line above; then nobody will signal the child.
        if rustix::process::getppid() != Some(owner) && owner != Pid::INIT {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        for number in &numbers {
            // SAFETY: the caller of `spawn` keeps these descriptors open until it returns, and the child
            // has copies of all of them under the same numbers.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it allocates nothing, takes no lock, and touches
    // nothing but its own captured numbers.
    unsafe {
        command.pre_exec(prepare);
    }
}
