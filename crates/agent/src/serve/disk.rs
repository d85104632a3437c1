//! Disks: found by controller and LUN, mounted, unmounted and unplugged.

mod find;

use std::{
    ffi::CString,
    fs,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use opengcs_bridge::message::{MappedVirtualDisk, ScsiDevice};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use self::find::Sysfs;
use super::{Agent, Outcome, failed, invalid, mounts::checked, not_implemented};

/// How long a disk may take to appear.
const APPEARS: Duration = Duration::from_secs(15);

/// After this long the bus is searched again, in case the kernel has missed the disk.
const RESCAN: Duration = Duration::from_secs(1);

/// How long a disk may stay in use after its last mount is gone.
const SETTLES: Duration = Duration::from_secs(1);

/// Waits for a disk and mounts it, or makes a link to it. Without a path it only waits.
pub(super) fn add(agent: &Agent, disk: &MappedVirtualDisk) -> Outcome<()> {
    if disk.encrypted {
        return Err(not_implemented("encrypted disks are not supported"));
    }
    if disk.verity_info.is_some() {
        return Err(not_implemented("disks with verity are not supported"));
    }
    let claim = match disk.mount_path.as_str() {
        "" => None,
        path => Some(agent.mounts.claim(path)?),
    };
    let options = MountOptions::parse(disk)?;
    let device = appear(disk.controller, disk.lun, disk.partition)?;
    let Some(claim) = claim else {
        return Ok(());
    };
    if disk.block_dev {
        return claim.link(&device);
    }
    let what = format!("{} ({})", device.display(), options.filesystem);
    claim
        .mount(&what, |path| options.mount(&device, path))
        .map_err(|mut failure| {
            if disk.ensure_filesystem {
                failure
                    .message
                    .push_str("; this agent makes no file systems, the disk must have one");
            }
            failure
        })
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
    let delete = folder.join("delete");
    fs::write(&delete, "1").map_err(|error| failed(format!("{}: {error}", delete.display())))?;
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
        let exclusive = fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
            .open(device);
        let busy =
            |error: &std::io::Error| error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
        match exclusive {
            Ok(disk) => return Ok(Some(disk)),
            Err(error) if busy(&error) && begin.elapsed() < SETTLES => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) if busy(&error) => {
                return Err(failed(format!(
                    "{} is still in use: unmount what is on it first",
                    device.display()
                )));
            }
            // No medium or no node: nothing can be flushed, and nothing uses it.
            Err(_) => return Ok(None),
        }
    }
}

/// Whether a disk can be opened: its file is there a moment before the kernel has the disk ready.
fn is_live(device: &Path) -> bool {
    match fs::File::open(device) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(Errno::NXIO.raw_os_error()),
    }
}

/// Waits for a disk's device file.
fn appear(controller: u8, lun: u8, partition: u64) -> Outcome<PathBuf> {
    let sysfs = Sysfs::new();
    let host = sysfs.host(controller)?;
    let begin = Instant::now();
    let mut rescanned = false;
    loop {
        if let Some(name) = sysfs.block(host, lun, partition) {
            let device = Path::new("/dev").join(name);
            let there = fs::metadata(&device);
            if there.is_ok_and(|metadata| metadata.file_type().is_block_device())
                && is_live(&device)
            {
                return Ok(device);
            }
        }
        let waited = begin.elapsed();
        if waited > APPEARS {
            let part = match partition {
                0 => String::new(),
                number => format!(", partition {number},"),
            };
            return Err(failed(format!(
                "the disk at controller {controller}, LUN {lun}{part} did not appear within {} s",
                APPEARS.as_secs()
            )));
        }
        if waited > RESCAN && !rescanned {
            rescanned = true;
            sysfs.rescan(host, lun);
        }
        std::thread::sleep(if waited < RESCAN {
            Duration::from_millis(2)
        } else {
            Duration::from_millis(20)
        });
    }
}

struct MountOptions {
    filesystem: String,
    flags: MountFlags,
    data: CString,
}

impl MountOptions {
    fn parse(disk: &MappedVirtualDisk) -> Outcome<Self> {
        let filesystem = match disk.filesystem.as_str() {
            "" => "ext4",
            name => name,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if filesystem.len() > 32 || !filesystem.bytes().all(plain) {
            return Err(invalid("Filesystem is not the name of a file system"));
        }
        let mut flags = MountFlags::empty();
        let mut data: Vec<&str> = Vec::new();
        for option in disk.options.iter().flat_map(|options| options.split(',')) {
            match option {
                "" | "defaults" | "rw" => {}
                "ro" => flags |= MountFlags::RDONLY,
                "nosuid" => flags |= MountFlags::NOSUID,
                "nodev" => flags |= MountFlags::NODEV,
                "noexec" => flags |= MountFlags::NOEXEC,
                "sync" => flags |= MountFlags::SYNCHRONOUS,
                "dirsync" => flags |= MountFlags::DIRSYNC,
                "noatime" => flags |= MountFlags::NOATIME,
                "nodiratime" => flags |= MountFlags::NODIRATIME,
                "relatime" => flags |= MountFlags::RELATIME,
                "strictatime" => flags |= MountFlags::STRICTATIME,
                other => data.push(other),
            }
        }
        if disk.read_only {
            flags |= MountFlags::RDONLY;
            if matches!(filesystem, "ext4" | "ext3") && !data.contains(&"noload") {
                data.push("noload");
            }
        }
        let data = data.join(",");
        if data.len() >= 4096 {
            return Err(invalid("the mount options are longer than 4095 bytes"));
        }
        Ok(Self {
            filesystem: filesystem.to_owned(),
            flags,
            data: CString::new(data).map_err(|_| invalid("a mount option has a NUL byte"))?,
        })
    }

    fn mount(&self, device: &Path, path: &Path) -> rustix::io::Result<()> {
        mount(
            device,
            path,
            self.filesystem.as_str(),
            self.flags,
            self.data.as_c_str(),
        )
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(read_only: bool, options: &[&str], filesystem: &str) -> Outcome<MountOptions> {
        MountOptions::parse(&MappedVirtualDisk {
            read_only,
            options: options.iter().map(ToString::to_string).collect(),
            filesystem: filesystem.to_owned(),
            ..MappedVirtualDisk::default()
        })
    }

    #[test]
    fn read_only_does_not_load_the_journal() {
        let options = parse(true, &["noatime", "data=ordered"], "").unwrap();
        assert_eq!(options.flags, MountFlags::RDONLY | MountFlags::NOATIME);
        assert_eq!(options.data.to_str(), Ok("data=ordered,noload"));
        assert_eq!(options.filesystem, "ext4");
        let options = parse(true, &[], "xfs").unwrap();
        assert_eq!(options.data.to_str(), Ok(""));
    }

    #[test]
    fn odd_options_are_refused() {
        assert!(parse(false, &["a\0b"], "").is_err());
        assert!(parse(false, &[&"x".repeat(5000)], "").is_err());
        assert!(parse(false, &[], "../x").is_err());
    }
}
