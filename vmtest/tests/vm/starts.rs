//! VMs that do not come up: each says why, in time, and leaves nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use opengcs::{Config, Error, ErrorKind, MappedVirtualDisk, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{config, config_with, nothing_in, odd_tar, said, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("starts::without_qemu_it_says_what_to_install", no_qemu),
        test("starts::without_a_kernel_the_path_is_named", no_kernel),
        test("starts::a_kernel_that_is_none_is_told", bad_kernel),
        test("starts::a_guest_that_panics_ends_the_start_at_once", panics),
        test(
            "starts::a_guest_that_never_dials_is_given_up_in_time",
            never_dials,
        ),
        test("starts::mapped_disks_are_there_from_the_start", mapped),
        test(
            "starts::a_mapped_disk_that_cannot_be_mounted_ends_the_vm",
            bad_mapped,
        ),
    ]
}

/// Starts a VM that must fail, and sees that nothing of it is left.
async fn failure(config: Config, runtime: &TempDir) -> Result<Error> {
    let error = match UtilityVm::start(config).await {
        Ok(vm) => {
            vm.terminate().await;
            anyhow::bail!("the VM came up");
        }
        Err(error) => error,
    };
    ensure!(!error.report().contains('\n'), "{}", error.report());
    nothing_in(runtime.path())?;
    Ok(error)
}

async fn no_qemu() -> Result<()> {
    let runtime = TempDir::new()?;
    let mut config = config(runtime.path())?;
    config.hypervisor = Some("/no/such/qemu-system-x86_64".into());
    let error = failure(config, &runtime).await?;
    ensure!(error.kind() == ErrorKind::NotFound, "{:?}", error.kind());
    let text = error.report();
    ensure!(text.contains("/no/such/qemu-system-x86_64"), "{text}");
    ensure!(text.contains("install"), "{text}");
    Ok(())
}

async fn no_kernel() -> Result<()> {
    let runtime = TempDir::new()?;
    let config = config_with(runtime.path(), &["lcow.kernel=missing.efi"])?;
    let error = failure(config, &runtime).await?;
    ensure!(error.report().contains("missing.efi"), "{}", error.report());
    Ok(())
}

async fn bad_kernel() -> Result<()> {
    let (runtime, data) = (TempDir::new()?, TempDir::new()?);
    let mut config = config(runtime.path())?;
    std::fs::write(data.path().join("bootx64.efi"), vec![0x42; 100_000])?;
    std::fs::copy(
        config.data_dir().join("initrd.img"),
        data.path().join("initrd.img"),
    )?;
    config.options.kird_path = data.path().to_owned();
    let error = failure(config, &runtime).await?;
    ensure!(error.report().contains("bootx64.efi"), "{}", error.report());
    Ok(())
}

async fn panics() -> Result<()> {
    let (runtime, bundles) = (TempDir::new()?, TempDir::new()?);
    let mut config = config_with(
        runtime.path(),
        &["lcow.bootparameters=rdinit=/no/such/init"],
    )?;
    config.bundle_dir = Some(bundles.path().to_owned());
    let error = failure(config, &runtime).await?;
    ensure!(
        error.kind() == ErrorKind::MachineEnded,
        "{}",
        error.report()
    );
    let detail = error.detail().unwrap_or_default();
    ensure!(detail.to_lowercase().contains("panic"), "{detail}");
    // What the kernel had said quietly comes to the console when it panics.
    ensure!(detail.contains("Linux version"), "{detail}");
    let bundle = error.bundle().context("the error points to a bundle")?;
    ensure!(error.report().contains(&bundle.display().to_string()));
    let text = std::fs::read_to_string(bundle)?;
    for section in ["command line", "configuration", "console", "agent's log"] {
        ensure!(text.contains(&format!("==== {section}")), "{text}");
    }
    Ok(())
}

async fn never_dials() -> Result<()> {
    let runtime = TempDir::new()?;
    let options = ["lcow.bootparameters=rdinit=/bin/cat", "lcow.timeout=15"];
    let config = config_with(runtime.path(), &options)?;
    // Far more than the timeout, and far less than for ever.
    let limit = Duration::from_secs(100);
    let error = tokio::time::timeout(limit, failure(config, &runtime)).await??;
    ensure!(error.kind() == ErrorKind::Timeout, "{}", error.report());
    Ok(())
}

async fn mapped() -> Result<()> {
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let layer = folder.path().join("layer.vhd");
    opengcs::tar_to_vhd(&layer, odd_tar()?.as_slice())?;
    let mut config = config(runtime.path())?;
    let disk = MappedVirtualDisk::new(&layer, "/mnt/mapped").read_only(true);
    config.mapped_virtual_disks.push(disk);
    let vm = UtilityVm::start(config).await?;
    let text = said(&vm, "cat '/mnt/mapped/odd/before 1970'").await?;
    ensure!(text == "old", "{text}");
    vm.stop().await?;
    drop(vm);
    nothing_in(runtime.path())
}

async fn bad_mapped() -> Result<()> {
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let noise = folder.path().join("noise.img");
    std::fs::write(&noise, vec![0x5a; 1 << 20])?;
    let mut config = config(runtime.path())?;
    let disk = MappedVirtualDisk::new(&noise, "/mnt/noise");
    config.mapped_virtual_disks.push(disk);
    let error = failure(config, &runtime).await?;
    ensure!(error.report().contains("noise.img"), "{}", error.report());
    Ok(())
}
