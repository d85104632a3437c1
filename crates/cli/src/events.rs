//! What a command tells programs while it works: one JSON object a line on stderr, with `--json`.
//!
//! `docs/json.md` is the contract: fields may be added, none changes its meaning or goes.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::output;

/// Whether events are told. One process runs one command, so that this is of the process.
static ON: AtomicBool = AtomicBool::new(false);

/// Has events told from here on, in place of words for people.
pub(crate) fn begin() {
    ON.store(true, Ordering::Release);
}

/// Whether events are told.
pub(crate) fn on() -> bool {
    ON.load(Ordering::Acquire)
}

/// Something that a program may want to know before the result is there.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// A piece of work begins. A command may have several, one after the other.
    Start {
        /// In words for people.
        work: &'a str,
        total_bytes: Option<u64>,
    },
    /// How far the work is: at most twice a second, and once at its end.
    Progress {
        bytes: u64,
        total_bytes: Option<u64>,
        bytes_per_second: u64,
        elapsed_ms: u64,
        left_ms: Option<u64>,
    },
    /// Something was left out or interpreted, or will be.
    Warning {
        path: Option<&'a str>,
        message: &'a str,
    },
    /// Something else that is worth to be known.
    Note { message: &'a str },
    /// The command failed. It is the last event.
    Error {
        message: &'a str,
        hint: Option<&'a str>,
        exit_code: u8,
        /// What the VM said before, with `-v`.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
}

impl Event<'_> {
    /// Tells it, if events are told; when nobody reads them, so be it.
    pub(crate) fn tell(&self) {
        if on()
            && let Ok(line) = line(self)
        {
            let _ = io::stderr().lock().write_all(&line);
        }
    }
}

/// The event that a command is done, with its result's fields beside.
#[derive(Debug, Serialize)]
struct Done<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    result: &'a T,
}

impl<'a, T: Serialize> Done<'a, T> {
    fn new(result: &'a T) -> Self {
        let event = "done";
        Self { event, result }
    }
}

/// Tells a result on stdout, where it is alone: `opengcs … --json | jq .size`.
pub(crate) fn done(result: &impl Serialize) -> Result<()> {
    let line = line(&Done::new(result)).context("cannot write JSON")?;
    let mut out = output::stdout();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Tells a result on stderr, because stdout has the data.
pub(crate) fn done_beside_data(result: &impl Serialize) {
    if let Ok(line) = line(&Done::new(result)) {
        let _ = io::stderr().lock().write_all(&line);
    }
}

/// One line, written at once so that lines of several threads do not mix.
fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_documented_form() {
        let told = |event: Event<'_>| String::from_utf8(line(&event).unwrap()).unwrap();
        assert_eq!(
            told(Event::Start {
                work: "writing a.vhd",
                total_bytes: None
            }),
            "{\"event\":\"start\",\"work\":\"writing a.vhd\",\"total_bytes\":null}\n"
        );
        assert_eq!(
            told(Event::Error {
                message: "it\nis",
                hint: None,
                exit_code: 1,
                detail: None
            }),
            "{\"event\":\"error\",\"message\":\"it\\nis\",\"hint\":null,\"exit_code\":1}\n"
        );
        #[derive(Serialize)]
        struct Result {
            size: u64,
        }
        assert_eq!(
            line(&Done::new(&Result { size: 7 })).unwrap(),
            b"{\"event\":\"done\",\"size\":7}\n"
        );
    }
}
