//! What a disk file says of itself, for people and listings.

use std::fmt;

use super::{Access, Disk, Format, Inner};
use crate::vhdx::LogState;
use crate::{Error, Guid, Result, Storage};

/// What a disk file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The format.
    pub format: Format,
    /// The size of the disk in bytes.
    pub virtual_size: u64,
    /// The length of the file in bytes.
    pub file_size: u64,
    /// The bytes that the file takes on its own disk, where that is known.
    pub file_allocated: Option<u64>,
    /// The bytes of the disk for which there is room in the file.
    pub allocated: u64,
    /// The bytes in a block, of formats that have blocks.
    pub block_size: Option<u64>,
    /// The bytes in a logical sector, where the format says so.
    pub logical_sector_size: Option<u32>,
    /// The bytes in a physical sector, where the format says so.
    pub physical_sector_size: Option<u32>,
    /// The identifier of the disk.
    pub id: Option<Guid>,
    /// The identifier by which a child knows this disk as its parent: that of
    /// a VHDX's content, which changes when it is written to, or a VHD's.
    pub content_id: Option<Guid>,
    /// The tool that made the file, in its own words.
    pub creator: Option<String>,
    /// Whether a VHDX's log was clean, or how many entries were replayed.
    pub log: Option<LogState>,
    /// The parent of a differencing disk.
    pub parent: Option<ParentSummary>,
    /// How many blocks the disk has, of formats that have blocks.
    pub blocks: Option<u64>,
    /// Where the parts of a VHDX lie that are not blocks, in the order of the file.
    pub regions: Vec<RegionSummary>,
}

/// A part of a VHDX that is no block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionSummary {
    /// `log`, `metadata`, `block table`, or `unknown`.
    pub name: &'static str,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// What a differencing disk says of its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentSummary {
    /// The identifiers the parent may have: a VHDX's content identifiers, a VHD's identifier.
    pub ids: Vec<Guid>,
    /// The paths at which to look for it, as the file has them, the relative one first.
    pub paths: Vec<String>,
}

impl ParentSummary {
    /// Whether a disk file is the parent, as far as identifiers tell.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Disk, DiskOptions, Format, Guid, ParentSummary};
    /// let options = DiskOptions::new(Format::Vhdx, Some(1 << 20), Guid::from_u128(1));
    /// let summary = Disk::create(MemoryFile::new(), &options)?.summary()?;
    /// let ids = vec![summary.content_id.expect("a VHDX has one")];
    /// let parent = ParentSummary { ids, paths: vec![r".\base.vhdx".into()] };
    /// assert!(parent.is(&summary));
    /// assert!(!ParentSummary::default().is(&summary));
    /// # Ok::<(), opengcs_vhd::Error>(())
    /// ```
    #[must_use]
    pub fn is(&self, disk: &Summary) -> bool {
        disk.content_id.is_some_and(|id| self.ids.contains(&id))
    }
}

impl fmt::Display for ParentSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.paths.first() {
            Some(path) => write!(f, "{path:?}"),
            None => f.write_str("(no path given)"),
        }
    }
}

impl<S: Storage> Disk<S> {
    /// What a disk file says of itself, also of a differencing disk without
    /// its parents.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Disk, DiskOptions, Format, Guid};
    /// let options = DiskOptions::new(Format::FixedVhd, Some(1 << 20), Guid::from_u128(1));
    /// let file = Disk::create(MemoryFile::new(), &options)?.finish()?;
    /// let summary = Disk::describe(file)?;
    /// assert_eq!((summary.virtual_size, summary.parent), (1 << 20, None));
    /// # Ok::<(), opengcs_vhd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Disk::open`], but for differencing disks.
    pub fn describe(storage: S) -> Result<Summary> {
        Self::open_alone(storage, Access::ReadOnly)?.summary()
    }

    /// What the disk file says of itself.
    ///
    /// ```
    /// use opengcs_vhd::testing::MemoryFile;
    /// use opengcs_vhd::{Disk, DiskOptions, Format, Guid};
    /// use positioned_io::WriteAt;
    /// let options = DiskOptions::new(Format::Vhdx, Some(1 << 30), Guid::from_u128(1));
    /// let mut disk = Disk::create(MemoryFile::new(), &options)?;
    /// disk.write_all_at(5 << 20, b"x")?;
    /// let summary = disk.summary()?;
    /// assert_eq!((summary.allocated, summary.block_size), (1 << 20, Some(1 << 20)));
    /// assert_eq!(summary.creator.as_deref(), Some("opengcs"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub fn summary(&self) -> Result<Summary> {
        let storage = self.storage();
        let io = |error| Error::io("cannot find the length", 0, error);
        let file_size = storage.length().map_err(io)?;
        let file_allocated = storage.allocated().map_err(io)?;
        let mut summary = Summary {
            format: self.format(),
            virtual_size: self.virtual_size(),
            file_size,
            file_allocated,
            allocated: self.virtual_size(),
            block_size: None,
            logical_sector_size: None,
            physical_sector_size: None,
            id: None,
            content_id: None,
            creator: None,
            log: None,
            parent: None,
            blocks: None,
            regions: Vec::new(),
        };
        let footer = match &self.inner {
            Inner::Flat { footer, .. } => footer.as_deref(),
            Inner::Dynamic(disk) => {
                summary.allocated = disk.allocated()?;
                summary.block_size = Some(disk.block_size());
                summary.parent = disk.parent().map(|parent| {
                    let mut paths: Vec<String> = Vec::new();
                    for platform in [b"W2ru", b"Wi2r", b"MacX", b"W2ku", b"Wi2k"] {
                        let found = parent.locators.iter().filter(|l| l.platform == *platform);
                        paths.extend(found.map(|locator| locator.path.clone()));
                    }
                    paths.push(parent.name.clone());
                    paths.retain(|path| !path.is_empty());
                    ParentSummary {
                        ids: vec![parent.unique_id],
                        paths,
                    }
                });
                Some(disk.footer())
            }
            Inner::Vhdx(disk) => {
                summary.allocated = disk.allocated();
                summary.block_size = Some(u64::from(disk.block_size()));
                summary.logical_sector_size = Some(disk.logical_sector_size());
                summary.physical_sector_size = Some(disk.physical_sector_size());
                summary.id = Some(disk.disk_id());
                summary.content_id = Some(disk.data_write_guid());
                summary.creator = Some(disk.creator().to_owned());
                summary.log = Some(disk.log_state());
                summary.regions = disk.regions();
                summary.parent = disk.parent().map(|parent| ParentSummary {
                    ids: parent.linkages(),
                    paths: ["relative_path", "volume_path", "absolute_win32_path"]
                        .into_iter()
                        .filter_map(|key| parent.value(key))
                        .map(str::to_owned)
                        .collect(),
                });
                None
            }
        };
        summary.blocks = summary
            .block_size
            .and_then(std::num::NonZeroU64::new)
            .map(|size| summary.virtual_size.div_ceil(size.get()));
        if let Some(footer) = footer {
            summary.logical_sector_size = Some(512);
            summary.id = Some(footer.unique_id);
            summary.content_id = Some(footer.unique_id);
            summary.creator = Some(
                String::from_utf8_lossy(&footer.creator_application)
                    .trim_matches(|c: char| c.is_whitespace() || c.is_control())
                    .to_owned(),
            );
        }
        Ok(summary)
    }
}
