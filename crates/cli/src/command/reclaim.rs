//! `opengcs reclaim`: a disk file gives back what its file system has free.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use opengcs::layer::{self, Control, ReclaimOptions, Reclaimed};
use serde::Serialize;

use super::vhd2tar::{refuse_folder, with_hint};
use crate::context::Context;
use crate::progress::Progress;
use crate::size::Size;

/// Give back the room that a disk file takes for what its file system has free
///
/// What was deleted in a VM still takes room in the disk file. In a raw disk and in a fixed VHD, free
/// blocks become holes; a VHDX gets shorter, as its blocks move together. Nothing that is in use is
/// written, so that an interruption, also by a power cut, leaves the disk whole. No VM may have the
/// disk meanwhile.
///
/// Not done are dynamic VHDs, differencing disks, and disks with a dm-verity tree. A VHDX that is the
/// parent of others must not be changed, by this either: they would no longer take it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs reclaim sandbox.vhdx
  opengcs reclaim data.img --json

JSON: {file, format, free, size_before, size, allocated_before, allocated, gained}; sizes are bytes:
free of blocks that are free in the file system, size of the file, allocated of what it takes on
its own disk.")]
pub(crate) struct Reclaim {
    /// The disk file: VHDX, fixed VHD or raw, with ext4; or a block device
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    file: &'a Path,
    #[serde(flatten)]
    found: &'a Reclaimed,
    gained: u64,
}

impl Reclaim {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        refuse_folder(&self.file)?;
        let what = format!("reclaiming room in {}", self.file.display());
        let progress = Progress::bytes(context, &what, None);
        let moved = progress.mover();
        let control = Control::new()
            .cancel_with(context.stop.flag())
            .on_progress(move |now| moved(now.bytes))
            .on_expected(progress.length());
        let file = self.file.clone();
        let found = context
            .blocking(move || Ok(layer::reclaim(&file, &ReclaimOptions { control })?))
            .await
            .map_err(with_hint)?;
        drop(progress);
        let gained = found.gained();
        let name = self.file.display();
        let free = Size(found.free);
        let line = match found.allocated {
            Some(allocated) => format!(
                "{name}: {} gained; it takes {}, with {free} free in its file system",
                Size(gained),
                Size(allocated)
            ),
            None if gained > 0 => format!("{name}: {} gained", Size(gained)),
            // What a device does with that is not known.
            None => format!("{name}: {free} that are free in its file system were given back"),
        };
        let done = Done {
            file: &self.file,
            found: &found,
            gained,
        };
        context.done(&done, &line)?;
        Ok(0)
    }
}
