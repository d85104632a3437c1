//! The road of control: starting, running, moving bytes and disks in one VM.

mod boot;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use opengcs::layer::{ScratchOptions, create_scratch};
use opengcs::{Config, RequestedMode, UtilityVm};

use crate::pairs::quantile;
use crate::row::{Row, Table};
use crate::scale::Scale;
use crate::streams;

/// Measures every row that needs a VM. What they stand against is measured with the machine's tests.
pub(crate) async fn measure(scale: &Scale, table: &mut Table) -> Result<()> {
    if scale.wants("boot") {
        boot::measure(scale, table).await?;
    }
    if !scale.wants_all() {
        return Ok(());
    }
    let vm = start().await?;
    exec(&vm, table).await?;
    disks(&vm, scale, table).await?;
    vm.stop().await?;
    streams::measure(config()?, scale, table).await
}

fn config() -> Result<Config> {
    let mut config = Config::generate_default(["lcow.timeout=120"])?;
    config.requested_mode = RequestedMode::KernelInitrd;
    Ok(config)
}

async fn start() -> Result<UtilityVm> {
    Ok(UtilityVm::start(config()?).await?)
}

async fn exec(vm: &UtilityVm, table: &mut Table) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        vm.output("true", 16).await?;
        times.push(started.elapsed());
    }
    // The same program, spawned and waited for by a program in the guest.
    let script = "s=$(cut -d' ' -f1 /proc/uptime); for i in $(seq 200); do /bin/busybox true; done; \
                  e=$(cut -d' ' -f1 /proc/uptime); echo $s $e";
    let output = vm.output(["sh", "-c", script], 4096).await?;
    let text = String::from_utf8(output.stdout)?;
    let ends: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(ends.len() == 2, "the guest said {text:?}");
    table.add(Row {
        what: "exec true, p50".into(),
        ours: format!("{:.1} ms", millis(quantile(&mut times, 50))),
        against: format!(
            "spawn and wait in the guest, {:.1} ms",
            (ends[1] - ends[0]) * 5.0
        ),
        ratio: None,
        aim: "+ 3 ms",
        ..Row::default()
    });
    Ok(())
}

async fn disks(vm: &UtilityVm, scale: &Scale, table: &mut Table) -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let disk = folder.path().join("scratch.vhdx");
    create_scratch(&disk, &ScratchOptions::default())?;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for _ in 0..scale.disks {
        let started = Instant::now();
        vm.hot_add_vhd(&disk, "/mnt/bench", false, true).await?;
        added.push(started.elapsed());
        let started = Instant::now();
        vm.hot_remove_vhd(&disk).await?;
        removed.push(started.elapsed());
    }
    for (what, times) in [
        ("hot-add with mount", &mut added),
        ("hot-remove", &mut removed),
    ] {
        let (middle, worst) = (quantile(times, 50), quantile(times, 99));
        let met = middle <= Duration::from_millis(50) && worst <= middle * 4;
        table.add(Row {
            what: format!("{what}, p50 and p99 of {}", times.len()),
            ours: format!("{:.0} ms, {:.0} ms", millis(middle), millis(worst)),
            against: "-".into(),
            ratio: None,
            aim: "≤ 50 ms, ≤ 4 × p50",
            met: Some(met),
            ..Row::default()
        });
    }
    Ok(())
}

/// Milliseconds with their fraction.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
