//! How the result of a command is shown: a line for people, or JSON.

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::context::Context;
use crate::events;
use crate::output;

/// A number with its noun: "1 entry", "2 entries".
pub(crate) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

impl Context {
    /// Shows what was done: as the event `done` with `--json`, else as `line` unless `--quiet`.
    pub(crate) fn done(&self, result: &impl Serialize, line: &str) -> Result<()> {
        if self.json {
            events::done(result)
        } else if self.quiet {
            Ok(())
        } else {
            output::print(format_args!("{line}"))
        }
    }

    /// Tells a result whose data went to stdout: as the event `done` on stderr with `--json`.
    pub(crate) fn done_beside_data(&self, result: &impl Serialize) {
        if self.json {
            events::done_beside_data(result);
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
        // Each cell has a blank before it; those of a cell without text keep what follows in line.
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    output::print(format_args!("{}", text.join("\n")))
}
