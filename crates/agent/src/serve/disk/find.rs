//! Which disk of the kernel is at a controller and a LUN of the host.

use std::{
    fs,
    path::{Path, PathBuf},
};

use opengcs_bridge::scsi::controller_guid;

use crate::serve::{Outcome, failed};

/// The kernel's view of its devices.
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    pub(super) fn new() -> Self {
        Self::at("/sys")
    }

    fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The kernel's number of a controller of the host.
    pub(super) fn host(&self, controller: u8) -> Outcome<u32> {
        let vmbus = self.root.join("bus/vmbus/devices");
        if is_populated(&vmbus) {
            let guid = controller_guid(controller)
                .ok_or_else(|| failed(format!("there is no SCSI controller {controller}")))?;
            return host_in(&vmbus.join(guid));
        }
        let driver = self.root.join("bus/virtio/drivers/virtio_scsi");
        let mut controllers = virtio_controllers(&driver)?;
        controllers.sort();
        let count = controllers.len();
        match controllers.into_iter().nth(usize::from(controller)) {
            Some((_, folder)) => host_in(&folder),
            None => Err(failed(format!(
                "there is no SCSI controller {controller}: {} has {count}",
                driver.display()
            ))),
        }
    }

    /// The folder of a disk, whether it is there or not.
    pub(super) fn device(&self, host: u32, lun: u8) -> PathBuf {
        self.root.join(format!("bus/scsi/devices/{host}:0:0:{lun}"))
    }

    /// The name of a disk, or of a partition of it, if it is there.
    pub(super) fn block(&self, host: u32, lun: u8, partition: u64) -> Option<String> {
        let block = self.device(host, lun).join("block");
        let disk = fs::read_dir(block).ok()?.flatten().next()?;
        if partition == 0 {
            return disk.file_name().into_string().ok();
        }
        fs::read_dir(disk.path())
            .ok()?
            .flatten()
            .find(|entry| {
                let number = fs::read_to_string(entry.path().join("partition"));
                number.is_ok_and(|number| number.trim().parse() == Ok(partition))
            })?
            .file_name()
            .into_string()
            .ok()
    }

    /// The size of a disk in bytes, if it is there.
    pub(super) fn size(&self, host: u32, lun: u8) -> Option<u64> {
        let name = self.block(host, lun, 0)?;
        let file = self.device(host, lun).join("block").join(name).join("size");
        let sectors: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        // The kernel counts in sectors of 512 bytes, whatever the disk's own are.
        sectors.checked_mul(512)
    }

    /// Takes a disk out of the kernel.
    pub(super) fn delete(&self, host: u32, lun: u8) -> Outcome<()> {
        let delete = self.device(host, lun).join("delete");
        fs::write(&delete, "1").map_err(|error| failed(format!("{}: {error}", delete.display())))
    }

    /// Has the kernel look for a disk.
    pub(super) fn rescan(&self, host: u32, lun: u8) {
        let scan = self.root.join(format!("class/scsi_host/host{host}/scan"));
        // A kernel that does not look is found out when the time is over.
        let _ = fs::write(scan, format!("0 0 {lun}"));
    }
}

fn is_populated(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// The number in the name of the folder `host<N>`.
fn host_in(folder: &Path) -> Outcome<u32> {
    let entries = fs::read_dir(folder)
        .map_err(|error| failed(format!("open {}: {error}", folder.display())))?;
    entries
        .flatten()
        .find_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix("host")?.parse().ok()
        })
        .ok_or_else(|| failed(format!("{} has no SCSI host", folder.display())))
}

/// The controllers of a virtio driver, each with what they are ordered by.
fn virtio_controllers(driver: &Path) -> Outcome<Vec<(Vec<String>, PathBuf)>> {
    let entries = fs::read_dir(driver)
        .map_err(|error| failed(format!("open {}: {error}", driver.display())))?;
    Ok(entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|name| name.strip_prefix("virtio"))
                .is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .filter_map(|entry| {
            let folder = fs::canonicalize(entry.path()).ok()?;
            Some((order(&folder), folder))
        })
        .collect())
}

/// What controllers are ordered by: the last PCI address of the path; without one, the path.
fn order(folder: &Path) -> Vec<String> {
    let parts: Vec<String> = folder
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    match parts.iter().rev().find(|part| is_pci_address(part)) {
        Some(address) => vec![address.clone()],
        None => parts,
    }
}

/// `dddd:bb:dd.f`, all of it hexadecimal.
fn is_pci_address(text: &str) -> bool {
    let Some((bus, function)) = text.rsplit_once('.') else {
        return false;
    };
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    bus.split(':').count() == 3 && bus.split(':').all(hex) && hex(function)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn folder(&self, path: &str) -> PathBuf {
            let path = self.0.path().join(path);
            fs::create_dir_all(&path).unwrap();
            path
        }
        fn sysfs(&self) -> Sysfs {
            Sysfs::at(self.0.path())
        }
    }

    #[test]
    fn hyper_v_controllers_go_by_their_guids() {
        let fake = Fake::new();
        let guid = controller_guid(1).unwrap();
        fake.folder(&format!("bus/vmbus/devices/{guid}/host7"));
        assert_eq!(fake.sysfs().host(1).unwrap(), 7);
        let missing = fake.sysfs().host(0).unwrap_err();
        assert!(missing.message.contains(controller_guid(0).unwrap()));
        assert!(fake.sysfs().host(4).is_err());
    }

    #[test]
    fn virtio_controllers_go_by_their_pci_addresses() {
        let fake = Fake::new();
        let driver = fake.folder("bus/virtio/drivers/virtio_scsi");
        fs::write(driver.join("bind"), "").unwrap();
        fake.folder("bus/vmbus/devices");
        for (virtio, pci, host) in [
            (1, "pci0000:00/0000:00:0a.0", 5),
            (2, "pci0000:00/0000:00:02.0/0000:01:00.0", 6),
            (10, "pci0000:00/0000:00:03.0", 9),
        ] {
            let device = format!("devices/{pci}/virtio{virtio}");
            fake.folder(&format!("{device}/host{host}"));
            symlink(
                fake.0.path().join(&device),
                driver.join(format!("virtio{virtio}")),
            )
            .unwrap();
        }
        let sysfs = fake.sysfs();
        let hosts: Vec<u32> = (0..3).map(|n| sysfs.host(n).unwrap()).collect();
        assert_eq!(hosts, [9, 5, 6]);
        let missing = sysfs.host(3).unwrap_err().message;
        assert!(missing.contains("controller 3"), "{missing}");
    }

    #[test]
    fn disks_and_partitions_are_found() {
        let fake = Fake::new();
        let sysfs = fake.sysfs();
        assert_eq!(sysfs.block(0, 3, 0), None);
        let disk = fake.folder("bus/scsi/devices/0:0:0:3/block/sdb");
        for number in [1, 12] {
            let part = fake.folder(&format!("bus/scsi/devices/0:0:0:3/block/sdb/sdb{number}"));
            fs::write(part.join("partition"), format!("{number}\n")).unwrap();
        }
        fs::write(disk.join("size"), "8\n").unwrap();
        assert_eq!(sysfs.size(0, 3), Some(4096));
        assert_eq!(sysfs.size(0, 4), None);
        assert_eq!(sysfs.block(0, 3, 0).as_deref(), Some("sdb"));
        assert_eq!(sysfs.block(0, 3, 12).as_deref(), Some("sdb12"));
        assert_eq!(sysfs.block(0, 3, 2), None);
        assert_eq!(sysfs.block(0, 3, u64::MAX), None);
        assert_eq!(sysfs.block(0, 4, 0), None);
    }

    #[test]
    fn no_controllers_at_all_is_an_error_that_names_the_path() {
        let fake = Fake::new();
        let error = fake.sysfs().host(0).unwrap_err().message;
        assert!(error.contains("virtio_scsi"), "{error}");
    }
}
