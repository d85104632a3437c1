//! Containers: created, started, entered, ended and forgotten, by an OCI runtime.
//!
//! ```text
//!   Create ──► created ── ExecuteProcess, the first ──► running ──► exited ── Delete ──► (gone)
//!     │           └──────── ends before it was started ──────────────▲ │
//!     └─ fails: (gone)                                                 └── notification
//! ```
//!
//! The runtime makes the container at `Create`; its first process begins with the `ExecuteProcess`
//! that connects its streams. A container stays known, and its id taken, until its state is deleted.

mod cgroup;
mod document;
mod process;
mod runtime;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use opengcs_bridge::{
    Failure, HResult,
    message::{
        ContainerConstraints, CreateRequest, Nested, Notification, NotificationType,
        ProcessDetails, Properties, PropertyQuery,
    },
};
use rustix::process::{Signal, pidfd_send_signal};

use self::{process::Shim, runtime::Runtime};
use super::{Agent, Outcome, failed, invalid, not_implemented, processes::Started};
use crate::log;

/// How many containers there may be.
const MOST: usize = 512;

/// The longest id, in bytes.
const LONGEST_ID: usize = 255;

/// The containers of the machine.
pub(super) struct Containers {
    runtime: Option<Runtime>,
    table: Mutex<HashMap<String, Arc<Container>>>,
}

/// One container.
pub(super) struct Container {
    id: Arc<str>,
    /// The activity that created it, which its notification repeats.
    activity: String,
    /// The `process` of its specification, for those that are run in it later.
    template: serde_json::Value,
    root: PathBuf,
    state: Mutex<State>,
}

enum State {
    /// The runtime is making it.
    Creating,
    Created(Shim),
    Running(Init),
    Exited,
}

/// The first process, in what is still needed of it.
struct Init {
    pid: u32,
    handle: std::os::fd::OwnedFd,
    cgroup: Option<PathBuf>,
    /// The last signal that the host has sent it.
    signalled: Option<i32>,
}

impl Containers {
    /// With a runtime, if there is one; state is kept in `folder`.
    pub(super) fn new(runtime: Option<PathBuf>, folder: &Path) -> Self {
        Self {
            runtime: runtime.map(|program| Runtime::new(program, folder)),
            table: Mutex::default(),
        }
    }

    /// Whether there can be any.
    pub(super) fn supported(&self) -> bool {
        self.runtime.is_some()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runtime(&self) -> Outcome<&Runtime> {
        self.runtime
            .as_ref()
            .ok_or_else(|| not_implemented("this VM has no container runtime (crun or runc)"))
    }

    /// The container of this id.
    pub(super) fn find(&self, id: &str) -> Outcome<Arc<Container>> {
        let shown: String = id.chars().take(LONGEST_ID).collect();
        self.table().get(id).map(Arc::clone).ok_or_else(|| {
            Failure::new(HResult::SYSTEM_NOT_FOUND, format!("no container {shown:?}"))
        })
    }
}

/// Has the runtime make a container.
pub(super) fn create(agent: &Arc<Agent>, request: CreateRequest) -> Outcome<()> {
    let containers = &agent.containers;
    let runtime = containers.runtime()?;
    let id = request.base.container_id;
    check_id(&id)?;
    let config = request.container_config.0;
    if containers.table().contains_key(&id) {
        return Err(exists(&id));
    }
    let document = document::container(&id, &config)?;
    let container = Arc::new(Container {
        id: id.as_str().into(),
        activity: request.base.activity_id,
        template: document.process.clone(),
        root: document.root.clone(),
        state: Mutex::new(State::Creating),
    });
    {
        let mut table = containers.table();
        if table.len() >= MOST {
            return Err(failed(format!("there are {MOST} containers already")));
        }
        if table.contains_key(&id) {
            return Err(exists(&id));
        }
        table.insert(id.clone(), Arc::clone(&container));
    }
    let made = document
        .write()
        .and_then(|bundle| runtime.create(&id, &bundle, document.terminal));
    match made.and_then(|shim| take_in(agent, &container, shim)) {
        Ok(()) => Ok(()),
        Err(failure) => {
            // What the runtime has made of it by then must not stay.
            let _ = runtime.delete(&id);
            containers.table().remove(&id);
            Err(failure)
        }
    }
}

/// Watches a container's first process from before its beginning.
fn take_in(agent: &Arc<Agent>, container: &Arc<Container>, shim: Shim) -> Outcome<()> {
    let (ended, weak) = (Arc::clone(container), Arc::downgrade(agent));
    let started = Started {
        container: Some(Arc::clone(&container.id)),
        ended: Some(Box::new(move |_| has_ended(&weak, &ended))),
        ..shim.started()?
    };
    *container.state() = State::Created(shim);
    agent.processes.insert(started)
}

/// The first process has ended, and the container with it: the host is told.
fn has_ended(agent: &Weak<Agent>, container: &Container) {
    let before = std::mem::replace(&mut *container.state(), State::Exited);
    let signalled = match before {
        State::Running(init) => init.signalled,
        State::Created(shim) => shim.signalled,
        State::Creating | State::Exited => None,
    };
    let how = match signalled {
        Some(number) if number == Signal::TERM.as_raw() => NotificationType::GRACEFUL_EXIT,
        Some(number) if number == Signal::KILL.as_raw() => NotificationType::FORCED_EXIT,
        _ => NotificationType::UNEXPECTED_EXIT,
    };
    log::info(format_args!("container {} has ended: {how}", container.id));
    let Some(agent) = agent.upgrade() else { return };
    agent.news.tell(&Notification {
        container_id: container.id.to_string(),
        activity_id: container.activity.clone(),
        notification_type: NotificationType(how.to_owned()),
        operation: "None".to_owned(),
        ..Notification::default()
    });
}

impl Container {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> Failure {
        Failure::new(
            HResult::SYSTEM_ALREADY_STOPPED,
            format!("container {} has ended", self.id),
        )
    }

    fn not_yet(&self, what: &str) -> Failure {
        Failure::new(
            HResult::INVALID_STATE,
            format!("container {} is not {what}", self.id),
        )
    }

    /// Notes that the host has sent a signal to one of its processes.
    pub(super) fn note_signal(&self, pid: u32, number: i32) {
        match &mut *self.state() {
            State::Running(init) if init.pid == pid => init.signalled = Some(number),
            State::Created(shim) if shim.pid == pid => shim.signalled = Some(number),
            _ => {}
        }
    }

    /// Signals the first process, to end the container.
    pub(super) fn shut_down(&self, graceful: bool) -> Outcome<()> {
        let signal = if graceful { Signal::TERM } else { Signal::KILL };
        let mut state = self.state();
        let (handle, signalled) = match &mut *state {
            State::Running(init) => (&init.handle, &mut init.signalled),
            State::Created(shim) => (&shim.target, &mut shim.signalled),
            State::Creating => return Err(self.not_yet("created yet")),
            State::Exited => return Err(self.stopped()),
        };
        match pidfd_send_signal(handle, signal) {
            Ok(()) => {
                *signalled = Some(signal.as_raw());
                Ok(())
            }
            Err(rustix::io::Errno::SRCH) => Err(self.stopped()),
            Err(error) => Err(failed(format!("signal container {}: {error}", self.id))),
        }
    }

    /// Its processes and what it uses; nothing once it has ended.
    pub(super) fn properties(&self, query: &PropertyQuery) -> Nested<Properties> {
        let mut properties = Properties::default();
        let cgroup = match &*self.state() {
            State::Running(init) => init.cgroup.clone(),
            State::Creating | State::Created(_) | State::Exited => None,
        };
        let Some(cgroup) = cgroup else {
            return Nested(properties);
        };
        for property in &query.property_types {
            match property.as_str() {
                "ProcessList" => {
                    properties.process_list = cgroup::processes(&cgroup)
                        .into_iter()
                        .map(|process_id| ProcessDetails { process_id })
                        .collect();
                }
                "Statistics" => properties.metrics = Some(cgroup::metrics(&cgroup)),
                _ => {}
            }
        }
        Nested(properties)
    }
}

/// Changes what a container may use.
pub(super) fn constrain(
    agent: &Agent,
    container: &Container,
    constraints: &ContainerConstraints,
) -> Outcome<()> {
    match &*container.state() {
        State::Created(_) | State::Running(_) => {}
        State::Creating => return Err(container.not_yet("created yet")),
        State::Exited => return Err(container.stopped()),
    }
    if !constraints.linux.is_object() {
        return Err(invalid("ContainerConstraints without Linux resources"));
    }
    let runtime = agent.containers.runtime()?;
    runtime.update(&container.id, &constraints.linux)
}

/// Forgets a container that has ended or was never started.
pub(super) fn delete(agent: &Agent, container: &Container) -> Outcome<()> {
    match &*container.state() {
        State::Created(_) | State::Exited => {}
        State::Creating => return Err(container.not_yet("created yet")),
        State::Running(_) => {
            return Err(Failure::new(
                HResult::INVALID_STATE,
                format!("container {} runs; end it first", container.id),
            ));
        }
    }
    // Whatever becomes of the runtime's own state, the container is known no longer.
    agent.containers.table().remove(&*container.id);
    agent.containers.runtime()?.delete(&container.id)
}

/// The runtime of the machine, if it has one.
pub(super) use runtime::find as find_runtime;

/// Runs a process in a container: its first one, or one beside it. Gives its number.
pub(super) use process::execute;

fn exists(id: &str) -> Failure {
    Failure::new(
        HResult::SYSTEM_ALREADY_EXISTS,
        format!("there is a container {id} already"),
    )
}

/// An id is part of paths and of command lines.
fn check_id(id: &str) -> Outcome<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let begins = id
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && id.len() <= LONGEST_ID && id.bytes().all(fine) {
        return Ok(());
    }
    let shown: String = id.chars().take(LONGEST_ID).collect();
    Err(invalid(format!(
        "{shown:?} is not an id for a container: letters, digits and _.+- after a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_nothing_else() {
        for good in ["a", "0", "6399a395fd08425f", "a.b_c+d-e"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in ["", ".", "..", "a/b", "-rm", "a b", "a\0", "é", &long] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
