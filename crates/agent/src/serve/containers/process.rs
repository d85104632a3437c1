//! Processes of containers: the first and further ones, each beside its shim.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use opengcs_bridge::message::ExecuteSettings;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

use super::{Container, Init, State, cgroup, document};
use crate::{
    serve::{
        Agent, Outcome,
        execute::{self, Streams},
        failed,
        processes::{Resize, Started},
    },
    shim::message::{self, FromAgent, FromShim, Start, Which},
};

/// How long a runtime may take for one call.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process of a container, by who looks after it.
pub(super) struct Shim {
    child: Child,
    control: Arc<OwnedFd>,
    pub(super) pid: u32,
    pub(super) target: OwnedFd,
    terminal: bool,
    /// The last signal that the host has sent it.
    pub(super) signalled: Option<i32>,
}

impl Shim {
    /// Has a shim have the runtime make a process.
    pub(super) fn begin(start: Start, connections: Streams) -> Outcome<Self> {
        let terminal = start.console_socket.is_some();
        let (control, child) = spawn().map_err(|error| failed(format!("start a shim: {error}")))?;
        let mut waiting = Waiting(Some(child));
        let descriptors: Vec<_> = connections.iter().flatten().map(AsFd::as_fd).collect();
        let told = message::send(&control, &FromAgent::Start(start), &descriptors);
        told.map_err(|error| failed(format!("tell a shim: {error}")))?;
        // The process alone holds its streams from here on.
        drop(connections);
        let (pid, target) = match message::receive(&control) {
            Ok((FromShim::Started(pid), handles)) => (pid, handles.into_iter().next()),
            Ok((FromShim::Failed(why), _)) => return Err(failed(why)),
            Ok((FromShim::Connected, _)) => return Err(failed("the shim spoke out of turn")),
            Err(error) => return Err(failed(format!("hear from a shim: {error}"))),
        };
        let target = target.ok_or_else(|| failed("the shim gave no handle to its process"))?;
        let child = waiting
            .0
            .take()
            .ok_or_else(|| failed("the shim has gone"))?;
        Ok(Self {
            child,
            control: Arc::new(control),
            pid,
            target,
            terminal,
            signalled: None,
        })
    }

    /// Gives the streams to a process that was made without.
    fn connect(&self, connections: &Streams) -> Outcome<()> {
        let which: Which = connections.each_ref().map(Option::is_some);
        let descriptors: Vec<_> = connections.iter().flatten().map(AsFd::as_fd).collect();
        let told = message::send(&self.control, &FromAgent::Streams(which), &descriptors);
        told.map_err(|error| failed(format!("tell a shim: {error}")))?;
        match message::receive(&self.control) {
            Ok((FromShim::Connected, _)) => Ok(()),
            Ok(_) => Err(failed("the shim spoke out of turn")),
            Err(error) => Err(failed(format!("hear from a shim: {error}"))),
        }
    }

    /// As the table of processes takes it in.
    pub(super) fn started(&self) -> Outcome<Started> {
        let number = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let child = number
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|error| failed(format!("watch process {}: {error}", self.pid)))?;
        let target = self
            .target
            .try_clone()
            .map_err(|error| failed(format!("watch process {}: {error}", self.pid)))?;
        // Whether there is a terminal or not: a shim ends its process when its socket is closed.
        let (control, terminal) = (Arc::clone(&self.control), self.terminal);
        let resize: Resize = Box::new(move |size| {
            if !terminal {
                return Err(io::Error::other("it has no terminal"));
            }
            let resize = FromAgent::Resize {
                rows: size.ws_row,
                columns: size.ws_col,
            };
            message::send(&control, &resize, &[]).map_err(io::Error::from)
        });
        Ok(Started {
            pid: self.pid,
            child,
            target: Some(target),
            container: None,
            resize: Some(resize),
            ended: None,
        })
    }
}

fn spawn() -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let child = Command::new("/proc/self/exe")
        .arg("shim")
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// A shim that has not come up yet: it ends if it does not.
struct Waiting(Option<Child>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a process in a container. Without a command of its own it is the first one.
pub(in crate::serve) fn execute(
    agent: &Agent,
    container: &Container,
    settings: &ExecuteSettings,
) -> Outcome<u32> {
    let parameters = &settings.process_parameters.0;
    let first = parameters.oci_process == Value::Null
        && parameters.command_args.is_empty()
        && parameters.command_line.is_empty();
    if first {
        return execute_first(agent, container, settings);
    }
    match &*container.state() {
        State::Running(_) => {}
        State::Creating | State::Created(_) => return Err(container.not_yet("running yet")),
        State::Exited => return Err(container.stopped()),
    }
    let process = document::further(parameters, &container.template, &container.root)?;
    let runtime = agent.containers.runtime()?;
    let connections = execute::dial(&*agent.dialer, parameters, settings.stdio)?;
    let shim = runtime.exec(&container.id, &process, connections)?;
    let started = Started {
        container: Some(Arc::clone(&container.id)),
        ..shim.started()?
    };
    agent.processes.insert(started)?;
    Ok(shim.pid)
}

fn execute_first(agent: &Agent, container: &Container, settings: &ExecuteSettings) -> Outcome<u32> {
    let parameters = &settings.process_parameters.0;
    let runtime = agent.containers.runtime()?;
    let connections = execute::dial(&*agent.dialer, parameters, settings.stdio)?;
    // Held throughout: there is one first process, and its end is not noticed before its start.
    let mut state = container.state();
    let shim = match std::mem::replace(&mut *state, State::Exited) {
        State::Created(shim) => shim,
        other => {
            *state = other;
            return Err(match &*state {
                State::Running(_) => {
                    container.not_yet("new: its first process has been started; give a command")
                }
                State::Exited => container.stopped(),
                State::Creating | State::Created(_) => container.not_yet("created yet"),
            });
        }
    };
    // Read before it begins: it may have ended when it is asked for.
    let cgroup = cgroup::of(shim.pid);
    let started = shim
        .connect(&connections)
        .and_then(|()| runtime.start(&container.id));
    match started {
        Ok(()) => {
            let pid = shim.pid;
            *state = State::Running(Init {
                pid,
                cgroup,
                handle: shim.target,
                signalled: shim.signalled,
            });
            Ok(pid)
        }
        Err(failure) => {
            *state = State::Created(shim);
            Err(failure)
        }
    }
}
