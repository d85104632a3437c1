//! `opengcs inspect`: what a disk file or a layer folder is.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use opengcs::layer::{self, DiskInspection, FilesystemInspection, InspectOptions, Inspection};

use crate::context::Context;
use crate::output;
use crate::report;
use crate::size::Size;

/// How wide the picture of how full a disk is may be.
const PICTURE: u64 = 40;

/// Tell what a disk file or a layer folder is: format, file system, sizes, layer or sandbox
///
/// Nothing is changed. A folder stands for the disk file in it: layer.vhd, else sandbox.vhdx. A block
/// device is looked at as a raw disk is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs inspect layer.vhd
  opengcs inspect /var/lib/layers/4f1c --json

JSON: {path, folder: {path, size, is_sandbox} or null, disk: {format, virtual_size, file_size,
file_allocated, allocated, block_size, blocks, blocks_in_file, regions: [{name, offset, size}],
logical_sector_size, physical_sector_size, id, creator, log, parent: {paths, ids} or null,
chain: [files of its parents]}, filesystem: {block_size, blocks, size, free_blocks, free, groups,
map: [percent in use of each of up to 60 parts], inodes, free_inodes, uuid, label, features, journal,
has_errors, is_sandbox} or null, verity: {root_hash, hash_offset, data_blocks, data_block_size,
hash_block_size, algorithm, salt, uuid} or null, problem: why there is no file system, or null,
content: what the file is if it is no disk, or null}; sizes are bytes.")]
pub(crate) struct Inspect {
    /// The disk file (VHD, VHDX or raw), the layer folder or the block device
    #[arg(value_name = "FILE|FOLDER")]
    path: PathBuf,
    /// Folder in which parents of a differencing disk may lie, besides the disk's own; can be
    /// given more than once
    #[arg(long, value_name = "FOLDER")]
    parents: Vec<PathBuf>,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let path = self.path.clone();
        let options = InspectOptions {
            parents: self.parents.clone(),
        };
        let found = context
            .blocking(move || Ok(layer::inspect_with(&path, &options)?))
            .await?;
        if context.json {
            output::json(&found)?;
        } else {
            show(&found)?;
        }
        Ok(0)
    }
}

/// Lines of a name and what is said about it.
struct Lines(comfy_table::Table);

impl Lines {
    fn add(&mut self, name: &str, text: impl Into<String>) {
        self.0.add_row([name.to_owned(), printable(&text.into())]);
    }

    fn add_size(&mut self, name: &str, bytes: u64) {
        self.add(name, format!("{} ({bytes} bytes)", Size(bytes)));
    }
}

fn show(found: &Inspection) -> Result<()> {
    let mut lines = Lines(report::table(&[]));
    lines.add("file", found.path.display().to_string());
    if let Some(folder) = &found.folder {
        let what = if folder.is_sandbox {
            "a sandbox"
        } else {
            "a layer"
        };
        lines.add("folder", what);
    }
    if let Some(content) = found.content {
        lines.add("format", format!("no disk file: it is {content}"));
        lines.add_size("file size", found.disk.file_size);
        return report::print_table(&lines.0);
    }
    show_disk(&mut lines, &found.disk);
    if let Some(filesystem) = &found.filesystem {
        show_filesystem(&mut lines, filesystem);
    }
    if let Some(verity) = &found.verity {
        lines.add("verity root", &verity.root_hash);
        lines.add(
            "verity tree",
            format!(
                "of {} blocks, its superblock at byte {}",
                verity.data_blocks, verity.hash_offset
            ),
        );
    }
    if let Some(problem) = &found.problem {
        lines.add("file system", format!("cannot be read: {problem}"));
    }
    report::print_table(&lines.0)
}

fn show_disk(lines: &mut Lines, disk: &DiskInspection) {
    lines.add("format", &disk.format);
    lines.add_size("disk size", disk.virtual_size);
    lines.add_size("file size", disk.file_size);
    if let Some(allocated) = disk.file_allocated {
        lines.add_size("on this disk", allocated);
    }
    if let (Some(size), Some(blocks)) = (disk.block_size, disk.blocks) {
        let here = disk.blocks_in_file.unwrap_or_default();
        let all = format!(
            "{here} of {blocks}, of {} each, are in the file",
            Size(size)
        );
        lines.add("blocks", format!("{all}: {}", Size(disk.allocated)));
    }
    for region in &disk.regions {
        let text = format!("{} at byte {}", Size(region.size), region.offset);
        lines.add(region.name, text);
    }
    if let Some(sector) = disk.logical_sector_size {
        let physical = disk.physical_sector_size.unwrap_or(sector);
        lines.add("sector", format!("{sector} bytes, {physical} physical"));
    }
    for (name, text) in [
        ("disk id", &disk.id),
        ("made by", &disk.creator),
        ("log is", &disk.log),
    ] {
        if let Some(text) = text {
            lines.add(name, text);
        }
    }
    if let Some(parent) = &disk.parent {
        let named = parent.paths.first().map_or("(no path)", String::as_str);
        lines.add("parent", named);
    }
    for file in &disk.chain {
        lines.add("read from", file.display().to_string());
    }
}

fn show_filesystem(lines: &mut Lines, filesystem: &FilesystemInspection) {
    let block = u64::from(filesystem.block_size);
    let used = filesystem.size.saturating_sub(filesystem.free);
    lines.add("file system", generation(&filesystem.features));
    lines.add_size("its size", filesystem.size);
    lines.add_size("free", filesystem.free);
    lines.add("full", picture(used, filesystem.size));
    if filesystem.map.len() > 1 {
        lines.add("map", map(&filesystem.map));
        let part = filesystem.size / u64::try_from(filesystem.map.len()).unwrap_or(1);
        let text = format!(
            "of about {} each: # full, : half, _ nothing in use",
            Size(part)
        );
        lines.add("its parts", text);
    }
    lines.add("blocks", format!("{} of {block} bytes", filesystem.blocks));
    lines.add(
        "inodes",
        format!("{}, {} free", filesystem.inodes, filesystem.free_inodes),
    );
    lines.add("uuid", filesystem.uuid.to_string());
    if !filesystem.label.is_empty() {
        lines.add("label", &filesystem.label);
    }
    lines.add("journal", &filesystem.journal);
    lines.add("features", filesystem.features.join(" "));
    if filesystem.is_sandbox {
        lines.add(
            "sandbox",
            "it has the folder upper: vhd2tar --sandbox exports that",
        );
    }
    if filesystem.has_errors {
        lines.add(
            "errors",
            "Linux has recorded errors in it: e2fsck repairs it",
        );
    }
}

/// Which of its kin a file system is: ext4 is one with a feature that came with it.
fn generation(features: &[String]) -> &'static str {
    const OF_EXT4: [&str; 10] = [
        "extent",
        "64bit",
        "flex_bg",
        "huge_file",
        "uninit_bg",
        "metadata_csum",
        "dir_nlink",
        "extra_isize",
        "inline_data",
        "bigalloc",
    ];
    let has = |name: &str| features.iter().any(|feature| feature == name);
    match (OF_EXT4.into_iter().any(has), has("has_journal")) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    }
}

/// Text from a disk may hold anything; a terminal must not act on it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// A character for each part, by how full it is.
fn map(parts: &[u8]) -> String {
    let levels = |percent: &u8| match percent {
        0 => '_',
        1..=33 => '.',
        34..=66 => ':',
        67..=99 => '+',
        _ => '#',
    };
    format!("[{}]", parts.iter().map(levels).collect::<String>())
}

/// A bar and a percentage.
fn picture(used: u64, size: u64) -> String {
    let part = |whole: u64| {
        let share = u128::from(used) * u128::from(whole) / u128::from(size.max(1));
        usize::try_from(share.min(u128::from(whole))).unwrap_or_default()
    };
    let width = usize::try_from(PICTURE).unwrap_or_default();
    let filled = part(PICTURE);
    format!(
        "[{}{}] {} %",
        "#".repeat(filled),
        ".".repeat(width.saturating_sub(filled)),
        part(100)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_is_bounded() {
        assert!(picture(0, 0).ends_with("] 0 %"));
        assert!(picture(5, 10).contains("####....") && picture(5, 10).ends_with(" 50 %"));
        assert!(picture(u64::MAX, 1).ends_with(" 100 %"));
        assert_eq!(map(&[0, 1, 33, 34, 67, 99, 100]), "[_..:++#]");
        assert_eq!(printable("a\x1b[2J"), "a?[2J");
    }
}
