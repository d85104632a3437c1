//! What this host can do for utility VMs, and what to do where it cannot.

use std::path::{Path, PathBuf};

use opengcs_machine::acceleration::{self, Host};
use serde::Serialize;

use crate::config::{Acceleration, Config};
use crate::environment::Environment;
use crate::guest::{initrd, kernel};

mod qemu;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Fair,
    /// VMs cannot be started.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Good,
            found: found.into(),
            hint: None,
        }
    }

    fn with(
        name: &'static str,
        outcome: Outcome,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            name,
            outcome,
            found: found.into(),
            hint: Some(hint.into()),
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The data folder that was looked into.
    pub data_dir: PathBuf,
    /// The checks, in the order in which things are needed.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether VMs can be started.
    #[must_use]
    pub fn can_start(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.outcome != Outcome::Bad)
    }
}

/// Looks at what a VM with `config` needs. Nothing is changed and nothing is started but the
/// hypervisor's program, to ask for its version.
#[must_use]
pub fn examine(config: &Config) -> Report {
    let data_dir = config.data_dir();
    let environment = &config.environment;
    let mut checks = match crate::sys::hyper_v() {
        Some(hyper_v) => vec![own_hypervisor(hyper_v)],
        None => {
            let mut checks = qemu::checks(config);
            checks.push(accelerated(config.acceleration));
            checks
        }
    };
    checks.extend(guest_files(config));
    checks.push(writable("data folder", data_dir));
    checks.push(writable("runtime folder", &environment.runtime_parent()));
    checks.push(writable("temporary folder", &std::env::temp_dir()));
    checks.push(space(data_dir));
    checks.extend(memory(config));
    checks.push(fetching(environment));
    Report {
        data_dir: data_dir.to_owned(),
        checks,
    }
}

/// What to do where there is no hypervisor.
pub(crate) const INSTALL_QEMU: &str =
    "install QEMU: the package is qemu-system-x86 on Debian and Ubuntu";

/// What to do where nothing starts a boot disk.
pub(crate) const INSTALL_FIRMWARE: &str = "install OVMF: the package is ovmf on Debian and Ubuntu; \
     or take the boot disk away to boot from kernel and initrd";

const NAME_OF_HYPERVISOR: &str = "hypervisor";

/// The hypervisor that the system itself has.
fn own_hypervisor(found: opengcs_machine::Result<String>) -> Check {
    match found {
        Ok(found) => Check::good(NAME_OF_HYPERVISOR, found),
        Err(error) => Check::with(
            NAME_OF_HYPERVISOR,
            Outcome::Bad,
            error.to_string(),
            "in an elevated PowerShell: Enable-WindowsOptionalFeature -Online -All -FeatureName \
             Microsoft-Hyper-V, Containers",
        ),
    }
}

fn accelerated(wanted: Acceleration) -> Check {
    const NAME: &str = "acceleration";
    let host = Host::probe();
    let choice = acceleration::choose(wanted, &host);
    let found = choice.reason.clone();
    if choice.kvm {
        Check::good(NAME, found)
    } else {
        let hint = match &host.kvm_device {
            Err(why) if why.to_lowercase().contains("permission") => {
                "add yourself to the group kvm, and log in again"
            }
            _ => {
                "turn virtualisation on in the firmware, or nested virtualisation in the host above; without it VMs run emulated, several times slower"
            }
        };
        Check::with(NAME, Outcome::Fair, found, hint)
    }
}

fn guest_files(config: &Config) -> Vec<Check> {
    let options = &config.options;
    if options.vhdx.is_file() {
        let disk = Check::good(
            "boot disk",
            format!("{} is there and will be booted", options.vhdx.display()),
        );
        return [disk].into_iter().chain(firmware()).collect();
    }
    let (kernel_path, initrd_path) = (options.kernel_path(), options.initrd_path());
    let kernel_check = match kernel::release_of(&kernel_path) {
        Ok(release) => Check::good(
            "kernel",
            format!(
                "Linux {} ({})",
                release.as_deref().unwrap_or("of an unknown release"),
                kernel_path.display()
            ),
        ),
        Err(error) => Check::with(
            "kernel",
            Outcome::Bad,
            error.report(),
            crate::config::where_from("opengcs kernel install"),
        ),
    };
    let build = crate::config::where_from("opengcs initrd build");
    let initrd_check = match initrd::release_in(&initrd_path) {
        Err(error) => Check::with("initrd", Outcome::Bad, error.report(), build),
        Ok(release) => match initrd::check_pair(&kernel_path, &initrd_path) {
            Err(error) if kernel_check.outcome == Outcome::Good => {
                Check::with("initrd", Outcome::Bad, error.report(), build)
            }
            _ => Check::good(
                "initrd",
                match release {
                    Some(release) => format!("for Linux {release} ({})", initrd_path.display()),
                    None => format!("{}, not built by us", initrd_path.display()),
                },
            ),
        },
    };
    // Kernel and initrd start without firmware, so that one that lacks is no lack.
    let firmware = firmware().map(|check| match check.outcome {
        Outcome::Bad => Check {
            outcome: Outcome::Fair,
            hint: Some("only a boot disk (uvm.vhdx) needs it: the package is ovmf".to_owned()),
            ..check
        },
        _ => check,
    });
    [kernel_check, initrd_check]
        .into_iter()
        .chain(firmware)
        .collect()
}

/// What starts a boot disk; a kernel needs none.
#[cfg(target_os = "linux")]
fn firmware() -> Option<Check> {
    const NAME: &str = "firmware";
    Some(match opengcs_machine::qemu::firmware() {
        Ok(path) => Check::good(NAME, path.display().to_string()),
        Err(error) => Check::with(NAME, Outcome::Bad, error.to_string(), INSTALL_FIRMWARE),
    })
}

#[cfg(not(target_os = "linux"))]
fn firmware() -> Option<Check> {
    None
}

fn writable(name: &'static str, folder: &Path) -> Check {
    const OTHERS: &str = "choose another with OPENGCS_DATA_DIR (data), XDG_RUNTIME_DIR (runtime) or TMPDIR (temporary)";
    // A folder that is not there yet is made below one that is.
    let existing = folder
        .ancestors()
        .find(|folder| folder.symlink_metadata().is_ok())
        .unwrap_or(Path::new("."));
    if !existing.is_dir() {
        let found = format!("{} is no folder", existing.display());
        return Check::with(name, Outcome::Bad, found, OTHERS);
    }
    match tempfile::tempfile_in(existing) {
        Ok(_) => Check::good(name, format!("{} can be written", folder.display())),
        Err(error) => Check::with(
            name,
            Outcome::Bad,
            format!("{} cannot be written: {error}", folder.display()),
            format!("change its permissions, or {OTHERS}"),
        ),
    }
}

fn space(folder: &Path) -> Check {
    const NAME: &str = "disk space";
    const WANTED: u64 = 1 << 30;
    let existing = folder.ancestors().find(|folder| folder.is_dir());
    match existing.and_then(|folder| crate::sys::free_space(folder).ok()) {
        None => Check::with(
            NAME,
            Outcome::Fair,
            format!("not known for {}", folder.display()),
            "see that there is room for layers and sandboxes",
        ),
        Some(free) if free < WANTED => Check::with(
            NAME,
            Outcome::Fair,
            format!("{} MiB are free in {}", free >> 20, folder.display()),
            "make room: kernels, layers and sandboxes are kept there",
        ),
        Some(free) => Check::good(
            NAME,
            format!("{} GiB are free in {}", free >> 30, folder.display()),
        ),
    }
}

/// Whether a VM's memory is to be had; nothing where the system does not say.
fn memory(config: &Config) -> Option<Check> {
    const NAME: &str = "memory";
    let free = crate::sys::free_memory()? >> 20;
    let found = format!("{free} MiB are free");
    Some(if free < u64::from(config.memory_mib) {
        let hint = format!(
            "a VM takes {} MiB unless told otherwise: end other programs, or give it less (--memory)",
            config.memory_mib
        );
        Check::with(NAME, Outcome::Fair, found, hint)
    } else {
        Check::good(NAME, found)
    })
}

fn fetching(environment: &Environment) -> Check {
    const NAME: &str = "kernel packages";
    let missing: Vec<_> = ["apt-get", "apt-cache", "dpkg-deb"]
        .into_iter()
        .filter(|program| in_path(environment, program).is_none())
        .collect();
    if missing.is_empty() {
        Check::good(NAME, "apt can bring a kernel")
    } else {
        Check::with(
            NAME,
            Outcome::Fair,
            format!("this host has no {}", missing.join(", no ")),
            if cfg!(windows) {
                "make kernel and initrd on a Linux host, and copy them here"
            } else {
                "give `opengcs kernel install` a kernel file with its modules, or .deb files"
            },
        )
    }
}

fn in_path(environment: &Environment, program: &str) -> Option<PathBuf> {
    let path = environment.get("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_host_is_told_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::fixed([("OPENGCS_DATA_DIR", folder.path())]);
        let config = Config::generate_default_with::<&str>([], &environment).unwrap();
        let report = examine(&config);
        assert!(!report.can_start());
        for name in ["hypervisor", "kernel", "initrd"] {
            let check = report
                .checks
                .iter()
                .find(|check| check.name == name)
                .unwrap();
            assert_eq!(check.outcome, Outcome::Bad, "{check:?}");
            assert!(check.hint.is_some());
            assert!(!check.found.contains('\n'));
        }
        // Looking changes nothing.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_no_folder_to_write_to() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), file.path().join("below")] {
            let check = writable("data folder", &path);
            assert_eq!(check.outcome, Outcome::Bad, "{check:?}");
            assert!(check.found.ends_with("is no folder"), "{check:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let check = writable("data folder", &folder.path().join("not/yet"));
        assert_eq!(check.outcome, Outcome::Good, "{check:?}");
    }
}
