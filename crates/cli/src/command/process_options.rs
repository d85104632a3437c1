//! What a process in a VM is started with: the same options wherever one starts.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::Args;

use crate::failure::Failure;

/// Exit code: opengcs itself failed, as with docker run.
pub(crate) const OWN_FAILURE: u8 = 125;
/// Exit code: the command is there and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code: the command is not in the VM.
const NOT_FOUND: u8 = 127;

/// Options of a process.
#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Set a variable in the command's environment; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// The folder in the VM in which the command starts
    #[arg(short, long, value_name = "FOLDER", default_value = "/")]
    pub(crate) workdir: String,
    /// Run the command as this user of the VM, by name or number; root by default
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Send stdin to the command; without this, its stdin is empty
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal; its output and its errors are then one stream
    #[arg(short, long)]
    pub(crate) tty: bool,
}

impl ProcessOptions {
    /// Refuses a terminal whose input is none: what ends here does not end there, and a shell waits for ever.
    pub(crate) fn check(&self) -> Result<()> {
        if self.tty && self.interactive && !std::io::stdin().is_terminal() {
            return Err(
                Failure::usage("stdin is no terminal, which -i and -t together want")
                    .hint("leave out -t to send what stdin has, or -i to send nothing")
                    .into(),
            );
        }
        Ok(())
    }

    /// The variables of the command's environment, beside the usual ones.
    pub(crate) fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut variables = Vec::new();
        if self.tty
            && let Ok(kind) = std::env::var("TERM")
        {
            variables.push(("TERM".to_owned(), kind));
        }
        for word in &self.env {
            match word.split_once('=') {
                Some(("", _)) => {
                    return Err(Failure::usage(format!(
                        "{word:?} has no name before the =: write -e KEY=VALUE"
                    ))
                    .into());
                }
                Some((name, value)) => variables.push((name.to_owned(), value.to_owned())),
                None => {
                    if let Ok(value) = std::env::var(word) {
                        variables.push((word.clone(), value));
                    }
                }
            }
        }
        Ok(variables)
    }
}

/// The exit code of a command by its own. A process's exit code has eight bits.
pub(crate) fn exit_code(code: u32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Which exit code a command has that was not run. `not_found`: that is the sort of failure; `said`: the
/// whole of it in words.
pub(crate) fn failure_code(not_found: bool, said: &str) -> u8 {
    if not_found {
        return NOT_FOUND;
    }
    // The agent has one code for all of these, and says in words which it was.
    let Some((_, why)) = said.split_once(": start ") else {
        return OWN_FAILURE;
    };
    if why.contains("no such program") || why.contains("No such file or directory") {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}
