//! The kernel's table of mounts.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use crate::serve::{Outcome, failed};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::serve) struct Mounted {
    /// The number of its device, `major:minor`.
    pub(in crate::serve) device: String,
    /// Where.
    pub(in crate::serve) point: PathBuf,
    /// The file system's type.
    pub(in crate::serve) filesystem: String,
    /// The options of the file system, for an overlay its layers.
    pub(in crate::serve) options: Vec<u8>,
}

impl Mounted {
    /// All mounts, in the order in which they were made.
    pub(in crate::serve) fn read() -> Outcome<Vec<Self>> {
        let text = fs::read("/proc/self/mountinfo")
            .map_err(|error| failed(format!("/proc/self/mountinfo: {error}")))?;
        Ok(text
            .split(|byte| *byte == b'\n')
            .filter_map(Self::parse)
            .collect())
    }

    /// `id parent major:minor root point options [fields] - type source super-options`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
        let point = fields.nth(1)?;
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let filesystem = String::from_utf8_lossy(rest.next()?).into_owned();
        let options = rest.nth(1).unwrap_or_default().to_vec();
        Some(Self {
            device,
            point: PathBuf::from(OsString::from_vec(unescape(point))),
            filesystem,
            options,
        })
    }

    /// Whether an overlay has `path`, or something below it, among its layers.
    fn overlays(&self, path: &Path) -> bool {
        if self.filesystem != "overlay" {
            return false;
        }
        let options = unescape(&self.options);
        let options = String::from_utf8_lossy(&options);
        options
            .split([',', ':', '='])
            .any(|part| Path::new(part).starts_with(path))
    }
}

/// The overlay that has `path`, or something below it, among its layers.
pub(super) fn overlay_over(path: &Path) -> Outcome<Option<PathBuf>> {
    let mut mounts = Mounted::read()?.into_iter();
    Ok(mounts
        .find(|mounted| mounted.overlays(path))
        .map(|mounted| mounted.point))
}

/// `\040` and its like are bytes in octal.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'\\'
            && let Some((digits, after)) = tail.split_at_checked(3)
            && let Ok(digits) = std::str::from_utf8(digits)
            && let Ok(value) = u8::from_str_radix(digits, 8)
        {
            out.push(value);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_understood() {
        let line = b"29 23 8:0 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/sda rw,x=1";
        let mounted = Mounted::parse(line).unwrap();
        assert_eq!(mounted.point, Path::new("/mnt/a b"));
        assert_eq!(mounted.device, "8:0");
        assert_eq!(mounted.filesystem, "ext4");
        assert_eq!(mounted.options, b"rw,x=1");
        assert!(Mounted::parse(b"").is_none());
        assert!(Mounted::parse(b"1 2 3").is_none());
        assert!(!Mounted::read().unwrap().is_empty());
    }

    #[test]
    fn overlays_tell_their_layers() {
        let line = b"40 1 0:30 / /m rw - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir=/s/upper";
        let overlay = Mounted::parse(line).unwrap();
        for (path, uses) in [
            ("/l/1", true),
            ("/l/2", true),
            ("/s", true),
            ("/l/3", false),
        ] {
            assert_eq!(overlay.overlays(Path::new(path)), uses, "{path}");
        }
    }
}
