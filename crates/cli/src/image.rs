//! What can be chosen of an image that is made, whatever it is made of, and how it reaches stdout.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs::layer::{self, FilesystemOptions, Format};
use uuid::Uuid;

use crate::context::Context;
use crate::disk_format::{self, DiskFormat};
use crate::input::Input;
use crate::output;
use crate::progress::Progress;
use crate::size::{self, Size};

/// How much of a disk file is written to stdout at once.
const CHUNK: usize = 128 << 10;

/// The disk file and the file system in it.
#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    /// What kind of disk file; by default as FILE's name ends (.vhdx, or .img and .raw for raw),
    /// else vhd
    #[arg(long, value_name = "FORMAT")]
    format: Option<DiskFormat>,
    /// Size of the file system; by default as small as the content
    #[arg(long, value_name = "SIZE", value_parser = size::of_something)]
    size: Option<Size>,
    /// Give it a journal of this size; by default it has none, as a layer is only read
    #[arg(long, value_name = "SIZE")]
    journal: Option<Size>,
    /// Keep small files and folders in their inodes (the ext4 feature `inline_data`)
    #[arg(long)]
    inline_data: bool,
    /// Put a dm-verity hash tree behind the file system and print its root hash
    ///
    /// It is laid out as hcsshim does: SHA-256, blocks of 4096 bytes, a salt of zeros. With
    /// --format raw, veritysetup checks it: veritysetup verify FILE FILE HASH --hash-offset=OFFSET
    #[arg(long)]
    pub(crate) verity: bool,
    /// Bytes in a block of the file system: 1K, 2K or 4K
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = block_size)]
    block_size: u32,
    /// UUID of the file system, or `random`; by default always the same
    #[arg(long, value_name = "UUID", value_parser = disk_format::uuid)]
    uuid: Option<Uuid>,
    /// Label of the file system, at most 16 bytes
    #[arg(
        long,
        value_name = "LABEL",
        default_value = "",
        hide_default_value = true
    )]
    label: String,
    /// Leave out the folder lost+found
    #[arg(long)]
    no_lost_found: bool,
}

impl ImageArguments {
    /// The format that was chosen, or that the file's name asks for.
    pub(crate) fn format(&self, target: &Path) -> Result<Format> {
        let chosen = DiskFormat::chosen(self.format, target)?;
        Ok(chosen.unwrap_or(DiskFormat::Vhd).into())
    }

    pub(crate) fn filesystem(&self) -> FilesystemOptions {
        FilesystemOptions {
            size: self.size.map(|Size(bytes)| bytes),
            journal: self.journal.map(|Size(bytes)| bytes),
            inline_data: self.inline_data,
            block_size: self.block_size,
            uuid: self.uuid,
            label: self.label.clone(),
            lost_found: !self.no_lost_found,
            ..FilesystemOptions::default()
        }
    }
}

fn block_size(text: &str) -> Result<u32, String> {
    match text.parse()? {
        Size(1024) => Ok(1024),
        Size(2048) => Ok(2048),
        Size(4096) => Ok(4096),
        Size(_) => Err("a block has 1K, 2K or 4K".to_owned()),
    }
}

/// The line that tells a hash tree's root.
pub(crate) fn root_line(verity: &layer::Verity) -> String {
    format!(
        "root hash: {} (hash offset {})",
        verity.root_hash, verity.hash_offset
    )
}

/// Writes a file to stdout.
pub(crate) async fn send(path: &Path, context: &Context) -> Result<()> {
    let mut file = Input::open(path, context)?;
    let progress = Progress::bytes(context, "writing a disk file", file.length());
    let counter = file.counter();
    let follow = progress.follow(counter);
    let stop = context.stop.flag();
    context
        .blocking(move || {
            let mut out = output::data(stop)?;
            let mut chunk = vec![0; CHUNK];
            loop {
                let count = file
                    .read(&mut chunk)
                    .context("cannot read what was written")?;
                let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else {
                    return Ok(());
                };
                out.write_all(read).context("cannot write to stdout")?;
                follow();
            }
        })
        .await
}
