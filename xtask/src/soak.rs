//! Adds and removes disks for as long as it takes to see whether anything grows.

use anyhow::Result;
use clap::Args;

use crate::{guest, host, run};

/// What `cargo xtask soak` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// How many disks come and go.
    #[arg(long, default_value_t = 10_000)]
    cycles: u64,
}

/// Installs what is missing, prepares the guest, and runs the cycles; fails when anything has grown.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::ensure(host::SOAK)?;
    let data = guest::prepare()?;
    let mut soak = run::cargo();
    soak.args(["run", "--quiet", "--package", "vmtest", "--bin", "soak"]);
    soak.args(["--", "--cycles", &options.cycles.to_string()]);
    run::run(soak.env("OPENGCS_DATA_DIR", &data))
}
