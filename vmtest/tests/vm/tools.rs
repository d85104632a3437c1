//! The guest's own tools, which the original client started by name.

use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::UtilityVm;
use tempfile::TempDir;

use crate::fixture::{odd_tar, sh, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("tools::guest_and_host_make_the_same_disk", same_disk),
        shared("tools::bad_input_is_told_on_stderr", bad_input),
    ]
}

async fn run(vm: &UtilityVm, tool: &str, input: &[u8]) -> Result<Vec<u8>> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = vm.run_process_with(tool, input, &mut out, &mut err).await?;
    ensure!(
        status.success(),
        "{tool}: {status}: {}",
        String::from_utf8_lossy(&err)
    );
    Ok(out)
}

async fn same_disk(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let tar = odd_tar()?;
    let host = folder.path().join("layer.vhd");
    opengcs::tar_to_vhd(&host, tar.as_slice())?;
    let host = std::fs::read(&host)?;
    let guest = run(&vm, "tar2vhd", &tar).await?;
    ensure!(guest == host, "{} and {} bytes", guest.len(), host.len());
    let mut back = Vec::new();
    std::io::copy(
        &mut opengcs::vhd_to_tar(folder.path().join("layer.vhd"), false, None)?,
        &mut back,
    )?;
    ensure!(run(&vm, "vhd2tar", &host).await? == back);
    Ok(())
}

async fn bad_input(vm: Arc<UtilityVm>) -> Result<()> {
    for script in [
        "head -c 3000 /dev/urandom | tar2vhd",
        "head -c 3000 /dev/urandom | vhd2tar",
        "exportSandbox -path /no/such/folder",
    ] {
        let output = sh(&vm, script).await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{script} succeeded");
        ensure!(text.trim().lines().count() == 1, "{script}: {text}");
    }
    Ok(())
}
