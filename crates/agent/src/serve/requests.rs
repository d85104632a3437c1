//! Which request is served by what, at once or on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use opengcs_bridge::{
    Failure, HResult,
    guest::Ticket,
    message::{
        CreateResponse, ExecuteResponse, Modification, ModifyRequest, PlainResponse,
        PropertiesResponse, Request, Response, StacksResponse,
    },
};

use super::{
    Agent, Outcome, connection::Answers, disk, execute, failed, invalid, not_implemented, overlay,
    properties, spawn, stacks,
};
use crate::log;

/// How many requests may be served on threads of their own. Waiting for a process takes none.
const MOST_BUSY: usize = 128;

/// Serves a request, and sees to it that it is answered. Does not wait for slow ones.
pub(super) fn serve(agent: &Arc<Agent>, answers: &Arc<Answers>, ticket: Ticket, request: Request) {
    if let Err(failure) = addressed(&request) {
        answers.send(&ticket.answer(Err(failure)));
        return;
    }
    match request {
        Request::WaitForProcess(wait) => {
            let container = wait.base.container();
            agent.processes.wait(
                container,
                wait.process_id,
                wait.timeout_in_ms,
                answers,
                ticket,
            );
        }
        Request::ExecuteProcess(_) | Request::ModifySettings(_) | Request::DumpStacks(_) => {
            serve_apart(agent, answers, &ticket, request);
        }
        Request::ShutdownGraceful(_) => shut_down(agent, answers, true),
        Request::ShutdownForced(_) => shut_down(agent, answers, false),
        request => {
            let outcome = catch(|| answer(agent, request));
            answers.send(&ticket.answer(outcome));
        }
    }
}

/// Only the machine itself is served: there are no containers.
fn addressed(request: &Request) -> Outcome<()> {
    let base = request.base();
    let outside = match request {
        Request::ExecuteProcess(execute) => {
            execute.settings.process_parameters.0.create_in_utility_vm
        }
        _ => false,
    };
    if base.is_utility_vm() || outside {
        return Ok(());
    }
    let container: String = base.container_id.chars().take(128).collect();
    if let Request::Create(_) = request {
        return Err(not_implemented(format!(
            "container {container:?} not created: this agent runs no containers"
        )));
    }
    Err(Failure::new(
        HResult::SYSTEM_NOT_FOUND,
        format!("no container {container:?}"),
    ))
}

fn serve_apart(agent: &Arc<Agent>, answers: &Arc<Answers>, ticket: &Ticket, request: Request) {
    if agent.busy.fetch_add(1, Ordering::Relaxed) >= MOST_BUSY {
        agent.busy.fetch_sub(1, Ordering::Relaxed);
        let failure = failed(format!("{MOST_BUSY} requests are being served already"));
        answers.send(&ticket.answer(Err(failure)));
        return;
    }
    let spawned = {
        let (agent, answers, ticket) = (Arc::clone(agent), Arc::clone(answers), ticket.clone());
        spawn("request", move || {
            let outcome = catch(|| answer(&agent, request));
            agent.busy.fetch_sub(1, Ordering::Relaxed);
            if let Err(failure) = &outcome {
                log::info(format_args!(
                    "{} {}: {failure}",
                    ticket.request(),
                    ticket.id()
                ));
            }
            answers.send(&ticket.answer(outcome));
        })
    };
    if let Err(error) = spawned {
        agent.busy.fetch_sub(1, Ordering::Relaxed);
        answers.send(&ticket.answer(Err(failed(format!("no thread to serve it: {error}")))));
    }
}

/// A fault of ours in one request must not end the others.
fn catch(body: impl FnOnce() -> Outcome<Response>) -> Outcome<Response> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(failed("the agent failed while it served the request")))
}

fn answer(agent: &Agent, request: Request) -> Outcome<Response> {
    match request {
        Request::ExecuteProcess(request) => {
            let process_id = execute::execute(agent, &request.settings)?;
            Ok(Response::Executed(ExecuteResponse {
                process_id,
                ..ExecuteResponse::default()
            }))
        }
        Request::SignalProcess(request) => {
            let container = request.base.container();
            let number = request.options.signal;
            agent
                .processes
                .signal(container, request.process_id, number)?;
            Ok(done())
        }
        Request::ResizeConsole(request) => {
            let container = request.base.container();
            let (rows, columns) = (request.height, request.width);
            agent
                .processes
                .resize(container, request.process_id, rows, columns)?;
            Ok(done())
        }
        Request::GetProperties(request) => Ok(Response::Properties(PropertiesResponse {
            properties: properties::answer(agent, &request.query.0),
            ..PropertiesResponse::default()
        })),
        Request::ModifySettings(request) => modify(agent, &request).map(|()| done()),
        Request::DumpStacks(_) => Ok(Response::Stacks(StacksResponse {
            guest_stacks: stacks::dump(),
            ..StacksResponse::default()
        })),
        Request::Start(_) => Ok(done()),
        Request::Create(_) => Ok(Response::Created(CreateResponse::default())),
        request => Err(not_implemented(format!(
            "{} is not served for the machine itself",
            request.message_type()
        ))),
    }
}

fn done() -> Response {
    Response::Plain(PlainResponse::default())
}

fn modify(agent: &Agent, request: &ModifyRequest) -> Outcome<()> {
    let change = &request.change;
    let add = match change.request_type.0.as_str() {
        "" | "Add" => true,
        "Remove" => false,
        other => {
            return Err(not_implemented(format!(
                "{other:?} of {} is not supported",
                change.resource_type
            )));
        }
    };
    let modification = change
        .modification()
        .map_err(|error| Failure::from(&error))?;
    match (modification, add) {
        (Modification::MappedVirtualDisk(disk), true) => disk::add(agent, &disk),
        (Modification::MappedVirtualDisk(disk), false) => disk::remove(agent, &disk),
        (Modification::ScsiDevice(device), false) => disk::unplug(agent, device),
        (Modification::ScsiDevice(_), true) => {
            Err(invalid("a SCSIDevice is only removed; the host adds it"))
        }
        (Modification::CombinedLayers(layers), true) => overlay::add(agent, &layers),
        (Modification::CombinedLayers(layers), false) => overlay::remove(agent, &layers),
        _ => {
            let resource = &change.resource_type;
            Err(not_implemented(format!(
                "{resource} is not supported by this agent{}",
                instead_of(&resource.0)
            )))
        }
    }
}

/// What to do instead of something that is not done here.
fn instead_of(resource: &str) -> &'static str {
    match resource {
        "MappedDirectory" => ": folders of the host are not shared; bring their content on a disk",
        "VPMemDevice" => ": disks come over SCSI; add it as a MappedVirtualDisk",
        _ => "",
    }
}

/// There is no answer: the connection ends, then the machine.
fn shut_down(agent: &Arc<Agent>, answers: &Arc<Answers>, graceful: bool) {
    let (for_thread, answers) = (Arc::clone(agent), Arc::clone(answers));
    let body = move || {
        for_thread
            .power
            .off(&for_thread.processes, graceful, || answers.close());
    };
    if let Err(error) = spawn("shutdown", body) {
        log::error(format_args!("no thread to shut down with: {error}"));
        agent.power.off(&agent.processes, false, || {});
    }
}
