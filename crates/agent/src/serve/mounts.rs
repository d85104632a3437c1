//! What is mounted where, and which paths a request may mount at.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
};

use super::{Outcome, failed, holders, invalid};

/// How long a mount may be busy before its removal fails: what was just killed needs a moment.
const BUSY: Duration = Duration::from_secs(1);

/// The mounts of this agent.
#[derive(Default)]
pub(super) struct Mounts {
    /// Paths that a request is working on.
    claimed: Mutex<HashSet<PathBuf>>,
    /// Mount points that we have made, to be removed with their mounts.
    made: Mutex<BTreeSet<PathBuf>>,
}

/// The right to change what is at a path, until it is dropped.
pub(super) struct Claim<'a> {
    mounts: &'a Mounts,
    path: PathBuf,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let claimed = self.mounts.claimed.lock();
        claimed
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.path);
    }
}

impl Mounts {
    /// Checks a path of a request, and keeps other requests away from it.
    pub(super) fn claim(&self, path: &str) -> Outcome<Claim<'_>> {
        let path = checked(path)?;
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if !claimed.insert(path.clone()) {
            return Err(failed(format!(
                "{}: another request is working on it",
                path.display()
            )));
        }
        drop(claimed);
        Ok(Claim { mounts: self, path })
    }
}

impl Claim<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts with `mount` at the path, which is made if it is not there.
    pub(super) fn mount(
        &self,
        what: &str,
        mount: impl FnOnce(&Path) -> rustix::io::Result<()>,
    ) -> Outcome<()> {
        let path = &self.path;
        if Mounted::read()?
            .iter()
            .any(|mounted| mounted.point == *path)
        {
            return Err(failed(format!(
                "{}: something is mounted there already",
                path.display()
            )));
        }
        let made = !path.exists();
        fs::create_dir_all(path)
            .map_err(|error| failed(format!("make {}: {error}", path.display())))?;
        if let Err(error) = mount(path) {
            if made {
                let _ = fs::remove_dir(path);
            }
            let error = io::Error::from(error);
            return Err(failed(format!(
                "mount {what} at {}: {error}",
                path.display()
            )));
        }
        if made {
            self.made(|made| made.insert(path.clone()));
        }
        Ok(())
    }

    /// Unmounts what is at the path, and removes the folder if we have made it. A path that is
    /// not there is as good as unmounted.
    pub(super) fn unmount(&self) -> Outcome<()> {
        let path = &self.path;
        if matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
        {
            return Ok(());
        }
        if let Some(user) = overlay_over(path)? {
            return Err(failed(format!(
                "unmount {}: the overlay at {} uses it",
                path.display(),
                user.display()
            )));
        }
        let begin = Instant::now();
        loop {
            match unmount(path, UnmountFlags::NOFOLLOW) {
                Ok(()) => break,
                Err(Errno::BUSY) if begin.elapsed() < BUSY => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(Errno::BUSY) => {
                    return Err(failed(format!(
                        "unmount {}: in use by {}",
                        path.display(),
                        holders::of(path)
                    )));
                }
                Err(Errno::INVAL) => {
                    return Err(failed(format!(
                        "unmount {}: nothing is mounted there",
                        path.display()
                    )));
                }
                Err(error) => {
                    let error = io::Error::from(error);
                    return Err(failed(format!("unmount {}: {error}", path.display())));
                }
            }
        }
        if self.made(|made| made.remove(path)) {
            let _ = fs::remove_dir(path);
        }
        Ok(())
    }

    fn made<T>(&self, change: impl FnOnce(&mut BTreeSet<PathBuf>) -> T) -> T {
        let made = self.mounts.made.lock();
        change(&mut made.unwrap_or_else(PoisonError::into_inner))
    }
}

/// A path of a request: absolute, without `.` and `..`, and not the root.
pub(super) fn checked(path: &str) -> Outcome<PathBuf> {
    let shown: String = path.chars().take(256).collect();
    let refuse = |why: &str| Err(invalid(format!("path {shown:?} {why}")));
    if path.len() >= 4096 || path.contains('\0') {
        return refuse("is too long or has a NUL byte");
    }
    if !path.starts_with('/') {
        return refuse("is not absolute");
    }
    // `components` leaves out `.` in the middle; it is refused all the same.
    if path.split('/').any(|part| part == "." || part == "..") {
        return refuse("has a . or .. in it");
    }
    let path: PathBuf = Path::new(path).components().collect();
    if path.components().all(|part| part == Component::RootDir) {
        return refuse("is the root");
    }
    Ok(path)
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mounted {
    /// Where.
    pub(super) point: PathBuf,
    /// The file system's type.
    pub(super) filesystem: String,
    /// The options of the file system, for an overlay its layers.
    pub(super) options: Vec<u8>,
}

impl Mounted {
    /// All mounts, in the order in which they were made.
    pub(super) fn read() -> Outcome<Vec<Self>> {
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
        let point = fields.nth(4)?;
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let filesystem = String::from_utf8_lossy(rest.next()?).into_owned();
        let options = rest.nth(1).unwrap_or_default().to_vec();
        Some(Self {
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

fn overlay_over(path: &Path) -> Outcome<Option<PathBuf>> {
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
    fn odd_paths_are_refused() {
        for path in [
            "", "/", "//", "a", "./a", "/a/../b", "/a/./b", "/..", "/a\0b",
        ] {
            assert!(checked(path).is_err(), "{path:?}");
        }
        assert!(checked(&format!("/{}", "x".repeat(5000))).is_err());
        for (path, clean) in [("/a", "/a"), ("/a//b/", "/a/b"), ("/a/..b", "/a/..b")] {
            assert_eq!(checked(path).unwrap(), Path::new(clean));
        }
    }

    #[test]
    fn a_path_is_claimed_by_one() {
        let mounts = Mounts::default();
        let claim = mounts.claim("/a/b").unwrap();
        assert!(mounts.claim("/a//b/").is_err());
        drop(claim);
        mounts.claim("/a/b").unwrap();
    }

    #[test]
    fn mountinfo_is_understood() {
        let line = b"29 23 8:0 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/sda rw,x=1";
        let mounted = Mounted::parse(line).unwrap();
        assert_eq!(mounted.point, Path::new("/mnt/a b"));
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
