//! In which order host and guest take part in a change of the VM's disks.
//!
//! ```text
//!   add:     reserve ─► machine attaches ─► guest mounts or links ─► known
//!                            ▲                    │ refuses
//!                            └── detach ◄─────────┘
//!   remove:  guest unmounts ─► guest lets go of the device ─► machine detaches ─► forgotten
//! ```
//!
//! A change that fails half-way leaves the disk known, and a removal goes on where it stopped.

mod hot_add;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use opengcs_bridge::message::{
    MappedVirtualDisk, Modification, ModifyRequest, ModifySettings, Request, RequestBase,
    RequestType, ScsiDevice,
};
use opengcs_machine::Slot;

pub use self::hot_add::HotAdd;
pub(super) use self::hot_add::format_of;
use self::hot_add::{Examined, Place};
pub(super) use self::table::Disks;
use self::table::EntryState;
use super::{Inner, UtilityVm, kind_of_refusal, machine_error};
use crate::error::{Error, ErrorKind, Result};

/// Where the VM makes links to devices, when nobody says where.
const LINKS: &str = "/run/opengcs/disks";

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
    /// The partition that it is about; 0 is the whole disk.
    pub partition: u64,
    /// The size of the disk in bytes, where its file tells it for sure.
    pub size: Option<u64>,
    /// The root hash that the guest's kernel holds it to, in hexadecimal.
    pub verity_root: Option<String>,
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
        let disk = HotAdd::new(host_path.as_ref()).read_only(read_only);
        self.hot_add(match (mount, container_path) {
            (true, path) => disk.mount(path),
            (false, "") => disk,
            (false, path) => disk.link(path),
        })
        .await
    }

    /// [`hot_add_vhd`](Self::hot_add_vhd) with everything that can be said of a disk: mount options, a
    /// partition, another file system, a hash tree that it must agree with.
    ///
    /// # Errors
    /// As there. A differencing disk is refused.
    pub async fn hot_add(&self, disk: HotAdd) -> Result<Attachment> {
        self.inner.link.alive()?;
        let named = disk.host_path().to_owned();
        let real = std::fs::canonicalize(&named)
            .map_err(|error| Error::io("find the disk", &named, error))?;
        let place = disk.place()?;
        let path = match &place {
            Place::Chosen => None,
            Place::Link(path) | Place::Mount(path) => Some(path.as_str()),
        };
        let inner = Arc::clone(&self.inner);
        inner.disks.reserve(&real, &named, path)?;
        to_the_end(async move {
            let outcome = inner.add(&named, &real, disk, place).await;
            match outcome {
                Ok(attachment) => {
                    let state = EntryState::Attached(attachment.clone());
                    inner.disks.set(&real, state);
                    Ok(attachment)
                }
                Err((error, None)) => {
                    inner.disks.forget(&real);
                    Err(error)
                }
                Err((error, Some(left))) => {
                    inner.disks.set(&real, EntryState::Unmounted(left));
                    Err(error.hint("it is still attached: remove it, as often as it takes"))
                }
            }
        })
        .await
    }

    /// Removes a disk from the running VM: the guest unmounts it and lets go of the device, then the
    /// machine closes the file. When this returns the file is free.
    ///
    /// # Errors
    /// It is not attached; or the guest refuses, as when files on it are in use (the processes are
    /// named): it stays attached then, and the removal can be tried again. Or its last bytes cannot be
    /// written, as when the host has no more room: they are lost, and the next removal frees the file.
    #[doc(alias = "HotRemoveVhd")]
    pub async fn hot_remove_vhd(&self, host_path: impl AsRef<Path>) -> Result<()> {
        let named = host_path.as_ref().to_owned();
        let inner = Arc::clone(&self.inner);
        let (real, attachment, mounted) = inner.disks.begin_removal(&named)?;
        to_the_end(async move {
            match inner.remove(&named, &attachment, mounted).await {
                Ok(()) => {
                    inner.disks.forget(&real);
                    Ok(())
                }
                Err((error, still_mounted)) => {
                    let state = match still_mounted {
                        true => EntryState::Attached(attachment),
                        false => EntryState::Unmounted(attachment),
                    };
                    inner.disks.set(&real, state);
                    Err(error)
                }
            }
        })
        .await
    }

    /// The disks that the VM has now, in the order of their places on the controllers.
    #[must_use]
    pub fn disks(&self) -> Vec<Attachment> {
        self.inner.disks.all()
    }

    /// The attachment of a disk file, if this VM has it.
    pub(super) fn attachment_of(&self, host_path: &Path) -> Option<Attachment> {
        self.inner.disks.find(host_path)?.1.attachment().cloned()
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

impl Inner {
    /// On failure gives the attachment, if it could not be taken back.
    async fn add(
        &self,
        named: &Path,
        real: &Path,
        disk: HotAdd,
        place: Place,
    ) -> Result<Attachment, (Error, Option<Attachment>)> {
        let for_thread = real.to_owned();
        let examined = tokio::task::spawn_blocking(move || disk.examine(&for_thread)).await;
        let examined = examined.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Cancelled, "the change was given up").caused_by(error))
        });
        let Examined { spec, mut mapping } = examined.map_err(|error| (error, None))?;
        let slot = self.machine.attach(spec).await.map_err(|error| {
            let what = format!("cannot attach the disk {}", named.display());
            (machine_error(what, error), None)
        })?;
        let place = match place {
            Place::Chosen => {
                GuestPlace::Device(format!("{LINKS}/{}-{}", slot.controller, slot.lun))
            }
            Place::Link(path) => GuestPlace::Device(path),
            Place::Mount(path) => GuestPlace::Mounted(path),
        };
        mapping.controller = slot.controller;
        mapping.lun = slot.lun;
        place.path().clone_into(&mut mapping.mount_path);
        mapping.block_dev = matches!(place, GuestPlace::Device(_));
        let attachment = Attachment {
            host_path: real.to_owned(),
            controller: slot.controller,
            lun: slot.lun,
            place,
            read_only: mapping.read_only,
            partition: mapping.partition,
            size: Some(mapping.size_in_bytes).filter(|size| *size != 0),
            verity_root: mapping
                .verity_info
                .as_ref()
                .map(|info| info.root_digest.clone()),
        };
        let added = Modification::MappedVirtualDisk(Box::new(mapping));
        let Err(error) = self.modify(RequestType::add(), added).await else {
            return Ok(attachment);
        };
        let left = self.take_back(&attachment, &error).await;
        let what = match &attachment.place {
            GuestPlace::Mounted(path) => format!(
                "cannot mount the disk {} at {path} in the VM",
                named.display()
            ),
            GuestPlace::Device(_) => {
                format!("the VM does not find the disk {}", named.display())
            }
        };
        let kind = match kind_of_refusal(&error) {
            ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => error.kind(),
        };
        let error = Error::new(kind, what).caused_by(error);
        Err((error, left.is_err().then_some(attachment)))
    }

    /// Takes back an attachment that the guest did not want, or of which nobody knows whether it did.
    async fn take_back(&self, attachment: &Attachment, why: &Error) -> Result<()> {
        let refused = why.kind() == ErrorKind::GuestRefused;
        if !refused
            && let Err(error) = self
                .modify(RequestType::remove(), mapping(attachment))
                .await
        {
            tracing::debug!(error = %error.report(), "an unanswered disk could not be unmounted");
        }
        let slot = attachment.slot();
        match self.modify(RequestType::remove(), device(slot)).await {
            // What the guest uses is not torn away from it.
            Err(error) if error.kind() == ErrorKind::GuestRefused => {
                tracing::warn!(%slot, error = %error.report(), "the guest does not let go of a disk");
                return Err(error);
            }
            // A guest that does not answer must not keep the file for ever.
            Err(error) => {
                tracing::debug!(%slot, error = %error.report(), "the guest did not let go of a disk");
            }
            Ok(()) => {}
        }
        self.detach(slot).await.inspect_err(|error| {
            tracing::warn!(%slot, %error, "a refused disk could not be detached");
        })
    }

    /// A slot that is empty by now is as good as one that was emptied.
    async fn detach(&self, slot: Slot) -> Result<()> {
        match self.machine.detach(slot).await {
            Err(error) if error.kind() == opengcs_machine::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| machine_error("the machine keeps it", error)),
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
        let slot = attachment.slot();
        self.modify(RequestType::remove(), device(slot))
            .await
            .map_err(|error| (failed("let the VM go of", error), false))?;
        self.detach(slot)
            .await
            .map_err(|error| (failed("detach", error), false))
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

impl Attachment {
    fn slot(&self) -> Slot {
        Slot {
            controller: self.controller,
            lun: self.lun,
        }
    }
}

/// What a removal says of a disk that is mounted or linked to.
fn mapping(attachment: &Attachment) -> Modification {
    Modification::MappedVirtualDisk(Box::new(MappedVirtualDisk {
        mount_path: attachment.place.path().to_owned(),
        controller: attachment.controller,
        lun: attachment.lun,
        partition: attachment.partition,
        read_only: attachment.read_only,
        block_dev: matches!(attachment.place, GuestPlace::Device(_)),
        ..MappedVirtualDisk::default()
    }))
}

fn device(slot: Slot) -> Modification {
    Modification::ScsiDevice(ScsiDevice {
        controller: slot.controller,
        lun: slot.lun,
    })
}
