//! The main job from end to end, on whatever machine this is.

use anyhow::Result;

use crate::{guest, host, run};

/// Installs what is missing, prepares the guest, and runs the demonstration.
pub(crate) fn run() -> Result<()> {
    host::ensure(host::DEMO)?;
    let data = guest::prepare()?;
    run::run(
        run::cargo()
            .args([
                "run",
                "--quiet",
                "--release",
                "--package",
                "vmtest",
                "--bin",
                "demo",
            ])
            .env("OPENGCS_DATA_DIR", &data),
    )
}
