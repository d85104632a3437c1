//! A machine that has another file in a disk's place: the agent knows it by its size, and takes it for no
//! other.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use opengcs::machine::qemu::Qemu;
use opengcs::machine::{
    BoxFuture, Description, DiskSpec, Exit, Listener, Machine, MachineConfig, Port, Result as Done,
    Slot, State, Stream,
};
use opengcs::{ErrorKind, UtilityVm};
use tempfile::TempDir;

use crate::fixture::{config, error_of, nothing_stays_in, said};

/// QEMU, but for disks whose file has a second one beside it: that one is attached instead.
#[derive(Debug)]
struct Confused(Qemu);

impl Machine for Confused {
    fn attach(&self, mut disk: DiskSpec) -> BoxFuture<'_, Done<Slot>> {
        let other = disk.path.with_extension("other");
        if other.is_file() {
            disk.path = other;
        }
        self.0.attach(disk)
    }

    fn power_on(&self) -> BoxFuture<'_, Done<()>> {
        self.0.power_on()
    }

    fn detach(&self, slot: Slot) -> BoxFuture<'_, Done<()>> {
        self.0.detach(slot)
    }

    fn listen(&self, port: Port) -> Done<Listener> {
        self.0.listen(port)
    }

    fn connect(&self, port: Port) -> BoxFuture<'_, Done<Stream>> {
        self.0.connect(port)
    }

    fn power_off(&self) -> BoxFuture<'_, Done<()>> {
        self.0.power_off()
    }

    fn terminate(&self) -> BoxFuture<'_, Exit> {
        self.0.terminate()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        self.0.wait()
    }

    fn state(&self) -> State {
        self.0.state()
    }

    fn console(&self) -> PathBuf {
        self.0.console()
    }

    fn console_tail(&self) -> String {
        self.0.console_tail()
    }

    fn stderr_tail(&self) -> String {
        self.0.stderr_tail()
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }
}

pub(super) async fn refused() -> Result<()> {
    let (runtime, folder) = (TempDir::new()?, TempDir::new()?);
    let disk = folder.path().join("meant.img");
    std::fs::write(&disk, [b'm'; 8192])?;
    let vm = UtilityVm::start_on(config(runtime.path())?, |config: MachineConfig| {
        Ok(Arc::new(Confused(Qemu::create(config)?)))
    })
    .await?;
    let other = disk.with_extension("other");
    std::fs::write(&other, [b'o'; 12_288])?;
    // The agent waits some seconds for the right one to come.
    let error = error_of(vm.hot_add_vhd(&disk, "/run/meant", true, false).await)?;
    ensure!(error.kind() == ErrorKind::GuestRefused, "{error:?}");
    let told = error.report();
    ensure!(told.contains("12288") && told.contains("8192"), "{told}");
    ensure!(vm.disks().is_empty());

    // What was refused holds neither the file nor the place.
    std::fs::remove_file(&other)?;
    vm.hot_add_vhd(&disk, "/run/meant", true, false).await?;
    ensure!(said(&vm, "head -c 3 /run/meant").await? == "mmm");
    vm.hot_remove_vhd(&disk).await?;
    vm.stop().await?;
    drop(vm);
    nothing_stays_in(runtime.path()).await
}
