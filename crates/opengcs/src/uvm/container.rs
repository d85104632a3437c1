//! Containers in the VM: made by an OCI runtime in the guest, driven from here.
//!
//! ```text
//!   create_container ──► start ──► exec … ──► shut_down, kill ──► wait ──► delete
//! ```

use std::fmt;
use std::sync::Arc;

use opengcs_bridge::message::{
    ContainerConfig, ContainerConstraints, CreateRequest, GuestMetrics, Modification,
    ModifyRequest, ModifySettings, Nested, NotificationType, PlainRequest, Properties,
    PropertiesRequest, PropertyQuery, Request, RequestBase, RequestType, Response, SchemaVersion,
};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::process::{self, Process, ProcessSpec};
use super::{Inner, UtilityVm, kind_of_refusal, unexpected};
use crate::error::{Error, ErrorKind, Result};

/// What to create: an OCI runtime specification and where its bundle is in the guest.
///
/// Its root file system must be there: an overlay made by [`UtilityVm::combine_layers`], a mounted
/// disk, or any folder of the guest.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    id: String,
    specification: Value,
    bundle: String,
    scratch: String,
    streams: ProcessSpec,
}

impl ContainerSpec {
    /// A container with a name of its own, and its document as the [OCI runtime specification][spec]
    /// has it. A user may be given by `process.user.username` as `user[:group]`, which is looked up
    /// in the container's own lists.
    ///
    /// [spec]: https://github.com/opencontainers/runtime-spec/blob/main/config.md
    #[must_use]
    pub fn new(id: impl Into<String>, specification: Value) -> Self {
        let id = id.into();
        let terminal = specification
            .pointer("/process/terminal")
            .and_then(Value::as_bool);
        Self {
            bundle: format!("/run/gcs/c/{id}"),
            scratch: String::new(),
            streams: ProcessSpec::new(["the first process"])
                .terminal(terminal.unwrap_or(false))
                .kill_on_drop(false),
            specification,
            id,
        }
    }

    /// The folder of its bundle in the guest; by default `/run/gcs/c/` and its name.
    #[must_use]
    pub fn bundle(mut self, folder: impl Into<String>) -> Self {
        self.bundle = folder.into();
        self
    }

    /// A folder in the guest where its writes go, for agents that want to know.
    #[must_use]
    pub fn scratch(mut self, folder: impl Into<String>) -> Self {
        self.scratch = folder.into();
        self
    }

    /// Whether the first process's standard input is connected; if not, it is empty.
    #[must_use]
    pub fn stdin(mut self, connected: bool) -> Self {
        self.streams = self.streams.stdin(connected);
        self
    }

    /// Whether the first process's standard output is connected; if not, it goes nowhere.
    #[must_use]
    pub fn stdout(mut self, connected: bool) -> Self {
        self.streams = self.streams.stdout(connected);
        self
    }

    /// Whether the first process's standard error is connected; if not, it goes nowhere.
    #[must_use]
    pub fn stderr(mut self, connected: bool) -> Self {
        self.streams = self.streams.stderr(connected);
        self
    }

    fn request(&self) -> Request {
        Request::Create(CreateRequest {
            base: base(&self.id),
            container_config: Nested(ContainerConfig {
                schema_version: SchemaVersion { major: 2, minor: 1 },
                oci_bundle_path: self.bundle.clone(),
                oci_specification: self.specification.clone(),
                scratch_dir_path: self.scratch.clone(),
                ..ContainerConfig::default()
            }),
        })
    }
}

/// How a container has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerExit {
    /// After it was asked to (SIGTERM).
    Graceful,
    /// After it was killed.
    Forced,
    /// By itself.
    Unexpected,
    /// In a way that only the agent knows.
    Other(String),
}

impl From<&NotificationType> for ContainerExit {
    fn from(kind: &NotificationType) -> Self {
        match kind.0.as_str() {
            NotificationType::GRACEFUL_EXIT => Self::Graceful,
            NotificationType::FORCED_EXIT => Self::Forced,
            NotificationType::UNEXPECTED_EXIT => Self::Unexpected,
            other => Self::Other(super::shortened(other)),
        }
    }
}

impl fmt::Display for ContainerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graceful => "ended after it was asked to",
            Self::Forced => "was killed",
            Self::Unexpected => "ended by itself",
            Self::Other(other) => other,
        })
    }
}

/// A container in the VM.
///
/// Dropping it does nothing to the container, which ends with the VM at the latest.
pub struct Container {
    inner: Arc<Inner>,
    id: String,
    streams: ProcessSpec,
    exit: watch::Receiver<Option<ContainerExit>>,
}

impl UtilityVm {
    /// Has the VM's OCI runtime make a container; its first process waits for
    /// [`Container::start`]. The initrd must have a runtime in it
    /// ([`InitrdOptions::runtime`](crate::guest::initrd::InitrdOptions::runtime)).
    ///
    /// ```no_run
    /// use opengcs::{ContainerExit, ContainerSpec};
    ///
    /// # async fn example(vm: opengcs::UtilityVm, specification: serde_json::Value) -> opengcs::Result<()> {
    /// let container = vm.create_container(ContainerSpec::new("web", specification)).await?;
    /// let mut first = container.start().await?;
    /// let beside = container.exec(["ps"]).await?;
    /// container.shut_down().await?;
    /// first.wait().await?;
    /// assert_eq!(container.wait().await?, ContainerExit::Graceful);
    /// container.delete().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// There is a container of this name already ([`ErrorKind::AlreadyExists`]), the VM has no
    /// runtime ([`ErrorKind::Unsupported`]), the runtime refuses, or the VM has ended.
    pub async fn create_container(&self, spec: ContainerSpec) -> Result<Container> {
        let inner = Arc::clone(&self.inner);
        let (tell, told) = oneshot::channel();
        let id = spec.id.clone();
        // It goes on when the future is dropped, so that nothing is left that nobody knows of.
        let task = tokio::spawn(async move {
            let exit = inner.link.watch_container(&spec.id);
            let (request, limit) = (spec.request(), Some(inner.timeout()));
            let outcome = match inner.link.request(&request, limit).await {
                Ok(_) => Ok(Container {
                    inner: Arc::clone(&inner),
                    id: spec.id,
                    streams: spec.streams,
                    exit,
                }),
                Err(error) => {
                    drop(exit);
                    inner.link.forget_unwatched(&spec.id);
                    Err(error)
                }
            };
            if let Err(Ok(unclaimed)) = tell.send(outcome) {
                let _ = unclaimed.delete().await;
            }
        });
        self.inner.keep(task.abort_handle());
        let outcome = told.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::MachineEnded,
                "the VM was dropped by its owner",
            ))
        });
        outcome.map_err(|error| refused("create", &id, error))
    }
}

impl Container {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts its first process, with the streams that its specification has connected. Dropping
    /// the process does not end it: the container does.
    ///
    /// # Errors
    /// It has been started already, its program cannot be run, or the VM has ended.
    pub async fn start(&self) -> Result<Process> {
        let start = self.plain(Request::Start);
        self.ask(&start, "start").await?;
        let parameters = self.streams.streams();
        let started = process::start(&self.inner, base(&self.id), &self.streams, parameters);
        started
            .await
            .map_err(|error| refused("start", &self.id, error))
    }

    /// Runs a process in it, beside the first one.
    ///
    /// # Errors
    /// The command makes no sense or cannot be run, the container does not run, or the VM has ended.
    pub async fn exec(&self, command: impl Into<ProcessSpec>) -> Result<Process> {
        let spec = command.into();
        spec.check()?;
        let parameters = spec.parameters_in_container()?;
        process::start(&self.inner, base(&self.id), &spec, parameters).await
    }

    /// Asks it to end: its first process gets SIGTERM. [`wait`](Self::wait) tells when it has.
    ///
    /// # Errors
    /// It has ended already ([`ErrorKind::NotFound`]), or the VM has.
    pub async fn shut_down(&self) -> Result<()> {
        let request = self.plain(Request::ShutdownGraceful);
        self.ask(&request, "shut down").await
    }

    /// Ends it at once: its first process gets SIGKILL, and the others go with it.
    ///
    /// # Errors
    /// It has ended already ([`ErrorKind::NotFound`]), or the VM has.
    pub async fn kill(&self) -> Result<()> {
        let request = self.plain(Request::ShutdownForced);
        self.ask(&request, "kill").await
    }

    /// Waits until it has ended, and tells how.
    ///
    /// # Errors
    /// The VM has ended.
    pub async fn wait(&self) -> Result<ContainerExit> {
        let mut exit = self.exit.clone();
        tokio::select! {
            biased;
            ended = exit.wait_for(Option::is_some) => {
                if let Ok(Some(exit)) = ended.as_deref() {
                    return Ok(exit.clone());
                }
            }
            () = self.inner.link.ended() => {}
        }
        Err(self.inner.link.alive().err().unwrap_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("container {} is forgotten", self.id),
            )
        }))
    }

    /// The ids of its processes in the VM; none when it does not run.
    ///
    /// # Errors
    /// It is not known any more, or the VM has ended.
    pub async fn processes(&self) -> Result<Vec<u32>> {
        let properties = self.properties("ProcessList").await?;
        let list = properties.process_list.into_iter();
        Ok(list.map(|process| process.process_id).collect())
    }

    /// What it uses: bytes of memory, nanoseconds of processor time. `None` when it does not run.
    ///
    /// # Errors
    /// It is not known any more, or the VM has ended.
    pub async fn statistics(&self) -> Result<Option<GuestMetrics>> {
        Ok(self.properties("Statistics").await?.metrics)
    }

    /// Changes what it may use: `linux.resources` of the OCI specification, in what is to change.
    ///
    /// # Errors
    /// The runtime refuses, the container has ended, or the VM has.
    pub async fn update(&self, resources: Value) -> Result<()> {
        let modification =
            Modification::ContainerConstraints(ContainerConstraints { linux: resources });
        let change = ModifySettings::new(RequestType::update(), &modification)
            .map_err(|error| Error::invalid("resources without a JSON form").caused_by(error))?;
        let request = Request::ModifySettings(ModifyRequest {
            base: base(&self.id),
            change,
        });
        self.ask(&request, "update").await
    }

    /// Forgets it, which must have ended or never been started. Overlays and disks below it are the
    /// caller's to remove, before or after.
    ///
    /// # Errors
    /// It runs, or the VM has ended.
    pub async fn delete(self) -> Result<()> {
        let request = self.plain(Request::DeleteContainerState);
        self.ask(&request, "delete").await?;
        self.inner.link.forget_container(&self.id);
        Ok(())
    }

    async fn properties(&self, kind: &str) -> Result<Properties> {
        let request = Request::GetProperties(PropertiesRequest {
            base: base(&self.id),
            query: Nested(PropertyQuery {
                property_types: vec![kind.to_owned()],
            }),
        });
        let limit = Some(self.inner.timeout());
        match self.inner.link.request(&request, limit).await {
            Ok(Response::Properties(response)) => Ok(response.properties.0),
            Ok(_) => Err(unexpected("GetProperties")),
            Err(error) => Err(refused("look into", &self.id, error)),
        }
    }

    fn plain(&self, request: fn(PlainRequest) -> Request) -> Request {
        request(PlainRequest {
            base: base(&self.id),
        })
    }

    async fn ask(&self, request: &Request, what: &str) -> Result<()> {
        let limit = Some(self.inner.timeout());
        match self.inner.link.request(request, limit).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(what, &self.id, error)),
        }
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("id", &self.id)
            .field("exit", &*self.exit.borrow())
            .finish_non_exhaustive()
    }
}

fn base(id: &str) -> RequestBase {
    RequestBase {
        container_id: id.to_owned(),
        ..RequestBase::default()
    }
}

fn refused(what: &str, id: &str, error: Error) -> Error {
    use opengcs_bridge::{Failure, HResult};
    let failure =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Failure>());
    let kind = match failure.map(|failure| failure.result) {
        Some(HResult::SYSTEM_ALREADY_EXISTS) => ErrorKind::AlreadyExists,
        Some(HResult::SYSTEM_NOT_FOUND | HResult::SYSTEM_ALREADY_STOPPED) => ErrorKind::NotFound,
        _ => kind_of_refusal(&error),
    };
    let unsupported = kind == ErrorKind::Unsupported;
    let error = Error::new(kind, format!("cannot {what} container {id:?}")).caused_by(error);
    if unsupported {
        error.hint("build the VM's initrd with `opengcs initrd build --runtime crun`")
    } else {
        error
    }
}
