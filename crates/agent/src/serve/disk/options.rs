//! Which mount options a disk is mounted with.

use std::{ffi::CString, path::Path};

use opengcs_bridge::message::MappedVirtualDisk;
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use crate::serve::{Outcome, invalid};

#[derive(Debug)]
pub(super) struct MountOptions {
    pub(super) filesystem: String,
    flags: MountFlags,
    data: CString,
}

impl MountOptions {
    pub(super) fn parse(disk: &MappedVirtualDisk) -> Outcome<Self> {
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

    pub(super) fn mount(&self, device: &Path, path: &Path) -> rustix::io::Result<()> {
        mount(
            device,
            path,
            self.filesystem.as_str(),
            self.flags,
            self.data.as_c_str(),
        )
    }

    /// What an error of the kernel's says of a mount, where its own words say little.
    pub(super) fn why(&self, errno: Errno) -> Option<String> {
        let filesystem = &self.filesystem;
        match errno {
            Errno::INVAL => Some(format!(
                "there is no sound {filesystem} file system on it, or it does not know an option"
            )),
            Errno::NODEV => Some(format!("the guest's kernel has no {filesystem}")),
            _ => None,
        }
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
