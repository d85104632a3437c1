//! What a starter and the monitor that it has started say to each other, until the VM is up.
//!
//! ```text
//!   starter ──► one line of JSON: what to start ──► monitor's stdin    (its end: the starter has gone)
//!   starter ◄── one line of JSON: up, or why not ◄── monitor's stdout
//! ```

use std::io::{self, BufRead as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// How long a monitor that is no longer wanted may take to say that it has cleared up.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
enum Report {
    Up,
    Failed(Error),
}

/// Runs `monitor`, which is to call [`order`] and [`report`], and returns when its VM is up. When `stop`
/// ends first, the start is given up.
///
/// # Errors
/// Why the VM did not come up: the monitor's words. Nothing is left of it then.
pub async fn launch(
    mut monitor: Command,
    order: &impl Serialize,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let failed = |what: &str, error: io::Error| {
        Error::new(
            ErrorKind::Other,
            format!("cannot {what} the VM's monitor: {error}"),
        )
    };
    let mut line = serde_json::to_vec(order).map_err(|error| {
        Error::new(
            ErrorKind::Other,
            format!("an order without a JSON form: {error}"),
        )
    })?;
    line.push(b'\n');
    sys::inherit_nothing();
    let mut child = monitor
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed("start", error))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed("speak to", io::ErrorKind::BrokenPipe.into()));
    };
    // A monitor that has ended already says why, or its exit code does.
    let _ = stdin.write_all(&line).await;
    let answer = read_report(stdout);
    tokio::pin!(answer);
    let report = tokio::select! {
        report = &mut answer => report,
        () = stop => {
            drop(stdin);
            let _ = tokio::time::timeout(PATIENCE, answer).await;
            return Err(Error::new(ErrorKind::Ended, "the start was given up"));
        }
    };
    match report {
        Some(Report::Up) => Ok(()),
        Some(Report::Failed(error)) => Err(error),
        None => {
            let status = child
                .wait()
                .await
                .map_err(|error| failed("wait for", error))?;
            let what = format!("the VM's monitor ended without a word ({status})");
            Err(Error::new(ErrorKind::Other, what))
        }
    }
}

async fn read_report(stdout: ChildStdout) -> Option<Report> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

/// Reads from stdin what is to be started, and tells by the receiver's end when the starter has gone.
///
/// # Errors
/// Nobody says it: this process was not started by [`launch`].
pub async fn order<T: DeserializeOwned>() -> Result<(T, oneshot::Receiver<()>)> {
    let (tell, told) = oneshot::channel();
    let (stay, gone) = oneshot::channel();
    // A thread of its own: it waits for as long as the starter lives.
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut line = String::new();
        let read = stdin.read_line(&mut line).map(|_| line);
        let _ = tell.send(read);
        let mut rest = Vec::new();
        while stdin
            .read_until(b'\n', &mut rest)
            .is_ok_and(|count| count > 0)
        {
            rest.clear();
        }
        drop(stay);
    });
    let line = told.await.ok().and_then(io::Result::ok).unwrap_or_default();
    let order = serde_json::from_str(&line).map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            "nobody says which VM this is to be the monitor of",
        )
        .hint("`opengcs vm start` starts monitors")
    })?;
    Ok((order, gone))
}

/// Tells the starter how the start went, and leaves it if the VM is up.
pub fn report(outcome: std::result::Result<(), &Error>) {
    let up = outcome.is_ok();
    let report = match outcome {
        Ok(()) => Report::Up,
        Err(error) => Report::Failed(error.clone()),
    };
    let mut stdout = io::stdout().lock();
    // A starter that has gone wants to know nothing.
    let told = serde_json::to_writer(&mut stdout, &report)
        .map_err(io::Error::from)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    tracing::debug!(?told, up, "the starter was told");
    if up && let Err(error) = sys::leave_starter() {
        tracing::warn!(%error, "the streams of the starter stay open");
    }
}
