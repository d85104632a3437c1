//! Measures against the outside world.

use anyhow::Result;
use clap::Args;

use crate::{host, run};

/// What `cargo xtask bench` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Words for the bench program, `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Builds the bench program for speed and runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::ensure(host::TEST)?;
    run::run(
        run::cargo()
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
