//! `opengcs squash`: a chain of layers becomes one image.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use opengcs::layer::{self, Control, SquashOptions, Squashed};
use serde::Serialize;

use super::vhd2tar::with_hint;
use crate::context::Context;
use crate::image::{self, ImageArguments, root_line};
use crate::output;
use crate::progress::Progress;
use crate::report;
use crate::size::Size;
use crate::warnings::{self, Told};

/// Make one image of a chain of layers, with whiteouts applied
///
/// The lowest layer, the base, comes first, as in an OCI manifest (overlayfs's lowerdir has them the
/// other way round). A layer is a disk file, a layer folder or a tar. The image has what an overlay of the
/// layers shows: what they hide from each other takes no room. Whiteouts and opaque folders count in both
/// forms, overlayfs's and OCI's `.wh.` files. Hard links and holes stay; a folder has the metadata of the
/// uppermost layer that has it. The same layers give the same bytes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs squash base.vhd app.vhd -o all.vhd
  opengcs squash base.tar.gz app.tar.gz -o all.img --verity
  opengcs squash base.vhd sandbox.vhdx --sandbox -o next.vhd    keep what a VM changed
  opengcs squash app.vhd fix.vhd --keep-whiteouts -o app2.vhd   to lie on base.vhd still

Sizes are bytes, or a number with K, M, G or T in binary units: 20G is 20 × 1024³ bytes.

JSON: {output, format, size, virtual_size, layers, entries, bytes: of files, without holes, inodes,
verity: as for tar2vhd, or null, warnings: [{path, message}], warnings_total}; sizes are bytes.")]
pub(crate) struct Squash {
    /// The layers, the lowest first
    #[arg(value_name = "LAYER", required = true)]
    layers: Vec<PathBuf>,
    /// The disk file to write, or - for stdout; it must be given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The uppermost layer is the disk of a sandbox: take the content of its folder `upper`
    #[arg(long)]
    sandbox: bool,
    /// Keep the whiteouts and opaque folders, for an image that is to lie on other layers
    #[arg(long)]
    keep_whiteouts: bool,
    /// Folder in which parents of differencing disks may lie, besides the disks' own; can be given
    /// more than once
    #[arg(long, value_name = "FOLDER")]
    parents: Vec<PathBuf>,
    #[command(flatten)]
    image: ImageArguments,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    output: &'a Path,
    format: String,
    size: u64,
    virtual_size: u64,
    layers: usize,
    entries: u64,
    bytes: u64,
    inodes: u32,
    verity: Option<&'a layer::Verity>,
    #[serde(flatten)]
    warnings: Told,
}

impl Squash {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let target = match &self.output {
            Some(path) => path.clone(),
            None => return Err(output::missing("all.vhd").into()),
        };
        let to_stdout = target == Path::new("-");
        if to_stdout {
            output::refuse_terminal("a disk file")?;
        } else {
            for layer in &self.layers {
                output::refuse_same(layer, &target)?;
            }
        }
        let what = if to_stdout {
            "making a disk file".to_owned()
        } else {
            format!("writing {}", target.display())
        };
        let progress = Progress::bytes(context, &what, None);
        let moved = progress.mover();
        let options = SquashOptions {
            filesystem: self.image.filesystem(),
            format: self.image.format(&target)?,
            verity: self.image.verity,
            sandbox: self.sandbox,
            keep_whiteouts: self.keep_whiteouts,
            parents: self.parents.clone(),
            control: Control::new()
                .cancel_with(context.stop.flag())
                .on_expected(progress.length())
                .on_progress(move |now| moved(now.bytes)),
            ..SquashOptions::default()
        };
        let format = options.format.to_string();
        // As for tar2vhd: what goes to stdout lies in a temporary folder first.
        let folder = if to_stdout {
            Some(tempfile::tempdir().context("cannot make a temporary folder")?)
        } else {
            None
        };
        let file = match &folder {
            Some(folder) => folder.path().join("disk"),
            None => target.clone(),
        };
        let (layers, written) = (self.layers.clone(), file.clone());
        let squashed = context
            .blocking(move || Ok(layer::squash(&layers, &file, &options)?))
            .await
            .map_err(with_hint)?;
        drop(progress);
        if to_stdout {
            image::send(&written, context).await?;
        }
        drop(folder);
        self.tell(context, &target, format, &squashed)?;
        Ok(0)
    }

    fn tell(
        &self,
        context: &Context,
        target: &Path,
        format: String,
        squashed: &Squashed,
    ) -> Result<()> {
        warnings::note(context, &squashed.warnings);
        let done = Done {
            output: target,
            format,
            size: squashed.size,
            virtual_size: squashed.virtual_size,
            layers: self.layers.len(),
            entries: squashed.entries,
            bytes: squashed.bytes,
            inodes: squashed.inodes,
            verity: squashed.verity.as_ref(),
            warnings: Told::of(&squashed.warnings),
        };
        let root = squashed.verity.as_ref();
        if target == Path::new("-") {
            if let Some(verity) = root.filter(|_| !context.json) {
                output::note(format_args!("{}", root_line(verity)));
            }
            context.done_beside_data(&done);
            return Ok(());
        }
        let layers = u64::try_from(self.layers.len()).unwrap_or(u64::MAX);
        let mut line = format!(
            "{}: {} from {}, with {}",
            target.display(),
            Size(squashed.size),
            report::counted(layers, "layer", "layers"),
            report::counted(squashed.entries, "entry", "entries")
        );
        if let Some(verity) = root {
            if context.quiet && !context.json {
                return output::print(format_args!("{}", verity.root_hash));
            }
            line = format!("{line}\n{}", root_line(verity));
        }
        context.done(&done, &line)
    }
}
