//! Kernels in the distribution's packages: which there are, and how their parts come together.

use std::fs;
use std::path::{Path, PathBuf};

use super::Found;
use super::files::{modules_in, newest_in};
use crate::error::{Error, Result};
use crate::guest::package::{self, Package};

/// Names of kernels made for VMs, in the order in which they are tried: Debian's, then Ubuntu's.
#[cfg(target_arch = "x86_64")]
const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "linux-image-virtual",
    "linux-image-kvm",
    "linux-image-amd64",
    "linux-image-generic",
];
#[cfg(target_arch = "aarch64")]
const PACKAGES: &[&str] = &[
    "linux-image-cloud-arm64",
    "linux-image-virtual",
    "linux-image-arm64",
    "linux-image-generic",
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const PACKAGES: &[&str] = &["linux-image-virtual", "linux-image-generic"];

pub(super) fn known_package(name: &str) -> Result<Package> {
    package::look_up(name)?.ok_or_else(|| {
        Error::not_found(format!("apt knows no package {name}"))
            .hint("run `apt-get update` as root; on a new machine its lists are empty")
    })
}

pub(super) fn distribution_package() -> Result<Package> {
    for name in PACKAGES {
        if let Some(package) = package::look_up(name)? {
            return Ok(package);
        }
    }
    Err(Error::not_found(format!(
        "apt knows none of the kernel packages {}",
        PACKAGES.join(", ")
    ))
    .hint("run `apt-get update` as root; on a new machine its lists are empty"))
}

/// A kernel's package is named by another that has nothing in it, and its modules may be apart.
fn is_kernel_part(name: &str) -> bool {
    ["linux-image-", "linux-modules-", "linux-binary-"]
        .iter()
        .any(|start| name.starts_with(start))
}

pub(super) fn from_package(package: &Package, staging: &Path) -> Result<Found> {
    const MOST: usize = 8;
    let mut wanted = vec![package.clone()];
    let mut next = 0;
    while let Some(one) = wanted.get(next).cloned() {
        next += 1;
        for name in one.depends.iter().filter(|name| is_kernel_part(name)) {
            if wanted.len() < MOST && !wanted.iter().any(|have| have.name == *name) {
                wanted.push(known_package(name)?);
            }
        }
    }
    let folder = staging.join("download");
    fs::create_dir(&folder).map_err(|error| Error::io("create", &folder, error))?;
    let files = package::download(&wanted, &folder)?;
    let mut found = from_debs(&files, staging)?;
    let from = wanted.get(1).unwrap_or(package);
    found.origin = format!("{} {}", from.name, from.version);
    Ok(found)
}

pub(super) fn from_debs(files: &[PathBuf], staging: &Path) -> Result<Found> {
    let tree = staging.join("tree");
    fs::create_dir(&tree).map_err(|error| Error::io("create", &tree, error))?;
    let mut origin = String::new();
    for file in files {
        if !file.is_file() {
            return Err(Error::not_found(format!(
                "there is no package file {}",
                file.display()
            )));
        }
        package::unpack(file, &tree)?;
        if origin.is_empty() {
            origin = format!(
                "{} {}",
                package::control_field(file, "Package")?,
                package::control_field(file, "Version")?
            );
        }
    }
    let (kernel, release) = newest_in(&tree).ok_or_else(|| {
        Error::not_found(format!(
            "no kernel (boot/vmlinuz-…) is in {}",
            files
                .iter()
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ))
    })?;
    Ok(Found {
        modules: modules_in(&tree, &release),
        kernel,
        release,
        origin,
        ours: true,
    })
}
