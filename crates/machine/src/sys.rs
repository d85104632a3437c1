//! Decides what is asked of the operating system below the safe interfaces.

#[cfg(target_os = "linux")]
pub(crate) mod child;
#[cfg(target_os = "linux")]
pub(crate) mod volatile_io;

pub(crate) mod socket;
#[cfg(all(target_arch = "x86_64", unix))]
pub(crate) mod tsc;

/// A new file is for its owner alone; on Windows the folder that it is in decides that.
pub(crate) fn owner_only(options: &mut std::fs::OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Opening and writing returns at once, also where it is a pipe that nobody reads from; and no terminal
/// becomes this program's own.
pub(crate) fn without_waiting(options: &mut std::fs::OpenOptions) {
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits().cast_signed());
    }
    #[cfg(not(unix))]
    let _ = options;
}

/// Says of a pipe without a reader what the system calls "no such device or address".
pub(crate) fn nobody_reads(error: std::io::Error) -> std::io::Error {
    #[cfg(unix)]
    if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NXIO) {
        return std::io::Error::new(error.kind(), "nobody reads from it");
    }
    error
}
