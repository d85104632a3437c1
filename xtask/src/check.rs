//! What must be clean before a change is shown to anybody.

use anyhow::Result;

use crate::{run, tidy};

/// Formatting, lints, documentation, house rules.
pub(crate) fn run() -> Result<()> {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))?;
    run::run(run::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]))?;
    run::run(
        run::cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    tidy::run()
}
