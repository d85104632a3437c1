//! `opengcs disk`: added, listed, held, and taken away by either of its names.

use anyhow::{Result, ensure};
use opengcs::layer::{ScratchOptions, create_scratch};
use serde_json::json;

use super::{SHARED, User};
use crate::fixture::odd_tar;

pub(super) async fn come_and_go() -> Result<()> {
    let user = User::of_shared_vm().await?;
    let work = user.path("work");
    opengcs::tar_to_vhd(work.join("layer.vhd"), odd_tar()?.as_slice())?;
    let options = ScratchOptions {
        size: 64 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&work.join("scratch.vhdx"), &options)?;

    user.ok(&["disk", "add", SHARED, "layer.vhd", "/mnt/l", "--read-only"])
        .await?;
    let said = user
        .ok(&["exec", SHARED, "--", "cat", "/mnt/l/odd/before 1970"])
        .await?;
    ensure!(said == "old", "{said}");
    let added = user
        .json(&["disk", "add", SHARED, "scratch.vhdx", "--json"])
        .await?;
    ensure!(added["guest_path"] == "/mnt/scratch", "{added}");
    ensure!(added["size"] == 64 << 20, "{added}");

    let listed = user.json(&["disk", "ls", SHARED, "--json"]).await?;
    let file = |name: &str| json!(work.join(name).canonicalize().ok());
    ensure!(
        listed.as_array().is_some_and(|list| list.len() == 2),
        "{listed}"
    );
    ensure!(
        listed[0]["file"] == file("layer.vhd") && listed[0]["read_only"] == true,
        "{listed}"
    );
    ensure!(
        listed[1]["file"] == file("scratch.vhdx") && listed[1]["lun"] == 1,
        "{listed}"
    );
    let table = user.ok(&["disk", "ls", SHARED]).await?;
    let rows: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().count())
        .collect();
    ensure!(rows == [5, 6, 6], "{table}");

    user.fails(
        &["disk", "add", SHARED, "layer.vhd"],
        1,
        &["layer.vhd", "already"],
    )
    .await?;
    user.fails(&["disk", "add", SHARED, "none.vhd"], 1, &["none.vhd"])
        .await?;
    user.fails(&["disk", "rm", SHARED, "none.vhd"], 1, &["none.vhd"])
        .await?;

    // Who holds a mount is named.
    let id = user
        .ok(&[
            "exec",
            "-d",
            "-w",
            "/mnt/scratch",
            SHARED,
            "--",
            "sleep",
            "1004",
        ])
        .await?;
    let holder = format!("process {} (sleep)", id.trim());
    user.fails(&["disk", "rm", SHARED, "scratch.vhdx"], 1, &[&holder])
        .await?;
    user.ok(&["exec", SHARED, "--", "kill", id.trim()]).await?;
    user.process_goes(SHARED, "sleep 1004").await?;

    user.ok(&["disk", "rm", SHARED, "scratch.vhdx"]).await?;
    user.ok(&["disk", "rm", SHARED, "/mnt/l/"]).await?;
    ensure!(user.ok(&["disk", "ls", SHARED, "--json"]).await? == "[]\n");

    let place = user
        .ok(&[
            "disk",
            "add",
            SHARED,
            "layer.vhd",
            "--no-mount",
            "--read-only",
        ])
        .await?;
    let device = place.split_whitespace().last().unwrap_or_default();
    user.ok(&["exec", SHARED, "--", "test", "-b", device])
        .await?;
    user.ok(&["disk", "rm", SHARED, device]).await?;
    Ok(())
}
