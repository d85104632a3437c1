//! `opengcs tar2vhd`: a tar becomes a disk file.

mod plan;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use opengcs::layer::{
    self, Control, Converted, Existing, Format, NewFile, Receipt, TarToDiskOptions, TarWhiteouts,
};
use serde::Serialize;
use uuid::Uuid;

use crate::context::Context;
use crate::disk_format::{self, DiskFormat};
use crate::failure::{self, Failure};
use crate::input::Input;
use crate::output;
use crate::progress::Progress;
use crate::report::Json;
use crate::size::Size;
use crate::warnings::{self, Told};

/// How much of a disk file is written to stdout at once.
const CHUNK: usize = 128 << 10;

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

  opengcs tar2vhd -i layer.tar -o layer.vhd --verity
  opengcs tar2vhd -i layer.tar -o layer.vhd --receipt layer.json
  opengcs tar2vhd -i layer.tar --plan                 look before you leap

JSON: {output, format, size, virtual_size, entries, tar_bytes, compression, inodes,
verity: {root_hash, hash_offset, data_blocks, data_block_size, hash_block_size, algorithm, salt,
uuid} or null, receipt: its file or null, warnings: [{path, message}], warnings_total}; sizes are
bytes.
With --plan: {format, image: {size, virtual_size, filesystem_size, free, block_size, inodes,
free_inodes, attribute_blocks, attribute_inodes} or null, refusal: why there is no image, or null,
is_whole, compression, entries, tar_bytes, largest_file: {path, size} or null,
entries_with_attributes, attribute_bytes, problems: [{severity: refused, changed or noted, kind,
path, offset in the tar or null, what, done}], problem_counts: {kind: how many}}; of each kind of
problem, the first fifty are in problems.")]
pub(crate) struct Tar2Vhd {
    /// The tar, or - for stdin
    #[arg(short, long, value_name = "TAR", default_value = "-")]
    input: PathBuf,
    /// The disk file to write, or - for stdout; it must be given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
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
    /// Keep small files and folders in their inodes (the ext4 feature `inline_data`)
    #[arg(long)]
    inline_data: bool,
    /// Put a dm-verity hash tree behind the file system and print its root hash
    ///
    /// It is laid out as hcsshim does: SHA-256, blocks of 4096 bytes, a salt of zeros. With
    /// --format raw, veritysetup checks it: veritysetup verify FILE FILE HASH --hash-offset=OFFSET
    #[arg(long)]
    verity: bool,
    /// Bytes in a block of the file system: 1K, 2K or 4K
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = block_size)]
    block_size: u32,
    /// Take backslashes in the tar's paths for slashes, as some tars made on Windows have them
    #[arg(long)]
    backslash: bool,
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
    /// Only tell what would be made and what is the matter with the tar; nothing is written, and -o is
    /// looked at for the format alone
    ///
    /// The whole tar is read. The exit code is 0 when it would be converted, and 1 when it would be
    /// refused.
    #[arg(long)]
    plan: bool,
    /// Write a receipt: JSON with the digests of tar, uncompressed tar and disk file, the root hash, the
    /// options and the version; `opengcs verify` holds a disk file against it
    ///
    /// It appears when the disk file has. The digests cost time: the tar's are taken while it is read,
    /// and the disk file is read again for its own.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    receipt: Option<PathBuf>,
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
    verity: Option<&'a layer::Verity>,
    receipt: Option<&'a Path>,
    #[serde(flatten)]
    warnings: Told,
}

impl Tar2Vhd {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        if self.plan {
            return self.plan(context).await;
        }
        let target = match &self.output {
            Some(path) => path.clone(),
            None => return Err(output::missing("layer.vhd").into()),
        };
        let to_stdout = target == Path::new("-");
        if to_stdout {
            output::refuse_terminal("a disk file")?;
        }
        let input = Input::open(&self.input, context)?;
        if !to_stdout {
            output::refuse_same(&self.input, &target)?;
        }
        let receipt = self.begin_receipt(&target)?;
        let format = self.disk_format(&target);
        let what = if to_stdout {
            "making a disk file".to_owned()
        } else {
            format!("writing {}", target.display())
        };
        let progress = Progress::bytes(context, &what, input.length());
        let follow = progress.follow(input.counter());
        let control = Control::new()
            .cancel_with(context.stop.flag())
            .on_progress(move |_| follow());
        let options = self.options(format, control);
        // Disk files are not written from front to back, so that one for a pipe lies in a temporary
        // folder first.
        let folder = if to_stdout {
            Some(tempfile::tempdir().context("cannot make a temporary folder")?)
        } else {
            None
        };
        let file = match &folder {
            Some(folder) => folder.path().join("disk"),
            None => target.clone(),
        };
        let written = file.clone();
        let chosen = options.clone();
        let converted = context
            .blocking(move || Ok(layer::tar_to_disk(input, &file, &options)?))
            .await
            .map_err(|error| self.other_way(error))?;
        drop(progress);
        if to_stdout {
            send(&written, context).await?;
        }
        drop(folder);
        if let Some(file) = receipt {
            Receipt::new(&converted, &chosen)?.publish(file)?;
        }
        self.tell(context, &target, format, &converted)?;
        Ok(0)
    }

    /// Begins the receipt's file, so that what is wrong with its place shows before the work is done.
    fn begin_receipt(&self, target: &Path) -> Result<Option<NewFile>> {
        let Some(path) = &self.receipt else {
            return Ok(None);
        };
        output::refuse_same(&self.input, path)?;
        if path == target {
            return Err(Failure::usage(format!(
                "the disk file and its receipt cannot both be {}",
                path.display()
            ))
            .into());
        }
        Ok(Some(NewFile::create(path, Existing::Replace)?))
    }

    fn disk_format(&self, target: &Path) -> Format {
        self.format
            .or_else(|| DiskFormat::named(target))
            .unwrap_or(DiskFormat::Vhd)
            .into()
    }

    async fn plan(self, context: &Context) -> Result<u8> {
        let input = Input::open(&self.input, context)?;
        let format = self.disk_format(self.output.as_deref().unwrap_or(Path::new("")));
        let progress = Progress::bytes(context, "reading the tar", input.length());
        let follow = progress.follow(input.counter());
        let control = Control::new()
            .cancel_with(context.stop.flag())
            .on_progress(move |_| follow());
        let options = self.options(format, control);
        let plan = context
            .blocking(move || Ok(layer::plan_tar(input, &options)?))
            .await?;
        drop(progress);
        plan::show(&plan, &format.to_string(), self.json.json)?;
        // The plan has told what is refused; it is no failure to have found it.
        Ok(match plan.refusal {
            Some(_) => failure::FAILED,
            None => 0,
        })
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
        options.ext4.backslash_paths = self.backslash;
        options.verity = self.verity;
        options.digests = self.receipt.is_some();
        let filesystem = &mut options.ext4.filesystem;
        filesystem.size = self.size.map(|Size(bytes)| bytes);
        filesystem.journal = self.journal.map(|Size(bytes)| bytes);
        filesystem.inline_data = self.inline_data;
        filesystem.block_size = self.block_size;
        filesystem.uuid = self.uuid;
        filesystem.label.clone_from(&self.label);
        filesystem.lost_found = !self.no_lost_found;
        options
    }

    /// Adds to a failure what to do with an input that is a disk, not a tar.
    fn other_way(&self, error: anyhow::Error) -> anyhow::Error {
        let corrupt = error
            .downcast_ref::<layer::Error>()
            .is_some_and(|error| error.kind() == layer::ErrorKind::Corrupt);
        let is_disk = |path: &Path| {
            layer::inspect(path).is_ok_and(|found| {
                found.filesystem.is_some() || found.disk.format != Format::Raw.to_string()
            })
        };
        if !corrupt || !self.input.is_file() || !is_disk(&self.input) {
            return error;
        }
        let name = self.input.display();
        Failure::new(format!("{name} is a disk file, not a tar"))
            .hint(format!(
                "opengcs vhd2tar {name} makes a tar of it, and opengcs inspect {name} tells what it is"
            ))
            .into()
    }

    fn tell(
        &self,
        context: &Context,
        target: &Path,
        format: Format,
        converted: &Converted,
    ) -> Result<()> {
        warnings::note(context, &converted.warnings);
        let done = Done {
            output: target,
            format: format.to_string(),
            size: converted.size,
            virtual_size: converted.virtual_size,
            entries: converted.entries,
            tar_bytes: converted.tar_bytes,
            compression: converted.compression,
            inodes: converted.inodes,
            verity: converted.verity.as_ref(),
            receipt: self.receipt.as_deref(),
            warnings: Told::of(&converted.warnings),
        };
        if target == Path::new("-") {
            // Stdout has the disk, so the hash goes to stderr.
            if let Some(verity) = converted.verity.as_ref().filter(|_| !self.json.json) {
                output::note(format_args!("{}", root_line(verity)));
            }
            self.json.done_beside_data(&done);
            return Ok(());
        }
        let mut line = format!(
            "{}: {} from a {} tar of {} with {} entries",
            target.display(),
            Size(converted.size),
            converted.compression,
            Size(converted.tar_bytes),
            converted.entries
        );
        if let Some(verity) = &converted.verity {
            // The hash is what was asked for, also by who wants nothing else said.
            if context.quiet && !self.json.json {
                return output::print(format_args!("{}", verity.root_hash));
            }
            line = format!("{line}\n{}", root_line(verity));
        }
        self.json.done(context, &done, &line)
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

fn root_line(verity: &layer::Verity) -> String {
    format!(
        "root hash: {} (hash offset {})",
        verity.root_hash, verity.hash_offset
    )
}

/// Writes a file to stdout.
async fn send(path: &Path, context: &Context) -> Result<()> {
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
