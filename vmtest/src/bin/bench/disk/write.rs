//! From a tar to a disk file, against a copy of the tar and other makers of ext4 images.

use std::path::Path;

use anyhow::Result;

use super::Bench;
use crate::pairs::{Contender, Turn, alternate, remove};
use crate::row::{Row, Table};
use crate::{child, peer};

/// Rows of the plain tar.
pub(super) fn measure(bench: &Bench<'_>, tar: &Path, table: &mut Table) -> Result<()> {
    const WHAT: &str = "tar → VHD";
    if bench.scale.wants("cp") {
        let copy = bench.path("copy.tar");
        let cp = || peer::cp(tar, &copy);
        let row = against(bench, WHAT, tar, "cp of the tar", (tar, Some(&copy)), &cp);
        table.add(row?.aiming("≤ 1.25", 1.25));
    }
    if bench.scale.wants("mkfs") {
        let name = "mkfs.ext4 -d of the tree";
        if let Some(why) = peer::missing(&["mkfs.ext4", "tar"]) {
            table.add(Row::left_out(WHAT, name, &why));
        } else {
            let (tree, image) = (bench.path("tree"), bench.path("mkfs.img"));
            peer::unpack(tar, &tree)?;
            let needs = peer::Needs::of(&tree)?;
            let mkfs = || peer::mkfs(&tree, &image, &needs);
            let row = against(bench, WHAT, tar, name, (&tree, Some(&image)), &mkfs);
            table.add(row?.aiming("≤ 0.10 (10 × faster)", 0.1));
            remove(&tree)?;
        }
    }
    if bench.scale.wants("arcbox") {
        arcbox(bench, WHAT, tar, table)?;
    }
    Ok(())
}

fn arcbox(bench: &Bench<'_>, what: &str, tar: &Path, table: &mut Table) -> Result<()> {
    let name = "crate arcbox-ext4";
    if cfg!(not(feature = "peers")) {
        let why = "vmtest was built without its feature `peers`";
        table.add(Row::left_out(what, name, why));
        return Ok(());
    }
    let image = bench.path("arcbox.img");
    let run = || Ok(child::run("arcbox", &[tar, &image])?.whole);
    let theirs = (tar, Some(&*image));
    // It is another's program: what it cannot do costs its row, not the run.
    let judged = run().map(|_| peer::is_clean(&image).is_ok());
    let measured = judged.and_then(|clean| {
        let row = against(bench, what, tar, name, theirs, &run)?;
        Ok((clean, row))
    });
    remove(&image)?;
    match measured {
        Err(error) => table.add(Row::left_out(what, name, &format!("it fails: {error:#}"))),
        Ok((clean, row)) => {
            let mut row = row.aiming("≤ 0.33 (3 × faster)", 1.0 / 3.0);
            if !clean {
                row.against.push_str(" (e2fsck finds faults in its image)");
            }
            table.add(row);
        }
    }
    Ok(())
}

/// Rows of the compressed tar, against decompressing alone.
pub(super) fn measure_compressed(bench: &Bench<'_>, tar: &Path, table: &mut Table) -> Result<()> {
    if bench.scale.wants("gzip") {
        let gzip = bench.gzip(tar)?;
        let inflate = || Ok(child::run("inflate", &[&gzip])?.whole);
        let name = "inflating to nowhere, same library";
        let row = against(bench, "tar.gz → VHD", &gzip, name, (&gzip, None), &inflate);
        table.add(row?.aiming("≤ 1.05", 1.05));
        remove(&gzip)?;
    }
    if bench.scale.wants("zstd") {
        let name = "zstd -dc to nowhere";
        if let Some(why) = peer::missing(&["zstd"]) {
            table.add(Row::left_out("tar.zst → VHD", name, &why));
            return Ok(());
        }
        let zstd = bench.zstd(tar)?;
        let inflate = || peer::zstd(&zstd);
        let row = against(bench, "tar.zst → VHD", &zstd, name, (&zstd, None), &inflate);
        table.add(row?.aiming("≤ 1.20", 1.2));
        remove(&zstd)?;
    }
    Ok(())
}

/// Lets the converter and another have their turns.
fn against(
    bench: &Bench<'_>,
    what: &str,
    tar: &Path,
    name: &str,
    (input, output): (&Path, Option<&Path>),
    run: &dyn Fn() -> Result<Turn>,
) -> Result<Row> {
    let disk = bench.path("ours.vhd");
    let ours = Contender {
        input: tar,
        output: Some(&disk),
        run: &|| Ok(child::run("to-disk", &[tar, &disk])?.whole),
    };
    let theirs = Contender { input, output, run };
    let pairs = alternate(bench.scale.pairs, &ours, &theirs)?;
    Ok(Row::of(what, name, pairs))
}
