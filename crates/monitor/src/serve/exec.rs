//! A process of a client: what it reads comes in requests, what it writes goes out in responses, and each
//! side waits for the other.
//!
//! ```text
//!   client ──► requests ──► pump ──► a chunk at most ──► stdin ┐
//!   client ◄── responses ◄── two chunks at most ◄── stdout, stderr ┘ process
//!
//!   the client goes away:   SIGHUP ─► 5 s ─► SIGKILL, its output to nowhere
//!   it was detached before: its output to nowhere, its input stays open
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use opengcs::{ProcessSpec, Signal};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;
use tonic::{Status, Streaming};

use super::{Running, Service, WAITING};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{self, exec_request, exec_response};
use crate::vm::{Control, Process};

/// How long a process that was hung up may take to end.
const HANGUP: Duration = Duration::from_secs(5);
/// How long one that was killed may take until nobody waits for it any more.
const KILL: Duration = Duration::from_secs(10);
/// The longest command line that is listed, in characters.
const LONGEST_COMMAND: usize = 200;

type Answers = mpsc::Sender<Result<proto::ExecResponse, Status>>;
type Requests = Streaming<proto::ExecRequest>;

/// Starts what the first request says, and gives the responses.
pub(super) async fn exec(
    service: Service,
    mut requests: Requests,
) -> Result<mpsc::Receiver<Result<proto::ExecResponse, Status>>, Status> {
    let first = requests.message().await?.and_then(|request| request.what);
    let Some(exec_request::What::Start(start)) = first else {
        let what = "the first request does not say what to run";
        return Err(Error::new(ErrorKind::Invalid, what).into());
    };
    let spec = spec(&start);
    let process = service.vm()?.start_process(spec).await?;
    let (answers, receiver) = mpsc::channel(WAITING);
    tokio::spawn(run(service, process, start, requests, answers));
    Ok(receiver)
}

fn spec(start: &proto::ExecStart) -> ProcessSpec {
    let folder = match start.folder.as_str() {
        "" => "/",
        folder => folder,
    };
    let mut spec = ProcessSpec::new(start.command.iter().cloned())
        .current_dir(folder)
        .stdin(start.stdin && !start.detached)
        .stdout(!start.detached)
        .stderr(!start.detached)
        .terminal(start.terminal);
    if start.rows > 0 && start.columns > 0 {
        spec = spec.terminal_size(length(start.rows), length(start.columns));
    }
    if !start.user.is_empty() {
        spec = spec.user(&start.user);
    }
    for (name, value) in &start.environment {
        spec = spec.env(name, value);
    }
    spec
}

/// Rows or columns; no terminal has more.
pub(super) fn length(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// One process from its start to its end.
async fn run(
    service: Service,
    process: Box<dyn Process>,
    start: proto::ExecStart,
    requests: Requests,
    answers: Answers,
) {
    let id = process.id();
    let control = process.control();
    let (detached, _) = watch::channel(start.detached);
    let let_go = detached.subscribe();
    let command = start.command.join(" ").replace(char::is_control, " ");
    let running = Running {
        command: command.chars().take(LONGEST_COMMAND).collect(),
        terminal: start.terminal,
        detached,
        control: Arc::clone(&control),
    };
    service.with_processes(|all| all.insert(id, running));
    let _listed = Listed {
        service: &service,
        id,
    };
    let _ = answers
        .send(Ok(response(exec_response::What::Started(id))))
        .await;

    let (input, chunks) = mpsc::channel(1);
    let pump = tokio::spawn(pump(requests, input, let_go.clone()));
    let sink = |wrap| Sink {
        answers: PollSender::new(answers.clone()),
        wrap,
    };
    let ended = process.run(
        Box::new(StreamReader::new(ReceiverStream::new(chunks))),
        Box::new(sink(exec_response::What::Stdout)),
        Box::new(sink(exec_response::What::Stderr)),
    );
    let outcome = attended(ended, &*control, &answers, &let_go).await;
    pump.abort();
    if let Some(outcome) = outcome {
        let last = outcome
            .map(|code| response(exec_response::What::Exited(code)))
            .map_err(Status::from);
        let _ = answers.send(last).await;
    }
}

/// Waits for the process's end, and hangs it up when its client goes away. `None`: it does not end.
async fn attended(
    ended: impl Future<Output = Result<u32>>,
    control: &dyn Control,
    answers: &Answers,
    let_go: &watch::Receiver<bool>,
) -> Option<Result<u32>> {
    tokio::pin!(ended);
    tokio::select! {
        outcome = &mut ended => return Some(outcome),
        () = answers.closed() => {}
    }
    if *let_go.borrow() {
        return Some(ended.await);
    }
    let signalled = control.signal(Signal::HUP.number()).await;
    tracing::info!(
        ?signalled,
        "the client has gone, and its process is hung up"
    );
    if let Ok(outcome) = tokio::time::timeout(HANGUP, &mut ended).await {
        return Some(outcome);
    }
    let killed = control.kill().await;
    tracing::info!(?killed, "the process did not end at the hang-up");
    tokio::time::timeout(KILL, ended).await.ok()
}

fn response(what: exec_response::What) -> proto::ExecResponse {
    proto::ExecResponse { what: Some(what) }
}

/// Hands the requests' bytes on until they end. A client that has gone, or has let the process go, is not
/// the end of its input.
async fn pump(
    mut requests: Requests,
    input: mpsc::Sender<io::Result<Bytes>>,
    let_go: watch::Receiver<bool>,
) {
    loop {
        match requests.message().await {
            Ok(Some(request)) => {
                if let Some(exec_request::What::Stdin(bytes)) = request.what
                    && !bytes.is_empty()
                    && input.send(Ok(bytes)).await.is_err()
                {
                    // The process wants no more; whoever writes is not held up by that.
                    while let Ok(Some(_)) = requests.message().await {}
                    return;
                }
            }
            Ok(None) if !*let_go.borrow() => return,
            Ok(None) | Err(_) => {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Takes the process off the list, however its task ends.
struct Listed<'a> {
    service: &'a Service,
    id: u32,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.service.with_processes(|all| all.remove(&self.id));
    }
}

/// Output that goes to the client, one chunk after the other; to nowhere when it has gone.
struct Sink {
    answers: PollSender<Result<proto::ExecResponse, Status>>,
    wrap: fn(Bytes) -> exec_response::What,
}

impl AsyncWrite for Sink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // What goes to nowhere waits for nobody: others must get their turn all the same.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        let chunk = bytes.get(..super::PIECE).unwrap_or(bytes);
        if ready!(self.answers.poll_reserve(context)).is_ok() {
            let what = (self.wrap)(Bytes::copy_from_slice(chunk));
            // It fails when the client has just gone.
            let _ = self.answers.send_item(Ok(response(what)));
        }
        turn.made_progress();
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
