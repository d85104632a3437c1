//! Which of the program's own records are shown on stderr.

use tracing_subscriber::EnvFilter;

use crate::arguments::Common;

/// Overrides `-v`, in the words of `tracing-subscriber`: `debug`, or `opengcs_machine=trace`.
const VARIABLE: &str = "OPENGCS_LOG";

/// Starts to show records as `-v`, `-q` and `OPENGCS_LOG` say.
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
            crate::output::note(format_args!("opengcs: {VARIABLE} is ignored: {error}"));
            EnvFilter::new(usual)
        }
        None => EnvFilter::new(usual),
    };
    let shown = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::stderr_colours())
        .with_target(common.verbose > 1)
        .try_init();
    debug_assert!(shown.is_ok(), "logging is started once");
}
