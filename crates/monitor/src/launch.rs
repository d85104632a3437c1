//! What a starter and the monitor that it has started say to each other, until the VM is up.
//!
//! ```text
//!   starter ──► one line of JSON: what to start ──► monitor's stdin    (its end: the starter has gone)
//!   starter ◄── one line of JSON: up, or why not ◄── monitor's stdout
//!   starter ──► keep ──────────────────────────────► monitor's stdin    (from here on it is alone)
//! ```
//!
//! The VM stays if, and only if, its starter says `keep`. So whoever is interrupted in the moment in which
//! the VM comes up has either a VM and a success, or neither.

use std::io::{self, BufRead as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// How long a monitor that is no longer wanted may take to say that it has cleared up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has a VM go on that is up.
const KEEP: &str = "keep\n";

#[derive(Serialize, Deserialize)]
enum Report {
    Up,
    Failed(Error),
}

/// Runs `monitor`, which is to call [`order`] and [`report`], and returns when its VM is up. When `stop`
/// ends first, the start is given up, also that of a VM which has just come up.
///
/// # Errors
/// Why the VM did not come up: the monitor's words. Nothing is left of it then, or will be as soon as the
/// monitor has cleared up.
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
    let mut reports = BufReader::new(stdout).lines();
    let report = tokio::select! {
        // Whoever wants to stop is not given a VM in the same moment.
        biased;
        () = stop => {
            drop(stdin);
            // It tells that it has given up, or just ends if it had told that the VM is up.
            let cleared = async {
                while let Some(Report::Up) = read_report(&mut reports).await {}
            };
            if tokio::time::timeout(PATIENCE, cleared).await.is_err() {
                tracing::warn!("the monitor was told to give up, and still clears up");
            }
            return Err(Error::new(ErrorKind::Ended, "the start was given up"));
        }
        report = read_report(&mut reports) => report,
    };
    match report {
        Some(Report::Up) if stdin.write_all(KEEP.as_bytes()).await.is_ok() => Ok(()),
        Some(Report::Failed(error)) => Err(error),
        Some(Report::Up) | None => {
            let status = child
                .wait()
                .await
                .map_err(|error| failed("wait for", error))?;
            let what = format!("the VM's monitor ended without a word ({status})");
            Err(Error::new(ErrorKind::Other, what))
        }
    }
}

async fn read_report(
    reports: &mut tokio::io::Lines<impl tokio::io::AsyncBufRead + Unpin>,
) -> Option<Report> {
    let line = reports.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// Whoever has started this monitor.
#[derive(Debug)]
pub struct Starter {
    keep: oneshot::Receiver<()>,
}

impl Starter {
    /// Whether the VM is to go on: the starter says so when it was told that the VM is up, and is left
    /// then. False when it has gone.
    pub async fn takes_over(self) -> bool {
        let kept = self.keep.await.is_ok();
        if kept && let Err(error) = sys::leave_starter() {
            tracing::warn!(%error, "the streams of the starter stay open");
        }
        kept
    }
}

/// Reads from stdin what is to be started; the [`Starter`] says later whether it is to go on.
///
/// # Errors
/// Nobody says it: this process was not started by [`launch`].
pub async fn order<T: DeserializeOwned>() -> Result<(T, Starter)> {
    let (tell, told) = oneshot::channel();
    let (say, keep) = oneshot::channel();
    // A thread of its own: it waits for as long as the starter lives.
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut line = String::new();
        let read = stdin.read_line(&mut line).map(|_| line);
        let _ = tell.send(read);
        let mut word = String::new();
        if stdin.read_line(&mut word).is_ok() && word == KEEP {
            let _ = say.send(());
        }
    });
    let line = told.await.ok().and_then(io::Result::ok).unwrap_or_default();
    let order = serde_json::from_str(&line).map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            "nobody says which VM this is to be the monitor of",
        )
        .hint("`opengcs vm start` starts monitors")
    })?;
    Ok((order, Starter { keep }))
}

/// Tells the starter how the start went.
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
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// A monitor whose VM comes up at once, and which writes what it is told then into `word`.
    fn monitor(word: &std::path::Path) -> Command {
        let mut shell = Command::new("sh");
        let script = r#"read -r order; echo '"Up"'; cat > "$0.new"; mv "$0.new" "$0""#;
        shell.args(["-c", script]).arg(word);
        shell
    }

    async fn read(word: &std::path::Path) -> String {
        while !word.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::read_to_string(word).unwrap()
    }

    #[tokio::test]
    async fn a_vm_that_is_up_is_kept_by_its_starter_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let word = folder.path().join("kept");
        launch(monitor(&word), &1, std::future::pending())
            .await
            .unwrap();
        assert_eq!(read(&word).await, KEEP);

        // Both at once: the monitor says that the VM is up, and its starter is told to stop.
        let word = folder.path().join("given-up");
        let error = launch(monitor(&word), &1, std::future::ready(()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ended);
        // The monitor had ended when that was told.
        assert_eq!(std::fs::read_to_string(&word).unwrap(), "");
    }
}
