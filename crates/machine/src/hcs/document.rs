//! Decides what the Host Compute Service is told: its JSON documents, in schema 2.1, as pure functions.
//!
//! The schema is Microsoft's "HCS JSON schema reference". Hyper-V has fixed GUIDs for a machine's SCSI
//! controllers; the guest finds a controller by them.

use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::{Boot, MachineConfig};
use crate::disk::{DiskFormat, DiskSpec, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Port;

/// The instance GUIDs of SCSI controllers 0–3.
pub const SCSI_CONTROLLERS: [&str; 4] = [
    "df6d0690-79e5-55b6-a5ec-c1e2f77f580a",
    "0110f83b-de10-5172-a266-78bca56bf50a",
    "b5d2d8d4-3a75-51bf-945b-3444dc6b8579",
    "305891a9-b251-5dfe-91a2-c25d9212275b",
];

/// Who may bind the machine's sockets on the host: SYSTEM and the administrators.
pub const BIND_SECURITY: &str = "D:P(A;;FA;;;SY)(A;;FA;;;BA)";

/// What follows the port in the GUID of the Hyper-V socket service that is a vsock port.
const VSOCK_TEMPLATE: u128 = 0x0000_0000_facb_11e6_bd58_6400_6a79_86d3;

/// The kernel's arguments for this hardware but for those that depend on it: a panic ends the machine, no
/// PCI bus and no PM timer is looked for, no RAM disks are made, the host is dialled by Hyper-V sockets
/// rather than virtio's, and the one serial port is the console.
const KERNEL_WORDS: &str = "panic=-1 pci=off brd.rd_nr=0 pmtmr=0 \
     initcall_blacklist=virtio_vsock_init 8250_core.nr_uarts=1 8250_core.skip_txen_test=1 \
     console=ttyS0,115200";

/// How a kernel is handed to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LinuxBoot {
    /// By the hypervisor itself: Windows 10 1903, Windows Server 2022, and later.
    #[default]
    KernelDirect,
    /// By UEFI firmware from a folder of the host's, in which kernel and initrd both are.
    Uefi,
}

/// What the machine's document needs beside its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The name that the machine's owner goes by.
    pub owner: String,
    /// How kernels are booted.
    pub linux_boot: LinuxBoot,
    /// The named pipe that the console is written to.
    pub console_pipe: String,
}

/// The service GUID that stands for a vsock port on Hyper-V.
///
/// ```
/// use opengcs_machine::{Port, hcs::document::service_id};
/// assert_eq!(
///     service_id(Port(0x4000_0000)).to_string(),
///     "40000000-facb-11e6-bd58-64006a7986d3"
/// );
/// ```
#[must_use]
pub fn service_id(port: Port) -> Uuid {
    Uuid::from_u128(u128::from(port.0) << 96 | VSOCK_TEMPLATE)
}

/// The document that a machine is created from.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`]: a raw disk, a path that is not Unicode, or a kernel and an initrd in
/// different folders where UEFI boots them.
pub fn compute_system(config: &MachineConfig, around: &Surroundings) -> Result<Value> {
    let mut controllers = serde_json::Map::new();
    for id in SCSI_CONTROLLERS.iter().take(config.scsi_controllers.into()) {
        controllers.insert((*id).to_owned(), json!({ "Attachments": {} }));
    }
    let chipset = match &config.boot {
        Boot::LinuxKernel {
            kernel,
            initrd,
            command_line,
        } => {
            let words = kernel_words(config.processors, command_line);
            match around.linux_boot {
                LinuxBoot::KernelDirect => {
                    let mut direct =
                        json!({ "KernelFilePath": text(kernel)?, "KernelCmdLine": words });
                    if let Some(initrd) = initrd {
                        direct["InitRdPath"] = text(initrd)?.into();
                    }
                    json!({ "LinuxKernelDirect": direct })
                }
                LinuxBoot::Uefi => uefi_kernel(kernel, initrd.as_deref(), &words)?,
            }
        }
        Boot::Disk { disk, .. } => {
            controllers[SCSI_CONTROLLERS[0]]["Attachments"]["0"] = attachment(disk)?;
            json!({ "Uefi": { "BootThis": {
                "DeviceType": "ScsiDrive",
                "DevicePath": SCSI_CONTROLLERS[0],
                "DiskNumber": 0,
            } } })
        }
    };
    Ok(json!({
        "Owner": around.owner,
        "SchemaVersion": { "Major": 2, "Minor": 1 },
        // Whatever becomes of this process, the machine ends with it.
        "ShouldTerminateOnLastHandleClosed": true,
        "VirtualMachine": {
            "StopOnReset": true,
            "Chipset": chipset,
            "ComputeTopology": {
                "Memory": {
                    // Hyper-V refuses odd sizes.
                    "SizeInMB": config.memory_mib.next_multiple_of(2),
                    "AllowOvercommit": true,
                    "EnableDeferredCommit": true,
                    "EnableColdDiscardHint": false,
                },
                "Processor": { "Count": config.processors },
            },
            "Devices": {
                "Scsi": controllers,
                "HvSocket": { "HvSocketConfig": {
                    "DefaultBindSecurityDescriptor": BIND_SECURITY,
                    "ServiceTable": {},
                } },
                "ComPorts": { "0": { "NamedPipe": around.console_pipe } },
                "Plan9": {},
            },
        },
    }))
}

fn uefi_kernel(kernel: &Path, initrd: Option<&Path>, words: &str) -> Result<Value> {
    let place = |path: &Path| {
        let (folder, name) = (path.parent(), path.file_name());
        let (Some(folder), Some(name)) = (folder, name.and_then(|name| name.to_str())) else {
            return Err(invalid(format!("{} is no path of a file", path.display())));
        };
        Ok((folder.to_owned(), name.to_owned()))
    };
    let (folder, name) = place(kernel)?;
    let mut options = String::new();
    if let Some(initrd) = initrd {
        let (beside, initrd) = place(initrd)?;
        if beside != folder {
            return Err(invalid(format!(
                "kernel and initrd must be in one folder for uefi to boot them: {} and {}",
                folder.display(),
                beside.display()
            )));
        }
        options = format!("initrd=/{initrd} ");
    }
    Ok(json!({ "Uefi": { "BootThis": {
        "DeviceType": "VmbFs",
        "DevicePath": format!("\\{name}"),
        "VmbFsRootPath": text(&folder)?,
        "OptionalData": format!("{options}{words}"),
    } } }))
}

/// The hardware's words stand before the caller's, so that the caller's win.
fn kernel_words(processors: u32, given: &str) -> String {
    let mut words = format!("{KERNEL_WORDS} nr_cpus={processors}");
    if !given.is_empty() {
        words.push(' ');
        words.push_str(given);
    }
    words
}

fn attachment(disk: &DiskSpec) -> Result<Value> {
    if disk.format == DiskFormat::Raw {
        return Err(invalid(format!(
            "disk {} is raw, and hyper-v takes vhd and vhdx only",
            disk.path.display()
        )));
    }
    Ok(json!({
        "Type": "VirtualDisk",
        "Path": text(&disk.path)?,
        "ReadOnly": disk.read_only,
    }))
}

/// The request that attaches `disk` at `slot`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`]: a raw disk, or a path that is not Unicode.
pub fn attach(slot: Slot, disk: &DiskSpec) -> Result<Value> {
    Ok(json!({
        "RequestType": "Add",
        "ResourcePath": resource(slot)?,
        "Settings": attachment(disk)?,
    }))
}

/// The request that detaches the disk at `slot`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`]: there is no such controller.
pub fn detach(slot: Slot) -> Result<Value> {
    Ok(json!({ "RequestType": "Remove", "ResourcePath": resource(slot)? }))
}

fn resource(slot: Slot) -> Result<String> {
    let controller = SCSI_CONTROLLERS
        .get(usize::from(slot.controller))
        .ok_or_else(|| invalid(format!("there is no scsi controller {}", slot.controller)))?;
    Ok(format!(
        "VirtualMachine/Devices/Scsi/{controller}/Attachments/{}",
        slot.lun
    ))
}

/// The query that lists every virtual machine; a filter by owner takes whole names only.
#[must_use]
pub fn list_machines() -> Value {
    json!({ "Types": ["VirtualMachine"] })
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        invalid(format!(
            "the path {} is not unicode, which hyper-v's documents need",
            path.display()
        ))
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests;
