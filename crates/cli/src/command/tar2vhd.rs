//! `opengcs tar2vhd`: a tar becomes a disk file.

mod plan;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use opengcs::layer::{
    self, Control, Converted, Existing, Format, NewFile, ProblemKind, Receipt, TarToDiskOptions,
    TarWhiteouts,
};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{self, Failure};
use crate::image::{self, ImageArguments, root_line};
use crate::input::Input;
use crate::output;
use crate::progress::Progress;
use crate::report;
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
  opengcs tar2vhd layer.tar.gz -o layer.vhd
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
    /// The tar, or - for stdin, which it is if none is given
    #[arg(value_name = "TAR", conflicts_with = "input")]
    tar: Option<PathBuf>,
    /// The tar, or - for stdin
    #[arg(short, long, value_name = "TAR")]
    input: Option<PathBuf>,
    /// The disk file to write, or - for stdout; it must be given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What becomes of `.wh.` files: overlayfs's whiteouts, or kept as they are
    #[arg(long, value_name = "HOW", default_value = "overlay")]
    whiteouts: Whiteouts,
    /// Take backslashes in the tar's paths for slashes, as some tars made on Windows have them
    #[arg(long)]
    backslash: bool,
    #[command(flatten)]
    image: ImageArguments,
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
    /// Where the tar comes from.
    fn from(&self) -> &Path {
        let given = self.tar.as_deref().or(self.input.as_deref());
        given.unwrap_or(Path::new("-"))
    }

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
        let format = self.image.format(&target)?;
        let input = Input::open(self.from(), context)?;
        if !to_stdout {
            output::refuse_same(self.from(), &target)?;
        }
        let receipt = self.begin_receipt(&target)?;
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
            image::send(&written, context).await?;
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
        if path == Path::new("-") {
            return Err(Failure::usage("a receipt goes to a file, not to stdout").into());
        }
        output::refuse_same(self.from(), path)?;
        let receipt = NewFile::create(path, Existing::Replace)?;
        if target != Path::new("-") {
            // Begun for its name, in which links are followed.
            let disk = NewFile::create(target, Existing::Replace)?;
            if place(disk.target()) == place(receipt.target()) {
                return Err(Failure::usage(format!(
                    "the disk file and its receipt cannot both be {}",
                    path.display()
                ))
                .into());
            }
        }
        Ok(Some(receipt))
    }

    async fn plan(self, context: &Context) -> Result<u8> {
        let input = Input::open(self.from(), context)?;
        let format = self
            .image
            .format(self.output.as_deref().unwrap_or(Path::new("")))?;
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
        plan::show(&plan, &format.to_string(), context.json)?;
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
        options.ext4.filesystem = self.image.filesystem();
        options.verity = self.image.verity;
        options.digests = self.receipt.is_some();
        options
    }

    /// Adds to a failure what to do about it: with an input that is a disk, not a tar, with one that
    /// is damaged or refused, and with a file system that is too small.
    fn other_way(&self, error: anyhow::Error) -> anyhow::Error {
        let error = match error.downcast::<layer::Error>() {
            Ok(error) => error,
            Err(error) => return error,
        };
        match error.kind() {
            layer::ErrorKind::Corrupt => {}
            layer::ErrorKind::NoSpace => {
                let full = error.to_string().contains("the size asked for");
                return match full {
                    true => error
                        .with_hint(
                            "give it more with --size, or leave that out: it takes what it needs",
                        )
                        .into(),
                    false => error.into(),
                };
            }
            _ => return error.into(),
        }
        let is_disk = |path: &Path| {
            layer::inspect(path).is_ok_and(|found| {
                found.filesystem.is_some() || found.disk.format != Format::Raw.to_string()
            })
        };
        let from = self.from();
        if !from.is_file() || !is_disk(from) {
            let hint = match error.problem() {
                None | Some(ProblemKind::Damaged) => {
                    "see whether the tar came whole, by its length or its digest"
                }
                Some(_) => "--plan instead of -o lists everything that is the matter with the tar",
            };
            return error.with_hint(hint).into();
        }
        let name = from.display();
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
            if let Some(verity) = converted.verity.as_ref().filter(|_| !context.json) {
                output::note(format_args!("{}", root_line(verity)));
            }
            context.done_beside_data(&done);
            return Ok(());
        }
        let mut line = format!(
            "{}: {} from a {} tar of {} with {}",
            target.display(),
            Size(converted.size),
            converted.compression,
            Size(converted.tar_bytes),
            report::counted(converted.entries, "entry", "entries")
        );
        if let Some(verity) = &converted.verity {
            // The hash is what was asked for, also by who wants nothing else said.
            if context.quiet && !context.json {
                return output::print(format_args!("{}", verity.root_hash));
            }
            line = format!("{line}\n{}", root_line(verity));
        }
        context.done(&done, &line)
    }
}

/// Where a file is or will be, however its folder was written.
fn place(file: &Path) -> PathBuf {
    if let Ok(found) = file.canonicalize() {
        return found;
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder
        .canonicalize()
        .unwrap_or_else(|_| folder.to_path_buf());
    folder.join(file.file_name().unwrap_or_default())
}
