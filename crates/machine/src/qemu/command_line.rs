//! Decides QEMU's command line: a pure function of the configuration and what was found out about the host.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::config::{Boot, Chipset, MachineConfig};
use crate::disk::Slot;
use crate::error::Result;
use crate::qemu::blockdev;

/// What the command line needs beside the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) kvm: bool,
    /// The rate of the host's time-stamp counter, if it is constant.
    pub(crate) tsc_khz: Option<u32>,
    /// The firmware for disks.
    pub(crate) firmware: Option<PathBuf>,
    /// Descriptors that QEMU inherits under these numbers.
    pub(crate) qmp: RawFd,
    pub(crate) console: RawFd,
    pub(crate) vsock: RawFd,
}

/// All that QEMU can emulate, but for what makes a kernel copy in a way that is slow in emulation.
const EMULATED_PROCESSOR: &str = "max,erms=off,fsrm=off";

/// The machine type to take.
///
/// Under emulation microvm needs the counter's rate, or about half of the boots hang: without it, q35.
pub(crate) fn chipset(config: &MachineConfig, kvm: bool, tsc_khz: Option<u32>) -> Chipset {
    match (config.chipset, &config.boot) {
        (Chipset::Auto, Boot::LinuxKernel { .. }) if kvm || tsc_khz.is_some() => Chipset::MicroVm,
        (Chipset::Auto, _) => Chipset::Q35,
        (given, _) => given,
    }
}

/// The name of a machine type.
pub(crate) fn chipset_name(chipset: Chipset) -> &'static str {
    match chipset {
        Chipset::MicroVm => "microvm",
        Chipset::Q35 | Chipset::Auto => "q35",
    }
}

/// The kernel arguments that the hardware needs, which the caller's follow and so override.
fn kernel_arguments(given: &str, chipset: Chipset, host: &Host) -> String {
    // Panic and reset end the machine, by a triple fault: no firmware, no keyboard controller to ask.
    let mut arguments = "console=ttyS0 panic=-1 reboot=t".to_owned();
    if !host.kvm {
        // Distributions have each page filled with zeros before it is used, even to be overwritten.
        arguments.push_str(" init_on_alloc=0");
    }
    if chipset == Chipset::MicroVm
        && !host.kvm
        && let Some(khz) = host.tsc_khz
    {
        // Without the second, a busy host makes the guest fall back to a clock of 4 ms.
        arguments.push_str(&format!(" tsc_early_khz={khz} tsc=reliable"));
    }
    if chipset != Chipset::MicroVm {
        // The check of the timer is a race that an emulated machine on a busy host loses, with a panic. A
        // microvm has no such timer, and under KVM Linux leaves the check out by itself.
        arguments.push_str(" no_timer_check");
    }
    if !given.is_empty() {
        arguments.push(' ');
        arguments.push_str(given);
    }
    arguments
}

/// The arguments, the program's name left out.
pub(crate) fn arguments(config: &MachineConfig, host: &Host) -> Result<Vec<OsString>> {
    let chipset = chipset(config, host.kvm, host.tsc_khz);
    let mut line: Vec<OsString> = Vec::new();
    let mut push = |words: &[&str]| line.extend(words.iter().map(OsString::from));

    push(&["-name", &format!("guest={},debug-threads=on", config.name)]);
    push(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    // The guest is hostile; should it take over QEMU, it finds no way to start or become anything.
    push(&[
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]);
    if host.kvm {
        push(&["-accel", "kvm", "-cpu", "host"]);
    } else {
        // An emulated `rep movsb` goes byte by byte: a kernel that sees no fast one copies by words.
        push(&["-accel", "tcg,thread=multi", "-cpu", EMULATED_PROCESSOR]);
    }
    let machine = match chipset {
        // No legacy timers and interrupt controller; the clock is needed for the time of day.
        Chipset::MicroVm => "microvm,pcie=on,acpi=on,pit=off,pic=off,rtc=on,memory-backend=mem",
        _ => "q35,memory-backend=mem",
    };
    push(&["-M", machine]);
    push(&["-m", &format!("{}M", config.memory_mib)]);
    push(&["-smp", &config.processors.to_string()]);
    push(&[
        "-object",
        // Shared with us, for the vsock device.
        &format!(
            "memory-backend-memfd,id=mem,size={}M,share=on",
            config.memory_mib
        ),
    ]);
    push(&["-chardev", &format!("socket,id=qmp,fd={}", host.qmp)]);
    push(&["-mon", "chardev=qmp,mode=control"]);
    push(&[
        "-chardev",
        &format!("socket,id=console,fd={}", host.console),
    ]);
    push(&["-serial", "chardev:console"]);
    push(&["-chardev", &format!("socket,id=vsock,fd={}", host.vsock)]);
    push(&["-device", "vhost-user-vsock-pci,id=vsock0,chardev=vsock"]);
    for controller in 0..config.scsi_controllers {
        push(&["-device", &format!("virtio-scsi-pci,id=scsi{controller}")]);
    }
    match &config.boot {
        Boot::LinuxKernel {
            kernel,
            initrd,
            command_line,
        } => {
            line.extend(["-kernel".into(), kernel.into()]);
            if let Some(initrd) = initrd {
                line.extend(["-initrd".into(), initrd.into()]);
            }
            line.extend([
                "-append".into(),
                kernel_arguments(command_line, chipset, host).into(),
            ]);
        }
        Boot::Disk { disk, .. } => {
            if let Some(firmware) = &host.firmware {
                line.extend(firmware_arguments(firmware));
            }
            let slot = Slot {
                controller: 0,
                lun: 0,
            };
            let node = blockdev::node(disk, &blockdev::node_name(slot, 0))?;
            let mut device = blockdev::device(slot, 0);
            if let Some(device) = device.as_object_mut() {
                device.insert("bootindex".to_owned(), 0.into());
                if disk.read_only {
                    device.insert("drive".to_owned(), BOOT_DRIVE.into());
                }
            }
            line.extend(match disk.read_only {
                true => ["-drive".into(), forgetful_drive(&node)],
                false => ["-blockdev".into(), node.to_string().into()],
            });
            line.extend(["-device".into(), device.to_string().into()]);
        }
    }
    line.extend(config.extra_arguments.iter().cloned());
    Ok(line)
}

/// The name of the drive in front of a boot disk that is only read.
const BOOT_DRIVE: &str = "boot";

/// A drive that can be written to, in front of a disk that is only read: what is written goes to a file without a
/// name and ends with the machine. The firmware of Debian 13 (edk2 2025.02) reads no file system of a SCSI disk
/// that is write-protected.
fn forgetful_drive(node: &serde_json::Value) -> OsString {
    // A comma in a value is written twice.
    let file = node.to_string().replace(',', ",,");
    format!("if=none,id={BOOT_DRIVE},snapshot=on,file=json:{file}").into()
}

/// Firmware that comes as code apart from its variables must lie in flash; without variables of its own it
/// keeps them in memory, which is right for a machine that is started once.
fn firmware_arguments(firmware: &Path) -> [OsString; 2] {
    let name = firmware.file_name().unwrap_or_default();
    if !name.to_string_lossy().contains("CODE") {
        return ["-bios".into(), firmware.into()];
    }
    let mut drive = OsString::from("if=pflash,format=raw,readonly=on,file=");
    // A comma in a value is written twice.
    drive.push(firmware.to_string_lossy().replace(',', ",,"));
    ["-drive".into(), drive]
}

#[cfg(test)]
#[path = "command_line/tests.rs"]
mod tests;
