//! What must be clean before a change is shown to anybody.

use anyhow::Result;
use clap::Args;

use crate::{book, run, tidy, windows};

/// What `cargo xtask check` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the lints of the host side for Windows; adds the Rust target and mingw where they are missing.
    #[arg(long)]
    windows: bool,
}

/// Formatting, lints, documentation, house rules, the book's links and quotes.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.windows {
        return windows::check();
    }
    run::run(run::cargo().args(["fmt", "--all", "--check"]))?;
    run::run(run::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]))?;
    run::run(
        run::cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    tidy::run()?;
    book::checks()
}
