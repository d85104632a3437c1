//! `CombinedLayers`: layers stacked with overlayfs.

use std::{
    ffi::CString,
    fmt::Write as _,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use opengcs_bridge::message::CombinedLayers;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind_recursive,
        mount_remount, move_mount, unmount,
    },
};

use super::{Agent, Outcome, disk::folder, failed, invalid};
use crate::sys;

/// The kernel takes one page of options.
const MOST_OPTIONS: usize = 4095;

/// The kernel stacks no more.
const MOST_LAYERS: usize = 500;

/// Nothing that an export of `upper` could not turn back into a layer.
const PLAIN: &str = "redirect_dir=off,metacopy=off,index=off";

/// Mounts the overlay.
pub(super) fn add(agent: &Agent, layers: &CombinedLayers) -> Outcome<()> {
    let claim = agent.mounts.claim(&layers.container_root_path)?;
    if layers.layers.is_empty() || layers.layers.len() > MOST_LAYERS {
        return Err(invalid(format!(
            "an overlay has 1 to {MOST_LAYERS} layers, not {}",
            layers.layers.len()
        )));
    }
    let lower: Vec<PathBuf> = layers
        .layers
        .iter()
        .map(|layer| folder(&layer.path))
        .collect::<Outcome<_>>()?;
    let scratch = match layers.scratch_path.as_str() {
        "" => None,
        path => Some(scratch(path)?),
    };
    if let ([only], None) = (lower.as_slice(), &scratch) {
        // The kernel makes no overlay of one read-only layer.
        claim.mount(&only.display().to_string(), |path| {
            mount_bind_recursive(only, path)?;
            let read_only = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(path, read_only, c"").inspect_err(|_| {
                let _ = unmount(path, UnmountFlags::DETACH);
            })
        })?;
    } else {
        claim.mount("the overlay", |path| stack(path, &lower, scratch.as_ref()))?;
    }
    let below = scratch.map(|(upper, work)| [upper, work]);
    claim.stacked_on(
        lower
            .into_iter()
            .chain(below.into_iter().flatten())
            .collect(),
    );
    Ok(())
}

/// The folders that changes go to: `upper` and `work`.
type Scratch = (PathBuf, PathBuf);

/// Mounts an overlay. A few layers go into one page of options, as every kernel takes them. More go
/// one by one, which kernels can since 6.7; on older ones, by names of two or three letters.
fn stack(path: &Path, lower: &[PathBuf], scratch: Option<&Scratch>) -> rustix::io::Result<()> {
    let options = options(lower, scratch);
    if options.len() <= MOST_OPTIONS {
        return mount_overlay(path, options);
    }
    match one_by_one(path, lower, scratch) {
        // An older kernel says this of the first layer, or of all when they are more than a page. What
        // else can be wrong with layers and scratch is told by the other way as well.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let short = ShortNames::make(lower)?;
            let options = self::options(&short.names, scratch);
            sys::in_folder(&short.folder, || mount_overlay(path, options))
        }
        outcome => outcome,
    }
}

fn mount_overlay(path: &Path, options: String) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::empty();
    mount("overlay", path, "overlay", flags, options.as_c_str())
}

/// Mounts an overlay through `fsconfig`, where each layer is a parameter of its own.
fn one_by_one(path: &Path, lower: &[PathBuf], scratch: Option<&Scratch>) -> rustix::io::Result<()> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&overlay, "source", "overlay")?;
    // A parameter has at most 255 bytes, and some have letters with a meaning; a descriptor has neither.
    let mut opened: Vec<OwnedFd> = Vec::new();
    let mut name = |path: &Path| -> rustix::io::Result<PathBuf> {
        let text = path.to_string_lossy();
        if text.len() < 256 && !text.contains(['\\', ',', ':']) {
            return Ok(path.to_owned());
        }
        let folder = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let name = format!("/proc/self/fd/{}", folder.as_raw_fd());
        opened.push(folder);
        Ok(name.into())
    };
    for layer in lower {
        fsconfig_set_string(&overlay, "lowerdir+", name(layer)?)?;
    }
    if let Some((upper, work)) = scratch {
        fsconfig_set_string(&overlay, "upperdir", name(upper)?)?;
        fsconfig_set_string(&overlay, "workdir", name(work)?)?;
    }
    for option in PLAIN.split(',') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        fsconfig_set_string(&overlay, key, value)?;
    }
    fsconfig_create(&overlay)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mounted = fsmount(&overlay, flags, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mounted, "", rustix::fs::CWD, path, flags)
}

/// Unmounts the overlay.
pub(super) fn remove(agent: &Agent, layers: &CombinedLayers) -> Outcome<()> {
    agent.mounts.claim(&layers.container_root_path)?.remove()
}

/// The folders `upper` and `work`, made if they are not there.
fn scratch(path: &str) -> Outcome<Scratch> {
    let path = super::mounts::checked(path)?;
    let (upper, work) = (path.join("upper"), path.join("work"));
    for folder in [&upper, &work] {
        fs::create_dir_all(folder)
            .map_err(|error| failed(format!("make {}: {error}", folder.display())))?;
    }
    Ok((upper, work))
}

fn options(lower: &[PathBuf], scratch: Option<&Scratch>) -> String {
    let lower: Vec<String> = lower.iter().map(|path| escape(path, true)).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = scratch {
        let _ = write!(
            options,
            ",upperdir={},workdir={}",
            escape(upper, false),
            escape(work, false)
        );
    }
    format!("{options},{PLAIN}")
}

/// Commas end an option; colons separate lower layers, and nothing else.
fn escape(path: &Path, colons: bool) -> String {
    let mut out = String::new();
    for letter in path.to_string_lossy().chars() {
        if letter == '\\' || letter == ',' || (colons && letter == ':') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// Short links to long paths, needed only while an overlay is being mounted.
struct ShortNames {
    folder: PathBuf,
    /// Relative to the folder.
    names: Vec<PathBuf>,
}

impl ShortNames {
    fn make(paths: &[PathBuf]) -> rustix::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/run/gcs-layers-{number}"));
        rustix::fs::mkdir(&folder, Mode::RWXU)?;
        let mut short = Self {
            folder,
            names: Vec::new(),
        };
        for (index, path) in paths.iter().enumerate() {
            let name = PathBuf::from(format!("{index:x}"));
            rustix::fs::symlink(path, short.folder.join(&name))?;
            short.names.push(name);
        }
        Ok(short)
    }
}

impl Drop for ShortNames {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        let lower = [PathBuf::from("/a:b"), PathBuf::from("/c,d\\e")];
        let scratch = (PathBuf::from("/s:1/upper"), PathBuf::from("/s:1/work"));
        assert_eq!(
            options(&lower, Some(&scratch)),
            format!("lowerdir=/a\\:b:/c\\,d\\\\e,upperdir=/s:1/upper,workdir=/s:1/work,{PLAIN}")
        );
    }

    #[test]
    fn short_names_of_all_layers_fit_in_a_page() {
        let names: Vec<PathBuf> = (0..MOST_LAYERS).map(|n| format!("{n:x}").into()).collect();
        let folder = format!("/{}", "s".repeat(250));
        let scratch = (
            PathBuf::from(format!("{folder}/upper")),
            PathBuf::from(format!("{folder}/work")),
        );
        assert!(options(&names, Some(&scratch)).len() <= MOST_OPTIONS);
    }
}
