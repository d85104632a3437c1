//! `opengcs tar2vhd`: a tar becomes a disk file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use opengcs::layer::{self, Control, Converted, Format, TarToDiskOptions, TarWhiteouts};
use serde::Serialize;
use uuid::Uuid;

use crate::context::Context;
use crate::disk_format::{self, DiskFormat};
use crate::input::Input;
use crate::output;
use crate::progress::Progress;
use crate::report::Json;
use crate::size::Size;
use crate::warnings::{self, Told};

/// Turn a tar (a container layer) into a disk file with an ext4 file system
///
/// The tar may be compressed with gzip, zstd or xz; that is recognised by its content. The disk
/// file appears when it is whole: after a failure there is none. A file that is there is replaced.
/// The same tar gives the same bytes, everywhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs tar2vhd -i layer.tar.gz -o layer.vhd
  docker export my-container | opengcs tar2vhd -o layer.vhd
  opengcs tar2vhd -i layer.tar -o data.vhdx --size 20G --journal 64M

Sizes are bytes, or a number with K, M, G or T in binary units: 20G is 20 × 1024³ bytes.

JSON: {output, format, size, virtual_size, entries, tar_bytes, compression, inodes,
warnings: [{path, message}], warnings_total}; sizes are bytes.")]
pub(crate) struct Tar2Vhd {
    /// The tar, or - for stdin
    #[arg(short, long, value_name = "TAR", default_value = "-")]
    input: PathBuf,
    /// The disk file to write, or - for stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What kind of disk file; by default as FILE's name ends (.vhdx, or .img and .raw for raw),
    /// else vhd
    #[arg(long, value_name = "FORMAT")]
    format: Option<DiskFormat>,
    /// What becomes of `.wh.` files: overlayfs's whiteouts, or kept as they are
    #[arg(long, value_name = "HOW", default_value = "overlay")]
    whiteouts: Whiteouts,
    /// Size of the file system; by default as small as the content
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,
    /// Give it a journal of this size; by default it has none, as a layer is only read
    #[arg(long, value_name = "SIZE")]
    journal: Option<Size>,
    /// Keep small files in their inodes (the ext4 feature `inline_data`)
    #[arg(long)]
    inline_data: bool,
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
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whiteouts {
    Overlay,
    Keep,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    output: &'a Path,
    format: String,
    size: u64,
    virtual_size: u64,
    entries: u64,
    tar_bytes: u64,
    compression: layer::Compression,
    inodes: u32,
    #[serde(flatten)]
    warnings: Told,
}

impl Tar2Vhd {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let to_stdout = self.output == Path::new("-");
        if to_stdout {
            output::refuse_terminal("a disk file")?;
            if self.json.json {
                return Err(output::json_beside_data().into());
            }
        }
        let input = Input::open(&self.input, context)?;
        if !to_stdout {
            output::refuse_same(&self.input, &self.output)?;
        }
        let format = self
            .format
            .or_else(|| DiskFormat::named(&self.output))
            .unwrap_or(DiskFormat::Vhd)
            .into();
        let what = format!("writing {}", self.output.display());
        let progress = Progress::bytes(context, &what, input.length());
        let follow = progress.follow(input.counter());
        let control = Control::new()
            .cancel_with(context.stop.flag())
            .on_progress(move |_| follow());
        let options = self.options(format, control);
        let target = self.output.clone();
        let converted = context
            .blocking(move || {
                if to_stdout {
                    convert_to_stdout(input, &options)
                } else {
                    Ok(layer::tar_to_disk(input, &target, &options)?)
                }
            })
            .await?;
        drop(progress);
        self.tell(context, format, &converted)?;
        Ok(0)
    }

    fn options(&self, format: Format, control: Control) -> TarToDiskOptions {
        let mut options = TarToDiskOptions {
            format,
            ..TarToDiskOptions::default()
        };
        options.ext4.control = control;
        options.ext4.whiteouts = match self.whiteouts {
            Whiteouts::Overlay => TarWhiteouts::Overlay,
            Whiteouts::Keep => TarWhiteouts::Keep,
        };
        let filesystem = &mut options.ext4.filesystem;
        filesystem.size = self.size.map(|Size(bytes)| bytes);
        filesystem.journal = self.journal.map(|Size(bytes)| bytes);
        filesystem.inline_data = self.inline_data;
        filesystem.uuid = self.uuid;
        filesystem.label.clone_from(&self.label);
        filesystem.lost_found = !self.no_lost_found;
        options
    }

    fn tell(&self, context: &Context, format: Format, converted: &Converted) -> Result<()> {
        warnings::note(context, &converted.warnings);
        if self.output == Path::new("-") {
            return Ok(());
        }
        let done = Done {
            output: &self.output,
            format: format.to_string(),
            size: converted.size,
            virtual_size: converted.virtual_size,
            entries: converted.entries,
            tar_bytes: converted.tar_bytes,
            compression: converted.compression,
            inodes: converted.inodes,
            warnings: Told::of(&converted.warnings),
        };
        let line = format!(
            "{}: {} from a {} tar of {} with {} entries",
            self.output.display(),
            Size(converted.size),
            converted.compression,
            Size(converted.tar_bytes),
            converted.entries
        );
        self.json.done(context, &done, &line)
    }
}

/// Disk files are not written from front to back, so that one for a pipe lies in a temporary
/// folder first.
fn convert_to_stdout(input: Input, options: &TarToDiskOptions) -> Result<Converted> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("disk");
    let converted = layer::tar_to_disk(input, &path, options)?;
    let mut file = std::fs::File::open(&path).context("cannot open what was written")?;
    std::io::copy(&mut file, &mut output::data()?).context("cannot write to stdout")?;
    Ok(converted)
}
