//! Measures opengcs against the outside world: each row is a ratio of medians from one run.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its table, and what it is doing"
)]

mod corpus;
mod disk;
mod row;
mod vm;

use anyhow::{Result, bail};

use row::Table;

const USAGE: &str = "usage: cargo xtask bench [disk|vm] [--files N] [--mib N] [--pairs N]";

/// How much is measured.
pub(crate) struct Scale {
    /// Files in the synthetic layer.
    pub(crate) files: u32,
    /// MiB of their contents.
    pub(crate) mib: u32,
    /// Alternating pairs; the median of each side counts.
    pub(crate) pairs: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let (mut disk, mut vm) = (true, true);
    let mut scale = Scale {
        files: 60_000,
        mib: 2048,
        pairs: 5,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = match word.as_str() {
            "disk" => {
                vm = false;
                continue;
            }
            "vm" => {
                disk = false;
                continue;
            }
            "--files" => &mut scale.files,
            "--mib" => &mut scale.mib,
            "--pairs" => &mut scale.pairs,
            _ => bail!("{USAGE}"),
        };
        let Some(given) = words.next().and_then(|word| word.parse().ok()) else {
            bail!("{USAGE}");
        };
        *number = given;
    }
    // Cargo may have been told to build elsewhere.
    std::fs::create_dir_all("target")?;
    let mut table = Table::default();
    if disk {
        disk::measure(&scale, &mut table)?;
    }
    if vm {
        vm::measure(&scale, &mut table).await?;
    }
    table.print();
    let path = std::path::Path::new("target/bench.json");
    table.write(path)?;
    println!("\nwritten to {}", path.display());
    Ok(())
}
