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
