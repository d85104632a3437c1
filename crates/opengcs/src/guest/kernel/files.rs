//! Kernels that are on this host already: a file that is given, or the newest in `/boot`.

use std::fs;
use std::path::{Path, PathBuf};

use super::Found;
use crate::error::{Error, Result};
use crate::guest::bzimage;

pub(super) fn from_file(kernel: &Path, modules: Option<&Path>) -> Result<Found> {
    let named = modules
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .map(str::to_owned);
    let release = bzimage::inspect(kernel)?
        .release
        .or_else(|| named.clone())
        .or_else(|| release_in_name(kernel))
        .ok_or_else(|| {
            Error::invalid(format!("{} does not say its release", kernel.display()))
                .hint("give the folder of its modules, …/modules/<release>, as well")
        })?;
    let modules = match modules {
        Some(folder) if !folder.is_dir() => {
            return Err(Error::not_found(format!(
                "there is no folder of modules {}",
                folder.display()
            )));
        }
        Some(_) if named.as_ref().is_some_and(|name| *name != release) => {
            return Err(Error::invalid(format!(
                "{} is Linux {release}, and the modules are those of {}",
                kernel.display(),
                named.unwrap_or_default()
            ))
            .hint("kernel and modules must have the same release"));
        }
        Some(folder) => Some(folder.to_owned()),
        None => modules_in(Path::new("/"), &release),
    };
    Ok(Found {
        kernel: kernel.to_owned(),
        modules,
        release,
        origin: kernel.display().to_string(),
        ours: false,
    })
}

pub(super) fn host_kernel() -> Result<Found> {
    let (kernel, release) = newest_in(Path::new("/")).ok_or_else(|| {
        Error::not_found("this host has no kernel in /boot")
            .hint("give a kernel file, or a package with `opengcs kernel install`")
    })?;
    let modules = modules_in(Path::new("/"), &release);
    fs::File::open(&kernel).map_err(|error| {
        Error::io("read", &kernel, error)
            .hint("some distributions let only root read their kernel; run this as root once")
    })?;
    Ok(Found {
        origin: kernel.display().to_string(),
        kernel,
        modules,
        release,
        ours: false,
    })
}

fn release_in_name(kernel: &Path) -> Option<String> {
    let name = kernel.file_name()?.to_str()?;
    ["vmlinuz-", "vmlinux-", "Image-"]
        .iter()
        .find_map(|start| name.strip_prefix(start))
        .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

/// The newest `boot/vmlinuz-<release>` below `root`.
pub(super) fn newest_in(root: &Path) -> Option<(PathBuf, String)> {
    let mut best: Option<(PathBuf, String)> = None;
    for entry in fs::read_dir(root.join("boot")).ok()?.flatten() {
        let path = entry.path();
        if let Some(release) = release_in_name(&path)
            && path.is_file()
            && best
                .as_ref()
                .is_none_or(|(_, have)| version_key(&release) > version_key(have))
        {
            best = Some((path, release));
        }
    }
    best
}

/// Numbers compare as numbers, so that 6.10 is newer than 6.9.
fn version_key(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect()
}

pub(super) fn modules_in(root: &Path, release: &str) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|folder| root.join(folder).join(release))
        .find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_is_newer_than_nine() {
        assert!(version_key("6.10.0-1") > version_key("6.9.12-3"));
    }
}
