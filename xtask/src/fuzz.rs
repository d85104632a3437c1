//! Runs each fuzz target for some time: from the inputs that the repository keeps, adding to others.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{host, run};

/// What `cargo xtask fuzz` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Only these targets.
    targets: Vec<String>,
}

/// What no input may take: the specification's bound of memory is 64 MiB, the sanitizer doubles
/// much of it, and a virtual machine may be slow.
const LIMITS: &[&str] = &[
    "-rss_limit_mb=1024",
    "-malloc_limit_mb=256",
    "-timeout=60",
    "-max_len=32768",
    "-print_final_stats=1",
];

/// Runs libFuzzer on the targets of `fuzz/`, through the nightly toolchain that it needs. Goes on
/// to the next target when one fails, and fails at the end.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::ensure(host::FUZZ)?;
    ensure_toolchain()?;
    let folder = run::root().join("fuzz");
    let targets = targets(&folder, &options.targets)?;
    let mut failed = Vec::new();
    for target in &targets {
        let result = fuzz(&folder, target, options.seconds);
        if let Err(error) = result {
            println!("{target}: {error:#}");
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        println!("{} targets, no failure", targets.len());
        return Ok(());
    }
    bail!(
        "these targets failed: {}. Their inputs are in fuzz/artifacts: put them into \
         fuzz/regressions/TARGET, where the ordinary tests find them, and mend the cause",
        failed.join(" ")
    )
}

fn targets(folder: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let listed = run::output(
        Command::new("cargo")
            .args(["fuzz", "list"])
            .current_dir(folder),
    )
    .context("cannot list the fuzz targets")?;
    let all: Vec<String> = listed.lines().map(str::to_owned).collect();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!(
            "there is no fuzz target {unknown}; there are: {}",
            all.join(" ")
        );
    }
    Ok(if wanted.is_empty() {
        all
    } else {
        wanted.to_vec()
    })
}

/// What libFuzzer finds goes to the target folder, not to the inputs that are kept.
fn fuzz(folder: &Path, target: &str, seconds: u32) -> Result<()> {
    let found = run::target_dir().join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot create {found:?}"))?;
    let mut command = Command::new("cargo");
    command.current_dir(folder);
    command.args(["+nightly", "fuzz", "run", target]).arg(found);
    // Images for the reader are images for the export.
    let kept = if target == "export" { "ext4" } else { target };
    for inputs in [
        folder.join("corpus").join(kept),
        folder.join("regressions").join(target),
    ] {
        if inputs.is_dir() {
            command.arg(inputs);
        }
    }
    command.arg("--").args(LIMITS);
    command.arg(format!("-max_total_time={seconds}"));
    run::run(&mut command)
}

/// The sanitizers need nightly; cargo-fuzz knows how to call it.
fn ensure_toolchain() -> Result<()> {
    let nightly = Command::new("cargo")
        .args(["+nightly", "--version"])
        .output();
    if !nightly.is_ok_and(|output| output.status.success()) {
        let install = ["toolchain", "install", "nightly", "--profile", "minimal"];
        run::run(Command::new("rustup").args(install)).context(
            "fuzzing needs a nightly Rust: install rustup, or a toolchain that answers to `cargo +nightly`",
        )?;
    }
    if !run::installed("cargo-fuzz") {
        run::run(run::cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    Ok(())
}
