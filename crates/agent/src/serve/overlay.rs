//! `CombinedLayers`: layers stacked with overlayfs.

use std::{
    ffi::CString,
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use opengcs_bridge::message::CombinedLayers;
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind_recursive, mount_remount, unmount,
};

use super::{Agent, Outcome, disk::folder, failed, invalid};

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
        return claim.mount(&only.display().to_string(), |path| {
            mount_bind_recursive(only, path)?;
            let read_only = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(path, read_only, c"").inspect_err(|_| {
                let _ = unmount(path, UnmountFlags::DETACH);
            })
        });
    }
    let mut options = options(&lower, scratch.as_ref());
    let short;
    if options.len() > MOST_OPTIONS {
        short = ShortNames::make(&lower)?;
        options = self::options(&short.names, scratch.as_ref());
    }
    if options.len() > MOST_OPTIONS {
        return Err(failed(format!(
            "{} layers do not fit in the options of an overlay",
            lower.len()
        )));
    }
    let options = CString::new(options).map_err(|_| invalid("a path has a NUL byte"))?;
    claim.mount("the overlay", |path| {
        mount(
            "overlay",
            path,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
    })
}

/// Unmounts the overlay.
pub(super) fn remove(agent: &Agent, layers: &CombinedLayers) -> Outcome<()> {
    agent.mounts.claim(&layers.container_root_path)?.remove()
}

/// The folders `upper` and `work`, made if they are not there.
fn scratch(path: &str) -> Outcome<(PathBuf, PathBuf)> {
    let path = super::mounts::checked(path)?;
    let (upper, work) = (path.join("upper"), path.join("work"));
    for folder in [&upper, &work] {
        fs::create_dir_all(folder)
            .map_err(|error| failed(format!("make {}: {error}", folder.display())))?;
    }
    Ok((upper, work))
}

fn options(lower: &[PathBuf], scratch: Option<&(PathBuf, PathBuf)>) -> String {
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
    names: Vec<PathBuf>,
}

impl ShortNames {
    fn make(paths: &[PathBuf]) -> Outcome<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/run/l{number}"));
        let made = |error| failed(format!("make {}: {error}", folder.display()));
        fs::create_dir(&folder).map_err(made)?;
        let mut short = Self {
            folder: folder.clone(),
            names: Vec::new(),
        };
        for (index, path) in paths.iter().enumerate() {
            let name = folder.join(format!("{index:x}"));
            symlink(path, &name).map_err(made)?;
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
}
