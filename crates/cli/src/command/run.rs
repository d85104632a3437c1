//! `opengcs run`: a VM for one command.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use opengcs::{
    Acceleration, Config, ErrorKind, MappedVirtualDisk, ProcessSpec, RequestedMode, UtilityVm,
};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;
use crate::signals::Stopped;
use crate::size::Size;
use crate::stdio;
use crate::sys::{Resized, Terminal};

/// Exit code: opengcs itself failed, as with docker run.
pub(crate) const OWN_FAILURE: u8 = 125;
/// Exit code: the command is there and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code: the command is not in the VM.
const NOT_FOUND: u8 = 127;

const MIB: u64 = 1 << 20;

/// Run a command in a small Linux VM that is started for it, with disks mounted
///
/// The VM starts from the kernel and the initrd in the data folder (get them with `opengcs kernel
/// install` and `opengcs initrd build`). The disks are mounted, the command runs, its output comes
/// out here, and the VM is stopped. Nothing is left running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs run -- uname -a
  opengcs run --disk layer.vhd:/mnt/l:ro -- ls -l /mnt/l
  opengcs run --disk scratch.vhdx:/data --memory 1G -- sh -c 'echo hello > /data/file'
  echo hello | opengcs run -i -- wc -c
  opengcs run -it -- sh
  opengcs run -u 1000:1000 -- id
  opengcs run -o lcow.timeout=60 -- cat /proc/cpuinfo

Exit codes: the command's own; 128+n when signal n ended it; 125 opengcs failed, 126 the command
cannot be run, 127 it is not in the VM, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated.")]
pub(crate) struct Run {
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
    /// Set a variable in the command's environment; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// The folder in the VM in which the command starts
    #[arg(short, long, value_name = "FOLDER", default_value = "/")]
    workdir: String,
    /// Run the command as this user of the VM, by name or number; root by default
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Send stdin to the command; without this, its stdin is empty
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal; its output and its errors are then one stream
    #[arg(short, long)]
    tty: bool,
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
    /// Record the VM's console in this file
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Write to this file, as JSON, when each stage of the VM's start was reached
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Where the record of a VM that fails goes, a file each; by default
    /// `$XDG_STATE_HOME/opengcs/bundles`, else ~/.local/state/opengcs/bundles
    #[arg(long, value_name = "FOLDER")]
    bundles: Option<PathBuf>,
    /// How processors are run; auto takes KVM where it works
    #[arg(long, value_name = "HOW", default_value = "auto")]
    accel: Accel,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Boot {
    Auto,
    Vhdx,
    Kernel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Accel {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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
        return Err(format!("that is {bytes} bytes; write {text}M for MiB"));
    }
    u32::try_from(bytes.div_ceil(MIB)).map_err(|_| "that is more than any host has".to_owned())
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let spec = self.spec()?;
        let config = self.config(context)?;
        let progress = Progress::spinner(context, "starting a VM");
        let vm = tokio::select! {
            vm = UtilityVm::start(config) => vm?,
            () = context.stop.told() => return Err(Stopped.into()),
        };
        drop(progress);
        if let Some(file) = &self.timeline
            && let Err(error) = write_timeline(&vm, file)
        {
            vm.terminate().await;
            return Err(error);
        }
        let outcome = tokio::select! {
            outcome = self.execute(&vm, spec, context) => outcome,
            () = context.stop.told() => Err(Stopped.into()),
        };
        if let Err(error) = &outcome {
            self.record_a_death(&vm, error, context);
            vm.terminate().await;
            return outcome;
        }
        tokio::select! {
            stopped = vm.stop() => {
                let stopped = stopped.context("the command ran, but the VM did not stop")?;
                self.check_end(stopped)?;
            }
            () = context.stop.told() => {
                vm.terminate().await;
                return Err(Stopped.into());
            }
        }
        outcome
    }

    async fn execute(&self, vm: &UtilityVm, spec: ProcessSpec, context: &Context) -> Result<u8> {
        let terminal = self.tty.then(Terminal::size).flatten();
        let spec = match terminal {
            Some((rows, columns)) => spec.terminal_size(rows, columns),
            None => spec,
        };
        let ran = async {
            let process = vm.run_process(spec).await?;
            // What is typed is the command's from here on, Ctrl-C too.
            let raw = (self.tty && self.interactive).then(Terminal::raw);
            let handle = process.handle();
            let resizing = async {
                let mut resized = Resized::listen();
                while self.tty && resized.next().await {
                    if let Some((rows, columns)) = Terminal::size() {
                        // The next size comes with the next resize.
                        let _ = handle.resize(rows, columns).await;
                    }
                }
                std::future::pending::<()>().await;
            };
            let stdin = stdio::Stdin::open(self.interactive, context)?;
            let status = tokio::select! {
                status = process.run(stdin, stdio::stdout(), stdio::stderr()) => status?,
                () = resizing => unreachable!("it goes on for ever"),
            };
            drop(raw);
            Ok::<_, anyhow::Error>(status)
        };
        match ran.await {
            // A process's exit code has eight bits.
            Ok(status) => Ok(u8::try_from(status.code() & 0xff).unwrap_or(u8::MAX)),
            Err(error) => {
                let code = error.downcast_ref().map_or(OWN_FAILURE, failure_code);
                Err(error.context(Code(code)))
            }
        }
    }

    /// A VM that died or fell silent under its command leaves a bundle, as one that never came up.
    fn record_a_death(&self, vm: &UtilityVm, error: &anyhow::Error, context: &Context) {
        let kind = error
            .downcast_ref::<opengcs::Error>()
            .map(opengcs::Error::kind);
        let failed = matches!(
            kind,
            Some(ErrorKind::MachineEnded | ErrorKind::Timeout | ErrorKind::ConnectionLost)
        );
        if failed && let Ok(bundle) = vm.diagnostics().write_bundle(&self.bundle_dir(context)) {
            crate::output::note(format_args!("what was recorded is in {}", bundle.display()));
        }
    }

    /// A VM that had to be killed may not have written everything.
    fn check_end(&self, stopped: opengcs::Stopped) -> Result<()> {
        let may_write = self.disk.iter().any(|disk| !disk.read_only);
        if stopped == opengcs::Stopped::Killed && may_write {
            return Err(Failure::new(
                "the command ran, but the VM did not stop when asked: what it had not written to \
                 its disks is lost",
            )
            .into());
        }
        Ok(())
    }

    fn bundle_dir(&self, context: &Context) -> PathBuf {
        self.bundles
            .clone()
            .unwrap_or_else(|| context.environment.state_dir().join("bundles"))
    }

    fn config(&self, context: &Context) -> Result<Config> {
        let mut config = Config::generate_default_with(&self.option, &context.environment)?;
        super::note_warnings(&config);
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
        config.console_path.clone_from(&self.console);
        config.bundle_dir = Some(self.bundle_dir(context));
        config.validate()?;
        Ok(config)
    }

    fn spec(&self) -> Result<ProcessSpec> {
        let mut spec = ProcessSpec::new(self.command.clone())
            .current_dir(&self.workdir)
            .stdin(self.interactive)
            .terminal(self.tty);
        if let Some(user) = &self.user {
            spec = spec.user(user);
        }
        if self.tty
            && let Ok(kind) = std::env::var("TERM")
        {
            spec = spec.env("TERM", kind);
        }
        for word in &self.env {
            match word.split_once('=') {
                Some(("", _)) => {
                    return Err(Failure::usage(format!(
                        "{word:?} has no name before the =: write -e KEY=VALUE"
                    ))
                    .into());
                }
                Some((name, value)) => spec = spec.env(name, value),
                None => {
                    if let Ok(value) = std::env::var(word) {
                        spec = spec.env(word, value);
                    }
                }
            }
        }
        Ok(spec)
    }
}

fn write_timeline(vm: &UtilityVm, file: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(&vm.timeline())?;
    text.push(b'\n');
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Which exit code a command has that was not run.
fn failure_code(error: &opengcs::Error) -> u8 {
    if error.kind() == ErrorKind::NotFound {
        return NOT_FOUND;
    }
    // The agent has one code for all of these, and says in words which it was.
    let said = error.report();
    let Some((_, why)) = said.split_once(": start ") else {
        return OWN_FAILURE;
    };
    if why.contains("no such program") || why.contains("No such file or directory") {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
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
        assert!(memory("8P").is_err());
    }
}
