//! The guest agent: PID 1 of the utility VM and the guest end of the bridge.
//!
//! ```text
//!   init (PID 1) ── mounts, modules, then only reaps ──► child: serve
//!                                                          │ dials the host
//!            port 1: entropy   109: log   0x40000000: bridge, again when it is lost
//!                                                          │
//!                one thread reads requests ── slow ones on threads of their own
//!                one thread waits for processes and time limits
//!                each process of a container has a shim, a process of ours beside it
//! ```
//!
//! The binary `gcs` answers to several names: `init`, `serve`, and the converters `tar2vhd`,
//! `vhd2tar` and `exportSandbox`.
//!
//! It trusts no request: paths, numbers and names are checked, nothing of a request reaches a
//! shell, and a request that cannot be served is answered with a code and a reason.

#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod converters;
#[cfg(target_os = "linux")]
pub mod init;
#[cfg(target_os = "linux")]
mod kernel_log;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
pub mod program;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
pub mod serve;
#[cfg(target_os = "linux")]
mod shim;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod transport;
