//! `opengcs vm start`: a VM that goes on when this command has ended.

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs_monitor::{Client, Folders, Name};
use tokio::process::Command;

use super::monitor::Order;
use super::view;
use crate::command::vm_options::VmOptions;
use crate::context::Context;
use crate::progress::Progress;

/// Start a VM that goes on when this command has ended
///
/// It returns when the VM is up, with its disks mounted; when it does not come up, nothing is left of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs vm start build
  opengcs vm start build --memory 2G --cpus 2 --disk layer.vhd:/mnt/layer:ro

JSON: what `opengcs vm inspect --json` prints.")]
pub(super) struct Start {
    /// The VM's name: 1 to 64 letters, digits, '-', '_' and '.', a letter or digit first
    name: Name,
    #[command(flatten)]
    vm: VmOptions,
}

impl Start {
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        // What does not fit is told by this process, before another is started.
        self.vm.config(context)?.validate()?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut monitor = Command::new(program);
        // Its log has steps and warnings; more when this command says more.
        monitor.arg(format!(
            "-{}",
            "v".repeat(usize::from(context.verbose.max(1)))
        ));
        monitor.args(["vm", "monitor", self.name.as_str()]);
        let order = Order {
            name: self.name.clone(),
            vm: self.vm,
        };
        let progress = Progress::spinner(context, "starting a VM");
        let launched = opengcs_monitor::launch(monitor, &order, context.stop.told()).await;
        drop(progress);
        // A signal before the VM was kept has given it up, and is told as such; after that it came too
        // late, for the VM is up.
        launched?;
        let mut client = Client::connect(&folders, &self.name).await?;
        let vm = client.inspect().await?;
        let shown = view::Vm::living(vm, folders.path().join(self.name.as_str()));
        let line = format!(
            "{} is up: {} {} with {}",
            shown.name, shown.hypervisor, shown.chipset, shown.acceleration
        );
        context.done(&shown, &line)?;
        Ok(0)
    }
}
