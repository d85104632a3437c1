//! `opengcs verify`: whether a disk file is still the one of its receipt.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use opengcs::layer::{self, Control, Difference, Receipt};
use serde::Serialize;

use crate::context::Context;
use crate::failure;
use crate::input::Input;
use crate::output;
use crate::progress::Progress;

/// Tell whether a disk file is still as the receipt says that tar2vhd gave for it
///
/// Its length and digest are compared. If it has a dm-verity tree, every block is checked against the
/// tree, and the tree against the receipt's root hash; so it is told where the disk differs. The exit code
/// is 0 if it is the same, and 1 if it differs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs verify layer.vhd --receipt layer.json
  opengcs verify layer.vhd --receipt layer.json --tar layer.tar.gz

JSON: {file, receipt, tar: the tar or null, same, differences: [{field: image.size, image.digest,
verity, tar.size, tar.digest or tar.diff_id, expected, found}]}.")]
pub(crate) struct Verify {
    /// The disk file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its receipt, as tar2vhd --receipt wrote it
    #[arg(long, value_name = "RECEIPT")]
    receipt: PathBuf,
    /// Also compare this tar with the one that the receipt names; - for stdin
    #[arg(long, value_name = "TAR")]
    tar: Option<PathBuf>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Verified<'a> {
    file: &'a Path,
    receipt: &'a Path,
    tar: Option<&'a Path>,
    same: bool,
    differences: &'a [Difference],
}

impl Verify {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        let receipt = self.receipt(context).await?;
        let tar = match &self.tar {
            Some(path) => Some(Input::open(path, context)?),
            None => None,
        };
        let mut differences = self.image(context, receipt.clone()).await?;
        if let Some(tar) = tar {
            differences.extend(compare_tar(context, tar, receipt).await?);
        }
        let same = differences.is_empty();
        if context.json {
            output::json(&Verified {
                file: &self.file,
                receipt: &self.receipt,
                tar: self.tar.as_deref(),
                same,
                differences: &differences,
            })?;
        } else if !same {
            let found: Vec<String> = differences.iter().map(ToString::to_string).collect();
            output::print(format_args!(
                "{} differs from its receipt: {}",
                self.file.display(),
                found.join("; ")
            ))?;
        } else if !context.quiet {
            output::print(format_args!(
                "{} is as its receipt says",
                self.file.display()
            ))?;
        }
        Ok(if same { 0 } else { failure::FAILED })
    }

    async fn receipt(&self, context: &Context) -> Result<Receipt> {
        let path = self.receipt.clone();
        if !output::takes_bytes(&path) {
            return Ok(Receipt::read(&path)?);
        }
        let input = Input::open(&path, context)?;
        context
            .blocking(
                move || Ok(Receipt::read_from(input).map_err(|error| error.with_path(&path))?),
            )
            .await
    }

    async fn image(&self, context: &Context, receipt: Receipt) -> Result<Vec<Difference>> {
        let what = format!("reading {}", self.file.display());
        let progress = Progress::bytes(context, &what, Some(receipt.image.size));
        let moved = progress.mover();
        let control = Control::new()
            .cancel_with(context.stop.flag())
            .on_progress(move |now| moved(now.bytes));
        let file = self.file.clone();
        context
            .blocking(move || Ok(layer::verify_image(&file, &receipt, &control)?))
            .await
    }
}

async fn compare_tar(context: &Context, tar: Input, receipt: Receipt) -> Result<Vec<Difference>> {
    let progress = Progress::bytes(context, "reading the tar", tar.length());
    let follow = progress.follow(tar.counter());
    let control = Control::new()
        .cancel_with(context.stop.flag())
        .on_progress(move |_| follow());
    context
        .blocking(move || Ok(layer::verify_tar(tar, &receipt, &control)?))
        .await
}
