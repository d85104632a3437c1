//! `opengcs debug`: all that is known of a VM, in one file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs::layer::{Existing, NewFile};
use opengcs_monitor::proto::logs_request::Source;
use opengcs_monitor::{Client, Ended, Folders, Looked, Name, as_sections};
use serde::Serialize;

use super::vm_options;
use crate::context::Context;
use crate::output;
use crate::progress::Progress;
use crate::sys;

/// Put everything that is known of a VM into one file: console, logs, processes, mounts
///
/// It also works for a VM that hardly answers any more, and for one that has ended by itself. The command
/// that is run in the VM can be replaced: `OPENGCS_DEBUG_COMMAND` in the environment of `opengcs vm start`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs debug build
  opengcs debug build -o build.txt
  opengcs debug build -o - | less

JSON: {name, file}.")]
pub(crate) struct Debug {
    /// The VM's name
    name: Name,
    /// The file, or - for stdout. Without it: a new file in the folder of bundles,
    /// `$XDG_STATE_HOME/opengcs/bundles`, else ~/.local/state/opengcs/bundles
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Written<'a> {
    name: &'a str,
    file: &'a Path,
}

impl Debug {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let folders = Folders::of(&context.environment)?;
        let progress = Progress::spinner(context, "looking into the VM");
        let text = async {
            Ok(match Client::look_for(&folders, &self.name).await? {
                Looked::Living(mut client) => client.debug().await?,
                Looked::Ended(record, folder) => last_words(&record, &folder).into_bytes(),
            })
        };
        let text = context.unless_stopped(text).await?;
        drop(progress);
        let file = match &self.output {
            Some(file) if file == Path::new("-") => {
                let mut out = output::stdout();
                out.write_all(&text)
                    .and_then(|()| out.flush())
                    .context("cannot write to stdout")?;
                context.done_beside_data(&Written {
                    name: self.name.as_str(),
                    file,
                });
                return Ok(0);
            }
            Some(file) => {
                write(file, &text)?;
                file.clone()
            }
            None => {
                let folder = vm_options::bundle_dir(context);
                let text = String::from_utf8_lossy(&text);
                opengcs::write_bundle(&folder, self.name.as_str(), &text)?
            }
        };
        let written = Written {
            name: self.name.as_str(),
            file: &file,
        };
        let line = file.display().to_string();
        context.done(&written, &line)?;
        Ok(0)
    }
}

/// What is left of a VM that has ended by itself.
fn last_words(record: &Ended, folder: &Path) -> String {
    let mut text = format!("==== VM\n{}: {}\n", record.name, record.reason);
    if let Some(bundle) = &record.bundle {
        text.push_str(&format!("==== bundle of its end\n{}\n", bundle.display()));
    }
    text.push_str(&as_sections(
        folder,
        &[Source::Console, Source::Agent, Source::Monitor],
    ));
    text
}

/// Only its owner can read it: it has what programs in the VM were told.
fn write(file: &Path, text: &[u8]) -> Result<()> {
    let mut whole = NewFile::create(file, Existing::Replace)?;
    if let Some(permissions) = sys::private() {
        whole.set_permissions(permissions)?;
    }
    whole
        .file()
        .write_all(text)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(whole.publish()?)
}
