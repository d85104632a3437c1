//! Where the VM's kernel comes from, and how it gets into the data folder: whole, with its modules, and never
//! installed on the host.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{bzimage, cancel};
use crate::error::{Error, ErrorKind, Result};
use crate::options::DEFAULT_KERNEL_FILE;
use files::{from_file, host_kernel};
use packages::{distribution_package, from_debs, from_package, known_package};

mod files;
mod packages;

/// File that records what the kernel in a data folder is.
pub const RECORD_FILE: &str = "kernel.json";

/// Where to take a kernel from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KernelSource {
    /// The distribution's kernel for VMs, downloaded through apt; where there is no apt, the kernel
    /// that the host itself has in `/boot`.
    #[default]
    Distribution,
    /// A package by name, downloaded through apt.
    Package(String),
    /// `.deb` files that are here already: the kernel's and, where apart, its modules'.
    DebFiles(Vec<PathBuf>),
    /// A kernel file, with the folder of its modules (`…/modules/<release>`) if it needs any.
    File {
        /// A bzImage or another file that the machine can start.
        kernel: PathBuf,
        /// Its `modules/<release>` folder; `None` looks for `/lib/modules/<release>`.
        modules: Option<PathBuf>,
    },
    /// The newest kernel in the host's own `/boot`.
    Host,
}

/// A kernel in a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledKernel {
    /// As `uname -r` says it.
    pub release: String,
    /// Package and version it came from, or the file's path.
    pub origin: String,
    /// The kernel file, in the data folder.
    pub kernel: PathBuf,
    /// Its modules; a folder that is not there means none.
    pub modules: PathBuf,
    /// Whether VMs start with this one.
    pub current: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    release: String,
    origin: String,
}

/// Puts a kernel and its modules into `data_dir`, for VMs to start with. A kernel that is there is
/// replaced; modules of other kernels stay.
///
/// # Errors
/// Nothing of that name is to be had, a tool is missing, the download fails, or a file cannot be
/// written. `data_dir` is as it was before, then.
pub fn install(source: &KernelSource, data_dir: &Path) -> Result<InstalledKernel> {
    fs::create_dir_all(data_dir).map_err(|error| Error::io("create", data_dir, error))?;
    // On the same file system as its destination, so that things arrive by one rename.
    let staging = tempfile::Builder::new()
        .prefix(".kernel-")
        .tempdir_in(data_dir)
        .map_err(|error| Error::io("create a folder in", data_dir, error))?;
    let found = match source {
        KernelSource::Distribution => match distribution_package() {
            Ok(package) => from_package(&package, staging.path())?,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => host_kernel().map_err(|_| error)?,
        },
        KernelSource::Package(name) => from_package(&known_package(name)?, staging.path())?,
        KernelSource::DebFiles(files) => from_debs(files, staging.path())?,
        KernelSource::File { kernel, modules } => from_file(kernel, modules.as_deref())?,
        KernelSource::Host => host_kernel()?,
    };
    publish(&found, staging.path(), data_dir)
}

/// The kernels of a data folder: the current one first, then those of which only modules are left.
///
/// # Errors
/// The folder cannot be read; one that is not there holds none.
pub fn list(data_dir: &Path) -> Result<Vec<InstalledKernel>> {
    let mut all = Vec::new();
    let kernel = data_dir.join(DEFAULT_KERNEL_FILE);
    let modules = data_dir.join("modules");
    let mut current = None;
    if kernel.exists() {
        let record = read_record(data_dir);
        let release = bzimage::inspect(&kernel)
            .ok()
            .and_then(|found| found.release)
            .or_else(|| record.as_ref().map(|record| record.release.clone()))
            .unwrap_or_else(|| "unknown".into());
        let origin = record
            .filter(|record| record.release == release)
            .map_or_else(|| "not recorded".into(), |record| record.origin);
        current = Some(release.clone());
        all.push(InstalledKernel {
            modules: modules.join(&release),
            kernel: kernel.clone(),
            release,
            origin,
            current: true,
        });
    }
    let mut others = Vec::new();
    match fs::read_dir(&modules) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|error| Error::io("list", &modules, error))?;
                if let Some(name) = entry.file_name().to_str()
                    && !name.starts_with('.')
                    && current.as_deref() != Some(name)
                {
                    others.push(name.to_owned());
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("list", &modules, error)),
    }
    others.sort();
    all.extend(others.into_iter().map(|release| InstalledKernel {
        modules: modules.join(&release),
        kernel: kernel.clone(),
        release,
        origin: "modules only".into(),
        current: false,
    }));
    Ok(all)
}

/// The release of the kernel in `data_dir`, from the kernel itself or else from its record.
pub(crate) fn release_of(kernel: &Path) -> Result<Option<String>> {
    let found = bzimage::inspect(kernel)?;
    Ok(found.release.or_else(|| {
        let folder = kernel.parent()?;
        (kernel.file_name()? == DEFAULT_KERNEL_FILE)
            .then(|| read_record(folder))
            .flatten()
            .map(|record| record.release)
    }))
}

fn read_record(data_dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(data_dir.join(RECORD_FILE)).ok()?).ok()
}

struct Found {
    kernel: PathBuf,
    modules: Option<PathBuf>,
    release: String,
    origin: String,
    /// Whether the files are ours to move.
    ours: bool,
}

fn publish(found: &Found, staging: &Path, data_dir: &Path) -> Result<InstalledKernel> {
    bzimage::inspect(&found.kernel)?;
    let new_kernel = staging.join(DEFAULT_KERNEL_FILE);
    fs::copy(&found.kernel, &new_kernel)
        .map_err(|error| Error::io("copy", &found.kernel, error))?;
    // Ubuntu's packages let only root read the kernel.
    crate::sys::make_readable(&new_kernel)
        .map_err(|error| Error::io("make readable", &new_kernel, error))?;
    let modules = data_dir.join("modules").join(&found.release);
    if let Some(from) = &found.modules
        && fs::canonicalize(from).ok() != fs::canonicalize(&modules).ok()
    {
        let staged = staging.join("modules");
        if found.ours {
            fs::rename(from, &staged).map_err(|error| Error::io("move", from, error))?;
        } else {
            copy_tree(from, &staged, 0)?;
        }
        let parent = data_dir.join("modules");
        fs::create_dir_all(&parent).map_err(|error| Error::io("create", &parent, error))?;
        if modules.exists() {
            fs::rename(&modules, staging.join("old-modules"))
                .map_err(|error| Error::io("replace", &modules, error))?;
        }
        fs::rename(&staged, &modules).map_err(|error| Error::io("create", &modules, error))?;
    }
    let record = Record {
        release: found.release.clone(),
        origin: found.origin.clone(),
    };
    let text = serde_json::to_vec_pretty(&record)
        .map_err(|error| Error::new(ErrorKind::Io, "cannot record the kernel").caused_by(error))?;
    let record_file = staging.join(RECORD_FILE);
    fs::write(&record_file, text).map_err(|error| Error::io("write", &record_file, error))?;
    let kernel = data_dir.join(DEFAULT_KERNEL_FILE);
    fs::rename(&new_kernel, &kernel).map_err(|error| Error::io("create", &kernel, error))?;
    let kept = data_dir.join(RECORD_FILE);
    fs::rename(&record_file, &kept).map_err(|error| Error::io("create", &kept, error))?;
    Ok(InstalledKernel {
        release: found.release.clone(),
        origin: found.origin.clone(),
        kernel,
        modules,
        current: true,
    })
}

/// Copies a folder of modules: files and folders, and nothing behind links (`build`, `source`).
fn copy_tree(from: &Path, to: &Path, depth: usize) -> Result<()> {
    if depth > 16 {
        return Ok(());
    }
    fs::create_dir(to).map_err(|error| Error::io("create", to, error))?;
    let entries = fs::read_dir(from).map_err(|error| Error::io("list", from, error))?;
    for entry in entries {
        cancel::check()?;
        let entry = entry.map_err(|error| Error::io("list", from, error))?;
        let kind = entry
            .file_type()
            .map_err(|error| Error::io("list", from, error))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&source, &target, depth + 1)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(|error| Error::io("copy", &source, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::bzimage::tests::fake_kernel;

    #[test]
    fn a_kernel_file_is_installed_with_its_modules_and_listed() {
        let host = tempfile::tempdir().unwrap();
        let kernel = host.path().join("vmlinuz");
        fs::write(&kernel, fake_kernel("6.9.1-test")).unwrap();
        let modules = host.path().join("6.9.1-test");
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::write(modules.join("kernel/a.ko"), "a").unwrap();

        let data = tempfile::tempdir().unwrap();
        let source = KernelSource::File {
            kernel,
            modules: Some(modules),
        };
        for _again in 0..2 {
            let installed = install(&source, data.path()).unwrap();
            assert_eq!(installed.release, "6.9.1-test");
            assert!(installed.modules.join("kernel/a.ko").is_file());
            assert_eq!(list(data.path()).unwrap(), [installed]);
        }
        let names: Vec<_> = fs::read_dir(data.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }

    #[test]
    fn modules_of_another_kernel_are_refused() {
        let host = tempfile::tempdir().unwrap();
        let kernel = host.path().join("vmlinuz");
        fs::write(&kernel, fake_kernel("6.9.1")).unwrap();
        let modules = host.path().join("6.9.2");
        fs::create_dir(&modules).unwrap();
        let data = tempfile::tempdir().unwrap();
        let source = KernelSource::File {
            kernel,
            modules: Some(modules),
        };
        let error = install(&source, data.path()).unwrap_err();
        assert!(error.to_string().contains("6.9.2"), "{error}");
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    }

    #[test]
    fn missing_sources_are_named() {
        let data = tempfile::tempdir().unwrap();
        let gone = PathBuf::from("/nowhere/at/all");
        for source in [
            KernelSource::DebFiles(vec![gone.clone()]),
            KernelSource::File {
                kernel: gone,
                modules: None,
            },
        ] {
            let error = install(&source, data.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        }
        assert!(list(&data.path().join("gone")).unwrap().is_empty());
    }
}
