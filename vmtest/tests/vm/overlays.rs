//! Layers stacked with overlayfs: few, very many, and with nothing to write to.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{
    Format, ScratchOptions, TarToDiskOptions, create_scratch, layer_vhd_details, tar_to_disk,
};
use opengcs::{OverlaySpec, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{config, error_of, in_full, nothing_stays_in, said, sh, shared, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("overlays::without_a_scratch_nothing_is_written", read_only),
        shared("overlays::a_layer_in_use_names_its_overlay", in_use),
        shared("overlays::five_hundred_layers_make_one_root", folders),
        test("overlays::a_disk_for_each_of_133_layers", many_disks),
    ]
}

/// A layer with one file of its own, and one that every layer has.
fn layer(folder: &TempDir, number: usize) -> Result<PathBuf> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in [format!("own-{number}"), "shared".to_owned()] {
        let content = format!("layer {number}\n");
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes())?;
    }
    let path = folder.path().join(format!("{number}.img"));
    let options = TarToDiskOptions {
        format: Format::Raw,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(tar.into_inner()?.as_slice(), &path, &options)?;
    Ok(path)
}

fn scratch(folder: &TempDir) -> Result<PathBuf> {
    let path = folder.path().join("sandbox.vhdx");
    let options = ScratchOptions {
        size: 64 << 20,
        ..ScratchOptions::default()
    };
    create_scratch(&path, &options)?;
    ensure!(layer_vhd_details(folder.path())?.is_sandbox);
    Ok(path)
}

async fn read_only(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let disks = [layer(&folder, 0)?, layer(&folder, 1)?];
    let places = ["/mnt/ro-0", "/mnt/ro-1"];
    for (disk, place) in disks.iter().zip(places) {
        vm.hot_add_vhd(disk, place, true, true).await?;
    }
    for layers in [&places[..1], &places[..]] {
        let mut overlay = OverlaySpec::new("/mnt/ro-root");
        for place in layers {
            overlay = overlay.layer(*place);
        }
        vm.combine_layers(&overlay).await?;
        let seen = said(&vm, "cd /mnt/ro-root && ls && cat shared").await?;
        let write = sh(&vm, "touch /mnt/ro-root/new").await?;
        vm.uncombine_layers("/mnt/ro-root").await?;
        ensure!(seen.contains("layer 0\n"), "{seen}");
        ensure!(
            seen.contains("own-1\n") == (layers.len() == 2),
            "{layers:?}: {seen}"
        );
        let error = String::from_utf8_lossy(&write.stderr);
        ensure!(error.to_lowercase().contains("read-only"), "{error}");
    }
    for disk in &disks {
        vm.hot_remove_vhd(disk).await?;
    }
    Ok(())
}

async fn in_use(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let (disk, sandbox) = (layer(&folder, 0)?, scratch(&folder)?);
    vm.hot_add_vhd(&disk, "/mnt/used", true, true).await?;
    vm.hot_add_vhd(&sandbox, "/mnt/used-scratch", false, true)
        .await?;
    let overlay = OverlaySpec::new("/mnt/used-root")
        .layer("/mnt/used")
        .scratch("/mnt/used-scratch");
    vm.combine_layers(&overlay).await?;
    let mut refused = Vec::new();
    for disk in [&disk, &sandbox] {
        refused.push(error_of(vm.hot_remove_vhd(disk).await)?.report());
    }
    let still = said(&vm, "cat /mnt/used-root/shared").await?;
    vm.uncombine_layers("/mnt/used-root").await?;
    for disk in [&disk, &sandbox] {
        vm.hot_remove_vhd(disk).await?;
    }
    ensure!(still == "layer 0\n", "{still}");
    for error in refused {
        ensure!(error.contains("the overlay at /mnt/used-root"), "{error}");
    }
    Ok(())
}

/// As many as the kernel takes, with names far longer than its page of options.
async fn folders(vm: Arc<UtilityVm>) -> Result<()> {
    const MOST: usize = 500;
    let folder = TempDir::new()?;
    let path = scratch(&folder)?;
    vm.hot_add_vhd(&path, "/mnt/many", false, true).await?;
    let long = "a-name-that-is-rather-long-for-a-layer";
    let script = format!(
        "cd /mnt/many; i=0; while [ $i -lt {MOST} ]; do mkdir {long}-$i; echo $i > {long}-$i/own-$i; \
         echo $i > {long}-$i/shared; i=$((i+1)); done"
    );
    said(&vm, &script).await?;
    let mut overlay = OverlaySpec::new("/mnt/many-root").scratch("/mnt/many/scratch");
    for number in 0..MOST {
        overlay = overlay.layer(format!("/mnt/many/{long}-{number}"));
    }
    vm.combine_layers(&overlay).await?;
    let seen = said(
        &vm,
        "cd /mnt/many-root; ls | wc -l; cat shared own-499; echo > new; ls /run",
    )
    .await?;
    let error = error_of(vm.hot_remove_vhd(&path).await)?.report();
    vm.uncombine_layers("/mnt/many-root").await?;
    let upper = said(&vm, "ls /mnt/many/scratch/upper").await?;
    vm.hot_remove_vhd(&path).await?;
    ensure!(seen.starts_with("501\n0\n499\n"), "{seen}");
    ensure!(!seen.contains("gcs-layers"), "{seen}");
    ensure!(error.contains("the overlay at /mnt/many-root"), "{error}");
    ensure!(upper == "new\n", "{upper}");
    Ok(())
}

/// Three controllers full or in use, and every one of the layers seen.
async fn many_disks() -> Result<()> {
    const LAYERS: usize = 133;
    let folder = TempDir::new()?;
    let runtime = TempDir::new()?;
    let mut config = config(runtime.path())?;
    config.scsi_controllers = 4;
    let vm = UtilityVm::start(config).await.map_err(in_full)?;
    let mut overlay = OverlaySpec::new("/mnt/root").scratch("/mnt/scratch");
    let mut disks = Vec::new();
    for number in 0..LAYERS {
        let place = format!("/run/mounts/scsi/a-layer-with-a-long-name-{number}");
        let disk = layer(&folder, number)?;
        let added = vm.hot_add_vhd(&disk, &place, true, true).await?;
        let slot = usize::from(added.controller) * 64 + usize::from(added.lun);
        ensure!(slot == number, "layer {number} is at {slot}");
        overlay = overlay.layer(place);
        disks.push(disk);
    }
    let sandbox = scratch(&folder)?;
    vm.hot_add_vhd(&sandbox, "/mnt/scratch", false, true)
        .await?;
    vm.combine_layers(&overlay).await?;
    let seen = said(
        &vm,
        "cd /mnt/root; ls -d own-* | wc -l; cat own-* | sort -u | wc -l; cat shared own-132; \
         rm own-64; ls -d own-* | wc -l",
    )
    .await?;
    ensure!(
        seen == format!("{LAYERS}\n{LAYERS}\nlayer 0\nlayer 132\n{}\n", LAYERS - 1),
        "{seen}"
    );
    vm.uncombine_layers("/mnt/root").await?;
    vm.hot_remove_vhd(&sandbox).await?;
    // From the middle outwards, so that slots become free in no order.
    disks.sort_by_key(|disk| disk.as_os_str().len());
    for disk in &disks {
        vm.hot_remove_vhd(disk).await?;
    }
    ensure!(vm.disks().is_empty());
    let left = said(&vm, "ls /sys/block; cat /proc/mounts").await?;
    ensure!(
        !left.contains("sda") && !left.contains("/mnt/"),
        "left: {left}"
    );
    vm.stop().await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
