//! `opengcs vhd2tar`: a disk file becomes a tar.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::{ArgGroup, Args, ValueEnum};
use opengcs::layer::{
    self, Compression, Control, DiskToTarOptions, DiskWhiteouts, Existing, Exported, NewFile,
};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::input;
use crate::output;
use crate::progress::Progress;
use crate::report;
use crate::size::Size;
use crate::warnings::{self, Told};

/// Turn a disk file with an ext4 file system into a tar (a container layer)
///
/// The disk file is a VHD, a VHDX or raw; that is recognised by its content. It is only read; a
/// journal that was not written back is taken into account. A differencing disk is read with its
/// parents, which must lie beside it or in a folder given with --parents. overlayfs's whiteouts become `.wh.`
/// files, as OCI layers have them. The tar FILE appears when it is whole, and replaces one that is
/// there.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("from").required(true)),
    after_help = "\
Examples:
  opengcs vhd2tar layer.vhd -o layer.tar
  opengcs vhd2tar layer.vhd | tar t
  opengcs vhd2tar sandbox.vhdx --sandbox --gzip -o changes.tar.gz

JSON: {output, entries, tar_bytes, size, warnings: [{path, message}],
warnings_total}; sizes are bytes."
)]
pub(crate) struct Vhd2Tar {
    /// The disk file, or - for stdin
    #[arg(value_name = "FILE", group = "from")]
    file: Option<PathBuf>,
    /// The disk file, or - for stdin
    #[arg(short, long, value_name = "FILE", group = "from")]
    input: Option<PathBuf>,
    /// The tar to write, or - for stdout
    #[arg(short, long, value_name = "TAR", default_value = "-")]
    output: PathBuf,
    /// Only what a VM changed on a sandbox: the content of its folder `upper`
    #[arg(long)]
    sandbox: bool,
    /// What becomes of overlayfs's whiteouts: OCI's `.wh.` files, or kept as they are
    #[arg(long, value_name = "HOW", default_value = "oci")]
    whiteouts: Whiteouts,
    /// Leave holes of files out of the tar (PAX sparse files, which GNU tar and libarchive read)
    #[arg(long)]
    sparse: bool,
    /// Folder in which parents of a differencing disk may lie, besides the disk's own; can be
    /// given more than once
    #[arg(long, value_name = "FOLDER")]
    parents: Vec<PathBuf>,
    /// Compress the tar with gzip
    #[arg(long, conflicts_with = "zstd")]
    gzip: bool,
    /// Compress the tar with zstd
    #[arg(long)]
    zstd: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whiteouts {
    Oci,
    Keep,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    output: &'a Path,
    entries: u64,
    tar_bytes: u64,
    size: u64,
    #[serde(flatten)]
    warnings: Told,
}

impl Vhd2Tar {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let from = self
            .file
            .as_ref()
            .or(self.input.as_ref())
            .cloned()
            .unwrap_or_default();
        let to_stdout = self.output == Path::new("-");
        if to_stdout {
            output::refuse_terminal("a tar")?;
        } else {
            output::refuse_same(&from, &self.output)?;
        }
        refuse_folder(&from)?;
        let disk = if from == Path::new("-") {
            let stdin = input::Input::open(&from, context)?;
            let progress = Progress::bytes(context, "keeping the disk file", stdin.length());
            let follow = progress.follow(stdin.counter());
            context
                .blocking(move || input::OnDisk::spool(stdin, follow))
                .await?
        } else {
            input::OnDisk::Named(from)
        };
        let what = if to_stdout {
            "writing a tar".to_owned()
        } else {
            format!("writing {}", self.output.display())
        };
        let progress = Progress::bytes(context, &what, None);
        let moved = progress.mover();
        let control = Control::new()
            .cancel_with(context.stop.flag())
            .on_progress(move |now| moved(now.bytes))
            .on_expected(progress.length());
        let options = self.options(control);
        let target = (!to_stdout).then(|| self.output.clone());
        let stop = context.stop.flag();
        let (exported, size) = context
            .blocking(move || {
                export(disk.path(), target.as_deref(), &options, stop)
                    .map_err(|error| disk.named(with_hint(error)))
            })
            .await?;
        drop(progress);
        warnings::note(context, &exported.warnings);
        self.tell(context, &exported, size)?;
        Ok(0)
    }

    fn options(&self, control: Control) -> DiskToTarOptions {
        DiskToTarOptions {
            sandbox: self.sandbox,
            whiteouts: match self.whiteouts {
                Whiteouts::Oci => DiskWhiteouts::Oci,
                Whiteouts::Keep => DiskWhiteouts::Keep,
            },
            sparse: self.sparse,
            parents: self.parents.clone(),
            compression: match (self.gzip, self.zstd) {
                (true, _) => Compression::Gzip,
                (_, true) => Compression::Zstd,
                _ => Compression::None,
            },
            control,
        }
    }

    fn tell(&self, context: &Context, exported: &Exported, size: u64) -> Result<()> {
        let done = Done {
            output: &self.output,
            entries: exported.entries,
            tar_bytes: exported.tar_bytes,
            size,
            warnings: Told::of(&exported.warnings),
        };
        if self.output == Path::new("-") {
            context.done_beside_data(&done);
            return Ok(());
        }
        let line = format!(
            "{}: {} with {}",
            self.output.display(),
            Size(size),
            report::counted(exported.entries, "entry", "entries")
        );
        context.done(&done, &line)
    }
}

/// Writes the tar to where it goes; also returns how many bytes that were, compressed.
fn export(
    disk: &Path,
    target: Option<&Path>,
    options: &DiskToTarOptions,
    stop: Arc<AtomicBool>,
) -> Result<(Exported, u64)> {
    let Some(target) = target else {
        let mut out = Counted::new(output::data(stop)?);
        let exported = layer::disk_to_tar(disk, &mut out, options)?;
        return Ok((exported, out.count));
    };
    if output::takes_bytes(target) {
        let mut out = Counted::new(output::data_to(target, stop)?);
        let exported = layer::disk_to_tar(disk, &mut out, options)?;
        return Ok((exported, out.count));
    }
    let file = NewFile::create(target, Existing::Replace)?;
    let mut out = Counted::new(file.file());
    let exported =
        layer::disk_to_tar(disk, &mut out, options).map_err(|error| error.with_path(target))?;
    let count = out.count;
    file.publish()?;
    Ok((exported, count))
}

/// Adds what to do about a disk that cannot be read.
pub(crate) fn with_hint(error: anyhow::Error) -> anyhow::Error {
    const WHAT: &str =
        "opengcs inspect tells what the file is; e2fsck -fn, what is wrong with a raw disk";
    match error.downcast::<layer::Error>() {
        Ok(error) if error.kind() == layer::ErrorKind::Corrupt && error.advice().is_none() => {
            let said = error.to_string();
            let other_way = ["it is a tar;", " stream;"]
                .iter()
                .any(|words| said.contains(words));
            let hint = match other_way {
                true => "opengcs tar2vhd makes a disk file of a tar",
                false => WHAT,
            };
            error.with_hint(hint).into()
        }
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

/// Refuses a folder, and names the disk file in it.
pub(crate) fn refuse_folder(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    let failure = Failure::new(format!("{} is a folder, not a disk file", path.display()));
    Err(match layer::layer_vhd_details(path) {
        Ok(details) => failure
            .hint(format!(
                "give the disk file in it: {}",
                details.path.display()
            ))
            .into(),
        Err(_) => failure.into(),
    })
}

/// Counts what is written.
struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, count: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
