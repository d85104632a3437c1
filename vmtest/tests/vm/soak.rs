//! Disks that come and go many times leave nothing; `cargo xtask soak` does it for longer.

use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use crate::fixture::test;

pub(crate) fn trials() -> Vec<Trial> {
    vec![test("soak::sixty_cycles_leave_nothing", sixty)]
}

/// In a program of its own, whose files and threads are its own to count.
async fn sixty() -> Result<()> {
    let soak = tokio::task::spawn_blocking(|| {
        Command::new(env!("CARGO_BIN_EXE_soak"))
            .args(["--cycles", "60"])
            .output()
    });
    let output = soak.await??;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("nothing has grown"),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
