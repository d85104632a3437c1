//! How a monitor and its VM end when nobody says `vm stop`.

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt as _;

use super::{START, User, only_vms_in};
use crate::faults::{is_gone, runs, send};
use crate::fixture::nothing_in;

/// Two starts of one name; then the hypervisor is killed, which is told until the name is taken again.
pub(super) async fn death() -> Result<()> {
    let user = User::new()?;
    let start = [&["vm", "start", "a"], START].concat();
    let (one, other) = tokio::join!(user.run(&start, b""), user.run(&start, b""));
    let (one, other) = (one?, other?);
    let (up, told) = if one.code == Some(0) {
        (one, other)
    } else {
        (other, one)
    };
    ensure!(up.code == Some(0), "{}{}", up.stderr, told.stderr);
    ensure!(told.code == Some(1), "{:?}: {}", told.code, told.stderr);
    ensure!(
        told.stderr.contains("there is a VM a already"),
        "{}",
        told.stderr
    );

    // A process of a client ends with the VM.
    let mut child = user
        .opengcs(&["exec", "a", "--", "sh", "-c", "echo ready; exec sleep 1005"])?
        .spawn()?;
    let mut stdout = child.stdout.take().context("no output")?;
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).await?;
    let monitor = user.number("a", "monitor_pid").await?;
    send("-KILL", user.number("a", "hypervisor_pid").await?)?;
    let status = child.wait().await?;
    ensure!(status.code() == Some(125), "{status}");
    is_gone(monitor).await?;

    let reason = "killed by signal 9";
    let listed = user.ok(&["vm", "ls"]).await?;
    ensure!(
        listed.contains("ended") && listed.contains(reason),
        "{listed}"
    );
    user.fails(&["exec", "a", "--", "true"], 125, &["a has ended", reason])
        .await?;
    let said = user.ok(&["vm", "logs", "a", "--log", "console"]).await?;
    ensure!(said.contains("gcs: +"), "{said}");
    let shown = user.json(&["vm", "inspect", "a", "--json"]).await?;
    let bundle = shown["bundle"].as_str().context("no bundle")?;
    ensure!(std::fs::read_to_string(bundle)?.contains("==== console"));
    let stopped = user.ok(&["vm", "stop", "a"]).await?;
    ensure!(stopped.contains(reason), "{stopped}");
    nothing_in(&user.vms())?;
    only_vms_in(&user.path("run")).await
}

/// SIGKILL leaves nobody to clear up: the hypervisor goes, and the next look clears the name.
pub(super) async fn killed() -> Result<()> {
    let user = User::new()?;
    user.ok(&[&["vm", "start", "a"], START].concat()).await?;
    let hypervisor = user.number("a", "hypervisor_pid").await?;
    let monitor = user.number("a", "monitor_pid").await?;
    ensure!(runs(hypervisor));
    send("-KILL", monitor)?;
    is_gone(hypervisor).await?;
    is_gone(monitor).await?;
    // The first that comes may also be a start; this one gets as far as its hypervisor.
    let mut start = user.opengcs(&[&["vm", "start", "a"], START].concat())?;
    let output = start.env("PATH", "").output().await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("hint: install QEMU"), "{said}");
    ensure!(user.ok(&["vm", "ls", "--json"]).await? == "[]\n");
    nothing_in(&user.vms())?;
    only_vms_in(&user.path("run")).await
}

/// Ctrl-C while a VM starts ends what was started of it.
pub(super) async fn interrupted() -> Result<()> {
    let user = User::new()?;
    let start = [&["vm", "start", "a"], START].concat();
    let child = user.opengcs(&start)?.spawn()?;
    let pid = child.id().context("it runs")?;
    // It listens as soon as it has its name, long before the VM is up.
    let socket = user.vms().join("a/monitor.sock");
    while !socket.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let listed = user.json(&["vm", "ls", "--json"]).await?;
    let state = listed[0]["state"].as_str().unwrap_or_default().to_owned();
    let monitor = listed[0]["monitor_pid"].as_u64().context("no monitor")?;
    user.fails(&["exec", "a", "--", "true"], 125, &["a"])
        .await?;
    send("-INT", pid)?;
    let output = child.wait_with_output().await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        state == "starting" && output.status.code() == Some(130),
        "{state}: {said}"
    );
    is_gone(u32::try_from(monitor)?).await?;
    nothing_in(&user.vms())?;
    only_vms_in(&user.path("run")).await
}
