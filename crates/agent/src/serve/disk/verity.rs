//! Disks with a tree of hashes: which dm-verity device stands between the disk and its file system.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use opengcs_bridge::message::VerityInfo;
use rustix::io::Errno;

use crate::{
    serve::{Outcome, failed, invalid, not_implemented},
    sys::device_mapper::{self, Target},
};

/// The kernel's unit of a device's length, in bytes.
const SECTOR: u64 = 512;

/// The largest hash of the kernel's, in hexadecimal digits.
const LONGEST_DIGEST: usize = 128;

/// The longest salt of dm-verity's, in hexadecimal digits.
const LONGEST_SALT: usize = 512;

/// A protection as the kernel is told of it.
#[derive(Debug, PartialEq)]
pub(super) struct Protection {
    version: i64,
    algorithm: String,
    block: u64,
    data_blocks: u64,
    /// The block at which the tree begins.
    tree: u64,
    digest: String,
    salt: String,
}

impl Protection {
    pub(super) fn parse(info: &VerityInfo) -> Outcome<Self> {
        let refuse = |why: &str| Err(invalid(format!("VerityInfo: {why}")));
        if !matches!(info.version, 0 | 1) {
            return refuse("Version is neither 0 nor 1");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if info.algorithm.is_empty()
            || info.algorithm.len() > 32
            || !info.algorithm.bytes().all(plain)
        {
            return refuse("Algorithm is not the name of a hash");
        }
        let block = u64::try_from(info.block_size).unwrap_or(0);
        if !block.is_power_of_two() || !(SECTOR..=1 << 16).contains(&block) {
            return refuse("BlockSize is not a power of two of 512 to 65536 bytes");
        }
        let size = u64::try_from(info.ext4_size_in_bytes).unwrap_or(0);
        if size == 0 || !size.is_multiple_of(block) {
            return refuse("Ext4SizeInBytes is not a whole number of blocks");
        }
        let is_hex = |text: &str, longest: usize| {
            text.len() <= longest
                && text.len().is_multiple_of(2)
                && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if info.root_digest.is_empty() || !is_hex(&info.root_digest, LONGEST_DIGEST) {
            return refuse("RootDigest is not a hash in hexadecimal");
        }
        let salt = match info.salt.as_str() {
            "-" => "",
            salt if is_hex(salt, LONGEST_SALT) => salt,
            _ => return refuse("Salt is not hexadecimal"),
        };
        let data_blocks = size / block;
        Ok(Self {
            version: info.version,
            algorithm: info.algorithm.clone(),
            block,
            data_blocks,
            tree: data_blocks + u64::from(info.super_block),
            digest: info.root_digest.to_ascii_lowercase(),
            salt: salt.to_owned(),
        })
    }

    /// The parameters of the kernel's target on the disk `major:minor`.
    fn parameters(&self, disk: &str) -> String {
        let Self {
            version,
            algorithm,
            block,
            data_blocks,
            tree,
            digest,
            ..
        } = self;
        let mut text = format!(
            "{version} {disk} {disk} {block} {block} {data_blocks} {tree} {algorithm} {digest} "
        );
        let salt = if self.salt.is_empty() {
            "-"
        } else {
            &self.salt
        };
        let _ = write!(text, "{salt}");
        text
    }
}

/// A device that gives only what agrees with its root digest. Dropped, it is taken away again, unless
/// it was kept.
pub(super) struct Protected {
    name: Option<String>,
    device: PathBuf,
}

impl Protected {
    /// Puts the protection over a disk, and sees whether disk and root digest belong together.
    pub(super) fn over(disk: &Path, name: String, protection: &Protection) -> Outcome<Self> {
        let shown = disk.display();
        let bytes = protection.data_blocks.saturating_mul(protection.block);
        let size = File::open(disk)
            .and_then(|mut file| file.seek(SeekFrom::End(0)))
            .map_err(|error| failed(format!("{shown}: {error}")))?;
        let tree = protection.tree.saturating_mul(protection.block);
        if bytes > size || (protection.data_blocks > 1 && tree >= size) {
            return Err(failed(format!(
                "{shown} has {size} bytes, which {bytes} bytes of data and their hash tree do not \
                 fit in"
            )));
        }
        if !Path::new(device_mapper::CONTROL).exists() {
            return Err(not_implemented(
                "disks with verity need the kernel's dm-verity, which this one does not have",
            ));
        }
        let metadata = fs::metadata(disk).map_err(|error| failed(format!("{shown}: {error}")))?;
        let number = metadata.rdev();
        let place = format!(
            "{}:{}",
            rustix::fs::major(number),
            rustix::fs::minor(number)
        );
        let target = Target {
            kind: "verity",
            sectors: bytes / SECTOR,
            parameters: &protection.parameters(&place),
        };
        let minor = device_mapper::create(&name, &target).map_err(|error| {
            failed(format!(
                "dm-verity over {shown}: {error}; the kernel's log has its reason"
            ))
        })?;
        let protected = Self {
            name: Some(name),
            device: PathBuf::from(format!("/dev/dm-{minor}")),
        };
        protected.first_block(protection).map_err(|error| {
            let why = match error.raw_os_error() == Some(Errno::IO.raw_os_error()) {
                true => format!(
                    "what is on it does not agree with the root digest {}",
                    protection.digest
                ),
                false => error.to_string(),
            };
            failed(format!("dm-verity over {shown}: {why}"))
        })?;
        Ok(protected)
    }

    /// Reading one block takes the kernel from the root digest through the whole height of the tree.
    fn first_block(&self, protection: &Protection) -> io::Result<()> {
        let mut block = vec![0; usize::try_from(protection.block).unwrap_or(4096)];
        File::open(&self.device)?.read_exact(&mut block)
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Lets the device stay; gives the name to [`remove`] it by.
    pub(super) fn keep(mut self) -> String {
        self.name.take().unwrap_or_default()
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = device_mapper::remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> VerityInfo {
        VerityInfo {
            ext4_size_in_bytes: 40960,
            version: 1,
            algorithm: "sha256".into(),
            super_block: true,
            root_digest: "AB".repeat(32),
            salt: "00".repeat(32),
            block_size: 4096,
        }
    }

    #[test]
    fn the_tree_lies_behind_data_and_superblock() {
        let protection = Protection::parse(&info()).unwrap();
        let expected = format!(
            "1 8:16 8:16 4096 4096 10 11 sha256 {} {}",
            "ab".repeat(32),
            "00".repeat(32)
        );
        assert_eq!(protection.parameters("8:16"), expected);
        let bare = VerityInfo {
            super_block: false,
            salt: String::new(),
            ..info()
        };
        let parameters = Protection::parse(&bare).unwrap().parameters("8:16");
        assert!(parameters.starts_with("1 8:16 8:16 4096 4096 10 10 sha256 "));
        assert!(parameters.ends_with(" -"));
    }

    #[test]
    fn what_could_change_the_table_is_refused() {
        let refused = |change: fn(&mut VerityInfo)| {
            let mut info = info();
            change(&mut info);
            let failure = Protection::parse(&info).unwrap_err();
            assert!(failure.message.contains("VerityInfo"), "{failure}");
        };
        refused(|info| info.version = 2);
        refused(|info| info.algorithm = "sha256 x".into());
        refused(|info| info.algorithm.clear());
        refused(|info| info.block_size = 0);
        refused(|info| info.block_size = 3000);
        refused(|info| info.block_size = -4096);
        refused(|info| info.ext4_size_in_bytes = 5000);
        refused(|info| info.ext4_size_in_bytes = -4096);
        refused(|info| info.root_digest.clear());
        refused(|info| info.root_digest = "xy".into());
        refused(|info| info.root_digest = "abc".into());
        refused(|info| info.salt = "0 1".into());
        refused(|info| info.salt = "0".repeat(1000));
    }
}
