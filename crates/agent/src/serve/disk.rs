//! Disks: found by controller and LUN, mounted, unmounted and unplugged.

mod appear;
mod find;
mod options;
mod verity;

use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use opengcs_bridge::message::{MappedVirtualDisk, ScsiDevice};
use rustix::io::Errno;

use self::{
    appear::appear,
    find::Sysfs,
    options::MountOptions,
    verity::{Protected, Protection},
};
use super::{Agent, Outcome, failed, holders, mounts::checked, not_implemented};

/// How long a disk may stay in use after its last mount is gone.
const SETTLES: Duration = Duration::from_secs(1);

/// Waits for a disk and mounts it, or makes a link to it. Without a path it only waits.
pub(super) fn add(agent: &Agent, disk: &MappedVirtualDisk) -> Outcome<()> {
    if disk.encrypted {
        return Err(not_implemented(
            "encrypted disks are not supported: this agent has no keys and no dm-crypt",
        ));
    }
    let claim = match disk.mount_path.as_str() {
        "" => None,
        path => Some(agent.mounts.claim(path)?),
    };
    let protection = disk
        .verity_info
        .as_ref()
        .map(Protection::parse)
        .transpose()?;
    if protection.is_some() && claim.is_none() {
        return Err(super::invalid("a disk with VerityInfo needs a MountPath"));
    }
    let options = MountOptions::parse(disk)?;
    let device = appear(disk)?;
    let Some(claim) = claim else {
        return Ok(());
    };
    let protected = match protection {
        Some(protection) => {
            let name = format!("verity-{}-{}-{}", disk.controller, disk.lun, disk.partition);
            Some(Protected::over(&device, name, &protection)?)
        }
        None => None,
    };
    let device = protected
        .as_ref()
        .map_or(device.as_path(), |protected| protected.device());
    if disk.block_dev {
        claim.link(device)?;
    } else {
        let what = format!("{} ({})", device.display(), options.filesystem);
        let mut errno = None;
        claim
            .mount(&what, |path| {
                options
                    .mount(device, path)
                    .inspect_err(|refused| errno = Some(*refused))
            })
            .map_err(|mut failure| {
                if let Some(why) = errno.and_then(|errno| options.why(errno)) {
                    failure.message.push_str(": ");
                    failure.message.push_str(&why);
                }
                if disk.ensure_filesystem {
                    failure
                        .message
                        .push_str("; this agent makes no file systems, the disk must have one");
                }
                failure
            })?;
    }
    if let Some(protected) = protected {
        claim.protected_by(protected.keep());
    }
    Ok(())
}

/// Unmounts a disk, or removes the link to it.
pub(super) fn remove(agent: &Agent, disk: &MappedVirtualDisk) -> Outcome<()> {
    if disk.mount_path.is_empty() {
        return Ok(());
    }
    agent.mounts.claim(&disk.mount_path)?.remove()
}

/// Takes a disk out of the kernel, before the host detaches it. One that is not there is fine.
pub(super) fn unplug(_agent: &Agent, device: ScsiDevice) -> Outcome<()> {
    let sysfs = Sysfs::new();
    let host = sysfs.host(device.controller)?;
    let folder = sysfs.device(host, device.lun);
    if !folder.exists() {
        return Ok(());
    }
    let flushed = match sysfs.block(host, device.lun, 0) {
        Some(name) => flush(&Path::new("/dev").join(name))?,
        None => Ok(()),
    };
    sysfs.delete(host, device.lun)?;
    flushed
}

/// Makes sure that nothing uses a disk, and flushes it. That its last bytes cannot be written (the
/// host's disk is full, say) is told, and is no reason to keep it for ever.
fn flush(device: &Path) -> Outcome<Outcome<()>> {
    let Some(disk) = unused(device)? else {
        return Ok(Ok(()));
    };
    Ok(disk.sync_all().map_err(|error| {
        failed(format!(
            "flush {}: {error}; what was written last is lost, and the disk is let go of",
            device.display()
        ))
    }))
}

/// Opens a disk that nothing uses; `None` when there is nothing to open.
fn unused(device: &Path) -> Outcome<Option<fs::File>> {
    let begin = Instant::now();
    loop {
        match exclusively(device) {
            Ok(disk) => return Ok(Some(disk)),
            Err(error) if is_busy(&error) && begin.elapsed() < SETTLES => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) if is_busy(&error) => {
                return Err(failed(format!(
                    "{} is in use by {}",
                    device.display(),
                    holders::of_disk(device)
                )));
            }
            // No medium or no node: nothing can be flushed, and nothing uses it.
            Err(_) => return Ok(None),
        }
    }
}

/// Opens a disk as file systems do, which only one can: it fails with `EBUSY` while another has it.
fn exclusively(device: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
        .open(device)
}

fn is_busy(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

/// Checks a path that names a layer or a scratch folder.
pub(super) fn folder(path: &str) -> Outcome<PathBuf> {
    let path = checked(path)?;
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err(failed(format!("{}: not a directory", path.display()))),
        Err(error) => Err(failed(format!("{}: {error}", path.display()))),
    }
}
