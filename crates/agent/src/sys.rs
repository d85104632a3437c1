//! What the safe interfaces of the system lack: starting a program in surroundings of its own, vsock
//! connections, a working directory of one thread's own, crediting entropy, the processor's kind, signals by any number, and the
//! device mapper.
#![allow(
    unsafe_code,
    reason = "sharing memory with a child, unsharing, addresses and ioctls with kernel structures, and real-time signal numbers have no safe form"
)]

pub(crate) mod device_mapper;
pub(crate) mod spawn;
pub(crate) mod vsock;

use std::{io, os::fd::AsFd, path::Path};

use rustix::{
    io::Errno,
    ioctl::{Opcode, Setter, ioctl},
    process::{Signal, chdir},
    thread::{UnshareFlags, unshare_unsafe},
};

/// A signal by its number, 1 to 64.
pub(crate) fn signal(number: i32) -> Option<Signal> {
    if !(1..=64).contains(&number) {
        return None;
    }
    // SAFETY: the number is a signal of this kernel. The numbers that a C library keeps for
    // itself are sent to other processes only, never handled or masked here.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

/// What the processor says of itself under a number: EAX, EBX, ECX and EDX.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cpuid(leaf: u32) -> [u32; 4] {
    #[allow(unused_unsafe, reason = "newer Rust has it safe")]
    // SAFETY: every processor of this kind has the instruction.
    let told = unsafe { std::arch::x86_64::__cpuid(leaf) };
    [told.eax, told.ebx, told.ecx, told.edx]
}

/// Does `work` with `folder` as the working directory, on a thread whose directory is its own.
pub(crate) fn in_folder<T: Send>(
    folder: &Path,
    work: impl FnOnce() -> rustix::io::Result<T> + Send,
) -> rustix::io::Result<T> {
    let body = || {
        // SAFETY: only what a path is relative to stops being shared, and no descriptor does; the
        // thread ends with this.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        chdir(folder)?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("in a folder".to_owned())
            .spawn_scoped(scope, body)
            .map_err(|_| Errno::AGAIN)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The kernel's `struct rand_pool_info` with room for 512 bytes.
#[repr(C)]
struct PoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u8; 512],
}

/// `RNDADDENTROPY`, `_IOW('R', 3, int[2])`.
const RNDADDENTROPY: Opcode = 0x4008_5203;

/// Mixes bytes (at most 512) into the kernel's pool and credits them as entropy.
pub(crate) fn add_entropy(random: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut info = PoolInfo {
        entropy_count: 0,
        buf_size: 0,
        buf: [0; 512],
    };
    let size = bytes.len().min(info.buf.len());
    info.buf[..size].copy_from_slice(&bytes[..size]);
    // At most 512, so both fit.
    info.buf_size = i32::try_from(size).unwrap_or(0);
    info.entropy_count = info.buf_size * 8;
    // SAFETY: the opcode is the one of `struct rand_pool_info`, whose layout PoolInfo has, and
    // `buf_size` is not over the size of `buf`.
    let request = unsafe { Setter::<RNDADDENTROPY, PoolInfo>::new(info) };
    // SAFETY: as above; the kernel only reads the structure.
    unsafe { ioctl(random, request) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_are_signals() {
        assert_eq!(signal(9), Some(Signal::KILL));
        assert_eq!(signal(64).map(Signal::as_raw), Some(64));
        for number in [0, -1, 65, i32::MAX, i32::MIN] {
            assert_eq!(signal(number), None);
        }
    }

    #[test]
    fn only_the_work_is_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let here = std::env::current_dir().unwrap();
        let there = in_folder(&path, || Ok(std::env::current_dir().unwrap())).unwrap();
        assert_eq!(there, path);
        assert_eq!(std::env::current_dir().unwrap(), here);
        assert!(in_folder(&path.join("gone"), || Ok(())).is_err());
    }
}
