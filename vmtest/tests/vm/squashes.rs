//! A squashed chain against an overlay of its layers, as the guest's kernel shows both.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::layer::{Format, SquashOptions, TarToDiskOptions, squash, tar_to_disk};
use opengcs::{OverlaySpec, UtilityVm};
use tar::EntryType;
use tempfile::TempDir;

use crate::fixture::{said, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![shared(
        "squashes::the_kernels_overlay_of_the_layers_looks_the_same",
        same,
    )]
}

/// A layer of entries: a name, and what it is. `/` is a directory, `>` a symbolic link, `=` a hard link,
/// `|` a fifo, and all else the content of a file.
fn layer(folder: &TempDir, number: u64, entries: &[(&str, &str)]) -> Result<PathBuf> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, what) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(number * 1000 + name.len() as u64);
        header.set_uid(number);
        header.set_gid(100 + number);
        header.set_mode(0o640 + u32::try_from(number)?);
        header.set_size(0);
        match what.split_at_checked(1) {
            Some(("/", _)) => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o751 - u32::try_from(number)?);
                tar.append_data(&mut header, name, &[][..])?;
            }
            Some((">", target)) => {
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, name, target)?;
            }
            Some(("=", target)) => {
                header.set_entry_type(EntryType::Link);
                tar.append_link(&mut header, name, target)?;
            }
            Some(("|", _)) => {
                header.set_entry_type(EntryType::Fifo);
                tar.append_data(&mut header, name, &[][..])?;
            }
            _ => {
                let content = what.repeat(if *name == "large" { 70_000 } else { 1 });
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes())?;
            }
        }
    }
    let path = folder.path().join(format!("{number}.img"));
    let options = TarToDiskOptions {
        format: Format::Raw,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(tar.into_inner()?.as_slice(), &path, &options)?;
    Ok(path)
}

const BASE: &[(&str, &str)] = &[
    ("./", "/"),
    ("a", "old"),
    ("again/", "/"),
    ("again/gone", "1"),
    ("d/", "/"),
    ("d/kept", "1"),
    ("d/old", "1"),
    ("d/sub/", "/"),
    ("d/sub/x", "1"),
    ("e/", "/"),
    ("e/x", "1"),
    ("f/", "/"),
    ("f/gone", "1"),
    ("h1", "linked"),
    ("h2", "=h1"),
    ("h3", "=h1"),
    ("large", "large"),
    ("opq/", "/"),
    ("opq/x", "1"),
    ("opq/sub/", "/"),
    ("opq/sub/y", "1"),
    ("p", "|"),
    ("t/", "/"),
    ("t/gone", "1"),
];

const MIDDLE: &[(&str, &str)] = &[
    (".wh.a", ""),
    (".wh.again", ""),
    (".wh.h1", ""),
    ("d/", "/"),
    ("d/.wh.old", ""),
    ("d/sub/", "/"),
    ("d/sub/y", "2"),
    ("f", ">e"),
    ("opq/", "/"),
    ("opq/.wh..wh..opq", ""),
    ("opq/sub/", "/"),
    ("opq/z", "2"),
    ("t", "a file now"),
];

const TOP: &[(&str, &str)] = &[
    ("./", "/"),
    ("a", "new"),
    ("again/", "/"),
    ("again/here", "3"),
    ("d/", "/"),
    ("d/.wh.kept", ""),
    ("f/", "/"),
    ("f/here", "3"),
    ("k1", "linked above"),
    ("k2", "=k1"),
    ("opq/", "/"),
    ("opq/w", "3"),
    ("t/", "/"),
    ("t/here", "3"),
];

/// All that the guest's own tools see below a folder: sizes of folders are their file systems' affair.
fn look(folder: &str) -> String {
    format!(
        "cd {folder} && find . -path ./lost+found -prune -o -print | sort | while read -r path; do \
         if [ -d \"$path\" ]; then stat -c '%n %F %a %u %g %Y' \"$path\"; \
         else stat -c '%n %F %a %u %g %Y %s' \"$path\"; fi; \
         [ -L \"$path\" ] && readlink \"$path\"; \
         [ -f \"$path\" ] && [ ! -L \"$path\" ] && sha256sum < \"$path\"; \
         done; for name in h2 k1; do find . -samefile ./$name | sort; done"
    )
}

async fn same(vm: Arc<UtilityVm>) -> Result<()> {
    let folder = TempDir::new()?;
    let disks = [
        layer(&folder, 0, BASE)?,
        layer(&folder, 1, MIDDLE)?,
        layer(&folder, 2, TOP)?,
    ];
    let squashed = folder.path().join("squashed.img");
    let options = SquashOptions {
        format: Format::Raw,
        ..SquashOptions::default()
    };
    squash(&disks, &squashed, &options)?;
    let places = ["/mnt/squash-0", "/mnt/squash-1", "/mnt/squash-2"];
    for (disk, place) in disks.iter().zip(places) {
        vm.hot_add_vhd(disk, place, true, true).await?;
    }
    vm.hot_add_vhd(&squashed, "/mnt/squash-all", true, true)
        .await?;
    // The overlay has the uppermost layer first.
    let mut overlay = OverlaySpec::new("/mnt/squash-root");
    for place in places.iter().rev() {
        overlay = overlay.layer(*place);
    }
    vm.combine_layers(&overlay).await?;
    let by_kernel = said(&vm, &look("/mnt/squash-root")).await?;
    let by_us = said(&vm, &look("/mnt/squash-all")).await?;
    vm.uncombine_layers("/mnt/squash-root").await?;
    for disk in disks.iter().chain([&squashed]) {
        vm.hot_remove_vhd(disk).await?;
    }
    ensure!(
        by_us == by_kernel,
        "the overlay has\n{by_kernel}\nthe squashed image has\n{by_us}"
    );
    // Something was looked at: what came again, what went, and both names of what is linked.
    for line in ["./f/here", "./again/here", "./h3", "./k2", "./d/sub/y"] {
        ensure!(by_us.lines().any(|have| have.starts_with(line)), "{by_us}");
    }
    for gone in ["gone", "./h1", "d/old", "d/kept", "opq/x"] {
        ensure!(!by_us.contains(gone), "{gone} is in {by_us}");
    }
    Ok(())
}
