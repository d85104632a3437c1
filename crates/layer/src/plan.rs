//! Tells what a conversion would make of a tar, and what is the matter with the tar, without making it.
//!
//! The conversion itself is run, into a storage that counts and forgets; so the two cannot disagree.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use opengcs_vhd::Storage;
use serde::Serialize;

use crate::counting::Counting;
use crate::image::{self, Shape, Tree};
use crate::problem::{Problem, Problems};
use crate::to_disk::{TarToDiskOptions, convert_noting};
use crate::unpack::Notes;
use crate::{Compression, Error, ErrorKind, Result, Warnings};

/// What would come of a tar.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The image that would be made; `None` when the tar would be refused.
    pub image: Option<PlannedImage>,
    /// The error that the conversion would end with.
    pub refusal: Option<Error>,
    /// Whether the tar was read to its end. After damage nobody knows where the next entry starts.
    pub is_whole: bool,
    /// How the tar came; `None` when that could not be told.
    pub compression: Option<Compression>,
    /// Entries in the tar.
    pub entries: u64,
    /// Bytes of the tar, uncompressed.
    pub tar_bytes: u64,
    /// The largest file, with its size in bytes, holes included.
    pub largest_file: Option<(Vec<u8>, u64)>,
    /// Entries with extended attributes.
    pub entries_with_attributes: u64,
    /// Bytes of the names and values of these.
    pub attribute_bytes: u64,
    /// What is the matter with the tar.
    pub problems: Problems,
    /// What the conversion would warn of; these are among `problems` too.
    pub warnings: Warnings,
}

/// An image that would be made. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedImage {
    /// The disk file.
    pub size: u64,
    /// The disk in it.
    pub virtual_size: u64,
    /// The file system in that.
    pub filesystem_size: u64,
    /// What is free in it.
    pub free: u64,
    /// A block.
    pub block_size: u32,
    /// Inodes in use, with those that ext4 reserves.
    pub inodes: u32,
    /// Inodes that are free.
    pub free_inodes: u32,
    /// Blocks of extended attributes that do not fit into their inodes.
    pub attribute_blocks: u64,
    /// Values of attributes that do not fit into such blocks either, and have inodes of their own.
    pub attribute_inodes: u32,
}

/// Reads a tar and tells what [`tar_to_disk`](crate::tar_to_disk) would make of it with these options.
/// Nothing is written.
///
/// What the conversion would refuse is no error but [`Plan::refusal`]; the rest of the tar is looked at
/// all the same, as far as it can be read.
///
/// ```
/// use opengcs_layer::{TarToDiskOptions, plan_tar};
/// let plan = plan_tar(&[0; 1024][..], &TarToDiskOptions::default())?;
/// assert!(plan.refusal.is_none());
/// assert_eq!(plan.image.map(|image| image.filesystem_size % 4096), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] for options that make no sense; [`ErrorKind::Cancelled`]; those of the
/// input.
pub fn plan_tar(input: impl Read, options: &TarToDiskOptions) -> Result<Plan> {
    let mut notes = Notes::default();
    let read_again = Arc::new(AtomicBool::new(false));
    let storage = Counting::new(Arc::clone(&read_again));
    let shape = Shape {
        tree: if options.verity {
            Tree::Room
        } else {
            Tree::None
        },
        ..options.shape(None)
    };
    let made = image::make(storage, &shape, |out| {
        convert_noting(input, out, &options.ext4, read_again, &mut notes).map(|(converted, out)| {
            let size = converted.virtual_size;
            (converted, size, out)
        })
    });
    let (image, refusal) = match made {
        Ok(made) => {
            let size = made.storage.length();
            let size = size.map_err(|error| Error::io("cannot count", error))?;
            (
                Some(planned(size, made.virtual_size, &made.filled.finished)),
                None,
            )
        }
        Err(error) if is_refusal(&error) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let Notes {
        compression,
        unpacked,
        mut problems,
        is_whole,
        largest,
        with_attributes,
        attribute_bytes,
        ..
    } = notes;
    add_warnings(&mut problems, &unpacked.warnings);
    if let Some(error) = &refusal {
        add_refusal(&mut problems, error);
    }
    problems.sort();
    Ok(Plan {
        image,
        refusal,
        is_whole,
        compression,
        entries: unpacked.entries,
        tar_bytes: unpacked.tar_bytes,
        largest_file: largest,
        entries_with_attributes: with_attributes,
        attribute_bytes,
        problems,
        warnings: unpacked.warnings,
    })
}

/// Whether an error is the tar's fault: options and the system have their own.
fn is_refusal(error: &Error) -> bool {
    error.entry().is_some()
        || matches!(
            error.kind(),
            ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NoSpace
        )
}

fn planned(size: u64, virtual_size: u64, finished: &opengcs_ext4::Finished) -> PlannedImage {
    PlannedImage {
        size,
        virtual_size,
        filesystem_size: finished.size,
        free: finished.free_blocks * u64::from(finished.block_size),
        block_size: finished.block_size,
        inodes: finished.inodes - finished.free_inodes,
        free_inodes: finished.free_inodes,
        attribute_blocks: finished.attribute_blocks,
        attribute_inodes: finished.attribute_inodes,
    }
}

fn add_warnings(problems: &mut Problems, warnings: &Warnings) {
    let mut rest = warnings.kinds().clone();
    for warning in warnings.iter() {
        let Some(kind) = warning.kind else { continue };
        if let Some(left) = rest.get_mut(&kind) {
            *left = left.saturating_sub(1);
        }
        problems.push(Problem {
            kind,
            path: warning.path.clone(),
            offset: None,
            what: warning.message.clone(),
        });
    }
    for (kind, left) in rest {
        problems.count(kind, left);
    }
}

/// Adds what only shows when all is unpacked, or before anything is.
fn add_refusal(problems: &mut Problems, error: &Error) {
    let is_told = problems.counts().keys().any(|kind| kind.is_refusal());
    if !is_told {
        let kind = crate::problem::kind_of(error);
        problems.push(Problem {
            kind,
            path: error.entry().unwrap_or_default().to_vec(),
            offset: error.offset(),
            what: error.message().to_owned(),
        });
    }
}
