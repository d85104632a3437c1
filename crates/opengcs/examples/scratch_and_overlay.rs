//! A program changes a layer without changing it: `scratch_and_overlay LAYER.vhd FOLDER PROGRAM…`.
//!
//! The program sees the layer as its root and may write to it. What it writes is in FOLDER/sandbox.vhdx
//! afterwards; the example `export_sandbox` makes a tar of it.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::path::Path;

use opengcs::layer::SANDBOX_FILE;
use opengcs::{Config, DEFAULT_VHDX_SIZE_GB, Output, OverlaySpec, UtilityVm};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [layer, folder, program @ ..] = arguments.as_slice() else {
        return Err("usage: scratch_and_overlay LAYER.vhd FOLDER PROGRAM…".into());
    };

    // 20 GB that take some MiB until something is written. The cache makes the next one a copy.
    let folder = Path::new(folder);
    let sandbox = folder.join(SANDBOX_FILE);
    let cache = folder.join("cache.vhdx");
    opengcs::create_ext4_vhdx(&sandbox, DEFAULT_VHDX_SIZE_GB, Some(&cache))?;

    let vm = UtilityVm::start(Config::generate_default(["lcow.timeout=120"])?).await?;
    let output = in_overlay(&vm, layer.as_ref(), &sandbox, program).await;
    vm.stop().await?;

    let Output {
        status,
        stdout,
        stderr,
    } = output?;
    print!("{}", String::from_utf8_lossy(&stdout));
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        return Err(format!("{program:?} failed: {status}: {stderr}").into());
    }
    Ok(())
}

async fn in_overlay(
    vm: &UtilityVm,
    layer: &Path,
    sandbox: &Path,
    program: &[String],
) -> opengcs::Result<Output> {
    // When this returns the guest has the disk and has mounted it.
    vm.hot_add_vhd(layer, "/mnt/layer", true, true).await?;
    vm.hot_add_vhd(sandbox, "/mnt/sandbox", false, true).await?;

    let overlay = OverlaySpec::new("/mnt/root")
        .layer("/mnt/layer")
        .scratch("/mnt/sandbox");
    vm.combine_layers(&overlay).await?;

    let mut words = vec!["chroot", "/mnt/root"];
    words.extend(program.iter().map(String::as_str));
    let output = vm.output(words, 1 << 20).await?;

    vm.uncombine_layers("/mnt/root").await?;
    vm.hot_remove_vhd(sandbox).await?;
    vm.hot_remove_vhd(layer).await?;
    Ok(output)
}
