//! A machine that is none: it has ports, disks and an end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opengcs_machine::local::Dialer;
use opengcs_machine::{BoxFuture, DiskFormat, Exit, ExitReason, Listener, Port, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::guest::{Exits, Guest, RunningGuest};
use super::{Description, Machine, State};

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) guest: Guest,
    pub(super) ports: Arc<Mutex<HashMap<u32, Dialer>>>,
    pub(super) disks: Arc<Mutex<Vec<PathBuf>>>,
    pub(super) exit: watch::Sender<Option<Exit>>,
    /// Raised to make the guest drop its bridge and dial again.
    pub(super) redial: watch::Sender<u32>,
    /// Changes of disks and layers that the guest was asked for.
    pub(super) changes: Arc<Mutex<Vec<String>>>,
    /// How often the machine still fails to detach a disk.
    pub(super) stuck: Mutex<u32>,
    pub(super) power_offs: Mutex<u32>,
    pub(super) seed: Arc<Mutex<Vec<u8>>>,
    pub(super) processes: Exits,
}

impl Fake {
    pub(super) fn new(guest: Guest) -> Arc<Self> {
        Arc::new(Self {
            guest,
            ports: Arc::default(),
            disks: Arc::default(),
            exit: watch::Sender::new(None),
            redial: watch::Sender::new(0),
            changes: Arc::default(),
            stuck: Mutex::new(0),
            power_offs: Mutex::new(0),
            seed: Arc::default(),
            processes: Arc::default(),
        })
    }

    pub(super) fn die(&self, reason: ExitReason) {
        self.exit.send_if_modified(|exit| {
            let alive = exit.is_none();
            if alive {
                *exit = Some(Exit::new(reason, "hypervisor's last words"));
            }
            alive
        });
        self.ports.lock().unwrap().clear();
    }

    pub(super) fn dial(ports: &Mutex<HashMap<u32, Dialer>>, port: u32) -> std::io::Result<Stream> {
        match ports.lock().unwrap().get(&port) {
            Some(dialer) => dialer.dial(),
            None => Err(std::io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

impl Machine for Fake {
    fn power_on(&self) -> BoxFuture<'_, opengcs_machine::Result<()>> {
        let guest = RunningGuest {
            kind: self.guest,
            ports: Arc::clone(&self.ports),
            exit: self.exit.clone(),
            changes: Arc::clone(&self.changes),
            processes: Arc::clone(&self.processes),
        };
        match self.guest {
            Guest::Silent => {}
            Guest::Panics => self.die(ExitReason::Panicked("no init".into())),
            _ => {
                let mut redial = self.redial.subscribe();
                let mut exit = self.exit.subscribe();
                let (ports, seed) = (Arc::clone(&self.ports), Arc::clone(&self.seed));
                tokio::spawn(async move {
                    let mut stream = Self::dial(&ports, 1).unwrap();
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).await.unwrap();
                    *seed.lock().unwrap() = bytes;
                    let mut log = Self::dial(&ports, 109).unwrap();
                    log.write_all(b"agent is up\n").await.unwrap();
                    loop {
                        tokio::select! {
                            () = guest.serve() => tokio::time::sleep(Duration::from_millis(20)).await,
                            _ = redial.changed() => {}
                            () = async { drop(exit.wait_for(Option::is_some).await) } => return,
                        }
                    }
                });
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn attach(
        &self,
        disk: opengcs_machine::DiskSpec,
    ) -> BoxFuture<'_, opengcs_machine::Result<opengcs_machine::Slot>> {
        Box::pin(async move {
            assert_eq!(disk.format, DiskFormat::Raw);
            if disk.path.ends_with("locked.img") {
                return Err(opengcs_machine::Error::new(
                    opengcs_machine::ErrorKind::DiskLocked,
                    "another process holds it",
                ));
            }
            let mut disks = self.disks.lock().unwrap();
            disks.push(disk.path);
            Ok(opengcs_machine::Slot {
                controller: 0,
                lun: u8::try_from(disks.len() - 1).unwrap(),
            })
        })
    }

    fn detach(&self, slot: opengcs_machine::Slot) -> BoxFuture<'_, opengcs_machine::Result<()>> {
        Box::pin(async move {
            let mut stuck = self.stuck.lock().unwrap();
            if *stuck > 0 {
                *stuck -= 1;
                return Err(opengcs_machine::Error::new(
                    opengcs_machine::ErrorKind::TimedOut,
                    "the hypervisor does not answer",
                ));
            }
            self.disks.lock().unwrap().remove(usize::from(slot.lun));
            Ok(())
        })
    }

    fn listen(&self, port: Port) -> opengcs_machine::Result<Listener> {
        let ports = Arc::clone(&self.ports);
        let (dialer, listener) = opengcs_machine::local::listener(port, move || {
            ports.lock().unwrap().remove(&port.0);
        });
        self.ports.lock().unwrap().insert(port.0, dialer);
        Ok(listener)
    }

    fn connect(&self, _: Port) -> BoxFuture<'_, opengcs_machine::Result<Stream>> {
        unreachable!("the façade dials nobody")
    }

    fn power_off(&self) -> BoxFuture<'_, opengcs_machine::Result<()>> {
        *self.power_offs.lock().unwrap() += 1;
        Box::pin(async { Ok(()) })
    }

    fn terminate(&self) -> BoxFuture<'_, Exit> {
        self.die(ExitReason::Terminated);
        self.wait()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        let mut exit = self.exit.subscribe();
        Box::pin(async move {
            match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone().unwrap(),
                Err(_) => Exit::new(ExitReason::Terminated, ""),
            }
        })
    }

    fn state(&self) -> State {
        if self.exit.borrow().is_some() {
            State::Stopped
        } else {
            State::Running
        }
    }

    fn console(&self) -> PathBuf {
        PathBuf::new()
    }

    fn console_tail(&self) -> String {
        "booting\ninit: cannot find the agent\n[ 1.0] Kernel panic - not syncing: x\n[ 1.1] Call Trace:\n"
            .into()
    }

    fn stderr_tail(&self) -> String {
        "hypervisor's last words".into()
    }

    fn describe(&self) -> Description {
        Description::new("fake", "none", "it is a test", "memory")
    }
}
