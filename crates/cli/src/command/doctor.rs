//! `opengcs doctor`: whether this host can start VMs, and what it lacks.

use anyhow::Result;
use clap::Args;
use opengcs::Config;
use opengcs::doctor::{self, Outcome, Report};
use serde::Serialize;

use crate::context::Context;
use crate::failure;
use crate::output::{self, GREEN, RED, YELLOW, paint};

/// Check what this host can do, and say what to install
///
/// Nothing is changed. The exit code is 0 when VMs can be started, else 1. Converting layers
/// (tar2vhd, vhd2tar, scratch, inspect) needs nothing of this.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs doctor
  opengcs doctor --json

JSON: {can_start, data_dir, checks: [{name, outcome: good, fair or bad, found, hint or null}]}.")]
pub(crate) struct Doctor {
    /// Set an option of the VM that is to be started, such as lcow.kirdpath (the data folder)
    #[arg(short = 'o', long = "option", value_name = "lcow.KEY=VALUE")]
    option: Vec<String>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Examined<'a> {
    can_start: bool,
    #[serde(flatten)]
    report: &'a Report,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let config = Config::generate_default_with(&self.option, &context.environment)?;
        super::note_warnings(&config);
        let report = context
            .blocking(move || Ok(doctor::examine(&config)))
            .await?;
        let can_start = report.can_start();
        if context.json {
            output::json(&Examined {
                can_start,
                report: &report,
            })?;
        } else {
            output::print(format_args!("{}", text(&report)))?;
        }
        Ok(if can_start { 0 } else { failure::FAILED })
    }
}

/// One line for each check, and one below it for what to do.
fn text(report: &Report) -> String {
    const WIDTH: usize = 7;
    let names = report
        .checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or_default();
    let mut lines = Vec::new();
    for check in &report.checks {
        let (word, colour) = match check.outcome {
            Outcome::Good => ("ok", GREEN),
            Outcome::Fair => ("note", YELLOW),
            Outcome::Bad => ("missing", RED),
        };
        let word = paint(colour, &format!("{word:WIDTH$}"));
        // The system's own number says nothing beside its words.
        let found = match check.found.rsplit_once(" (os error ") {
            Some((found, _)) => found,
            None => &check.found,
        };
        lines.push(format!("{word}  {:names$}  {found}", check.name));
        if let Some(hint) = &check.hint {
            lines.push(format!("{:WIDTH$}  {:names$}  -> {hint}", "", ""));
        }
    }
    lines.push(String::new());
    lines.push(
        if report.can_start() {
            "VMs can be started here."
        } else {
            "VMs cannot be started here yet: see what is missing. Conversions need none of it."
        }
        .to_owned(),
    );
    lines.join("\n")
}
