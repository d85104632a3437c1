//! What the monitor answers its clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use opengcs::{BootMode, Config, HotAdd};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::error::{Error, ErrorKind, Result};
use crate::folder::now_ms;
use crate::logs;
use crate::name::Name;
use crate::proto::monitor_server::Monitor;
use crate::proto::{self, stop_response::How, vm::State};
use crate::sys;
use crate::vm::{Control, Vm};

mod disks;
mod exec;

/// What waits for a client that is slow, of answers in pieces.
const WAITING: usize = 2;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// How often the logs are looked at for more.
const LOOK: Duration = Duration::from_millis(200);
/// How long the guest may take to tell what it uses.
const SILENCE: Duration = Duration::from_secs(3);
/// The shortest time between two looks at what the VM uses.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Where in its life the monitor's VM is.
#[derive(Clone)]
pub(crate) enum Phase {
    Starting,
    Running(Arc<dyn Vm>),
    Stopping(Arc<dyn Vm>),
    Ended,
}

/// A client's wish that the VM end.
pub(crate) struct StopOrder {
    pub(crate) grace: Duration,
    pub(crate) answer: oneshot::Sender<How>,
}

/// What is known of a VM before it has come up.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: Name,
    pub(crate) folder: PathBuf,
    pub(crate) started_ms: u64,
    pub(crate) memory_mib: u32,
    pub(crate) processors: u32,
    pub(crate) scsi_controllers: u8,
}

impl Facts {
    pub(crate) fn new(name: Name, folder: PathBuf, config: &Config) -> Self {
        Self {
            name,
            folder,
            started_ms: now_ms(),
            memory_mib: config.memory_mib,
            processors: config.processors,
            scsi_controllers: config.scsi_controllers,
        }
    }
}

/// A process that a client has started, as long as it runs.
struct Running {
    command: String,
    terminal: bool,
    detached: watch::Sender<bool>,
    control: Arc<dyn Control>,
}

/// The service of one VM.
#[derive(Clone)]
pub(crate) struct Service {
    facts: Arc<Facts>,
    phase: watch::Receiver<Phase>,
    stop: mpsc::Sender<StopOrder>,
    processes: Arc<Mutex<BTreeMap<u32, Running>>>,
}

type Answer<T> = Result<Response<T>, Status>;
type Pieces<T> = ReceiverStream<Result<T, Status>>;

impl Service {
    pub(crate) fn new(
        facts: Facts,
        phase: watch::Receiver<Phase>,
        stop: mpsc::Sender<StopOrder>,
    ) -> Self {
        Self {
            facts: Arc::new(facts),
            phase,
            stop,
            processes: Arc::default(),
        }
    }

    /// The VM, if it runs.
    fn vm(&self) -> Result<Arc<dyn Vm>> {
        let name = &self.facts.name;
        match &*self.phase.borrow() {
            Phase::Running(vm) => Ok(Arc::clone(vm)),
            Phase::Starting => Err(Error::new(
                ErrorKind::NotYet,
                format!("the VM {name} is still starting"),
            )
            .hint(format!("`opengcs vm logs -f {name}` shows how far it is"))),
            Phase::Stopping(_) => Err(Error::new(
                ErrorKind::Ended,
                format!("the VM {name} is stopping"),
            )),
            Phase::Ended => Err(Error::new(
                ErrorKind::Ended,
                format!("the VM {name} has ended"),
            )),
        }
    }

    /// Waits until the VM has ended.
    async fn ended(&self) {
        let mut phase = self.phase.clone();
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Ended)).await;
    }

    fn with_processes<T>(&self, act: impl FnOnce(&mut BTreeMap<u32, Running>) -> T) -> T {
        act(&mut self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// What signals a process of a client.
    fn control(&self, process: u32) -> Result<Arc<dyn Control>> {
        self.with_processes(|all| all.get(&process).map(|one| Arc::clone(&one.control)))
            .ok_or_else(|| no_process(process))
    }

    fn describe(&self) -> proto::Vm {
        let facts = &self.facts;
        let mut told = proto::Vm {
            name: facts.name.to_string(),
            started_ms: facts.started_ms,
            monitor_pid: std::process::id(),
            memory_mib: facts.memory_mib,
            processors: facts.processors,
            scsi_controllers: facts.scsi_controllers.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..proto::Vm::default()
        };
        let (state, vm) = match &*self.phase.borrow() {
            Phase::Starting => (State::Starting, None),
            Phase::Running(vm) => (State::Running, Some(Arc::clone(vm))),
            Phase::Stopping(vm) => (State::Stopping, Some(Arc::clone(vm))),
            Phase::Ended => (State::Stopping, None),
        };
        told.set_state(state);
        if let Some(vm) = vm {
            let machine = vm.describe();
            told.hypervisor_pid = machine.process_id.unwrap_or(0);
            told.boot = match vm.boot_mode() {
                BootMode::Vhdx => "vhdx",
                BootMode::KernelInitrd => "kernel",
            }
            .to_owned();
            told.hypervisor = machine.hypervisor;
            told.acceleration = machine.acceleration;
            told.acceleration_reason = machine.acceleration_reason;
            told.chipset = machine.chipset;
            told.command_line = machine.command_line;
            told.disks = vm.disks().into_iter().map(proto::Disk::from).collect();
        }
        told.processes = self.with_processes(|all| {
            let told = |(id, one): (&u32, &Running)| proto::Process {
                id: *id,
                command: one.command.clone(),
                terminal: one.terminal,
                detached: *one.detached.borrow(),
            };
            all.iter().map(told).collect()
        });
        told
    }

    async fn measure(&self) -> proto::StatsResponse {
        let mut told = proto::StatsResponse::default();
        if let Ok(vm) = self.vm() {
            told.host = vm.describe().process_id.and_then(sys::host_use);
            // An agent that is busy, silent or does not count leaves its part out.
            let guest = tokio::time::timeout(SILENCE, vm.statistics()).await;
            let guest = guest.ok().and_then(Result::ok).flatten();
            told.guest = guest.map(|guest| proto::GuestUse {
                memory_total: guest.memory.usage.limit,
                memory_used: guest.memory.usage.usage,
                memory_cache: guest.memory.cache,
                processes: guest.pids.current,
                processor_ns: guest.cpu.usage.total,
            });
        }
        told.at_ms = now_ms();
        told
    }
}

fn no_process(process: u32) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("no process {process} of `opengcs exec` runs"),
    )
}

#[async_trait]
impl Monitor for Service {
    type ExecStream = Pieces<proto::ExecResponse>;
    type LogsStream = Pieces<proto::LogsResponse>;
    type StatsStream = Pieces<proto::StatsResponse>;
    type DebugStream = Pieces<proto::DebugResponse>;

    async fn inspect(&self, _: Request<proto::InspectRequest>) -> Answer<proto::Vm> {
        Ok(Response::new(self.describe()))
    }

    async fn stop(&self, request: Request<proto::StopRequest>) -> Answer<proto::StopResponse> {
        let (answer, told) = oneshot::channel();
        let order = StopOrder {
            grace: Duration::from_millis(request.into_inner().grace_ms),
            answer,
        };
        // Whoever asks while it is ending by itself is told so.
        let _ = self.stop.send(order).await;
        let how = told.await.unwrap_or(How::Already);
        Ok(Response::new(proto::StopResponse { how: how.into() }))
    }

    async fn exec(
        &self,
        request: Request<Streaming<proto::ExecRequest>>,
    ) -> Answer<Self::ExecStream> {
        let answers = exec::exec(self.clone(), request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn signal(
        &self,
        request: Request<proto::SignalRequest>,
    ) -> Answer<proto::SignalResponse> {
        let proto::SignalRequest { process, signal } = request.into_inner();
        self.control(process)?.signal(signal).await?;
        Ok(Response::new(proto::SignalResponse {}))
    }

    async fn resize(
        &self,
        request: Request<proto::ResizeRequest>,
    ) -> Answer<proto::ResizeResponse> {
        let told = request.into_inner();
        let control = self.control(told.process)?;
        control
            .resize(exec::length(told.rows), exec::length(told.columns))
            .await?;
        Ok(Response::new(proto::ResizeResponse {}))
    }

    async fn detach(
        &self,
        request: Request<proto::DetachRequest>,
    ) -> Answer<proto::DetachResponse> {
        let process = request.into_inner().process;
        self.with_processes(|all| all.get(&process).map(|one| one.detached.send_replace(true)))
            .ok_or_else(|| no_process(process))?;
        Ok(Response::new(proto::DetachResponse {}))
    }

    async fn add_disk(&self, request: Request<proto::AddDiskRequest>) -> Answer<proto::Disk> {
        let disk: HotAdd = disks::wanted(request.into_inner())?;
        let added = self.vm()?.add_disk(disk).await?;
        Ok(Response::new(added.into()))
    }

    async fn remove_disk(&self, request: Request<proto::RemoveDiskRequest>) -> Answer<proto::Disk> {
        let vm = self.vm()?;
        let disk = disks::meant(&request.into_inner(), vm.disks())?;
        vm.remove_disk(&disk.host_path).await?;
        Ok(Response::new(disk.into()))
    }

    async fn logs(&self, request: Request<proto::LogsRequest>) -> Answer<Self::LogsStream> {
        let request = request.into_inner();
        let (sender, pieces) = mpsc::channel(WAITING);
        let service = self.clone();
        tokio::spawn(async move {
            let mut logs = logs::Follow::new(&service.facts.folder, request.sources());
            if let Some(lines) = request.tail {
                logs = logs.last(lines);
            }
            loop {
                // What was written before the end is read after it was seen.
                let over = matches!(&*service.phase.borrow(), Phase::Ended);
                while let Some((source, data)) = logs.next(PIECE) {
                    let piece = proto::LogsResponse {
                        source: source.into(),
                        data: data.into(),
                    };
                    if sender.send(Ok(piece)).await.is_err() {
                        return;
                    }
                }
                if over || !request.follow {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = service.ended() => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn stats(&self, request: Request<proto::StatsRequest>) -> Answer<Self::StatsStream> {
        self.vm()?;
        let every = Duration::from_millis(request.into_inner().every_ms);
        let (sender, pieces) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            loop {
                let measured = service.measure().await;
                if sender.send(Ok(measured)).await.is_err() || every.is_zero() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(every.max(SHORTEST_INTERVAL)) => {}
                    () = service.ended() => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn debug(&self, _: Request<proto::DebugRequest>) -> Answer<Self::DebugStream> {
        let mut text = match self.vm() {
            Ok(vm) => vm.debug().await,
            Err(error) => format!("==== VM\n{error}\n"),
        };
        text.push_str(&logs::as_sections(
            &self.facts.folder,
            &[proto::logs_request::Source::Monitor],
        ));
        let mut text = Bytes::from(text);
        let (sender, pieces) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while !text.is_empty() {
                let piece = text.split_to(text.len().min(PIECE));
                let piece = proto::DebugResponse { text: piece };
                if sender.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }
}
