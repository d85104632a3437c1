//! Decides how the console comes here: through a named pipe that Hyper-V opens and writes to.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt as _;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use uuid::Uuid;

use crate::console::{CONSOLE_TAIL, ConsoleFile, Tail};
use crate::error::{Error, Result};

/// What has been recorded; shared with the task that records.
#[derive(Debug, Clone)]
pub(super) struct Console(Arc<Mutex<Tail>>);

impl Console {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Tail::new(CONSOLE_TAIL))))
    }

    pub(super) fn tail(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// Makes the pipe, whose name nobody can guess and nobody had before, and the file. Must be called in a
    /// tokio runtime.
    pub(super) fn open(&self, file: &Path) -> Result<Recording> {
        let name = format!(r"\\.\pipe\opengcs-{}", Uuid::new_v4().simple());
        let pipe = ServerOptions::new()
            .first_pipe_instance(true)
            .reject_remote_clients(true)
            .max_instances(1)
            .create(&name)
            .map_err(|error| Error::io("cannot make a pipe for the console", error))?;
        let file = ConsoleFile::create(file)
            .map_err(|error| Error::path("record the console in", file, error))?;
        Ok(Recording {
            name,
            pipe,
            file,
            console: self.clone(),
        })
    }
}

/// A pipe that Hyper-V is to open.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) name: String,
    pipe: NamedPipeServer,
    file: ConsoleFile,
    console: Console,
}

impl Recording {
    /// Records until the other end is closed.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.pipe.connect().await {
            tracing::warn!(%error, "the console is not recorded");
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = self.pipe.read(&mut buffer).await {
            let bytes = buffer.get(..read).unwrap_or_default();
            let mut tail = self
                .console
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tail.push(bytes);
            drop(tail);
            self.file.push(bytes);
        }
    }
}
