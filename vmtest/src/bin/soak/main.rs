//! Adds disks to one VM and removes them, thousands of times, and fails when anything grows.
//!
//! Each cycle looks at what is on the disk. Now and then everything that could grow is counted, on both
//! sides: open files, memory, mounts, devices, processes, and what the guest's kernel complains of. The
//! first count, after a warm-up, is what the last one is held against.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it says how far it is, and its verdict"
)]

mod counts;
mod cycle;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use opengcs::{Config, RequestedMode, UtilityVm};

use counts::Counts;
use cycle::{Disks, Times};

const USAGE: &str = "usage: cargo xtask soak [--cycles N]";

/// As many as a VM of some weeks sees.
const CYCLES: u64 = 10_000;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let cycles = match words.as_slice() {
        [] => CYCLES,
        [flag, number] if flag == "--cycles" => number.parse().ok().context(USAGE)?,
        _ => bail!(USAGE),
    };
    ensure!(cycles > 0, USAGE);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(soak(cycles))
}

async fn soak(cycles: u64) -> Result<()> {
    let mut config = Config::generate_default(["lcow.timeout=120"])?;
    config.requested_mode = RequestedMode::KernelInitrd;
    let vm = UtilityVm::start(config).await?;
    let mut disks = Disks::make()?;
    // Caches fill and tables reach their size: a tenth of it, and each kind of cycle some times.
    let warm_up = (cycles / 10).clamp(3 * cycle::KINDS, 500);
    let every = (cycles / 20).max(1);
    println!("{warm_up} cycles to warm up, then {cycles}");
    let mut times = Times::default();
    for number in 0..warm_up {
        disks.cycle(&vm, number, &mut times).await?;
    }
    let first = Counts::take(&vm).await?;
    println!("{first}");
    let begun = Instant::now();
    let mut times = Times::default();
    let mut complaints = 0;
    for number in 1..=cycles {
        disks
            .cycle(&vm, warm_up + number, &mut times)
            .await
            .with_context(|| format!("in cycle {number}"))?;
        if number.is_multiple_of(every) || number == cycles {
            complaints += counts::complaints(&vm).await?;
            println!(
                "{number} of {cycles} in {:.0} s: {}; {}",
                begun.elapsed().as_secs_f64(),
                times.summary(),
                Counts::take(&vm).await?.in_one_line(&first)
            );
        }
    }
    let mut grown = settled(&vm, &first).await?;
    if complaints > 0 {
        grown.push(format!("the guest's kernel complained {complaints} times"));
    }
    ensure!(vm.disks().is_empty(), "disks are left: {:?}", vm.disks());
    vm.stop().await?;
    disks.judge()?;
    if grown.is_empty() {
        println!("{cycles} cycles, {}: nothing has grown", times.summary());
        return Ok(());
    }
    bail!("after {cycles} cycles: {}", grown.join("; "))
}

/// What is larger than it was, also after a moment: what was used last may still be on its way out.
async fn settled(vm: &UtilityVm, first: &Counts) -> Result<Vec<String>> {
    let mut grown = Vec::new();
    for _ in 0..20 {
        grown = Counts::take(vm).await?.grown_since(first);
        if grown.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(grown)
}
