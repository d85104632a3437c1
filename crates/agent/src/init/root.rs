//! The root of a VM that boots from a disk: found by its UUID, mounted read-only with memory above it,
//! and made the root of everything.
//!
//! Nothing is written to the disk, so that many VMs can share it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, mount, mount_move},
    process::{chdir, chroot},
};

/// Where it is put together.
const BELOW: &str = "/sysroot";

/// How long the disk may take to appear: controllers are scanned behind our back.
const PATIENCE: Duration = Duration::from_secs(20);

/// `root=UUID=…` among the words of the kernel's command line, as 16 bytes.
pub(super) fn wanted(value: &str) -> Result<[u8; 16], String> {
    let bad = || format!("root={value}: only root=UUID=… is known");
    let text = value.strip_prefix("UUID=").ok_or_else(bad)?;
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).map_err(|_| bad())?;
    if digits.len() != 32 {
        return Err(bad());
    }
    Ok(number.to_be_bytes())
}

/// Mounts the root and goes there. What is mounted comes along.
pub(super) fn switch(uuid: [u8; 16]) -> Result<(), String> {
    let device = wait_for(uuid)?;
    let [lower, memory, root] = ["lower", "memory", "root"].map(|name| format!("{BELOW}/{name}"));
    for folder in [&lower, &memory, &root] {
        fs::create_dir_all(folder).map_err(|error| format!("make {folder}: {error}"))?;
    }
    let told = |what: &str| {
        let what = what.to_owned();
        move |error| format!("mount {what}: {error}")
    };
    let plain = MountFlags::NOATIME;
    mount(&device, &*lower, "ext4", MountFlags::RDONLY | plain, c"")
        .map_err(told(&device.display().to_string()))?;
    mount("tmpfs", &*memory, "tmpfs", plain, c"mode=0755").map_err(told("tmpfs"))?;
    for folder in ["upper", "work"] {
        let folder = format!("{memory}/{folder}");
        fs::create_dir(&folder).map_err(|error| format!("make {folder}: {error}"))?;
    }
    let options =
        c"lowerdir=/sysroot/lower,upperdir=/sysroot/memory/upper,workdir=/sysroot/memory/work";
    mount("overlay", &*root, "overlay", plain, options).map_err(told("overlay"))?;
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp"] {
        let target = format!("{root}{folder}");
        mount_move(folder, &*target).map_err(|error| format!("move {folder}: {error}"))?;
    }
    // The modules are loaded; their files would hold memory for as long as the machine runs.
    let _ = fs::remove_dir_all("/lib/modules");
    chdir(&*root).map_err(told("the root"))?;
    mount_move(".", "/").map_err(|error| format!("move the root: {error}"))?;
    chroot(".").map_err(|error| format!("enter the root: {error}"))?;
    chdir("/").map_err(|error| format!("enter the root: {error}"))
}

fn wait_for(uuid: [u8; 16]) -> Result<PathBuf, String> {
    let begin = Instant::now();
    loop {
        if let Some(device) = find(uuid) {
            return Ok(device);
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!(
                "no disk with the root's file system within {} s",
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The partition whose ext4 file system has the UUID.
fn find(uuid: [u8; 16]) -> Option<PathBuf> {
    let devices = fs::read_dir("/sys/class/block").ok()?.flatten();
    devices
        .filter(|device| device.path().join("partition").exists())
        .map(|device| Path::new("/dev").join(device.file_name()))
        .find(|device| File::open(device).is_ok_and(|file| uuid_of(&file) == Some(uuid)))
}

/// The UUID in an ext4 superblock (`s_magic`, `s_uuid`), which begins at byte 1024.
fn uuid_of(device: &File) -> Option<[u8; 16]> {
    let mut superblock = [0; 120];
    device.read_exact_at(&mut superblock, 1024).ok()?;
    let magic = superblock.get(56..58)?;
    (magic == [0x53, 0xef]).then(|| superblock.get(104..120)?.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_named_by_its_uuid() {
        let bytes = wanted("UUID=00010203-0405-0607-0809-0a0b0c0d0e0f").unwrap();
        assert_eq!(bytes[..4], [0, 1, 2, 3]);
        assert_eq!(bytes[15], 15);
        for bad in ["/dev/sda2", "UUID=", "UUID=0", "UUID=zz", "LABEL=x"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_ext4_has_a_uuid_of_ext4() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut disk = vec![0; 4096];
        fs::write(&path, &disk).unwrap();
        assert_eq!(uuid_of(&File::open(&path).unwrap()), None);
        disk[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        disk[1024 + 104..1024 + 120].fill(7);
        fs::write(&path, &disk).unwrap();
        assert_eq!(uuid_of(&File::open(&path).unwrap()), Some([7; 16]));
        fs::write(&path, &disk[..1100]).unwrap();
        assert_eq!(uuid_of(&File::open(&path).unwrap()), None);
    }
}
