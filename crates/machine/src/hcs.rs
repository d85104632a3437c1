//! Decides how a machine is run by Hyper-V, through the Host Compute Service (HCS) of Windows.
//!
//! ```text
//!           ┌───────────── this process ─────────────┐       ┌── vmcompute, vmwp ──┐
//! Machine ──┤ documents ─► computecore.dll ══════════╪═══════╡ compute system      │
//!           │ callback ◄──────────────────────────────╪───────┤ its end             │
//!           │ listeners ══ Hyper-V sockets ═══════════╪═══════╡ vsock of the guest  │
//!           │ recorder ◄══ named pipe ════════════════╪═══════╡ COM1                │
//!           └─────────────────────────────────────────┘       └─────────────────────┘
//! ```
//!
//! What is said and understood ([`document`], [`outcome`]) is plain data on every host. The backend itself is
//! there on Windows only. `computecore.dll` is loaded when the first machine is started: a program of ours
//! also runs where Hyper-V is not enabled, and says so. Machines end with the last handle to them, however
//! this process ends.

pub mod document;
pub mod outcome;

#[cfg(windows)]
mod console;
#[cfg(windows)]
mod disks;
#[cfg(windows)]
mod leftovers;
#[cfg(windows)]
mod ports;
#[cfg(windows)]
mod run;
#[cfg(windows)]
mod start;
#[cfg(windows)]
mod sys;

#[cfg(windows)]
pub use run::{Hcs, Host};
#[cfg(windows)]
pub use sys::socket::StandIn;
