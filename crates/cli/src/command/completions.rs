//! `opengcs completions`: what a shell completes.

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use std::io::Write as _;

use crate::arguments::Arguments;
use crate::output;

/// Print what a shell needs to complete opengcs's commands and options
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs completions bash > ~/.local/share/bash-completion/completions/opengcs
  opengcs completions zsh > ~/.zfunc/_opengcs
  opengcs completions fish > ~/.config/fish/completions/opengcs.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<u8> {
        let mut text = Vec::new();
        // What is hidden is not to be offered either, and bash's completions take no notice of that.
        let mut command = Arguments::command().mut_subcommand("vm", |vm| visible("vm", &vm));
        clap_complete::generate(self.shell, &mut command, "opengcs", &mut text);
        let mut out = output::stdout();
        out.write_all(&text)
            .and_then(|()| out.flush())
            .context("cannot write to stdout")?;
        Ok(0)
    }
}

/// A group without its hidden commands.
fn visible(name: &'static str, group: &Command) -> Command {
    let shown = group
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let about = group.get_about().cloned().unwrap_or_default();
    Command::new(name)
        .about(about)
        .args(group.get_arguments().cloned())
        .subcommands(shown.cloned())
}
