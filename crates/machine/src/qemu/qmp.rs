//! Decides how QEMU is spoken to: the QEMU Machine Protocol over one connection.
//!
//! Commands run at the same time and are told apart by id; events go to everybody who subscribed. When the
//! connection ends, whatever waits fails.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot, watch};

use super::disk_errors::DiskErrors;

/// The longest line that is read. QEMU's longest answers are a few hundred KiB.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// QEMU's own words.
    Refused(String),
    /// The connection ended first.
    Lost,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// A line of QEMU's.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Greeting,
    Reply(u64, Result<Value, Failure>),
    Event(Event),
    /// Nothing that we understand.
    Other,
}

fn parse(line: &[u8]) -> Message {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else {
        return Message::Other;
    };
    if object.contains_key("QMP") {
        return Message::Greeting;
    }
    if let Some(Value::String(name)) = object.get("event") {
        let name = name.clone();
        let data = object.remove("data").unwrap_or(Value::Null);
        return Message::Event(Event { name, data });
    }
    let Some(id) = object.get("id").and_then(Value::as_u64) else {
        return Message::Other;
    };
    if let Some(value) = object.remove("return") {
        Message::Reply(id, Ok(value))
    } else if let Some(error) = object.get("error") {
        let words = error.get("desc").and_then(Value::as_str);
        let words = words.unwrap_or("an error without a description");
        Message::Reply(id, Err(Failure::Refused(words.to_owned())))
    } else {
        Message::Other
    }
}

/// The commands that wait for their replies; `None` once the connection has ended.
type Waiting = Option<HashMap<u64, oneshot::Sender<Result<Value, Failure>>>>;

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    events: broadcast::Sender<Event>,
    /// The `reason` of the SHUTDOWN event.
    shutdown: Mutex<Option<String>>,
    disk_errors: Mutex<DiskErrors>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_errors(&self) -> MutexGuard<'_, DiskErrors> {
        self.disk_errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn on_message(&self, message: Message) {
        match message {
            Message::Reply(id, reply) => {
                let waiter = self.waiting().as_mut().and_then(|map| map.remove(&id));
                if let Some(waiter) = waiter {
                    let _ = waiter.send(reply);
                }
            }
            Message::Event(event) => {
                tracing::debug!(name = %event.name, data = %event.data, "qemu event");
                match event.name.as_str() {
                    "SHUTDOWN" => {
                        let reason = event.data.get("reason").and_then(Value::as_str);
                        let mut shutdown =
                            self.shutdown.lock().unwrap_or_else(PoisonError::into_inner);
                        shutdown.get_or_insert_with(|| reason.unwrap_or("").to_owned());
                    }
                    "BLOCK_IO_ERROR" => {
                        if let Some(line) = self.disk_errors().note(&event.data) {
                            tracing::warn!(
                                "a disk of the machine has an input/output error: {line}"
                            );
                        }
                    }
                    _ => {}
                }
                let _ = self.events.send(event);
            }
            Message::Greeting | Message::Other => {}
        }
    }
}

/// One connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    shared: Arc<Shared>,
    next_id: AtomicU64,
    ended: watch::Receiver<bool>,
}

impl Qmp {
    /// Greets QEMU. Needs a runtime; the reading task ends with the connection.
    pub(crate) async fn open(stream: UnixStream) -> io::Result<Self> {
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        match read_line(&mut reader).await? {
            Some(line) if parse(&line) == Message::Greeting => {}
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "qemu did not greet as its protocol asks",
                ));
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let (events, _) = broadcast::channel(256);
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::new())),
            events,
            shutdown: Mutex::new(None),
            disk_errors: Mutex::default(),
        });
        let (end, ended) = watch::channel(false);
        let task = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok(Some(line)) = read_line(&mut reader).await {
                task.on_message(parse(&line));
            }
            // Dropping the senders fails those who wait.
            task.waiting().take();
            let _ = end.send(true);
        });
        let qmp = Self {
            writer: tokio::sync::Mutex::new(writer),
            shared,
            next_id: AtomicU64::new(1),
            ended,
        };
        match qmp.execute("qmp_capabilities", Value::Null).await {
            Ok(_) => Ok(qmp),
            Err(Failure::Lost) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Failure::Refused(words)) => Err(io::Error::other(words)),
        }
    }

    /// Runs one command. Dropping the future forgets the reply; the command still runs.
    pub(crate) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = json!({ "execute": command, "id": id });
        if let (Some(line), false) = (line.as_object_mut(), arguments.is_null()) {
            line.insert("arguments".to_owned(), arguments);
        }
        let (sender, receiver) = oneshot::channel();
        match self.shared.waiting().as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(Failure::Lost),
        };
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        tracing::debug!(command, id, "qemu command");
        // A command fits a socket's buffer, so a caller who gives up here leaves no half of a line.
        {
            let mut writer = self.writer.lock().await;
            writer.write_all(&bytes).await.map_err(|_| Failure::Lost)?;
        }
        receiver.await.map_err(|_| Failure::Lost)?
    }

    /// Events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Why QEMU said that the machine shuts down, if it has.
    pub(crate) fn shutdown_reason(&self) -> Option<String> {
        let shutdown = &self.shared.shutdown;
        shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The errors of the machine's disks so far, a line for each kind.
    pub(crate) fn disk_errors(&self) -> String {
        self.shared.disk_errors().to_string()
    }

    /// Returns when the connection has ended and everything it brought has been taken in.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

/// Takes a command that nobody waits for any more off the list.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.shared.waiting().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut limited = reader.take(MAX_LINE);
    let read = limited.read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && u64::try_from(line.len()).is_ok_and(|len| len >= MAX_LINE) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "qemu's line is too long",
        ));
    }
    Ok(Some(line))
}

#[cfg(test)]
#[path = "qmp/tests.rs"]
mod tests;
