//! What a monitor needs of the VM that it holds: so much, and no more, that a test can give it another.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opengcs::machine::Description;
use opengcs::{
    Attachment, BootMode, GuestMetrics, HotAdd, ProcessHandle, ProcessSpec, Signal, Stopped,
    UtilityVm,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::async_trait;

use crate::error::Result;

/// Where a process's input comes from.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// Where a process's output goes.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// A VM that has come up.
#[async_trait]
pub trait Vm: Send + Sync + 'static {
    /// How its machine is run.
    fn describe(&self) -> Description;
    /// How it was booted.
    fn boot_mode(&self) -> BootMode;
    /// The disks that it has.
    fn disks(&self) -> Vec<Attachment>;
    /// Adds a disk.
    async fn add_disk(&self, disk: HotAdd) -> Result<Attachment>;
    /// Removes the disk of this file.
    async fn remove_disk(&self, file: &Path) -> Result<()>;
    /// Starts a process.
    async fn start_process(&self, spec: ProcessSpec) -> Result<Box<dyn Process>>;
    /// What the guest uses, where its agent counts.
    async fn statistics(&self) -> Result<Option<GuestMetrics>>;
    /// Everything that is known of it.
    async fn debug(&self) -> String;
    /// Keeps what was recorded of it in a file of this folder, and gives its path.
    fn write_bundle(&self, folder: &Path) -> Result<std::path::PathBuf>;
    /// Asks it to end, and ends it by force after `grace`.
    async fn stop(&self, grace: Duration) -> Result<Stopped>;
    /// Ends it at once.
    async fn terminate(&self);
    /// Waits until it has ended, and says why it did.
    async fn wait(&self) -> String;
}

/// A process in the VM.
#[async_trait]
pub trait Process: Send {
    /// Its number in the guest.
    fn id(&self) -> u32;
    /// What signals and resizes it while it runs.
    fn control(&self) -> Arc<dyn Control>;
    /// Runs it to its end: its exit code, once every byte of its outputs has been written.
    async fn run(self: Box<Self>, input: Input, output: Output, errors: Output) -> Result<u32>;
}

/// A process without its streams.
#[async_trait]
pub trait Control: Send + Sync {
    /// Sends it a signal, by number.
    async fn signal(&self, signal: i32) -> Result<()>;
    /// Tells its terminal its size.
    async fn resize(&self, rows: u16, columns: u16) -> Result<()>;
    /// Ends it and what it has started.
    async fn kill(&self) -> Result<()>;
}

#[async_trait]
impl Vm for UtilityVm {
    fn describe(&self) -> Description {
        Self::describe(self)
    }

    fn boot_mode(&self) -> BootMode {
        Self::boot_mode(self)
    }

    fn disks(&self) -> Vec<Attachment> {
        Self::disks(self)
    }

    async fn add_disk(&self, disk: HotAdd) -> Result<Attachment> {
        Ok(self.hot_add(disk).await?)
    }

    async fn remove_disk(&self, file: &Path) -> Result<()> {
        Ok(self.hot_remove_vhd(file).await?)
    }

    async fn start_process(&self, spec: ProcessSpec) -> Result<Box<dyn Process>> {
        Ok(Box::new(self.run_process(spec).await?))
    }

    async fn statistics(&self) -> Result<Option<GuestMetrics>> {
        Ok(Self::statistics(self).await?)
    }

    async fn debug(&self) -> String {
        self.debug_gcs().await.to_string()
    }

    fn write_bundle(&self, folder: &Path) -> Result<std::path::PathBuf> {
        Ok(self.diagnostics().write_bundle(folder)?)
    }

    async fn stop(&self, grace: Duration) -> Result<Stopped> {
        Ok(self.stop_within(grace).await?)
    }

    async fn terminate(&self) {
        Self::terminate(self).await;
    }

    async fn wait(&self) -> String {
        Self::wait(self).await
    }
}

#[async_trait]
impl Process for opengcs::Process {
    fn id(&self) -> u32 {
        Self::id(self)
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(self.handle())
    }

    async fn run(self: Box<Self>, input: Input, output: Output, errors: Output) -> Result<u32> {
        Ok(Self::run(*self, input, output, errors).await?.code())
    }
}

#[async_trait]
impl Control for ProcessHandle {
    async fn signal(&self, signal: i32) -> Result<()> {
        Ok(Self::signal(self, Signal::from(signal)).await?)
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        Ok(Self::resize(self, rows, columns).await?)
    }

    async fn kill(&self) -> Result<()> {
        Ok(Self::kill(self).await?)
    }
}
