//! From a disk file to a tar, against a copy of the disk file and other readers of ext4.

use std::path::Path;

use anyhow::Result;

use super::Bench;
use crate::pairs::{Contender, Turn, alternate, remove};
use crate::row::{Row, Table};
use crate::{child, peer};

const WHAT: &str = "VHD → tar";

/// Rows of the disk that `tar` becomes.
pub(super) fn measure(bench: &Bench<'_>, tar: &Path, table: &mut Table) -> Result<()> {
    if !bench.scale.wants_any(&["export", "mount", "rdump"]) {
        return Ok(());
    }
    let disk = bench.disk(tar)?;
    if bench.scale.wants("export") {
        let copy = bench.path("copy.vhd");
        let cp = || peer::cp(&disk, &copy);
        let row = against(bench, &disk, "cp of the image", &copy, &cp)?;
        table.add(row.aiming("≤ 1.25", 1.25));
    }
    if bench.scale.wants("mount") {
        mount(bench, &disk, table)?;
    }
    if bench.scale.wants("rdump") {
        let name = "debugfs rdump to a folder";
        if let Some(why) = peer::missing(&["debugfs"]) {
            table.add(Row::left_out(WHAT, name, &why));
        } else {
            let tree = bench.path("rdump");
            let rdump = || peer::rdump(&disk, &tree);
            let row = against(bench, &disk, name, &tree, &rdump)?;
            table.add(row.aiming("≤ 0.20 (5 × faster)", 0.2));
        }
    }
    remove(&disk)
}

fn mount(bench: &Bench<'_>, disk: &Path, table: &mut Table) -> Result<()> {
    let name = "loop mount + GNU tar";
    let (folder, out) = (bench.path("mounted"), bench.path("mounted.tar"));
    std::fs::create_dir(&folder)?;
    let run = || peer::mount_and_tar(disk, &folder, &out);
    let why = if !peer::is_root() {
        Some("needs root".to_owned())
    } else if let Some(missing) = peer::missing(&["mount", "tar"]) {
        Some(missing)
    } else {
        // A container's root may not be allowed to.
        run().err().map(|error| format!("{error:#}"))
    };
    match why {
        Some(why) => table.add(Row::left_out(WHAT, name, &why)),
        None => {
            let row = against(bench, disk, name, &out, &run)?;
            table.add(row.aiming("≤ 0.50 (2 × faster)", 0.5));
        }
    }
    remove(&out)?;
    remove(&folder)
}

/// Lets the exporter and another have their turns.
fn against(
    bench: &Bench<'_>,
    disk: &Path,
    name: &str,
    output: &Path,
    run: &dyn Fn() -> Result<Turn>,
) -> Result<Row> {
    let tar = bench.path("ours.tar");
    let ours = Contender {
        input: disk,
        output: Some(&tar),
        run: &|| Ok(child::run("to-tar", &[disk, &tar])?.whole),
    };
    let theirs = Contender {
        input: disk,
        output: Some(output),
        run,
    };
    let pairs = alternate(bench.scale.pairs, &ours, &theirs)?;
    Ok(Row::of(WHAT, name, pairs))
}
