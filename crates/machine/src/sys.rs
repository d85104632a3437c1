//! Decides what is asked of the operating system below the safe interfaces.

#[cfg(target_os = "linux")]
pub(crate) mod child;
#[cfg(target_os = "linux")]
pub(crate) mod volatile_io;

#[cfg(target_arch = "x86_64")]
pub(crate) mod tsc;
