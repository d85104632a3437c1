//! A machine of memory: the suite itself is tried on it, on every host and in no time.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use opengcs_machine::local::{self, Dialer};
use opengcs_machine::{
    BoxFuture, Description, DiskSpec, Error, ErrorKind, Exit, ExitReason, Listener, Machine, Port,
    Result, Slot, State, Stream,
};
use tokio::sync::watch;

use crate::conformance::{self, Bench};

#[derive(Debug)]
struct Fake {
    state: Mutex<State>,
    ports: Arc<Mutex<HashMap<u32, Dialer>>>,
    disks: Mutex<BTreeMap<u8, PathBuf>>,
    exit: watch::Sender<Option<Exit>>,
}

fn fail<T>(kind: ErrorKind) -> Result<T> {
    Err(Error::new(kind, "as the suite wants it"))
}

impl Fake {
    fn new() -> Self {
        Self {
            state: Mutex::new(State::Created),
            ports: Arc::default(),
            disks: Mutex::default(),
            exit: watch::Sender::new(None),
        }
    }

    fn running(&self) -> Result<()> {
        match self.state() {
            State::Running => Ok(()),
            State::Created => fail(ErrorKind::WrongState),
            _ => fail(ErrorKind::GuestDied),
        }
    }

    fn end(&self, reason: ExitReason) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            if first {
                *exit = Some(Exit::new(reason, ""));
            }
            first
        });
        *self.state.lock().unwrap() = State::Stopped;
        self.ports.lock().unwrap().clear();
    }

    fn attach_now(&self, disk: &DiskSpec) -> Result<Slot> {
        self.running()?;
        if !disk.path.exists() {
            return fail(ErrorKind::NotFound);
        }
        let mut disks = self.disks.lock().unwrap();
        if disks.values().any(|path| *path == disk.path) {
            return fail(ErrorKind::DiskInUse);
        }
        let lun = (0..64).find(|lun| !disks.contains_key(lun)).unwrap();
        disks.insert(lun, disk.path.clone());
        Ok(Slot { controller: 0, lun })
    }

    fn detach_now(&self, slot: Slot) -> Result<()> {
        self.running()?;
        match self.disks.lock().unwrap().remove(&slot.lun) {
            Some(_) => Ok(()),
            None => fail(ErrorKind::NotFound),
        }
    }
}

impl Machine for Fake {
    fn power_on(&self) -> BoxFuture<'_, Result<()>> {
        let mut state = self.state.lock().unwrap();
        let begun = match *state {
            State::Created => {
                *state = State::Running;
                Ok(())
            }
            _ => fail(ErrorKind::WrongState),
        };
        Box::pin(async move { begun })
    }

    fn attach(&self, disk: DiskSpec) -> BoxFuture<'_, Result<Slot>> {
        Box::pin(async move { self.attach_now(&disk) })
    }

    fn detach(&self, slot: Slot) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.detach_now(slot) })
    }

    fn listen(&self, port: Port) -> Result<Listener> {
        if self.state().is_end() {
            return fail(ErrorKind::WrongState);
        }
        let mut ports = self.ports.lock().unwrap();
        if ports.contains_key(&port.0) {
            return fail(ErrorKind::PortInUse);
        }
        let shared = Arc::clone(&self.ports);
        let (dialer, listener) = local::listener(port, move || {
            shared.lock().unwrap().remove(&port.0);
        });
        ports.insert(port.0, dialer);
        Ok(listener)
    }

    fn connect(&self, _port: Port) -> BoxFuture<'_, Result<Stream>> {
        let outcome = self
            .running()
            .and_then(|()| fail(ErrorKind::ConnectionRefused));
        Box::pin(async move { outcome })
    }

    fn power_off(&self) -> BoxFuture<'_, Result<()>> {
        let outcome = self.running();
        Box::pin(async move { outcome })
    }

    fn terminate(&self) -> BoxFuture<'_, Exit> {
        self.end(ExitReason::Terminated);
        self.wait()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async {
            let mut exit = self.exit.subscribe();
            exit.wait_for(Option::is_some)
                .await
                .unwrap()
                .clone()
                .unwrap()
        })
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn console(&self) -> PathBuf {
        PathBuf::new()
    }

    fn console_tail(&self) -> String {
        String::new()
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    fn describe(&self) -> Description {
        Description::new("fake", "none", "there is no hypervisor", "none")
    }
}

impl Bench for Fake {
    fn machine(&self) -> &dyn Machine {
        self
    }

    async fn up(&mut self) {}

    async fn dial_echo(&mut self, port: Port) {
        let stream = self.ports.lock().unwrap()[&port.0].dial().unwrap();
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut write)
                .await
                .unwrap();
        });
    }

    async fn power_off(&mut self) {
        self.end(ExitReason::PoweredOff);
    }

    fn undialled(&self) -> Option<&'static str> {
        None
    }
}

#[tokio::test]
async fn a_machine_of_memory_passes_the_suite() {
    conformance::starts_and_stops(&mut Fake::new()).await;
    conformance::dies_of_itself(&mut Fake::new()).await;
    conformance::ends_before_it_starts(&mut Fake::new()).await;
}
