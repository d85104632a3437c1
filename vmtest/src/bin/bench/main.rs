//! Measures opengcs against the outside world: each row is a ratio of medians from one run.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its table, and what it is doing"
)]

mod child;
mod corpus;
mod disk;
mod pairs;
mod peer;
mod row;
mod scale;
mod streams;
mod vm;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use row::Table;
use scale::Scale;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, job @ ..] = words.as_slice()
        && first == child::WORD
    {
        return child::main(job);
    }
    let scale = Scale::parse(words.into_iter())?;
    // Cargo may have been told to build elsewhere.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    std::fs::create_dir_all(&target)
        .with_context(|| format!("cannot create {}", target.display()))?;
    let target = target.canonicalize()?;
    let mut table = Table::default();
    if scale.disk {
        disk::measure(&scale, &target, &mut table)?;
    }
    if scale.vm {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(vm::measure(&scale, &mut table))?;
    }
    let circumstances = circumstances(&scale, &target);
    println!("{}\n", in_words(&circumstances));
    table.print();
    let path = target.join("bench.json");
    table.write(&path, &circumstances)?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

/// On what machine and at what scale this was measured.
fn circumstances(scale: &Scale, target: &Path) -> Value {
    let said = |command: &mut Command| {
        let output = command.output().ok().filter(|o| o.status.success());
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    json!({
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "system": said(Command::new("uname").arg("-sr")),
        "file_system": peer::df(target, "fstype").ok(),
        "commit": said(Command::new("git").args(["describe", "--always", "--dirty"])),
        "files": scale.files, "mib": scale.mib, "pairs": scale.pairs,
    })
}

fn in_words(circumstances: &Value) -> String {
    let word = |key: &str| match &circumstances[key] {
        Value::String(text) => text.clone(),
        Value::Null => "?".into(),
        other => other.to_string(),
    };
    format!(
        "{} processors, {}, files on {}; opengcs {}; medians of {} pairs; a layer of {} files, {} MiB",
        word("processors"),
        word("system"),
        word("file_system"),
        word("commit"),
        word("pairs"),
        word("files"),
        word("mib"),
    )
}
