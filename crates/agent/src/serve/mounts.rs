//! What is mounted where, and which paths a request may mount at.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, syncfs},
    io::Errno,
    mount::{UnmountFlags, unmount},
};

pub(super) use self::table::Mounted;
use self::table::overlay_over;
use super::{Outcome, failed, holders, invalid};
use crate::sys::device_mapper;

/// How long something may be busy before its removal fails.
const BUSY: Duration = Duration::from_secs(1);

/// The mounts of this agent.
#[derive(Default)]
pub(super) struct Mounts {
    /// Paths that a request is working on.
    claimed: Mutex<HashSet<PathBuf>>,
    /// Mount points that we have made, to be removed with their mounts.
    made: Mutex<BTreeSet<PathBuf>>,
    /// What we have put where: nothing else is taken away, so `/proc` and `/bin/sh` stay.
    ours: Mutex<BTreeMap<PathBuf, Ours>>,
}

/// What is at a path by the host's wish.
#[derive(Clone, Debug, PartialEq)]
struct Ours {
    kind: Kind,
    /// The dm-verity device between the disk and this, which goes with it.
    protection: Option<String>,
    /// The folders that it is stacked on.
    layers: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Mount,
    Link,
}

impl Ours {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            protection: None,
            layers: Vec::new(),
        }
    }
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
        self.without_links()?;
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
        self.ours(|ours| ours.insert(path.clone(), Ours::new(Kind::Mount)));
        Ok(())
    }

    /// Makes the path a link to a device.
    pub(super) fn link(&self, device: &Path) -> Outcome<()> {
        let path = &self.path;
        self.without_links()?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)
            .and_then(|()| symlink(device, path))
            .map_err(|error| failed(format!("link {}: {error}", path.display())))?;
        self.ours(|ours| ours.insert(path.clone(), Ours::new(Kind::Link)));
        Ok(())
    }

    /// Takes away the mount or the link at the path. A path that is not there is as good as that.
    pub(super) fn remove(&self) -> Outcome<()> {
        let path = &self.path;
        let protection = match self.ours(|ours| ours.get(path).cloned()) {
            Some(ours) => {
                match ours.kind {
                    Kind::Mount => self.unmount()?,
                    Kind::Link => self.unlink()?,
                }
                ours.protection
            }
            None if is_missing(path) => None,
            None => {
                return Err(failed(format!(
                    "unmount {}: nothing is mounted there for the host",
                    path.display()
                )));
            }
        };
        if let Some(name) = protection {
            while_busy(|| device_mapper::remove(&name)).map_err(|error| {
                failed(format!(
                    "remove the dm-verity device of {}: {error}",
                    path.display()
                ))
            })?;
        }
        self.ours(|ours| ours.remove(path));
        Ok(())
    }

    /// Has a dm-verity device go with what is at the path.
    pub(super) fn protected_by(&self, name: String) {
        self.ours(|ours| {
            if let Some(ours) = ours.get_mut(&self.path) {
                ours.protection = Some(name);
            }
        });
    }

    /// Keeps these folders mounted for as long as the mount at the path is there.
    pub(super) fn stacked_on(&self, layers: Vec<PathBuf>) {
        self.ours(|ours| {
            if let Some(ours) = ours.get_mut(&self.path) {
                ours.layers = layers;
            }
        });
    }

    /// Removes the link at the path, unless a process has the device behind it open.
    fn unlink(&self) -> Outcome<()> {
        let path = &self.path;
        let opened = while_busy(|| match holders::of_device(path) {
            None => Ok(()),
            Some(names) => Err(io::Error::new(io::ErrorKind::ResourceBusy, names)),
        });
        opened.map_err(|names| failed(format!("{}: in use by {names}", path.display())))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// The path of ours that is stacked on `path`, or on something below it.
    fn stacked_over(&self, path: &Path) -> Option<PathBuf> {
        self.ours(|ours| {
            ours.iter()
                .find(|(_, ours)| ours.layers.iter().any(|layer| layer.starts_with(path)))
                .map(|(point, _)| point.clone())
        })
    }

    /// Fails when the path leads through a symbolic link, which could lead anywhere.
    fn without_links(&self) -> Outcome<()> {
        let is_link =
            |path: &&Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        match self.path.ancestors().find(is_link) {
            None => Ok(()),
            Some(link) => Err(failed(format!(
                "{}: {} is a symbolic link",
                self.path.display(),
                link.display()
            ))),
        }
    }

    /// Unmounts what is at the path, and removes the folder if we have made it.
    fn unmount(&self) -> Outcome<()> {
        let path = &self.path;
        if is_missing(path) {
            return Ok(());
        }
        let user = match self.stacked_over(path) {
            Some(user) => Some(user),
            None => overlay_over(path)?,
        };
        if let Some(user) = user {
            return Err(failed(format!(
                "unmount {}: the overlay at {} uses it",
                path.display(),
                user.display()
            )));
        }
        let flushed = flush(path);
        let unmounted = while_busy(|| unmount(path, UnmountFlags::NOFOLLOW).map_err(Into::into));
        match unmounted {
            Ok(()) => {}
            // A process of the guest's has unmounted it already.
            Err(error) if is(&error, Errno::INVAL) => {}
            Err(error) => {
                let why = match is(&error, Errno::BUSY) {
                    true => format!("in use by {}", holders::of(path)),
                    false => error.to_string(),
                };
                return Err(failed(format!("unmount {}: {why}", path.display())));
            }
        }
        if self.made(|made| made.remove(path)) {
            let _ = fs::remove_dir(path);
        }
        // It is no reason to keep it for ever; what is left of it goes when it is removed again.
        flushed.map_err(|error| {
            failed(format!(
                "flush {}: {error}; what was written last is lost, and it is unmounted: remove it again",
                path.display()
            ))
        })
    }

    fn ours<T>(&self, change: impl FnOnce(&mut BTreeMap<PathBuf, Ours>) -> T) -> T {
        let ours = self.mounts.ours.lock();
        change(&mut ours.unwrap_or_else(PoisonError::into_inner))
    }

    fn made<T>(&self, change: impl FnOnce(&mut BTreeSet<PathBuf>) -> T) -> T {
        let made = self.mounts.made.lock();
        change(&mut made.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Has the kernel write all that is meant for the file system at a mount point. An unmount does so as
/// well, and says nothing when it fails (the host's disk is full, say).
fn flush(point: &Path) -> io::Result<()> {
    let mounted = Mounted::read().is_ok_and(|all| all.iter().any(|one| one.point == *point));
    if !mounted {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(point, flags, Mode::empty())?;
    // A file system that has made itself read-only after a failure tells of it here, too.
    syncfs(&folder).map_err(io::Error::from)
}

/// Does something again until nothing is busy any more: what was just killed needs a moment.
fn while_busy(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && begin.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn is_missing(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Where only the kernel's own file systems are.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A path of a request: absolute, without `.` and `..`, not the root, and not the kernel's.
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
    if KERNELS.iter().any(|kernels| path.starts_with(kernels)) {
        return refuse("is the kernel's");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_refused() {
        for path in [
            "", "/", "//", "a", "./a", "/a/../b", "/a/./b", "/..", "/a\0b", "/proc", "//dev//x",
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
    fn only_what_was_put_there_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let mounts = Mounts::default();
        symlink("/nowhere", at("foreign")).unwrap();
        assert!(mounts.claim(&at("foreign")).unwrap().remove().is_err());
        assert!(mounts.claim("/run").unwrap().remove().is_err());
        mounts.claim(&at("missing")).unwrap().remove().unwrap();

        let stack = mounts.claim(&at("stack")).unwrap();
        stack.mount("nothing", |_| Ok(())).unwrap();
        stack.stacked_on(vec![folder.join("layers/1")]);
        let layers = mounts.claim(&at("layers")).unwrap();
        layers.mount("nothing", |_| Ok(())).unwrap();
        let failure = layers.remove().unwrap_err();
        assert!(failure.message.contains("stack uses it"), "{failure}");

        let link = mounts.claim(&at("links/disk")).unwrap();
        link.link(Path::new("/dev/null")).unwrap();
        link.remove().unwrap();
        assert!(!Path::new(&at("links/disk")).is_symlink());
        assert!(Path::new(&at("foreign")).is_symlink());
    }

    #[test]
    fn nothing_is_mounted_through_a_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        symlink("/", folder.join("link")).unwrap();
        let mounts = Mounts::default();
        for path in ["link", "link/x"] {
            let claim = mounts.claim(folder.join(path).to_str().unwrap()).unwrap();
            let failure = claim.mount("nothing", |_| Ok(())).unwrap_err();
            assert!(failure.message.contains("symbolic link"), "{failure}");
        }
    }
}
