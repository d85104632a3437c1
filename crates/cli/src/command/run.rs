//! `opengcs run`: a VM for one command.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs::{Config, ErrorKind, ProcessSpec, UtilityVm};
use serde::Serialize;

use super::process_options::{self, OWN_FAILURE, ProcessOptions};
use super::vm_options::VmOptions;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output;
use crate::progress::Progress;
use crate::signals::Stopped;
use crate::stdio;
use crate::sys::{Resized, Terminal};

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
cannot be run, 127 it is not in the VM, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated.

JSON: {exit_code}, the command's, on stderr: stdout has the command's output, which comes as it is.")]
pub(crate) struct Run {
    #[command(flatten)]
    vm: VmOptions,
    #[command(flatten)]
    process: ProcessOptions,
    /// Record the VM's console in this file, a new one after each 4 MiB; the one before it is kept as
    /// FILE.1. A pipe or a device gets it all, as far as it takes it at once
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Write to this file, as JSON, when each stage of the VM's start was reached
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done {
    exit_code: u8,
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        self.process.check()?;
        let spec = self.spec()?;
        let config = self.config(context)?;
        let progress = Progress::spinner(context, "starting a VM");
        let vm = tokio::select! {
            vm = UtilityVm::start(config) => vm?,
            () = context.stop.told() => return Err(Stopped.into()),
        };
        drop(progress);
        if let Some(file) = &self.timeline
            && let Err(error) = write_timeline(&vm, file, context).await
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
        if let Ok(exit_code) = outcome {
            context.done_beside_data(&Done { exit_code });
        }
        outcome
    }

    async fn execute(&self, vm: &UtilityVm, spec: ProcessSpec, context: &Context) -> Result<u8> {
        let terminal = self.process.tty.then(Terminal::size).flatten();
        let spec = match terminal {
            Some((rows, columns)) => spec.terminal_size(rows, columns),
            None => spec,
        };
        let ran = async {
            let process = vm.run_process(spec).await?;
            // What is typed is the command's from here on, Ctrl-C too.
            let raw = (self.process.tty && self.process.interactive).then(Terminal::raw);
            let handle = process.handle();
            let resizing = async {
                let mut resized = Resized::listen();
                while self.process.tty && resized.next().await {
                    if let Some((rows, columns)) = Terminal::size() {
                        // The next size comes with the next resize.
                        let _ = handle.resize(rows, columns).await;
                    }
                }
                std::future::pending::<()>().await;
            };
            let stdin = stdio::Stdin::open(self.process.interactive, context)?;
            let status = tokio::select! {
                status = process.run(stdin, stdio::stdout(), stdio::stderr()) => status?,
                () = resizing => unreachable!("it goes on for ever"),
            };
            drop(raw);
            Ok::<_, anyhow::Error>(status)
        };
        match ran.await {
            Ok(status) => Ok(process_options::exit_code(status.code())),
            Err(error) => {
                let code = error
                    .downcast_ref::<opengcs::Error>()
                    .map_or(OWN_FAILURE, |error| {
                        let not_found = error.kind() == ErrorKind::NotFound;
                        process_options::failure_code(not_found, &error.report())
                    });
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
        if failed && let Ok(bundle) = vm.diagnostics().write_bundle(&self.vm.bundle_dir(context)) {
            output::note(format_args!("what was recorded is in {}", bundle.display()));
        }
    }

    /// A VM that had to be killed may not have written everything.
    fn check_end(&self, stopped: opengcs::Stopped) -> Result<()> {
        if stopped == opengcs::Stopped::Killed && self.vm.may_write() {
            return Err(Failure::new(
                "the command ran, but the VM did not stop when asked: what it had not written to \
                 its disks is lost",
            )
            .into());
        }
        Ok(())
    }

    fn config(&self, context: &Context) -> Result<Config> {
        let mut config = self.vm.config(context)?;
        config.console_path.clone_from(&self.console);
        config.validate()?;
        Ok(config)
    }

    fn spec(&self) -> Result<ProcessSpec> {
        let mut spec = ProcessSpec::new(self.command.clone())
            .current_dir(&self.process.workdir)
            .stdin(self.process.interactive)
            .terminal(self.process.tty);
        if let Some(user) = &self.process.user {
            spec = spec.user(user);
        }
        for (name, value) in self.process.environment()? {
            spec = spec.env(name, value);
        }
        Ok(spec)
    }
}

async fn write_timeline(vm: &UtilityVm, file: &Path, context: &Context) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(&vm.timeline())?;
    text.push(b'\n');
    let (file, stop) = (file.to_owned(), context.stop.flag());
    let write = move || {
        if output::takes_bytes(&file) {
            output::data_to(&file, stop)?.write_all(&text)
        } else {
            std::fs::write(&file, text)
        }
        .with_context(|| format!("cannot write {}", file.display()))
    };
    context.blocking(write).await
}
