//! A VM of memory: a machine that is none, and a guest that speaks the bridge.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opengcs_bridge::frame::Decoder;
use opengcs_bridge::guest::{Incoming, Session};
use opengcs_bridge::message::{ExecuteResponse, PlainResponse, Response, WaitResponse};
use opengcs_bridge::{Failure, HResult};
use opengcs_machine::local::Dialer;
use opengcs_machine::{
    BoxFuture, DiskFormat, Exit, ExitReason, Listener, MachineConfig, Port, Stream,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::*;
use crate::environment::Environment;
use crate::guest::bzimage::tests::fake_kernel;
use crate::guest::initrd;

mod disks;
mod processes;
mod starting;

/// What the guest in memory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Good,
    /// Boots and never dials.
    Silent,
    /// Its kernel panics.
    Panics,
    /// Speaks another version.
    WrongVersion,
    /// Says what no agent says.
    Babbles,
    /// Refuses every disk.
    RefusesDisks,
    /// Unmounts nothing.
    HoldsDisks,
    /// Does not power off when asked.
    Stubborn,
    /// Signals no process of the VM itself, as the agent in Go, and tells no signal in an exit code.
    Foreign,
}

#[derive(Debug)]
struct Fake {
    guest: Guest,
    ports: Arc<Mutex<HashMap<u32, Dialer>>>,
    disks: Arc<Mutex<Vec<PathBuf>>>,
    exit: watch::Sender<Option<Exit>>,
    /// Raised to make the guest drop its bridge and dial again.
    redial: watch::Sender<u32>,
    /// Changes of disks and layers that the guest was asked for.
    changes: Arc<Mutex<Vec<String>>>,
    power_offs: Mutex<u32>,
    seed: Arc<Mutex<Vec<u8>>>,
    processes: Exits,
}

impl Fake {
    fn new(guest: Guest) -> Arc<Self> {
        Arc::new(Self {
            guest,
            ports: Arc::default(),
            disks: Arc::default(),
            exit: watch::Sender::new(None),
            redial: watch::Sender::new(0),
            changes: Arc::default(),
            power_offs: Mutex::new(0),
            seed: Arc::default(),
            processes: Arc::default(),
        })
    }

    fn die(&self, reason: ExitReason) {
        self.exit.send_if_modified(|exit| {
            let alive = exit.is_none();
            if alive {
                *exit = Some(Exit::new(reason, "hypervisor's last words"));
            }
            alive
        });
        self.ports.lock().unwrap().clear();
    }

    fn dial(ports: &Mutex<HashMap<u32, Dialer>>, port: u32) -> std::io::Result<Stream> {
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

type Exits = Arc<Mutex<HashMap<u32, watch::Sender<Option<u32>>>>>;

#[derive(Clone)]
struct RunningGuest {
    kind: Guest,
    ports: Arc<Mutex<HashMap<u32, Dialer>>>,
    exit: watch::Sender<Option<Exit>>,
    changes: Arc<Mutex<Vec<String>>>,
    processes: Exits,
}

impl RunningGuest {
    /// One bridge connection.
    async fn serve(&self) {
        let Ok(stream) = Fake::dial(&self.ports, 0x4000_0000) else {
            return;
        };
        let (mut reader, mut writer) = tokio::io::split(stream);
        if self.kind == Guest::Babbles {
            let _ = writer.write_all(&[0xff; 64]).await;
        }
        let (answers, mut queue) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
        let mut session = Session::new();
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 4096];
        loop {
            let count = tokio::select! {
                Some(bytes) = queue.recv() => {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                    continue;
                }
                count = reader.read(&mut buffer) => match count {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                },
            };
            let mut input = &buffer[..count];
            while let Some(mut frame) = decoder.decode(&mut input).unwrap() {
                if self.kind == Guest::WrongVersion {
                    let text = String::from_utf8(frame.body).unwrap();
                    frame.body = text.replace(":4", ":9").into_bytes();
                }
                match session.receive(&frame) {
                    Incoming::Reply(bytes) => answers.send(bytes).unwrap(),
                    Incoming::Request(ticket, request) => {
                        let (guest, answers) = (self.clone(), answers.clone());
                        tokio::spawn(async move {
                            if let Some(outcome) = guest.handle(*request).await {
                                let _ = answers.send(ticket.answer(outcome));
                            }
                        });
                    }
                }
            }
        }
    }

    async fn handle(&self, request: Request) -> Option<Result<Response, Failure>> {
        Some(match request {
            Request::ExecuteProcess(request) => self.execute(request).await,
            Request::WaitForProcess(request) => {
                let exit = self
                    .processes
                    .lock()
                    .unwrap()
                    .get(&request.process_id)
                    .map(watch::Sender::subscribe);
                match exit {
                    Some(mut exit) => {
                        let code = exit.wait_for(Option::is_some).await.ok()?.unwrap();
                        Ok(Response::Exited(WaitResponse {
                            exit_code: code,
                            ..WaitResponse::default()
                        }))
                    }
                    None => Err(Failure::new(HResult::NOT_FOUND, "no such process")),
                }
            }
            Request::ModifySettings(request) => {
                let change = format!(
                    "{} {} {}",
                    request.change.request_type,
                    request.change.resource_type,
                    request.change.settings
                );
                let disk = change.contains("MappedVirtualDisk");
                let add = change.starts_with("Add");
                self.changes.lock().unwrap().push(change);
                match self.kind {
                    Guest::RefusesDisks if disk && add => {
                        Err(Failure::new(HResult::FAIL, "bad superblock"))
                    }
                    Guest::HoldsDisks if disk && !add => {
                        Err(Failure::new(HResult::FAIL, "busy: process 7 (sh)"))
                    }
                    _ => Ok(Response::Plain(PlainResponse::default())),
                }
            }
            Request::ShutdownGraceful(_) => {
                if self.kind != Guest::Stubborn {
                    self.exit
                        .send_replace(Some(Exit::new(ExitReason::PoweredOff, "")));
                }
                return None;
            }
            Request::SignalProcess(_) if self.kind == Guest::Foreign => {
                Err(Failure::new(HResult::SYSTEM_NOT_FOUND, ""))
            }
            _ => Err(Failure::new(HResult::NOT_IMPLEMENTED, "not served")),
        })
    }

    /// `cat`, `exit N`, `say WORDS`, `hang`, `slow` (to start), `die`, `exportSandbox -path PATH`, and for
    /// a foreign agent `kill -N PID`; else no such program.
    async fn execute(
        &self,
        request: opengcs_bridge::message::ExecuteRequest,
    ) -> Result<Response, Failure> {
        static NEXT: AtomicU32 = AtomicU32::new(100);
        let parameters = request.settings.process_parameters.0;
        let words: Vec<String> = if parameters.command_args.is_empty() {
            parameters
                .command_line
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        } else {
            parameters.command_args.clone()
        };
        let mut known = vec!["cat", "exit", "say", "hang", "slow", "die", "exportSandbox"];
        if self.kind == Guest::Foreign {
            known.push("kill");
        }
        if !known.contains(&words[0].as_str()) {
            return Err(Failure::new(
                HResult::FAIL,
                format!("{}: no such program", words[0]),
            ));
        }
        let stdio = request.settings.stdio;
        let dial = |port: u32| {
            (port != 0).then(|| {
                Fake::dial(&self.ports, port).map_err(|error| {
                    Failure::new(HResult::FAIL, format!("port {port:#x}: {error}"))
                })
            })
        };
        let stdin = dial(stdio.stdin).transpose()?;
        let stdout = dial(stdio.stdout).transpose()?;
        let stderr = dial(stdio.stderr).transpose()?;
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let sender = watch::Sender::new(None);
        self.processes.lock().unwrap().insert(id, sender.clone());
        let machine = self.exit.clone();
        let streams = [stdin, stdout, stderr];
        if words[0] == "slow" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if words[0] == "kill" {
            let target: u32 = words[2].parse().unwrap();
            let processes = self.processes.lock().unwrap();
            processes[&target].send_replace(Some(u32::MAX));
        }
        tokio::spawn(async move {
            let code = act(&words, &parameters, streams, &machine).await;
            sender.send_replace(Some(code));
        });
        Ok(Response::Executed(ExecuteResponse {
            process_id: id,
            ..ExecuteResponse::default()
        }))
    }
}

async fn act(
    words: &[String],
    parameters: &opengcs_bridge::message::ProcessParameters,
    [stdin, mut stdout, mut stderr]: [Option<Stream>; 3],
    machine: &watch::Sender<Option<Exit>>,
) -> u32 {
    match words[0].as_str() {
        "cat" => {
            let (mut from, mut to) = (stdin.unwrap(), stdout.take().unwrap());
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
            0
        }
        "exit" => words[1].parse().unwrap(),
        "kill" => 0,
        "say" => {
            let said = format!("{} in {}\n", words[1], parameters.working_directory);
            stdout
                .as_mut()
                .unwrap()
                .write_all(said.as_bytes())
                .await
                .unwrap();
            let path = &parameters.environment["PATH"];
            stderr
                .as_mut()
                .unwrap()
                .write_all(path.as_bytes())
                .await
                .unwrap();
            0
        }
        "exportSandbox" => {
            let out = stdout.as_mut().unwrap();
            out.write_all(&[b't'; 100_000]).await.unwrap();
            if words[2].contains("bad") {
                let err = stderr.as_mut().unwrap();
                err.write_all(b"upper: no such folder\n").await.unwrap();
                return 1;
            }
            0
        }
        "die" => {
            machine.send_replace(Some(Exit::new(ExitReason::Killed(9), "")));
            std::future::pending().await
        }
        _ => std::future::pending().await,
    }
}

/// Folders and a configuration that is valid, for machines of memory.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bootx64.efi"), fake_kernel("6.1.0")).unwrap();
        let contents = initrd::Contents {
            release: "6.1.0".into(),
            ..initrd::Contents::default()
        };
        let bytes = initrd::write(&contents, initrd::Compression::None, Vec::new()).unwrap();
        std::fs::write(folder.path().join("initrd.img"), bytes).unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        Self { folder }
    }

    fn config(&self, words: &[&str]) -> Config {
        let path = |name: &str| self.folder.path().join(name).into_os_string();
        let environment = Environment::fixed([
            ("OPENGCS_DATA_DIR", path("")),
            ("XDG_RUNTIME_DIR", path("run")),
        ]);
        Config::generate_default_with(words, &environment).unwrap()
    }

    fn disk(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, vec![0; 4096]).unwrap();
        path
    }

    async fn start(&self, machine: &Arc<Fake>) -> Result<UtilityVm> {
        self.start_with(machine, self.config(&["lcow.timeout=20"]))
            .await
    }

    async fn start_with(&self, machine: &Arc<Fake>, config: Config) -> Result<UtilityVm> {
        let machine = Arc::clone(machine);
        UtilityVm::start_on(config, move |_: MachineConfig| {
            Ok(machine as Arc<dyn Machine>)
        })
        .await
    }

    fn runtime_files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("run"))
            .unwrap()
            .count()
    }
}

/// The start's error; a VM has no `Debug` that would help a failing test.
fn failure(outcome: Result<UtilityVm>) -> Error {
    match outcome {
        Ok(_) => panic!("the VM came up"),
        Err(error) => error,
    }
}
