//! Which of the program's own records are shown on stderr, and in which form.

use std::io::{self, Write};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::arguments::Common;
use crate::{events, output, progress};

/// Overrides `-v`, in the words of `tracing-subscriber`: `debug`, or `opengcs_machine=trace`.
const VARIABLE: &str = "OPENGCS_LOG";

/// The form of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Starts to show records as `-v`, `--log-format` and `OPENGCS_LOG` say.
pub(crate) fn start(common: &Common) {
    let usual = match common.verbose {
        0 => "error",
        1 => "warn,opengcs=info,opengcs_machine=info,opengcs_layer=info",
        2 => "info,opengcs=debug,opengcs_machine=debug,opengcs_layer=debug",
        _ => "trace",
    };
    let asked = std::env::var(VARIABLE)
        .ok()
        .filter(|text| !text.trim().is_empty());
    let filter = match asked.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            output::warn(None, &format!("{VARIABLE} is ignored: {error}"));
            EnvFilter::new(usual)
        }
        None => EnvFilter::new(usual),
    };
    // Where events are told, every line is JSON, unless asked otherwise.
    let usual = if events::on() {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    let shown = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Aside)
        .with_ansi(output::stderr_colours())
        .with_target(common.verbose > 1);
    let shown = match common.log_format.unwrap_or(usual) {
        LogFormat::Text => shown.try_init(),
        LogFormat::Json => shown.json().try_init(),
    };
    debug_assert!(shown.is_ok(), "logging is started once");
}

/// Stderr, beside a line that changes. Records come whole.
struct Aside;

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::aside(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
