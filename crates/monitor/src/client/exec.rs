//! A client's side of a process: its output comes as events, its input goes in chunks.

use bytes::Bytes;
use opengcs::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::Pulse;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::monitor_client::MonitorClient;
use crate::proto::{self, exec_request, exec_response};

/// Chunks of input that may wait for the connection.
const WAITING: usize = 1;

/// A process in the VM. Dropping it hangs the process up, unless it was detached.
#[derive(Debug)]
pub struct Exec {
    id: u32,
    responses: Streaming<proto::ExecResponse>,
    input: Option<ExecInput>,
    control: ExecControl,
}

/// What a process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wrote to its standard output.
    Stdout(Bytes),
    /// It wrote to its standard error.
    Stderr(Bytes),
    /// It ended with this exit code; 128 + n after signal n. All of its output came before.
    Exited(u32),
}

/// The standard input of a process; dropping it is its end.
#[derive(Debug)]
pub struct ExecInput {
    requests: mpsc::Sender<proto::ExecRequest>,
}

/// What signals, resizes and detaches a process, whatever its input and output do.
#[derive(Debug, Clone)]
pub struct ExecControl {
    id: u32,
    client: MonitorClient<Channel>,
    pulse: Pulse,
}

impl Exec {
    pub(super) async fn start(
        mut client: MonitorClient<Channel>,
        pulse: Pulse,
        start: proto::ExecStart,
    ) -> Result<Self> {
        let has_input = start.stdin;
        let (requests, sent) = mpsc::channel(WAITING);
        let first = exec_request::What::Start(start);
        // There is room for the first.
        let _ = requests.try_send(request(first));
        let answer = client.exec(ReceiverStream::new(sent));
        let mut responses = pulse.guard(answer).await?.into_inner();
        let first = pulse
            .guard(responses.message())
            .await?
            .and_then(|response| response.what);
        let Some(exec_response::What::Started(id)) = first else {
            return Err(unexpected());
        };
        Ok(Self {
            id,
            responses,
            input: has_input.then_some(ExecInput { requests }),
            control: ExecControl { id, client, pulse },
        })
    }

    /// Its number in the guest.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its standard input, if it is connected and nobody has taken it.
    pub fn take_input(&mut self) -> Option<ExecInput> {
        self.input.take()
    }

    /// What acts on it from elsewhere.
    #[must_use]
    pub fn control(&self) -> ExecControl {
        self.control.clone()
    }

    /// What it does next.
    ///
    /// # Errors
    /// The VM has ended, or its monitor has.
    pub async fn next(&mut self) -> Result<Event> {
        let response = self.control.pulse.guard(self.responses.message()).await?;
        match response.and_then(|response| response.what) {
            Some(exec_response::What::Stdout(bytes)) => Ok(Event::Stdout(bytes)),
            Some(exec_response::What::Stderr(bytes)) => Ok(Event::Stderr(bytes)),
            Some(exec_response::What::Exited(code)) => Ok(Event::Exited(code)),
            Some(exec_response::What::Started(_)) => Err(unexpected()),
            None => Err(Error::new(
                ErrorKind::Ended,
                "how the process ended is not known: the VM has ended",
            )),
        }
    }
}

impl ExecInput {
    /// Sends some of it, as soon as the process takes it. False: nobody wants it any more.
    pub async fn send(&self, bytes: Bytes) -> bool {
        let what = exec_request::What::Stdin(bytes);
        self.requests.send(request(what)).await.is_ok()
    }
}

impl ExecControl {
    /// Sends the process a signal.
    ///
    /// # Errors
    /// It has ended, or the agent does not serve that.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let request = proto::SignalRequest {
            process: self.id,
            signal: signal.number(),
        };
        let mut client = self.client.clone();
        self.pulse.guard(client.signal(request)).await?;
        Ok(())
    }

    /// Tells its terminal its size.
    ///
    /// # Errors
    /// It has ended, or has no terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let request = proto::ResizeRequest {
            process: self.id,
            rows: rows.into(),
            columns: columns.into(),
        };
        let mut client = self.client.clone();
        self.pulse.guard(client.resize(request)).await?;
        Ok(())
    }

    /// Lets it go on when its [`Exec`] is dropped.
    ///
    /// # Errors
    /// It has ended.
    pub async fn detach(&self) -> Result<()> {
        let request = proto::DetachRequest { process: self.id };
        let mut client = self.client.clone();
        self.pulse.guard(client.detach(request)).await?;
        Ok(())
    }
}

fn request(what: exec_request::What) -> proto::ExecRequest {
    proto::ExecRequest { what: Some(what) }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Other, "the monitor answers with something else")
}
