//! Which request is served by what, at once or on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opengcs_bridge::{
    Failure,
    guest::Ticket,
    message::{
        CreateResponse, ExecuteResponse, ExecuteSettings, Modification, ModifyRequest,
        PlainResponse, PropertiesResponse, Request, Response, StacksResponse,
    },
};

use super::{
    Agent, Outcome,
    connection::Answers,
    containers::{self, Container},
    disk, execute, failed, invalid, not_implemented, overlay, properties, spawn, stacks,
};
use crate::log;

/// How many requests may be served on threads of their own. Waiting for a process takes none.
const MOST_BUSY: usize = 128;

/// How long the kernel's modules may take; what needs none of them is served then.
const MODULES: Duration = Duration::from_secs(20);

/// Serves a request, and sees to it that it is answered. Does not wait for slow ones.
pub(super) fn serve(agent: &Arc<Agent>, answers: &Arc<Answers>, ticket: Ticket, request: Request) {
    let for_vm = request.base().is_utility_vm();
    match request {
        Request::WaitForProcess(wait) => {
            let container = wait.base.container();
            // A process outside of containers is known to each of them, but not to one that is not there.
            if let Some(Err(failure)) = container.map(|id| agent.containers.find(id)) {
                answers.send(&ticket.answer(Err(failure)));
                return;
            }
            agent.processes.wait(
                container,
                wait.process_id,
                wait.timeout_in_ms,
                answers,
                ticket,
            );
        }
        Request::ShutdownGraceful(_) if for_vm => shut_down(agent, answers, true),
        Request::ShutdownForced(_) if for_vm => shut_down(agent, answers, false),
        // Of containers, nearly everything may have to wait for the runtime.
        request if !for_vm || is_slow(&request) => serve_apart(agent, answers, &ticket, request),
        request => {
            let outcome = catch(|| answer(agent, request));
            answers.send(&ticket.answer(outcome));
        }
    }
}

fn is_slow(request: &Request) -> bool {
    matches!(
        request,
        Request::ExecuteProcess(_) | Request::ModifySettings(_) | Request::DumpStacks(_)
    )
}

fn serve_apart(agent: &Arc<Agent>, answers: &Arc<Answers>, ticket: &Ticket, request: Request) {
    if agent.busy.fetch_add(1, Ordering::Relaxed) >= MOST_BUSY {
        agent.busy.fetch_sub(1, Ordering::Relaxed);
        let failure = failed(format!("{MOST_BUSY} requests are being served already"));
        answers.send(&ticket.answer(Err(failure)));
        return;
    }
    let begun = {
        let (agent, answers, ticket) = (Arc::clone(agent), Arc::clone(answers), ticket.clone());
        let workers = Arc::clone(&agent.workers);
        workers.begin(Box::new(move || {
            let outcome = catch(|| {
                if !matches!(request, Request::DumpStacks(_)) && !agent.modules.wait(MODULES) {
                    log::warning(format_args!("the kernel's modules are still being loaded"));
                }
                answer(&agent, request)
            });
            agent.busy.fetch_sub(1, Ordering::Relaxed);
            if let Err(failure) = &outcome {
                log::info(format_args!(
                    "{} {}: {failure}",
                    ticket.request(),
                    ticket.id()
                ));
            }
            answers.send(&ticket.answer(outcome));
        }))
    };
    if let Err(error) = begun {
        agent.busy.fetch_sub(1, Ordering::Relaxed);
        answers.send(&ticket.answer(Err(failed(format!("no thread to serve it: {error}")))));
    }
}

/// A fault of ours in one request must not end the others.
fn catch(body: impl FnOnce() -> Outcome<Response>) -> Outcome<Response> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(failed("the agent failed while it served the request")))
}

fn answer(agent: &Arc<Agent>, request: Request) -> Outcome<Response> {
    let id = request.base().container().map(str::to_owned);
    let container = match (&id, &request) {
        (None, _) | (_, Request::Create(_)) => None,
        (_, Request::ExecuteProcess(execute)) if is_outside(&execute.settings) => None,
        (Some(id), _) => Some(agent.containers.find(id)?),
    };
    let id = id.as_deref();
    match (request, container) {
        (Request::ExecuteProcess(request), container) => {
            let process_id = match container {
                None => execute::execute(agent, &request.settings)?,
                Some(container) => containers::execute(agent, &container, &request.settings)?,
            };
            Ok(Response::Executed(ExecuteResponse {
                process_id,
                ..ExecuteResponse::default()
            }))
        }
        (Request::SignalProcess(request), container) => {
            let (pid, number) = (request.process_id, request.options.signal);
            let number = agent.processes.signal(id, pid, number)?;
            if let Some(container) = container {
                container.note_signal(pid, number);
            }
            Ok(done())
        }
        (Request::ResizeConsole(request), _) => {
            let (rows, columns) = (request.height, request.width);
            agent
                .processes
                .resize(id, request.process_id, rows, columns)?;
            Ok(done())
        }
        (Request::GetProperties(request), container) => {
            let query = &request.query.0;
            let properties = match container {
                None => properties::answer(agent, query),
                Some(container) => container.properties(query),
            };
            Ok(Response::Properties(PropertiesResponse {
                properties,
                ..PropertiesResponse::default()
            }))
        }
        (Request::ModifySettings(request), container) => {
            modify(agent, container.as_deref(), &request).map(|()| done())
        }
        (Request::DumpStacks(_), _) => Ok(Response::Stacks(StacksResponse {
            guest_stacks: stacks::dump(),
            ..StacksResponse::default()
        })),
        (Request::Start(_), _) => Ok(done()),
        (Request::Create(request), _) => {
            if !request.base.is_utility_vm() {
                containers::create(agent, request)?;
            }
            Ok(Response::Created(CreateResponse::default()))
        }
        (Request::ShutdownGraceful(_), Some(container)) => {
            container.shut_down(true).map(|()| done())
        }
        (Request::ShutdownForced(_), Some(container)) => {
            container.shut_down(false).map(|()| done())
        }
        (Request::DeleteContainerState(_), Some(container)) => {
            containers::delete(agent, &container).map(|()| done())
        }
        (request, _) => Err(not_implemented(format!(
            "{} is not served for the machine itself",
            request.message_type()
        ))),
    }
}

/// Whether a process that is asked for by way of a container runs outside of it.
fn is_outside(settings: &ExecuteSettings) -> bool {
    settings.process_parameters.0.create_in_utility_vm
}

fn done() -> Response {
    Response::Plain(PlainResponse::default())
}

fn modify(agent: &Agent, container: Option<&Container>, request: &ModifyRequest) -> Outcome<()> {
    let change = &request.change;
    if let Some(container) = container {
        let modification = change
            .modification()
            .map_err(|error| Failure::from(&error))?;
        return match (modification, change.request_type.0.as_str()) {
            (Modification::ContainerConstraints(constraints), "Update" | "Add" | "") => {
                containers::constrain(agent, container, &constraints)
            }
            (_, request_type) => Err(not_implemented(format!(
                "{request_type:?} of {} is not supported for a container",
                change.resource_type
            ))),
        };
    }
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
