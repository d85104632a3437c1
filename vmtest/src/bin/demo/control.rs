//! The steps in the VM: start, stack, run, change, export, remove, stop.

use std::path::Path;

use anyhow::{Result, ensure};
use opengcs::{Config, Environment, OverlaySpec, ProcessSpec, RequestedMode, UtilityVm};
use tokio::io::AsyncReadExt as _;
use vmtest::tree::{Tree, digest};

use crate::bytes::Layer;
use crate::report::{Report, mib};

const LAYER: &str = "/mnt/layer";
const SANDBOX: &str = "/mnt/sandbox";
const ROOT: &str = "/mnt/root";
const ROUND_TRIP: usize = 64 << 20;

/// Starts a VM from kernel and initrd.
///
/// Its private files are in `folder`, so that the last step can see whether one is left.
pub(crate) async fn start(report: &mut Report, folder: &Path) -> Result<UtilityVm> {
    report.step("a utility VM from kernel and initrd");
    let mut config = Config::generate_default(["lcow.timeout=120"])?;
    config.name = "demo".into();
    config.environment = Environment::fixed([("XDG_RUNTIME_DIR", folder)]);
    config.requested_mode = RequestedMode::KernelInitrd;
    let mode = config.validate()?;
    report.result(&format!("Config::validate: {mode:?}"));
    let vm = UtilityVm::start(config).await?;
    report.result("UtilityVm::start: up, the bridge speaks protocol 4");
    let machine = vm.describe();
    report.note(&format!(
        "{} {} with {}: {}",
        machine.hypervisor, machine.chipset, machine.acceleration, machine.acceleration_reason
    ));
    Ok(vm)
}

/// Adds both disks and stacks them.
pub(crate) async fn stack(
    report: &mut Report,
    vm: &UtilityVm,
    layer: &Layer,
    sandbox: &Path,
) -> Result<()> {
    report.step("two hot-added disks, stacked with overlayfs");
    let slot = vm.hot_add_vhd(&layer.vhd, LAYER, true, true).await?;
    report.result(&format!(
        "hot_add_vhd: layer.vhd read-only at {LAYER} (controller {}, LUN {})",
        slot.controller, slot.lun
    ));
    let slot = vm.hot_add_vhd(sandbox, SANDBOX, false, true).await?;
    report.result(&format!(
        "hot_add_vhd: sandbox.vhdx at {SANDBOX} (controller {}, LUN {})",
        slot.controller, slot.lun
    ));
    let overlay = OverlaySpec::new(ROOT).layer(LAYER).scratch(SANDBOX);
    vm.combine_layers(&overlay).await?;
    report.result(&format!("combine_layers: both at {ROOT}"));
    Ok(())
}

/// Runs programs of the layer, and moves bytes through one.
pub(crate) async fn run_programs(report: &mut Report, vm: &UtilityVm) -> Result<()> {
    report.step("programs of the layer run in the VM");
    let said = script(vm, "bash --version | head -n 1; uname -sr").await?;
    report.result("run_process: bash of the layer");
    report.note(&said);

    let output = vm
        .output(in_root("echo to stdout; echo to stderr >&2; exit 42"), 4096)
        .await?;
    ensure!(output.stdout == b"to stdout\n" && output.stderr == b"to stderr\n");
    ensure!(output.status.code() == 42, "exit code {}", output.status);
    report.result("stdout and stderr apart, exit code 42 comes back");

    let sent: Vec<u8> = noise().take(ROUND_TRIP).collect();
    let mut received = Vec::with_capacity(ROUND_TRIP);
    let cat = ProcessSpec::new(["chroot", ROOT, "cat"]);
    let status = vm
        .run_process_with(cat, sent.as_slice(), &mut received, tokio::io::sink())
        .await?;
    ensure!(status.success(), "cat ended with {status}");
    let (sent, received) = (
        digest(&mut sent.as_slice())?,
        digest(&mut received.as_slice())?,
    );
    ensure!(sent == received, "{sent} went in and {received} came out");
    report.result(&format!(
        "{} from stdin to stdout, SHA-256 {}… both ways",
        mib(ROUND_TRIP as u64),
        &sent[..16]
    ));
    Ok(())
}

/// Adds, changes, deletes and replaces in the overlay, and exports the sandbox while it is mounted.
pub(crate) async fn change_and_export(
    report: &mut Report,
    vm: &UtilityVm,
    sandbox: &Path,
) -> Result<Tree> {
    report.step("the overlay is changed, and the live sandbox exported");
    script(vm, "echo added > /odd/added").await?;
    script(vm, "echo changed >> '/odd/before 1970'").await?;
    script(vm, "rm /odd/empty").await?;
    script(
        vm,
        "rm -r /odd/folder; mkdir /odd/folder; echo new > /odd/folder/new",
    )
    .await?;
    report.result("one file added, one changed, one deleted, a folder replaced");

    let mut stream = vm.vhd_to_tar(sandbox, Some(SANDBOX), true, None).await?;
    let mut tar = Vec::new();
    stream.read_to_end(&mut tar).await?;
    let tree = Tree::from_tar(tar.as_slice())?;
    report.result(&format!("vhd_to_tar: {} entries", tree.len()));
    for (path, kind) in [
        ("odd/added", "file"),
        ("odd/before 1970", "file"),
        ("odd/.wh.empty", "file"),
        ("odd/folder", "directory"),
        ("odd/folder/.wh..wh..opq", "file"),
        ("odd/folder/new", "file"),
    ] {
        let node = tree.at(path);
        ensure!(
            node.is_some_and(|node| node.kind == kind),
            "{path}: {node:?}"
        );
    }
    for path in tree.paths() {
        report.note(&path);
    }
    Ok(tree)
}

/// Takes it all apart and stops the VM.
pub(crate) async fn remove_and_stop(
    report: &mut Report,
    vm: &UtilityVm,
    layer: &Layer,
    sandbox: &Path,
) -> Result<()> {
    report.step("the disks are removed and the VM stops");
    vm.uncombine_layers(ROOT).await?;
    vm.hot_remove_vhd(sandbox).await?;
    vm.hot_remove_vhd(&layer.vhd).await?;
    report.result("hot_remove_vhd: both");
    let how = vm.stop().await?;
    report.result(&format!("stop: {how:?}"));
    Ok(())
}

/// A script for the layer's own shell, with the overlay as its root.
fn in_root(script: &str) -> ProcessSpec {
    ProcessSpec::new(["chroot", ROOT, "/bin/bash", "-c", script])
}

async fn script(vm: &UtilityVm, script: &str) -> Result<String> {
    let output = vm.output(in_root(script), 1 << 20).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{script}: {}: {stderr}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Bytes without a pattern that a broken relay could hide behind.
fn noise() -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
}
