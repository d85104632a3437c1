//! Runs each fuzz target for some time.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run;

/// What `cargo xtask fuzz` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Only this target.
    target: Option<String>,
}

/// Runs libFuzzer on every target of `fuzz/`, through the nightly toolchain that it needs.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !run::installed("cargo-fuzz") {
        run::run(run::cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let folder = run::root().join("fuzz");
    let listed = run::output(
        Command::new("cargo-fuzz")
            .args(["list"])
            .current_dir(&folder),
    )
    .context("cannot list the fuzz targets")?;
    let targets: Vec<&str> = listed
        .lines()
        .filter(|name| {
            options
                .target
                .as_deref()
                .is_none_or(|wanted| wanted == *name)
        })
        .collect();
    if targets.is_empty() {
        bail!(
            "no such fuzz target; there are: {}",
            listed.replace('\n', " ")
        );
    }
    for target in targets {
        run::run(
            Command::new("cargo")
                .args(["+nightly", "fuzz", "run", target, "--"])
                .arg(format!("-max_total_time={}", options.seconds))
                .current_dir(&folder),
        )?;
    }
    Ok(())
}
