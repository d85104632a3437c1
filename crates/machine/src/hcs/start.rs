//! Decides how a machine comes up: what is looked at first, and what a failure leaves behind (nothing).

use std::sync::Arc;
use std::time::Duration;

use super::console::Recording;
use super::document::{self, Surroundings};
use super::run::Inner;
use super::sys::system::{self, Ask, System};
use super::{disks, leftovers, outcome};
use crate::config::{Boot, MachineConfig};
use crate::disk::Slot;
use crate::error::{Error, ErrorKind, Result};
use crate::life::{OnDrop, check_boot_files};
use crate::machine::ExitReason;
use crate::state::{Event, State};

/// How long the last words on the console may take after the machine's end.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn power_on(self: &Arc<Self>) -> Result<()> {
        self.life.power_on()?;
        // Should the caller give up, what was begun is undone by dropping it.
        let failed = OnDrop::new(|| {
            let _ = self.life.advance(Event::StartFailed);
            self.ended(ExitReason::Terminated);
            self.release();
            self.ports.close();
            self.config.remove_files();
        });
        let mut recording = Recorder(None);
        if let Err(error) = self.bring_up(&mut recording).await {
            // A file that is open cannot be removed.
            recording.end().await;
            return Err(error);
        }
        if self.life.advance(Event::Up).is_err() || self.life.state() == State::Stopping {
            // It ended, or somebody ended it, while it came up.
            self.end_now().await;
            recording.end().await;
            return Err(self.life.died());
        }
        failed.disarm();
        tokio::spawn(watch_end(Arc::clone(self), recording));
        Ok(())
    }

    async fn bring_up(self: &Arc<Self>, recorder: &mut Recorder) -> Result<()> {
        let config = complete(&self.config)?;
        let recording = self.console.open(&self.console_path)?;
        let around = Surroundings {
            owner: leftovers::owner(),
            linux_boot: self.host.linux_boot,
            console_pipe: recording.name.clone(),
        };
        let text = document::compute_system(&config, &around)?.to_string();
        tracing::debug!(machine = %self.config.name, document = %text, "the machine is asked for");
        recorder.0 = Some(tokio::spawn(Recording::run(recording)));
        if let Boot::Disk { disk, .. } = &config.boot {
            let slot = self.disks.reserve(disk)?;
            self.disks.settle(slot, true);
            debug_assert_eq!(slot, FIRST, "the first disk takes the first slot");
        }
        let inner = Arc::clone(self);
        let create = tokio::task::spawn_blocking(move || inner.create_system(&text));
        let system = create.await.map_err(|_| self.life.died())??;
        *self.slot() = Some(Arc::clone(&system));
        let limit = self.host.limit;
        let what = "cannot start the machine";
        let started = async {
            let properties = move |system: &System| {
                let what = "cannot learn the machine's runtime id";
                let properties = system.ask(Ask::Properties, None, what, limit)?;
                let id = properties.as_deref().and_then(outcome::runtime_id);
                id.ok_or_else(|| {
                    let message = format!("{what}: hyper-v's answer has none");
                    Error::new(ErrorKind::StartFailed, message)
                })
            };
            let vm = self.work_on(Arc::clone(&system), properties).await?;
            self.ports.bind(vm)?;
            let start = move |system: &System| system.ask(Ask::Start, None, what, limit);
            self.work_on(Arc::clone(&system), start).await
        };
        if let Err(error) = started.await {
            self.end_now().await;
            return Err(error);
        }
        Ok(())
    }

    /// Everything up to the system's handle; waits for Hyper-V.
    fn create_system(self: &Arc<Self>, text: &str) -> Result<Arc<System>> {
        let library = self.library()?;
        leftovers::end(&library);
        for path in self.boot_files().into_iter().chain(self.disks.paths()) {
            // The account may have access by the folder's list although this one cannot be changed.
            if let Err(error) = system::access(&library, &self.id, &path, true) {
                tracing::debug!(%error);
            }
        }
        // The system must not keep its owner.
        let owner = Arc::downgrade(self);
        let hear = Arc::new(move |news| {
            if let Some(owner) = owner.upgrade() {
                owner.heard(news);
            }
        });
        System::create(&library, &self.id, text, self.host.limit, hear).map(Arc::new)
    }

    /// Ends what was created and did not come up, and waits until Hyper-V has done so.
    async fn end_now(&self) {
        let Some(system) = self.slot().clone() else {
            return;
        };
        let limit = self.host.limit;
        let what = "cannot end a machine that did not start";
        let ended = tokio::task::spawn_blocking(move || {
            let ended = system.ask(Ask::Terminate, None, what, limit);
            drop(system);
            ended
        });
        if let Ok(Err(error)) = ended.await {
            tracing::debug!(%error);
        }
    }
}

const FIRST: Slot = Slot {
    controller: 0,
    lun: 0,
};

/// The configuration with paths that Hyper-V can follow, to files that are there.
fn complete(config: &MachineConfig) -> Result<MachineConfig> {
    check_boot_files(config)?;
    let mut complete = config.clone();
    match &mut complete.boot {
        Boot::LinuxKernel { kernel, initrd, .. } => {
            *kernel = disks::absolute(kernel)?;
            if let Some(initrd) = initrd {
                *initrd = disks::absolute(initrd)?;
            }
        }
        Boot::Disk { disk, .. } => {
            disk.path = disks::absolute(&disk.path)?;
            // It is not opened: another machine may have it, in its own way.
            let found = std::fs::metadata(&disk.path)
                .map_err(|error| Error::path("use disk", &disk.path, error))?;
            if !found.is_file() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("disk {} is not a file", disk.path.display()),
                ));
            }
        }
    }
    Ok(complete)
}

/// Takes what the machine had once it has ended.
async fn watch_end(inner: Arc<Inner>, mut recorder: Recorder) {
    let exit = inner.life.wait().await;
    tracing::debug!(machine = %inner.config.name, %exit, "the machine has ended");
    if let Some(task) = &mut recorder.0 {
        let _ = tokio::time::timeout(LAST_WORDS, task).await;
    }
    recorder.end().await;
    // Handles are closed on a thread that may wait, and never on one of the service's.
    let _ = tokio::task::spawn_blocking(move || inner.release()).await;
}

/// The task that records the console; it ends when this is dropped.
struct Recorder(Option<tokio::task::JoinHandle<()>>);

impl Recorder {
    /// Returns when the task has let go of what it had.
    async fn end(&mut self) {
        if let Some(task) = self.0.take_if(|task| !task.is_finished()) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
