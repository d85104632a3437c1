//! A VM's start against the floor: the same machine, with an init that powers off at once.
//!
//! Ours is timed from the call to the negotiated bridge, the floor from the call to the end of QEMU's
//! process. The machine's configuration, and so QEMU's command line, are the same but for the initrd. Both have turns
//! in each pair, and who begins changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use opengcs::guest::cpio;
use opengcs::machine::qemu::Qemu;
use opengcs::machine::{Boot, Error, ErrorKind, ExitReason, Machine as _, MachineConfig};
use opengcs::{Chipset, Config, RequestedMode, Timeline, UtilityVm};
use tempfile::TempDir;

use crate::pairs::{Pairs, Turn};
use crate::row::{Row, Table};
use crate::scale::Scale;

/// A program of one system call: `reboot(…, LINUX_REBOOT_CMD_POWER_OFF)`. An ELF header, a program
/// header, and the code.
const POWER_OFF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\
    \x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
    \x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\
    \x90\0\0\0\0\0\0\0\x90\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\
    \xb8\xa9\0\0\0\xbf\xad\xde\xe1\xfe\xbe\x69\x19\x12\x28\xba\xdc\xfe\x21\x43\x0f\x05\xeb\xfe";

pub(super) async fn measure(scale: &Scale, table: &mut Table) -> Result<()> {
    for (chipset, name) in [(Chipset::MicroVm, "microvm"), (Chipset::Q35, "q35")] {
        let folder = TempDir::new()?;
        let initrd = folder.path().join("power-off.img");
        std::fs::write(&initrd, power_off_initrd()?)?;
        let floor = floor_machine(chipset, &initrd, folder.path()).await?;
        let mut pairs = Pairs::default();
        let mut timelines = Vec::new();
        for pair in 0..scale.pairs.max(1) {
            let (ours, theirs);
            if pair % 2 == 0 {
                ours = start(chipset).await?;
                theirs = power_off(floor.clone()).await?;
            } else {
                theirs = power_off(floor.clone()).await?;
                ours = start(chipset).await?;
            }
            timelines.push(ours.1);
            pairs.ours.add(&turn(ours.0));
            pairs.theirs.add(&turn(theirs));
        }
        let what = format!("start to a negotiated bridge, {name}");
        let row = Row::of(&what, "an init that powers off at once", pairs);
        table.add(row.aiming("≤ 1.15", 1.15));
        stages(name, &timelines, table);
    }
    Ok(())
}

fn turn(time: Duration) -> Turn {
    Turn { time, peak: None }
}

/// The middle of the times at which each stage was reached.
fn stages(machine: &str, timelines: &[Timeline], table: &mut Table) {
    let Some(first) = timelines.first() else {
        return;
    };
    for stage in first.stages.iter().skip(1) {
        let mut times: Vec<f64> = timelines
            .iter()
            .filter_map(|timeline| {
                timeline
                    .stages
                    .iter()
                    .find(|other| other.name == stage.name)
            })
            .map(|stage| stage.at_ms)
            .collect();
        times.sort_by(f64::total_cmp);
        table.add(Row {
            what: format!("  {} after, {machine}", stage.name),
            ours: format!("{:.0} ms", times[(times.len() - 1) / 2]),
            against: "-".into(),
            aim: "-",
            ..Row::default()
        });
    }
}

fn config(chipset: Chipset) -> Result<Config> {
    let mut config = Config::generate_default(["lcow.timeout=120"])?;
    config.requested_mode = RequestedMode::KernelInitrd;
    config.chipset = chipset;
    Ok(config)
}

async fn start(chipset: Chipset) -> Result<(Duration, Timeline)> {
    let config = config(chipset)?;
    let started = Instant::now();
    let vm = UtilityVm::start(config).await?;
    let time = started.elapsed();
    let timeline = vm.timeline();
    vm.stop().await?;
    Ok((time, timeline))
}

async fn power_off(config: MachineConfig) -> Result<Duration> {
    let started = Instant::now();
    let machine = Qemu::start(config).await?;
    let exit = machine.wait().await;
    let time = started.elapsed();
    ensure!(exit.reason == ExitReason::PoweredOff, "the floor: {exit}");
    Ok(time)
}

/// The machine that a VM would have had, with another initrd.
async fn floor_machine(chipset: Chipset, initrd: &Path, folder: &Path) -> Result<MachineConfig> {
    let mut taken = None;
    let made = UtilityVm::start_on(config(chipset)?, |machine| {
        taken = Some(machine);
        Err(Error::new(
            ErrorKind::StartFailed,
            "only its configuration was wanted",
        ))
    });
    ensure!(made.await.is_err());
    let mut machine = taken.context("no machine was asked for")?;
    machine.runtime_dir = PathBuf::from(folder);
    if let Boot::LinuxKernel { initrd: slot, .. } = &mut machine.boot {
        *slot = Some(initrd.to_owned());
    }
    Ok(machine)
}

fn power_off_initrd() -> Result<Vec<u8>> {
    let mut archive = cpio::Writer::new(Vec::new());
    archive.directory("dev", 0o755)?;
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, POWER_OFF)?;
    Ok(archive.finish()?)
}
