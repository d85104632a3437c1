//! `opengcs completions`: what a shell completes.

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
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
        clap_complete::generate(self.shell, &mut Arguments::command(), "opengcs", &mut text);
        let mut out = output::stdout();
        out.write_all(&text)
            .and_then(|()| out.flush())
            .context("cannot write to stdout")?;
        Ok(0)
    }
}
