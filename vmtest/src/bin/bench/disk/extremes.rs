//! What grows with a number alone: an empty disk of 20 GB, very many files, one very long file.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Bench;
use crate::pairs::{Contender, Side, Turn, alternate, remove, seconds, settle, turn};
use crate::row::{Row, Table, mib, show};
use crate::{child, corpus, peer};

/// Files that are few, against which very many are held.
const FEW: u32 = 10_000;

/// All rows here.
pub(super) fn measure(bench: &Bench<'_>, table: &mut Table) -> Result<()> {
    if bench.scale.wants("scratch") {
        scratch(bench, table)?;
    }
    if bench.scale.wants("million") {
        million(bench, table)?;
    }
    if bench.scale.wants("sparse") {
        sparse(bench, table)?;
    }
    Ok(())
}

/// The call's time: starting a process takes about as long.
fn job(words: &str, paths: &[&Path]) -> Result<Turn> {
    let report = child::run(words, paths)?;
    Ok(Turn {
        time: report.inner,
        peak: report.whole.peak,
    })
}

fn scratch(bench: &Bench<'_>, table: &mut Table) -> Result<()> {
    let disk = bench.path("scratch.vhdx");
    let bytes = RefCell::new(0);
    let make = Contender {
        input: bench.folder.path(),
        output: Some(&disk),
        run: &|| {
            let turn = job("scratch", &[&disk])?;
            *bytes.borrow_mut() = allocated(&disk)?;
            Ok(turn)
        },
    };
    let side = turns(bench.scale.pairs, &make)?;
    let (time, bytes) = (side.median(), bytes.into_inner());
    table.add(Row {
        what: "20 GB scratch VHDX".into(),
        ours: format!("{}, {}", show(time), mib(bytes)),
        peak: side.peak(),
        against: "-".into(),
        aim: "≤ 5 ms, ≤ 4 MiB on disk",
        met: Some(time <= Duration::from_millis(5) && bytes <= 4 << 20),
        ..Row::default()
    });
    Ok(())
}

fn million(bench: &Bench<'_>, table: &mut Table) -> Result<()> {
    let many = bench.scale.small;
    let few = FEW.min(many / 2).max(1);
    eprintln!("writing tars of {few} and {many} small files");
    let (few_tar, many_tar) = (bench.path("few.tar"), bench.path("many.tar"));
    corpus::small(&few_tar, few)?;
    corpus::small(&many_tar, many)?;
    let disk = bench.path("small.vhd");
    job("to-disk", &[&many_tar, &disk])?;
    peer::is_clean(&disk).context("our own image is not clean")?;
    let contender = |tar, run| Contender {
        input: tar,
        output: Some(&disk),
        run,
    };
    let pairs = alternate(
        bench.scale.pairs,
        &contender(&many_tar, &|| job("to-disk", &[&many_tar, &disk])),
        &contender(&few_tar, &|| job("to-disk", &[&few_tar, &disk])),
    )?;
    let each = |side: &Side, files: u32| seconds(side.median()) / f64::from(files) * 1e6;
    let (ours, theirs) = (each(&pairs.ours, many), each(&pairs.theirs, few));
    let ratio = ours / theirs;
    let grown = pairs.ours.peak().zip(pairs.theirs.peak());
    let grown = grown.map_or(0, |(many, few)| many.saturating_sub(few));
    let memory = grown / u64::from((many - few).max(1));
    table.add(Row {
        what: format!("{many} small files → VHD"),
        ours: format!("{ours:.2} µs, {memory} B each"),
        peak: pairs.ours.peak(),
        against: format!("of {few} files: {theirs:.2} µs each"),
        ratio: Some(ratio),
        aim: "≤ 1.30, ≤ 512 B each",
        met: Some(ratio <= 1.3 && memory <= 512),
        samples: Some(pairs),
    });
    remove(&few_tar)?;
    remove(&many_tar)
}

fn sparse(bench: &Bench<'_>, table: &mut Table) -> Result<()> {
    let gib = bench.scale.sparse_gib;
    let (tar, disk, back) = (
        bench.path("sparse.tar"),
        bench.path("sparse.vhd"),
        bench.path("back.tar"),
    );
    corpus::sparse(&tar, u64::from(gib))?;
    let to_disk = Contender {
        input: &tar,
        output: Some(&disk),
        run: &|| Ok(child::run("to-disk", &[&tar, &disk])?.whole),
    };
    let side = turns(bench.scale.pairs, &to_disk)?;
    child::run("to-disk", &[&tar, &disk])?;
    settle(&disk)?;
    let what = format!("{gib} GiB sparse file");
    table.add(lengths(&what, "tar → VHD", &side, &disk)?);
    // Reading the whole disk would warm no more than its runs, and take an hour.
    let to_tar = Contender {
        input: &tar,
        output: Some(&back),
        run: &|| Ok(child::run("to-sparse-tar", &[&disk, &back])?.whole),
    };
    let side = turns(bench.scale.pairs, &to_tar)?;
    child::run("to-sparse-tar", &[&disk, &back])?;
    table.add(lengths(&what, "VHD → sparse tar", &side, &back)?);
    remove(&tar)?;
    remove(&disk)?;
    remove(&back)
}

fn lengths(what: &str, way: &str, side: &Side, output: &Path) -> Result<Row> {
    Ok(Row {
        what: format!("{what}, {way}"),
        ours: format!("{}, {}", show(side.median()), mib(allocated(output)?)),
        peak: side.peak(),
        against: "-".into(),
        aim: "-",
        ..Row::default()
    })
}

fn turns(count: u32, side: &Contender<'_>) -> Result<Side> {
    let mut taken = Side::default();
    for _ in 0..count.max(1) {
        taken.add(&turn(side)?);
    }
    Ok(taken)
}

/// Bytes that a file takes on the disk.
fn allocated(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}
