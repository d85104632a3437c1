//! What the machine is made of, for a configuration: a pure function.

use std::path::Path;

use opengcs_machine::{Boot, DiskSpec, MachineConfig};

use crate::config::{BootMode, Config};
use crate::error::Result;

/// The words that every kernel of ours gets; the machine adds those of its hardware before them, and
/// the client's come behind, so that the client's win.
///
/// A kernel that panics prints its whole log, so that what it said quietly is recorded
/// (`PANIC_PRINT_ALL_PRINTK_MSG`). Its ciphers do not test themselves at each start: under emulation that is a
/// tenth of a boot, and the distribution has tested them.
const KERNEL_WORDS: &str = "quiet panic_print=0x20 cryptomgr.notests";

pub(super) fn machine_config(
    config: &Config,
    mode: BootMode,
    runtime_dir: &Path,
) -> Result<MachineConfig> {
    let boot = match mode {
        BootMode::KernelInitrd => Boot::LinuxKernel {
            kernel: config.options.kernel_path(),
            initrd: Some(config.options.initrd_path()),
            command_line: kernel_command_line(&config.options.boot_parameters),
        },
        BootMode::Vhdx => Boot::Disk {
            disk: DiskSpec::new(
                &config.options.vhdx,
                super::disks::format_of(&config.options.vhdx)?,
                // One disk serves many VMs.
                true,
            ),
            firmware: None,
        },
    };
    let mut machine = MachineConfig::new(&config.name, runtime_dir, boot)
        .memory_mib(config.memory_mib)
        .processors(config.processors)
        .scsi_controllers(config.scsi_controllers)
        .acceleration(config.acceleration)
        .chipset(config.chipset);
    machine.qemu.clone_from(&config.hypervisor);
    machine.console_path.clone_from(&config.console_path);
    Ok(machine)
}

fn kernel_command_line(boot_parameters: &str) -> String {
    let given = boot_parameters.trim();
    if given.is_empty() {
        KERNEL_WORDS.to_owned()
    } else {
        format!("{KERNEL_WORDS} {given}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_words_come_last() {
        assert_eq!(kernel_command_line(""), KERNEL_WORDS);
        let line = kernel_command_line(" loglevel=7 ");
        assert_eq!(line, format!("{KERNEL_WORDS} loglevel=7"));
    }
}
