//! How the result of a command is shown: a line for people, or JSON.

use anyhow::Result;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::context::Context;
use crate::output;

/// Whether a result is shown for programs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Json {
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

impl Json {
    /// Shows what was done: JSON if asked for, else `line` unless `--quiet`.
    pub(crate) fn done(self, context: &Context, result: &impl Serialize, line: &str) -> Result<()> {
        if self.json {
            output::json(result)
        } else if context.quiet {
            Ok(())
        } else {
            output::print(format_args!("{line}"))
        }
    }
}

/// An empty table with these columns, aligned and without lines.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header);
    }
    table
}

/// Prints a table without the blanks at the ends of its lines.
pub(crate) fn print_table(table: &Table) -> Result<()> {
    let text: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().trim_start().to_owned())
        .collect();
    output::print(format_args!("{}", text.join("\n")))
}
