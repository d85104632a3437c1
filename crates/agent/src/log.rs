//! The agent's log: kept until the host takes it on its log port, and warnings on the console.

use std::{
    collections::VecDeque,
    fmt,
    io::Write as _,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opengcs_bridge::LOG_PORT;

use crate::{clock, transport::Dial};

/// How much is kept while the host does not read, in bytes.
const KEPT: usize = 256 << 10;

/// How long to leave a host alone that does not take the log.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

struct Log {
    least: Level,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    least: Level::Info,
    lines: VecDeque::new(),
    bytes: 0,
    dropped: 0,
});
static NEWS: Condvar = Condvar::new();

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the least level that is logged, by name; an unknown name changes nothing.
pub(crate) fn set_level(name: &str) {
    let levels = [Level::Debug, Level::Info, Level::Warning, Level::Error];
    if let Some(level) = levels.into_iter().find(|level| level.name() == name) {
        log().least = level;
    }
}

pub(crate) fn debug(message: fmt::Arguments<'_>) {
    write(Level::Debug, message);
}

pub(crate) fn info(message: fmt::Arguments<'_>) {
    write(Level::Info, message);
}

pub(crate) fn warning(message: fmt::Arguments<'_>) {
    console(message);
    write(Level::Warning, message);
}

pub(crate) fn error(message: fmt::Arguments<'_>) {
    console(message);
    write(Level::Error, message);
}

/// A stage of the boot: on the console with the time since the machine was started, and logged.
pub(crate) fn stage(message: fmt::Arguments<'_>) {
    console(message);
    write(Level::Info, message);
}

/// One line on the console, in one write.
pub(crate) fn console(message: fmt::Arguments<'_>) {
    let line = format!(
        "gcs: +{:.3}s {message}\n",
        clock::since_boot().as_secs_f64()
    );
    // A console that does not take it is no reason to stop.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A line of the kernel's. The host tells it from ours by its beginning.
pub(crate) fn kernel(seconds: f64, text: &str) {
    let text = serde_json::Value::from(text);
    push(format!("{{\"level\":\"kernel\",\"msg\":{text},\"uptime\":{seconds:.6}}}\n").into_bytes());
}

fn write(level: Level, message: fmt::Arguments<'_>) {
    if level < log().least {
        return;
    }
    let line = serde_json::json!({
        "level": level.name(),
        "msg": message.to_string(),
        "time": clock::now(),
        "uptime": clock::since_boot().as_secs_f64(),
    });
    let mut line = line.to_string().into_bytes();
    line.push(b'\n');
    push(line);
}

fn push(line: Vec<u8>) {
    let mut log = log();
    log.bytes += line.len();
    log.lines.push_back(line);
    while log.bytes > KEPT {
        let Some(oldest) = log.lines.pop_front() else {
            break;
        };
        log.bytes -= oldest.len();
        log.dropped += 1;
    }
    drop(log);
    NEWS.notify_one();
}

/// Streams the log to the host for ever; `first` is the result of a dial already made.
pub(crate) fn stream(dialer: &Arc<dyn Dial>, first: std::io::Result<OwnedFd>) {
    let mut dialled = first;
    loop {
        if let Ok(connection) = dialled {
            stream_to(std::fs::File::from(connection));
        }
        std::thread::sleep(RETRY);
        dialled = dialer.dial(LOG_PORT);
    }
}

/// Streams the log until the connection breaks. The line that broke it is kept.
fn stream_to(mut connection: std::fs::File) {
    loop {
        let line = {
            let mut log = log();
            loop {
                if log.dropped > 0 {
                    let dropped = std::mem::take(&mut log.dropped);
                    break format!("{{\"level\":\"warning\",\"msg\":\"{dropped} lines of the log were dropped\"}}\n")
                        .into_bytes();
                }
                if let Some(line) = log.lines.pop_front() {
                    log.bytes -= line.len();
                    break line;
                }
                log = NEWS.wait(log).unwrap_or_else(PoisonError::into_inner);
            }
        };
        if connection.write_all(&line).is_err() {
            let mut log = log();
            log.bytes += line.len();
            log.lines.push_front(line);
            return;
        }
    }
}
