//! `opengcs scratch`: an empty disk to write to.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use opengcs::layer::{self, Existing, Format, ScratchOptions};
use serde::Serialize;
use uuid::Uuid;

use crate::context::Context;
use crate::disk_format::{self, DiskFormat};
use crate::size::{self, Size};

/// Make an empty disk file with an ext4 file system, for a VM to write to
///
/// A VHDX grows as it is written to: one of 20G takes a few megabytes at first. The file appears
/// when it is whole. A file that is there stays, unless --force is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs scratch sandbox.vhdx
  opengcs scratch data.vhdx --size 100G --journal 64M
  opengcs scratch sandbox.vhdx --cache ~/.cache/opengcs

Sizes are bytes, or a number with K, M, G or T in binary units: 20G is 20 × 1024³ bytes.

JSON: {output, format, size, virtual_size, from_cache}; sizes are bytes.")]
pub(crate) struct Scratch {
    /// The disk file to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Size of the disk
    #[arg(long, value_name = "SIZE", default_value = "20G", value_parser = size::of_something)]
    size: Size,
    /// What kind of disk file; by default as FILE's name ends (.vhd, or .img and .raw for raw),
    /// else vhdx
    #[arg(long, value_name = "FORMAT")]
    format: Option<DiskFormat>,
    /// Give the file system a journal of this size; by default it has none
    #[arg(long, value_name = "SIZE")]
    journal: Option<Size>,
    /// Keep a copy in this folder, and start from it the next time
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
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
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    output: &'a Path,
    format: String,
    size: u64,
    virtual_size: u64,
    from_cache: bool,
}

impl Scratch {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let chosen = DiskFormat::chosen(self.format, &self.file)?;
        let format: Format = chosen.unwrap_or(DiskFormat::Vhdx).into();
        let options = self.options(format);
        let path = self.file.clone();
        let made = context
            .blocking(move || {
                layer::create_scratch(&path, &options).map_err(|error| match error.kind() {
                    layer::ErrorKind::AlreadyExists => {
                        error.with_hint("--force replaces it").into()
                    }
                    _ => error.into(),
                })
            })
            .await?;
        let done = Done {
            output: &self.file,
            format: format.to_string(),
            size: made.size,
            virtual_size: made.virtual_size,
            from_cache: made.from_cache,
        };
        let line = format!(
            "{}: an empty disk of {} in a {format} file of {}{}",
            self.file.display(),
            Size(made.virtual_size),
            Size(made.size),
            if made.from_cache {
                ", from the cache"
            } else {
                ""
            }
        );
        context.done(&done, &line)?;
        Ok(0)
    }

    fn options(&self, format: Format) -> ScratchOptions {
        let mut options = ScratchOptions {
            format,
            size: self.size.0,
            cache: self.cache.clone(),
            existing: if self.force {
                Existing::Replace
            } else {
                Existing::Keep
            },
            ..ScratchOptions::default()
        };
        options.filesystem.journal = self.journal.map(|Size(bytes)| bytes);
        options.filesystem.uuid = self.uuid;
        options.filesystem.label.clone_from(&self.label);
        options
    }
}
