//! Measures against the outside world.

use anyhow::Result;
use clap::Args;

use crate::{guest, host, run};

/// What `cargo xtask bench` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// `disk` or `vm` for one half only; `--only NAMES` for single rows of disks; `--pairs N`,
    /// `--files N`, `--mib N`, `--small N`, `--sparse-gib N`, `--disks N` for another scale.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Builds the bench program for speed and runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    // Where a program cannot be had, its row says so.
    if let Err(error) = host::ensure(host::PEERS) {
        println!("some rows will be left out: {error:#}");
    }
    let mut bench = run::cargo();
    if !options.words.iter().any(|word| word == "disk") {
        host::ensure(host::DEMO)?;
        bench.env("OPENGCS_DATA_DIR", guest::prepare()?);
    }
    bench.args(["run", "--quiet", "--release", "--package", "vmtest"]);
    bench.args(["--features", "peers", "--bin", "bench", "--"]);
    run::run(bench.args(&options.words))
}
