//! What a VM is started with: the same options wherever one starts.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use clap::{Args, ValueEnum};
use opengcs::machine::acceleration::Host;
use opengcs::{Acceleration, Config, MappedVirtualDisk, RequestedMode};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::output;
use crate::size::Size;

const MIB: u64 = 1 << 20;

/// Options of a VM.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct VmOptions {
    /// Mount a disk file (VHD, VHDX or raw, with ext4) in the VM; `:ro` lets nobody write to it.
    /// May be given again
    #[arg(long, value_name = "FILE:PATH[:ro]")]
    disk: Vec<Disk>,
    /// The VM's memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory)]
    memory: u32,
    /// How many processors the VM has
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Set an option of the VM: lcow.kirdpath (the data folder), lcow.kernel, lcow.initrd,
    /// lcow.vhdx, lcow.bootparameters, lcow.timeout (seconds)
    #[arg(short = 'o', long = "option", value_name = "lcow.KEY=VALUE")]
    option: Vec<String>,
    /// What to boot from; auto takes a VHDX if the data folder has one
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    boot: Boot,
    /// How many SCSI controllers the VM has, of 64 disks each; as many as the disks need if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    controllers: Option<u8>,
    /// Where the record of a VM that fails goes, a file each; by default
    /// `$XDG_STATE_HOME/opengcs/bundles`, else ~/.local/state/opengcs/bundles
    #[arg(long, value_name = "FOLDER")]
    bundles: Option<PathBuf>,
    /// How processors are run; auto takes KVM where it works
    #[arg(long, value_name = "HOW", default_value = "auto")]
    accel: Accel,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum Boot {
    Auto,
    Vhdx,
    Kernel,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum Accel {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    file: String,
    path: String,
    read_only: bool,
}

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, read_only) = match text.rsplit_once(':') {
            Some((rest, "ro")) => (rest, true),
            Some((rest, "rw")) => (rest, false),
            _ => (text, false),
        };
        // File names may have colons; what follows the last ":/" is the place in the VM.
        let Some(place) = rest.rfind(":/").filter(|place| *place > 0) else {
            return Err(
                "write FILE:PATH or FILE:PATH:ro, with PATH from the VM's root, such as \
                        layer.vhd:/mnt/layer:ro"
                    .to_owned(),
            );
        };
        let (file, path) = rest.split_at(place);
        // A word mistyped for `ro` must not let a layer be written to.
        if let Some((_, word)) = path[1..].split_once(':') {
            return Err(format!("what follows PATH is ro or rw, not {word:?}"));
        }
        Ok(Self {
            file: file.to_owned(),
            path: path[1..].to_owned(),
            read_only,
        })
    }
}

fn memory(text: &str) -> Result<u32, String> {
    let Size(bytes) = text.parse()?;
    if bytes < MIB {
        // A number alone was meant as mebibytes.
        let example = match text.bytes().all(|byte| byte.is_ascii_digit()) && bytes > 0 {
            true => format!("write {text}M for MiB"),
            false => "write 512M, 2G or the like".to_owned(),
        };
        return Err(format!("that is {bytes} bytes; {example}"));
    }
    u32::try_from(bytes.div_ceil(MIB)).map_err(|_| "that is more than any host has".to_owned())
}

impl VmOptions {
    /// Whether the VM may write to a disk of these.
    pub(crate) fn may_write(&self) -> bool {
        self.disk.iter().any(|disk| !disk.read_only)
    }

    /// Where the record of a VM that fails goes.
    pub(crate) fn bundle_dir(&self, context: &Context) -> PathBuf {
        self.bundles.clone().unwrap_or_else(|| bundle_dir(context))
    }

    /// The configuration that they come to.
    pub(crate) fn config(&self, context: &Context) -> Result<Config> {
        let mut config = Config::generate_default_with(&self.option, &context.environment)?;
        super::note_warnings(&config);
        if let (Accel::Kvm, Some(lack)) = (self.accel, Host::probe().lack()) {
            let what = format!("KVM was asked for, though {lack}: the VM may never come up");
            output::warn(None, &what);
        }
        config.memory_mib = self.memory;
        config.processors = self.cpus;
        config.requested_mode = match self.boot {
            Boot::Auto => RequestedMode::Auto,
            Boot::Vhdx => RequestedMode::Vhdx,
            Boot::Kernel => RequestedMode::KernelInitrd,
        };
        config.acceleration = match self.accel {
            Accel::Auto => Acceleration::Auto,
            Accel::Kvm => Acceleration::Kvm,
            Accel::Tcg => Acceleration::Tcg,
        };
        config.mapped_virtual_disks = self
            .disk
            .iter()
            .map(|disk| MappedVirtualDisk::new(&disk.file, &disk.path).read_only(disk.read_only))
            .collect();
        let needed = u8::try_from(self.disk.len().div_ceil(64).clamp(1, 4)).unwrap_or(4);
        config.scsi_controllers = self.controllers.unwrap_or(needed);
        config.bundle_dir = Some(self.bundle_dir(context));
        Ok(config)
    }
}

/// Where records of VMs that fail go when nobody says where.
pub(crate) fn bundle_dir(context: &Context) -> PathBuf {
    context.environment.state_dir().join("bundles")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_read_from_the_right() {
        let disk = |file: &str, path: &str, read_only| Disk {
            file: file.to_owned(),
            path: path.to_owned(),
            read_only,
        };
        assert_eq!("a.vhd:/m".parse(), Ok(disk("a.vhd", "/m", false)));
        assert_eq!("a.vhd:/m:ro".parse(), Ok(disk("a.vhd", "/m", true)));
        assert_eq!("/x:/y:/m:rw".parse(), Ok(disk("/x:/y", "/m", false)));
        for bad in [
            "",
            "a.vhd",
            "a.vhd:m",
            ":/m",
            "a.vhd:ro",
            "a.vhd:/m:or",
            "a.vhd:/m:",
        ] {
            assert!(bad.parse::<Disk>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_whole_mebibytes() {
        assert_eq!(memory("512M"), Ok(512));
        assert_eq!(memory("1G"), Ok(1024));
        assert!(memory("512").unwrap_err().contains("512M"));
        for odd in ["1K", "0", "0.5M"] {
            assert!(
                memory(odd)
                    .unwrap_err()
                    .ends_with("write 512M, 2G or the like")
            );
        }
        assert!(memory("8P").is_err());
    }
}
