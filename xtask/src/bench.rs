//! Measures against the outside world.

use anyhow::Result;
use clap::Args;

use crate::{guest, host, run};

/// What `cargo xtask bench` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// `disk` or `vm` for one half only; `--files N`, `--mib N`, `--pairs N`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Builds the bench program for speed and runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::ensure(host::TEST)?;
    let data = guest::prepare()?;
    run::run(
        run::cargo()
            .env("OPENGCS_DATA_DIR", &data)
            .args([
                "run",
                "--quiet",
                "--release",
                "--package",
                "vmtest",
                "--bin",
                "bench",
                "--",
            ])
            .args(&options.words),
    )
}
