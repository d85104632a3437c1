//! `opengcs vm logs`, `vm stats` and `debug` of a VM that lives.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{SHARED, User};

pub(super) async fn logs_uses_and_a_bundle() -> Result<()> {
    let user = User::of_shared_vm().await?;
    let said = user.ok(&["vm", "logs", SHARED]).await?;
    ensure!(said.contains("console | gcs: +"), "{said}");
    ensure!(said.contains("monitor |"), "{said}");

    let last = ["vm", "logs", SHARED, "--log", "console", "--tail", "1"];
    let last = user.ok(&last).await?;
    let whole = user.ok(&["vm", "logs", SHARED, "--log", "console"]).await?;
    ensure!(
        last.lines().count() == 1 && whole.len() > last.len(),
        "{last}"
    );
    let lines = ["vm", "logs", SHARED, "--log", "console", "--json"];
    let lines = user.ok(&lines).await?;
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().context("none")?)?;
    ensure!(
        first["log"] == "console" && first["line"].is_string(),
        "{first}"
    );

    // What is written to the console comes to who follows it.
    let follow = ["vm", "logs", "-f", SHARED, "--log", "console"];
    let mut child = user.opengcs(&follow)?.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let write = "echo 'told on the console' > /dev/console";
    user.ok(&["exec", SHARED, "--", "sh", "-c", write]).await?;
    while let Some(line) = lines.next_line().await? {
        if line.contains("told on the console") {
            break;
        }
    }
    crate::faults::send(
        "-INT",
        child.id().context("it follows until it is told to stop")?,
    )?;
    let status = child.wait().await?;
    ensure!(status.code() == Some(130), "{status}");

    let uses = user.json(&["vm", "stats", SHARED, "--json"]).await?;
    let at_least = |part: &str, name: &str, least: u64| {
        let number = uses[part][name].as_u64();
        number.is_some_and(|number| number >= least)
    };
    ensure!(at_least("host", "memory", 16 << 20), "{uses}");
    ensure!(at_least("host", "processor_ns", 1), "{uses}");
    ensure!(at_least("guest", "memory_total", 256 << 20), "{uses}");
    ensure!(at_least("guest", "memory_used", 1 << 20), "{uses}");
    ensure!(at_least("guest", "processes", 2), "{uses}");

    let path = user.ok(&["debug", SHARED]).await?;
    let bundle = std::fs::read_to_string(path.trim()).with_context(|| path.clone())?;
    for part in [
        "==== console",
        "==== agent's stacks",
        "== mounts",
        "==== monitor's log",
    ] {
        ensure!(bundle.contains(part), "no {part} in {bundle}");
    }
    ensure!(
        path.starts_with(&user.path("state").display().to_string()),
        "{path}"
    );
    Ok(())
}
