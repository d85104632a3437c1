//! Decides what a machine is made of: memory, processors, controllers, what it boots, how it is run.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};

/// The number of LUNs a SCSI controller offers, as on Hyper-V.
pub const LUNS_PER_CONTROLLER: u8 = 64;

/// The most SCSI controllers a machine can have, as on Hyper-V.
pub const MAX_CONTROLLERS: u8 = 4;

/// What the machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Boot {
    /// A Linux kernel handed over directly, with its initrd.
    LinuxKernel {
        /// A bzImage.
        kernel: PathBuf,
        /// The initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel arguments. The machine puts those that its hardware needs (console, power-off on
        /// panic, clock) before these, so that these win.
        command_line: String,
    },
    /// A bootable disk, through UEFI firmware. It takes controller 0, LUN 0.
    Disk {
        /// The disk, with an EFI system partition.
        disk: crate::DiskSpec,
        /// The firmware image; `None` looks in the usual places.
        firmware: Option<PathBuf>,
    },
}

/// How the processor is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Acceleration {
    /// KVM where it works, otherwise emulation.
    #[default]
    Auto,
    /// KVM, or an error from the hypervisor.
    Kvm,
    /// Emulation (TCG).
    Tcg,
}

/// Which of QEMU's machine types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Chipset {
    /// The type this crate holds to be best for the boot asked for.
    #[default]
    Auto,
    /// A PC with PCI Express.
    Q35,
    /// A minimal machine with PCI Express and no legacy devices; boots kernels only.
    MicroVm,
}

/// The description of a machine to be made. Start from [`MachineConfig::new`].
///
/// ```
/// use opengcs_machine::{Boot, MachineConfig};
///
/// let config = MachineConfig::new(
///     "uvm",
///     "/run/user/1000/opengcs/uvm",
///     Boot::LinuxKernel {
///         kernel: "/boot/vmlinuz".into(),
///         initrd: Some("/boot/initrd.img".into()),
///         command_line: "quiet".into(),
///     },
/// )
/// .memory_mib(256)
/// .scsi_controllers(4);
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineConfig {
    /// A name for people: it shows in the process list.
    pub name: String,
    /// A private folder (mode 0700) of the caller's, for the console's record and short-lived sockets.
    /// What the machine puts there it removes.
    pub runtime_dir: PathBuf,
    /// What is booted.
    pub boot: Boot,
    /// Memory in MiB. Default 512.
    pub memory_mib: u32,
    /// Virtual processors. Default 1.
    pub processors: u32,
    /// SCSI controllers of 64 LUNs each, 1–4. Default 1.
    pub scsi_controllers: u8,
    /// How the processor is run.
    pub acceleration: Acceleration,
    /// The machine type.
    pub chipset: Chipset,
    /// Where the console is recorded. `None`: `console.log` in `runtime_dir`, removed when the machine is
    /// dropped; a path given here is left in place.
    pub console_path: Option<PathBuf>,
    /// The QEMU program; `None` looks for `qemu-system-x86_64` in `PATH`.
    pub qemu: Option<PathBuf>,
    /// Further arguments for QEMU, at the end of its command line.
    pub extra_arguments: Vec<OsString>,
}

impl MachineConfig {
    /// A small service machine: 512 MiB, one processor, one controller.
    pub fn new(name: impl Into<String>, runtime_dir: impl Into<PathBuf>, boot: Boot) -> Self {
        Self {
            name: name.into(),
            runtime_dir: runtime_dir.into(),
            boot,
            memory_mib: 512,
            processors: 1,
            scsi_controllers: 1,
            acceleration: Acceleration::Auto,
            chipset: Chipset::Auto,
            console_path: None,
            qemu: None,
            extra_arguments: Vec::new(),
        }
    }

    /// Sets the memory, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Sets the number of virtual processors.
    #[must_use]
    pub fn processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// Sets the number of SCSI controllers, 1–4.
    #[must_use]
    pub fn scsi_controllers(mut self, scsi_controllers: u8) -> Self {
        self.scsi_controllers = scsi_controllers;
        self
    }

    /// Sets how the processor is run.
    #[must_use]
    pub fn acceleration(mut self, acceleration: Acceleration) -> Self {
        self.acceleration = acceleration;
        self
    }

    /// Sets the machine type.
    #[must_use]
    pub fn chipset(mut self, chipset: Chipset) -> Self {
        self.chipset = chipset;
        self
    }

    /// Records the console at `path`, which outlives the machine.
    #[must_use]
    pub fn console_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.console_path = Some(path.into());
        self
    }

    /// Runs this QEMU program.
    #[must_use]
    pub fn qemu(mut self, program: impl Into<PathBuf>) -> Self {
        self.qemu = Some(program.into());
        self
    }

    /// Where the console is recorded.
    pub(crate) fn console_file(&self) -> PathBuf {
        let given = self.console_path.clone();
        given.unwrap_or_else(|| self.runtime_dir.join("console.log"))
    }

    /// Removes the files that were made for the machine alone.
    pub(crate) fn remove_files(&self) {
        if self.console_path.is_none() {
            let console = self.console_file();
            let _ = std::fs::remove_file(crate::console::older(&console));
            let _ = std::fs::remove_file(console);
        }
    }

    /// Checks the numbers and names (not the files, which [start](crate::Machine::power_on) checks).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the value that cannot work.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.name.is_empty() || self.name.chars().any(|c| c.is_control() || c == ',') {
            return invalid(format!(
                "machine name {:?} must not be empty nor hold commas or control characters",
                self.name
            ));
        }
        if !(64..=1_048_576).contains(&self.memory_mib) {
            return invalid(format!(
                "memory of {} MiB is out of range: give 64 to 1048576",
                self.memory_mib
            ));
        }
        if !(1..=255).contains(&self.processors) {
            return invalid(format!(
                "{} processors are out of range: give 1 to 255",
                self.processors
            ));
        }
        if !(1..=MAX_CONTROLLERS).contains(&self.scsi_controllers) {
            return invalid(format!(
                "{} scsi controllers are out of range: give 1 to {MAX_CONTROLLERS}",
                self.scsi_controllers
            ));
        }
        match &self.boot {
            Boot::LinuxKernel { command_line, .. }
                if command_line.chars().any(|c| c == '\0' || c == '\n') =>
            {
                invalid("the kernel command line must be one line".to_owned())
            }
            Boot::Disk { .. } if self.chipset == Chipset::MicroVm => {
                invalid("a disk cannot be booted on microvm: use q35".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MachineConfig {
        MachineConfig::new(
            "uvm",
            "/run",
            Boot::LinuxKernel {
                kernel: "/k".into(),
                initrd: None,
                command_line: String::new(),
            },
        )
    }

    #[test]
    fn the_defaults_are_valid() {
        config().validate().unwrap();
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        for (config, word) in [
            (config().memory_mib(0), "memory"),
            (config().processors(0), "processors"),
            (config().processors(256), "processors"),
            (config().scsi_controllers(0), "controllers"),
            (config().scsi_controllers(5), "controllers"),
        ] {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_name_with_a_comma_would_break_a_qemu_option() {
        let mut config = config();
        config.name = "a,b".to_owned();
        assert!(config.validate().is_err());
    }
}
