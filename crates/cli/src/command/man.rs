//! `opengcs man`: the manual's pages.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;

/// Print a manual page, or write all of them to a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs man | man -l -
  opengcs man tar2vhd | man -l -
  opengcs man --folder ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The command whose page is printed, such as tar2vhd; opengcs itself if not given
    #[arg(value_name = "COMMAND", conflicts_with = "folder")]
    words: Vec<String>,
    /// Write opengcs.1, opengcs-tar2vhd.1 and so on to this folder, which exists
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> Result<u8> {
        let mut whole = Arguments::command();
        whole.build();
        if let Some(folder) = &self.folder {
            clap_mangen::generate_to(whole, folder)
                .with_context(|| format!("cannot write to {}", folder.display()))?;
            return Ok(0);
        }
        let mut command = &whole;
        for word in &self.words {
            command = command.find_subcommand(word).ok_or_else(|| {
                Failure::usage(format!("there is no command {:?}", self.words.join(" ")))
                    .hint("`opengcs --help` lists them")
            })?;
        }
        let mut text = Vec::new();
        clap_mangen::Man::new(command.clone())
            .render(&mut text)
            .context("cannot write the page")?;
        let mut out = output::stdout();
        out.write_all(&text)
            .and_then(|()| out.flush())
            .context("cannot write to stdout")?;
        Ok(0)
    }
}
