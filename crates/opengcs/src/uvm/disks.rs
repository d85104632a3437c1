//! Which disks the VM has, and in which order host and guest take part in a change.
//!
//! ```text
//!   add:     reserve ─► machine attaches ─► guest mounts or links ─► known
//!                            ▲                    │ refuses
//!                            └── detach ◄─────────┘
//!   remove:  guest unmounts ─► guest lets go of the device ─► machine detaches ─► forgotten
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opengcs_bridge::message::{
    MappedVirtualDisk, Modification, ModifyRequest, ModifySettings, Request, RequestBase,
    RequestType, ScsiDevice,
};
use opengcs_machine::{DiskFormat, DiskSpec, Slot};

use super::{Inner, UtilityVm, machine_error};
use crate::config::check_guest_path;
use crate::error::{Error, ErrorKind, Result};

/// Where an attached disk is in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestPlace {
    /// Its file system is mounted here.
    Mounted(String),
    /// Nothing is mounted; here is a link to its device.
    Device(String),
}

impl GuestPlace {
    /// The path, whichever it is.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Mounted(path) | Self::Device(path) => path,
        }
    }
}

/// A disk that the VM has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The disk file, by its real path.
    pub host_path: PathBuf,
    /// The SCSI controller, from 0.
    pub controller: u8,
    /// The logical unit on it, 0–63.
    pub lun: u8,
    /// Where it is in the guest.
    pub place: GuestPlace,
    /// Whether nobody can write to it.
    pub read_only: bool,
}

/// The VM's disks by their files' real paths.
#[derive(Default)]
pub(super) struct Disks {
    table: Mutex<BTreeMap<PathBuf, Entry>>,
}

#[derive(Clone)]
struct Entry {
    /// The path by which the caller named it.
    named: PathBuf,
    place: String,
    state: EntryState,
}

#[derive(Clone)]
enum EntryState {
    Adding,
    Attached(Attachment),
    /// Unmounted in the guest; a removal that failed half-way goes on from here.
    Unmounted(Attachment),
    Removing(Attachment),
}

impl Disks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, real: &Path, named: &Path, place: &str) -> Result<()> {
        let mut table = self.lock();
        if table.contains_key(real) {
            return Err(Error::new(
                ErrorKind::AlreadyAttached,
                format!(
                    "the disk {} is attached to this VM already",
                    named.display()
                ),
            ));
        }
        if let Some(other) = table.values().find(|entry| entry.place == place) {
            return Err(Error::new(
                ErrorKind::AlreadyAttached,
                format!(
                    "{place} in the VM is taken by the disk {}",
                    other.named.display()
                ),
            ));
        }
        table.insert(
            real.to_owned(),
            Entry {
                named: named.to_owned(),
                place: place.to_owned(),
                state: EntryState::Adding,
            },
        );
        Ok(())
    }

    fn set(&self, real: &Path, state: EntryState) {
        if let Some(entry) = self.lock().get_mut(real) {
            entry.state = state;
        }
    }

    /// Finds a disk by the path that was given: by its real path, or as it was named when the file
    /// has gone since.
    fn find(&self, named: &Path) -> Option<(PathBuf, EntryState)> {
        let table = self.lock();
        let real = std::fs::canonicalize(named).ok();
        table
            .iter()
            .find(|(key, entry)| {
                Some(key.as_path()) == real.as_deref()
                    || entry.named == named
                    || key.as_path() == named
            })
            .map(|(key, entry)| (key.clone(), entry.state.clone()))
    }
}

/// The format of a disk file, by its content.
pub(super) fn format_of(path: &Path) -> Result<DiskFormat> {
    let file = File::open(path).map_err(|error| Error::io("open the disk", path, error))?;
    let found = opengcs_layer::detect(&file).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("{} is not a disk file", path.display()),
        )
        .caused_by(error)
    })?;
    match found {
        opengcs_layer::Format::FixedVhd => Ok(DiskFormat::FixedVhd),
        opengcs_layer::Format::DynamicVhd => Ok(DiskFormat::DynamicVhd),
        opengcs_layer::Format::Vhdx => Ok(DiskFormat::Vhdx),
        opengcs_layer::Format::Raw => Ok(DiskFormat::Raw),
        #[allow(unreachable_patterns, reason = "the enum may grow")]
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} is a {other}, which a VM cannot have", path.display()),
        )),
    }
}

impl UtilityVm {
    /// Adds a disk file to the running VM: VHD, VHDX or raw, as its content says.
    ///
    /// With `mount` its file system is mounted at `container_path`, which is made. Without, only the
    /// device is there, and `container_path` becomes a link to it; an empty `container_path` lets the
    /// VM choose the link's place. Either way the guest has the device when this returns, and the
    /// returned [`Attachment`] says where.
    ///
    /// ```no_run
    /// # async fn example(vm: opengcs::UtilityVm) -> opengcs::Result<()> {
    /// vm.hot_add_vhd("layer.vhd", "/mnt/layer", true, true).await?;
    /// vm.run_process("ls /mnt/layer").await?.wait().await?;
    /// vm.hot_remove_vhd("layer.vhd").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The file is not there or no disk; it or the place is taken; another owner holds it; every slot
    /// is taken; or the guest refuses it, and it is detached again then.
    #[doc(alias = "HotAddVhd")]
    pub async fn hot_add_vhd(
        &self,
        host_path: impl AsRef<Path>,
        container_path: &str,
        read_only: bool,
        mount: bool,
    ) -> Result<Attachment> {
        self.inner.link.alive()?;
        let named = host_path.as_ref().to_owned();
        let real = std::fs::canonicalize(&named)
            .map_err(|error| Error::io("find the disk", &named, error))?;
        let format = format_of(&real)?;
        let chosen;
        let place = if container_path.is_empty() && !mount {
            chosen = format!("/run/opengcs/disks/{}", next_number());
            chosen.as_str()
        } else {
            check_guest_path(container_path)?;
            container_path.trim_end_matches('/')
        };
        let inner = Arc::clone(&self.inner);
        inner.disks.reserve(&real, &named, place)?;
        let place = if mount {
            GuestPlace::Mounted(place.to_owned())
        } else {
            GuestPlace::Device(place.to_owned())
        };
        let spec = DiskSpec::new(&real, format, read_only);
        to_the_end(async move {
            let outcome = inner.add(&named, spec, place).await;
            match &outcome {
                Ok(attachment) => inner
                    .disks
                    .set(&real, EntryState::Attached(attachment.clone())),
                Err(_) => {
                    inner.disks.lock().remove(&real);
                }
            }
            outcome
        })
        .await
    }

    /// Removes a disk from the running VM: the guest unmounts it and lets go of the device, then the
    /// machine closes the file. When this returns the file is free.
    ///
    /// # Errors
    /// It is not attached; or the guest refuses, as when files on it are in use: it stays attached
    /// then, and the removal can be tried again.
    #[doc(alias = "HotRemoveVhd")]
    pub async fn hot_remove_vhd(&self, host_path: impl AsRef<Path>) -> Result<()> {
        let named = host_path.as_ref().to_owned();
        let inner = Arc::clone(&self.inner);
        let not_attached = || {
            Error::new(
                ErrorKind::NotAttached,
                format!("the disk {} is not attached to this VM", named.display()),
            )
        };
        let (real, state) = inner.disks.find(&named).ok_or_else(not_attached)?;
        let (attachment, mounted) = match state {
            EntryState::Attached(attachment) => (attachment, true),
            EntryState::Unmounted(attachment) => (attachment, false),
            EntryState::Adding | EntryState::Removing(_) => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!("the disk {} is being added or removed", named.display()),
                ));
            }
        };
        inner
            .disks
            .set(&real, EntryState::Removing(attachment.clone()));
        to_the_end(async move {
            let outcome = inner.remove(&named, &attachment, mounted).await;
            match outcome {
                Ok(()) => {
                    inner.disks.lock().remove(&real);
                    Ok(())
                }
                Err((error, still_mounted)) => {
                    inner.disks.set(
                        &real,
                        if still_mounted {
                            EntryState::Attached(attachment)
                        } else {
                            EntryState::Unmounted(attachment)
                        },
                    );
                    Err(error)
                }
            }
        })
        .await
    }

    /// The disks that the VM has now, in the order of their places on the controllers.
    #[must_use]
    pub fn disks(&self) -> Vec<Attachment> {
        let mut all: Vec<_> = self
            .inner
            .disks
            .lock()
            .values()
            .filter_map(|entry| match &entry.state {
                EntryState::Attached(attachment) => Some(attachment.clone()),
                _ => None,
            })
            .collect();
        all.sort_by_key(|disk| (disk.controller, disk.lun));
        all
    }

    /// The attachment of a disk file, if this VM has it.
    pub(super) fn attachment_of(&self, host_path: &Path) -> Option<Attachment> {
        match self.inner.disks.find(host_path)?.1 {
            EntryState::Attached(attachment)
            | EntryState::Unmounted(attachment)
            | EntryState::Removing(attachment) => Some(attachment),
            EntryState::Adding => None,
        }
    }
}

/// Runs a change to its end even when nobody waits for it any more.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(
            ErrorKind::Cancelled,
            "the change was given up: the program is ending",
        )),
    }
}

fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Inner {
    async fn add(&self, named: &Path, spec: DiskSpec, place: GuestPlace) -> Result<Attachment> {
        let read_only = spec.read_only;
        let host_path = spec.path.clone();
        let slot = self.machine.attach(spec).await.map_err(|error| {
            machine_error(format!("cannot attach the disk {}", named.display()), error)
        })?;
        let attachment = Attachment {
            host_path,
            controller: slot.controller,
            lun: slot.lun,
            place,
            read_only,
        };
        let mapped = self.modify(RequestType::add(), mapping(&attachment)).await;
        if let Err(error) = mapped {
            self.let_go(slot).await;
            let what = match &attachment.place {
                GuestPlace::Mounted(path) => format!(
                    "cannot mount the disk {} at {path} in the VM",
                    named.display()
                ),
                GuestPlace::Device(_) => {
                    format!("the VM does not find the disk {}", named.display())
                }
            };
            return Err(Error::new(error.kind(), what).caused_by(error));
        }
        Ok(attachment)
    }

    /// Takes back an attachment that the guest did not want.
    async fn let_go(&self, slot: Slot) {
        let device = Modification::ScsiDevice(ScsiDevice {
            controller: slot.controller,
            lun: slot.lun,
        });
        // The guest may not have the device at all.
        if let Err(error) = self.modify(RequestType::remove(), device).await {
            tracing::debug!(%slot, error = %error.report(), "the guest did not let go of a refused disk");
        }
        if let Err(error) = self.machine.detach(slot).await {
            tracing::warn!(%slot, %error, "a refused disk could not be detached");
        }
    }

    /// On failure says whether the disk is still mounted.
    async fn remove(
        &self,
        named: &Path,
        attachment: &Attachment,
        mounted: bool,
    ) -> Result<(), (Error, bool)> {
        let failed = |what: &str, error: Error| {
            Error::new(
                error.kind(),
                format!("cannot {what} the disk {}", named.display()),
            )
            .caused_by(error)
        };
        if mounted {
            self.modify(RequestType::remove(), mapping(attachment))
                .await
                .map_err(|error| (failed("unmount", error), true))?;
        }
        let device = Modification::ScsiDevice(ScsiDevice {
            controller: attachment.controller,
            lun: attachment.lun,
        });
        self.modify(RequestType::remove(), device)
            .await
            .map_err(|error| (failed("let the VM go of", error), false))?;
        let slot = Slot {
            controller: attachment.controller,
            lun: attachment.lun,
        };
        self.machine.detach(slot).await.map_err(|error| {
            (
                machine_error(format!("cannot detach the disk {}", named.display()), error),
                false,
            )
        })
    }

    pub(super) async fn modify(
        &self,
        request_type: RequestType,
        modification: Modification,
    ) -> Result<()> {
        let change = ModifySettings::new(request_type, &modification).map_err(|error| {
            Error::new(ErrorKind::Protocol, "cannot say it to the agent").caused_by(error)
        })?;
        let request = Request::ModifySettings(ModifyRequest {
            base: RequestBase::utility_vm(),
            change,
        });
        self.link
            .request(&request, Some(self.timeout()))
            .await
            .map(drop)
    }
}

fn mapping(attachment: &Attachment) -> Modification {
    Modification::MappedVirtualDisk(Box::new(MappedVirtualDisk {
        mount_path: attachment.place.path().to_owned(),
        controller: attachment.controller,
        lun: attachment.lun,
        read_only: attachment.read_only,
        block_dev: matches!(attachment.place, GuestPlace::Device(_)),
        ..MappedVirtualDisk::default()
    }))
}
