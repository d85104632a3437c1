//! Disk files: VHD, VHDX and raw.
//!
//! A [`Disk`] reads and writes the virtual disk in a file of any of these
//! formats through positions, as [`positioned_io`] has them. What holds the
//! file's bytes is a [`Storage`]: a [`std::fs::File`], or anything else.
//!
//! ```text
//!            Disk ── ReadAt, WriteAt, Size of the virtual disk
//!     ┌───────┼──────────┐
//!    raw   vhd (fixed,  vhdx (log, block table, chains)
//!          dynamic)
//!     └───────┼──────────┘
//!          Storage ── a file, a device, memory
//! ```
//!
//! The same calls give the same bytes: identifiers and times come from the
//! caller. A writer that dies at any byte leaves a VHDX that opens to the state
//! of the last flush, or a later one. What is [discarded](Disk::discard) gives
//! its room back as safely.
//!
//! Differencing disks are read by [`Disk::open_chain`], with parents that the
//! caller finds.
//!
//! Refused: writing to dynamic VHDs and to differencing disks; VHDX regions and
//! metadata that a file requires and that the specification does not name; logs
//! longer than 64 MiB.
//!
//! ```
//! use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid};
//! use positioned_io::{ReadAt, WriteAt};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("scratch.vhdx");
//! let file = std::fs::File::create_new(&path)?;
//! let id = Guid::from_u128(0x6f70656e_6763_7300_8000_000000000001); // random, in earnest
//! let options = DiskOptions::new(Format::Vhdx, Some(20 << 30), id);
//! let mut disk = Disk::create(file, &options)?;
//! disk.write_all_at(1 << 30, b"hello")?;
//! disk.finish()?;
//!
//! let disk = Disk::open(std::fs::File::open(&path)?, Access::ReadOnly)?;
//! let mut hello = [0; 5];
//! disk.read_exact_at(1 << 30, &mut hello)?;
//! assert_eq!(&hello, b"hello");
//! assert_eq!(disk.virtual_size(), 20 << 30);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )
)]

mod disk;
mod error;
mod guid;
mod number;
mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod vhd;
pub mod vhdx;

pub use disk::{Access, Disk, DiskOptions, Format, ParentSummary, RegionSummary, Summary, detect};
pub use error::{Error, ErrorKind, Result};
pub use guid::Guid;
pub use storage::Storage;
pub use vhd as fixed;
