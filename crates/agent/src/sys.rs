//! What the safe interfaces of the system lack: starting a process in surroundings of its own, a
//! working directory of one thread's own, crediting entropy, signals by any number, and the device mapper.
#![allow(
    unsafe_code,
    reason = "the standard library's `pre_exec`, unsharing, ioctls with kernel structures, and real-time signal numbers have no safe form"
)]

pub(crate) mod device_mapper;
pub(crate) mod vsock;

use std::{
    io,
    os::{fd::AsFd, unix::process::CommandExt as _},
    path::Path,
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{Opcode, Setter, ioctl},
    process::{
        Gid, Resource, Rlimit, Signal, Uid, chdir, ioctl_tiocsctty, setrlimit, setsid, umask,
    },
    thread::{
        UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
        unshare_unsafe,
    },
};

/// What a process is given before its program begins, beside what [`Command`] gives.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Whether its standard input becomes its controlling terminal.
    pub(crate) terminal: bool,
    /// Whom it runs as: user, group, and all groups.
    pub(crate) identity: Option<(Uid, Gid, Vec<Gid>)>,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    pub(crate) umask: Option<u32>,
    /// What is written to its `oom_score_adj`.
    pub(crate) oom_score_adj: Option<String>,
    pub(crate) no_new_privileges: bool,
}

/// Has the command lead a session of its own, with these surroundings, and be one that the kernel
/// may choose when memory runs out, unlike us.
pub(crate) fn surround(command: &mut Command, surroundings: Surroundings) {
    let prepare = move || -> io::Result<()> {
        setsid()?;
        if surroundings.terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
        match (&surroundings.oom_score_adj, score) {
            (Some(adjustment), score) => {
                rustix::io::write(&score?, adjustment.as_bytes())?;
            }
            // Where ours cannot be given up, it was not had either.
            (None, Ok(score)) => {
                let _ = rustix::io::write(&score, b"0");
            }
            (None, Err(_)) => {}
        }
        // Limits may be raised by the one who starts it and not by everybody.
        for (resource, limit) in &surroundings.limits {
            setrlimit(*resource, *limit)?;
        }
        if let Some(mask) = surroundings.umask {
            umask(Mode::from_raw_mode(mask));
        }
        if let Some((user, group, groups)) = &surroundings.identity {
            set_thread_groups(groups)?;
            set_thread_res_gid(*group, *group, *group)?;
            set_thread_res_uid(*user, *user, *user)?;
        }
        if surroundings.no_new_privileges {
            set_no_new_privs(true)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes plain system calls: it allocates nothing,
    // takes no lock and touches no memory of other threads. There is one thread by then, so that
    // what is set for the thread is set for the process.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A signal by its number, 1 to 64.
pub(crate) fn signal(number: i32) -> Option<Signal> {
    if !(1..=64).contains(&number) {
        return None;
    }
    // SAFETY: the number is a signal of this kernel. The numbers that a C library keeps for
    // itself are sent to other processes only, never handled or masked here.
    Some(unsafe { Signal::from_raw_unchecked(number) })
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

    #[test]
    fn a_process_leads_its_own_session() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat /proc/$$/stat | cut -d' ' -f1,6"]);
        surround(&mut command, Surroundings::default());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (pid, session) = text.trim().split_once(' ').unwrap();
        assert_eq!(pid, session);
    }
}
