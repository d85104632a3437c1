//! What a client asks a monitor.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::{Error, ErrorKind, Result};
use crate::folder::{Ended, Folders, Found, named};
use crate::monitor::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::name::Name;
use crate::proto;
use crate::proto::logs_request::Source;
use crate::proto::monitor_client::MonitorClient;
use crate::proto::stop_response::How;
use crate::sys;

mod exec;
mod pulse;

use pulse::Pulse;

pub use exec::{Event, Exec, ExecControl, ExecInput};

/// How often and how long a monitor that has its name and no socket yet is tried.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A connection to the monitor of a VM. Whatever is asked over it ends in [`ErrorKind::Silent`] when the
/// monitor does not answer at all for some seconds, as one that was stopped.
#[derive(Debug, Clone)]
pub struct Client {
    inner: MonitorClient<Channel>,
    pulse: Pulse,
}

/// A VM that was looked for by its name.
#[derive(Debug)]
pub enum Looked {
    /// It lives.
    Living(Client),
    /// It has ended by itself; this is left of it, with its folder.
    Ended(Ended, std::path::PathBuf),
}

impl Client {
    /// Connects to the monitor of a VM that lives.
    ///
    /// # Errors
    /// There is no such VM, or it has ended: why.
    pub async fn connect(folders: &Folders, name: &Name) -> Result<Self> {
        match Self::look_for(folders, name).await? {
            Looked::Living(client) => Ok(client),
            Looked::Ended(record, _) => Err(Error::new(
                ErrorKind::Ended,
                format!("the VM {name} has ended: {}", record.reason),
            )
            .hint(match record.bundle {
                Some(bundle) => format!("what was recorded is in {}", bundle.display()),
                None => format!("`opengcs vm logs {name}` shows its logs"),
            })),
        }
    }

    /// Connects to the monitor of a VM, or finds what is left of it.
    ///
    /// # Errors
    /// There is no such VM.
    pub async fn look_for(folders: &Folders, name: &Name) -> Result<Looked> {
        for _ in 0..TRIES {
            match named(name, folders.look().await?)? {
                Found::Ended(record, folder) => return Ok(Looked::Ended(record, folder)),
                Found::Living(_, folder) => {
                    if let Some(client) = Self::dial(name, &folder).await? {
                        return Ok(Looked::Living(client));
                    }
                }
            }
            // It is about to listen, or about to go.
            tokio::time::sleep(PAUSE).await;
        }
        Err(pulse::silent(name, None))
    }

    /// Connects to the monitor of a VM's folder; `None`: nobody listens there.
    ///
    /// # Errors
    /// The socket is there and cannot be used.
    pub async fn dial(name: &Name, folder: &Path) -> Result<Option<Self>> {
        Self::dial_with(name, folder, pulse::PATIENCE).await
    }

    async fn dial_with(name: &Name, folder: &Path, patience: Duration) -> Result<Option<Self>> {
        use std::io::ErrorKind as Io;
        let socket = match sys::connect(folder).await {
            Ok(socket) => socket,
            // The last: more wait already than there is room for.
            Err(error)
                if matches!(
                    error.kind(),
                    Io::NotFound | Io::ConnectionRefused | Io::WouldBlock
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("connect to the monitor in", folder, &error)),
        };
        let monitor = sys::peer(&socket);
        let mut socket = Some(socket);
        // The one connection that there is; when it breaks, the monitor has gone.
        let connector = service_fn(move |_| {
            let socket = socket.take();
            async move {
                let gone = || std::io::Error::from(Io::ConnectionAborted);
                socket.map(TokioIo::new).ok_or_else(gone)
            }
        });
        let channel = Endpoint::from_static("http://monitor.invalid")
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector(connector)
            .await;
        let Ok(channel) = channel else {
            return Ok(None);
        };
        let inner = MonitorClient::new(channel);
        Ok(Some(Self {
            pulse: Pulse::begin(name.clone(), monitor, inner.clone(), patience),
            inner,
        }))
    }

    /// The VM's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        self.pulse.name()
    }

    /// The monitor's process, where it is known.
    #[must_use]
    pub fn monitor(&self) -> Option<u32> {
        self.pulse.monitor()
    }

    /// What the VM is and has now.
    ///
    /// # Errors
    /// The monitor has gone.
    pub async fn inspect(&mut self) -> Result<proto::Vm> {
        let answer = self.inner.inspect(proto::InspectRequest {});
        Ok(self.pulse.guard(answer).await?.into_inner())
    }

    /// Ends the VM: the guest is asked, and killed after `grace`. Returns when its name is free.
    ///
    /// # Errors
    /// The monitor was killed meanwhile.
    pub async fn stop(&mut self, grace: Duration) -> Result<How> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let answer = self.inner.stop(proto::StopRequest { grace_ms });
        Ok(self.pulse.guard(answer).await?.into_inner().how())
    }

    /// Adds a disk.
    ///
    /// # Errors
    /// What hinders it.
    pub async fn add_disk(&mut self, disk: proto::AddDiskRequest) -> Result<proto::Disk> {
        let added = self.inner.add_disk(disk);
        Ok(self.pulse.guard(added).await?.into_inner())
    }

    /// Removes a disk, by its place in the guest or its absolute path on the host; `as_said` is what
    /// was said where that was neither.
    ///
    /// # Errors
    /// There is none, or the guest uses it: who does.
    pub async fn remove_disk(
        &mut self,
        place_or_file: String,
        as_said: String,
    ) -> Result<proto::Disk> {
        let request = proto::RemoveDiskRequest {
            place_or_file,
            as_said,
        };
        let removed = self.inner.remove_disk(request);
        Ok(self.pulse.guard(removed).await?.into_inner())
    }

    /// Starts a process.
    ///
    /// # Errors
    /// It cannot be started: why.
    pub async fn exec(&mut self, start: proto::ExecStart) -> Result<Exec> {
        Exec::start(self.inner.clone(), self.pulse.clone(), start).await
    }

    /// The VM's logs, or the last `tail` lines of each, and with `follow` what they get until it ends.
    ///
    /// # Errors
    /// The monitor has gone.
    pub async fn logs(
        &mut self,
        sources: &[Source],
        follow: bool,
        tail: Option<u64>,
    ) -> Result<Pieces<proto::LogsResponse>> {
        let request = proto::LogsRequest {
            sources: sources.iter().map(|source| (*source).into()).collect(),
            follow,
            tail,
        };
        let answer = self.inner.logs(request);
        let pieces = self.pulse.guard(answer).await?.into_inner();
        Ok(Pieces::new(pieces, &self.pulse))
    }

    /// What the VM uses: once, or again after each `every`.
    ///
    /// # Errors
    /// The VM does not run, or the monitor has gone.
    pub async fn stats(&mut self, every: Option<Duration>) -> Result<Pieces<proto::StatsResponse>> {
        let every = every.unwrap_or_default().as_millis();
        let every_ms = u64::try_from(every).unwrap_or(u64::MAX);
        let answer = self.inner.stats(proto::StatsRequest { every_ms });
        let pieces = self.pulse.guard(answer).await?.into_inner();
        Ok(Pieces::new(pieces, &self.pulse))
    }

    /// Everything that is known of the VM, as text.
    ///
    /// # Errors
    /// The monitor has gone.
    pub async fn debug(&mut self) -> Result<Vec<u8>> {
        let answer = self.inner.debug(proto::DebugRequest {});
        let pieces = self.pulse.guard(answer).await?.into_inner();
        let (mut pieces, mut text) = (Pieces::new(pieces, &self.pulse), Vec::new());
        while let Some(piece) = pieces.next().await? {
            text.extend_from_slice(&piece.text);
        }
        Ok(text)
    }
}

/// An answer in pieces.
#[derive(Debug)]
pub struct Pieces<T> {
    pieces: Streaming<T>,
    pulse: Pulse,
}

impl<T> Pieces<T> {
    fn new(pieces: Streaming<T>, pulse: &Pulse) -> Self {
        let pulse = pulse.clone();
        Self { pieces, pulse }
    }

    /// The next; `None` after the last.
    ///
    /// # Errors
    /// The monitor has gone, or says why it cannot go on.
    pub async fn next(&mut self) -> Result<Option<T>> {
        self.pulse.guard(self.pieces.message()).await
    }
}
