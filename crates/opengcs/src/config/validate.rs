//! Whether a configuration can work, told before anything is started.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path};

use super::{BootMode, Config, RequestedMode};
use crate::error::{Error, Result};
use crate::guest::initrd;

/// Linux cuts what is longer (`COMMAND_LINE_SIZE` on x86, less the NUL and what the machine adds).
const MAX_BOOT_PARAMETERS: usize = 1500;

pub(super) fn validate(config: &Config) -> Result<BootMode> {
    numbers(config)?;
    let mode = boot_mode(config)?;
    disks(config)?;
    Ok(mode)
}

fn numbers(config: &Config) -> Result<()> {
    if config.name.is_empty()
        || config.name.len() > 64
        || config
            .name
            .chars()
            .any(|c| c.is_control() || c == ',' || c == '/')
    {
        return Err(Error::invalid(format!(
            "the VM's name {:?} must have 1 to 64 bytes and no commas, slashes or control characters",
            config.name
        )));
    }
    for (what, value, least, most) in [
        ("memory in MiB", config.memory_mib, 64, 1 << 20),
        ("number of processors", config.processors, 1, 255),
        (
            "number of SCSI controllers",
            u32::from(config.scsi_controllers),
            1,
            u32::from(opengcs_machine::MAX_CONTROLLERS),
        ),
    ] {
        if !(least..=most).contains(&value) {
            return Err(Error::invalid(format!(
                "the {what} is {value}; it must be {least} to {most}"
            )));
        }
    }
    if config.uvm_timeout.is_zero() {
        return Err(Error::invalid("the VM's timeout must be more than zero"));
    }
    Ok(())
}

fn boot_mode(config: &Config) -> Result<BootMode> {
    let vhdx = &config.options.vhdx;
    match config.requested_mode {
        RequestedMode::Vhdx => {
            if vhdx.as_os_str().is_empty() {
                return Err(
                    Error::invalid("VHDX boot is asked for and no VHDX is given")
                        .hint("give lcow.vhdx=PATH"),
                );
            }
            file("VHDX", vhdx, Some("lcow.vhdx"))?;
        }
        RequestedMode::Auto if is_there(vhdx)? => file("VHDX", vhdx, Some("lcow.vhdx"))?,
        RequestedMode::Auto | RequestedMode::KernelInitrd => {
            return kernel_and_initrd(config);
        }
    }
    if config.options.boot_parameters.is_empty() {
        Ok(BootMode::Vhdx)
    } else {
        Err(Error::invalid(format!(
            "boot parameters cannot be given to the VHDX {}, which holds its own",
            vhdx.display()
        ))
        .hint("leave lcow.bootparameters out, or ask for kernel and initrd"))
    }
}

fn kernel_and_initrd(config: &Config) -> Result<BootMode> {
    let options = &config.options;
    for (option, name) in [
        ("lcow.kernel", &options.kernel_file),
        ("lcow.initrd", &options.initrd_file),
    ] {
        if name.is_empty() {
            return Err(Error::invalid(format!(
                "{option} is empty; kernel and initrd must both be given"
            )));
        }
        if !is_file_name(name) {
            return Err(Error::invalid(format!(
                "{option} is {name:?}; it must be a file name in lcow.kirdpath and no path"
            )));
        }
    }
    let (kernel, initrd) = (options.kernel_path(), options.initrd_path());
    file("kernel", &kernel, Some("lcow.kernel"))
        .map_err(|error| error.hint(where_from("opengcs kernel install")))?;
    file("initrd", &initrd, Some("lcow.initrd"))
        .map_err(|error| error.hint(where_from("opengcs initrd build")))?;
    if options.boot_parameters.len() > MAX_BOOT_PARAMETERS {
        return Err(Error::invalid(format!(
            "lcow.bootparameters has {} bytes; Linux takes at most {MAX_BOOT_PARAMETERS} here",
            options.boot_parameters.len()
        )));
    }
    if options.boot_parameters.chars().any(char::is_control) {
        return Err(Error::invalid(
            "lcow.bootparameters has control characters; it must be one line of text",
        ));
    }
    initrd::check_pair(&kernel, &initrd)?;
    Ok(BootMode::KernelInitrd)
}

/// What brings a part of the guest to its folder. What the commands need is to be had on Linux alone.
pub(crate) fn where_from(command: &str) -> String {
    let brings = if cfg!(windows) {
        format!("copy there what `{command}` makes on a Linux host")
    } else {
        format!("`{command}` puts one there")
    };
    format!("{brings}; lcow.kirdpath names another folder")
}

/// Whether a text names a file in a folder, and leads nowhere else.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next();
    matches!(first, Some(Component::Normal(part)) if part == name)
        && parts.next().is_none()
        && !name.contains('\0')
}

fn disks(config: &Config) -> Result<()> {
    let mut places = HashSet::new();
    let mut files = HashSet::new();
    for disk in &config.mapped_virtual_disks {
        let path = &disk.host_path;
        file("disk", path, None)?;
        check_guest_path(&disk.container_path)
            .map_err(|error| Error::invalid(format!("disk {}", path.display())).caused_by(error))?;
        if !places.insert(disk.container_path.trim_end_matches('/')) {
            return Err(Error::invalid(format!(
                "two disks are to be mounted at {}",
                disk.container_path
            )));
        }
        let real = fs::canonicalize(path).map_err(|error| Error::io("look at", path, error))?;
        if !files.insert(real) {
            return Err(Error::invalid(format!(
                "the disk {} is given twice",
                path.display()
            )));
        }
    }
    let slots =
        usize::from(config.scsi_controllers) * usize::from(opengcs_machine::LUNS_PER_CONTROLLER);
    if config.mapped_virtual_disks.len() > slots {
        return Err(Error::invalid(format!(
            "{} disks are given, and {} SCSI controllers hold {slots}",
            config.mapped_virtual_disks.len(),
            config.scsi_controllers
        )));
    }
    Ok(())
}

/// A path in the guest: absolute, and going nowhere but down.
pub(crate) fn check_guest_path(path: &str) -> Result<()> {
    let why = if path.is_empty() {
        "is empty"
    } else if !path.starts_with('/') {
        "does not start with /"
    } else if path.contains('\0') {
        "has a NUL in it"
    } else if path.len() > 4000 {
        "is too long"
    } else if path.split('/').any(|part| part == "..") {
        "has .. in it"
    } else if path.trim_matches('/').is_empty() {
        "is its root"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the path {path:?} in the VM {why}")))
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists()
        .map_err(|error| Error::io("look at", path, error))
}

/// A file that is needed, and the option that names it, if one does.
fn file(what: &str, path: &Path, option: Option<&str>) -> Result<()> {
    let option = option.map_or_else(String::new, |name| format!(" ({name})"));
    let named = format!("{what} {}{option}", path.display());
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::not_found(format!("there is no {named}")));
        }
        Err(error) => {
            return Err(Error::io(&format!("look at the {what}"), path, error));
        }
    };
    let why = if found.is_dir() {
        "is a folder, not a file"
    } else if found.is_file() && found.len() == 0 {
        "is empty"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the {named} {why}")))
}

#[cfg(test)]
mod tests;
