//! What a command gets to work with: its surroundings, and how it is told to stop.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use opengcs::Environment;

use crate::arguments::Common;
use crate::events;
use crate::progress::Shown;
use crate::signals::{Stop, Stopped};

/// How long work that was told to stop may take to clean up behind itself.
const GRACE: Duration = Duration::from_secs(10);

/// The surroundings of a command.
pub(crate) struct Context {
    /// Where variables come from.
    pub(crate) environment: Environment,
    /// Told by SIGINT, SIGTERM and SIGHUP.
    pub(crate) stop: Stop,
    /// Whether only results and errors are shown.
    pub(crate) quiet: bool,
    /// How much is said of what is done.
    pub(crate) verbose: u8,
    /// Whether results are shown for programs.
    pub(crate) json: bool,
    /// Where work that takes time is shown as it goes.
    pub(crate) shown: Shown,
}

impl Context {
    /// The surroundings of this process. Must be called inside the runtime.
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            environment: Environment::process(),
            stop: Stop::watch(),
            quiet: common.quiet,
            verbose: common.verbose,
            json: common.json,
            shown: if common.quiet {
                Shown::Nowhere
            } else if events::on() {
                Shown::Events
            } else if std::io::stderr().is_terminal() {
                Shown::Bar
            } else {
                Shown::Nowhere
            },
        }
    }

    /// Does work that can be given up at any moment: a signal ends it at once. For what is asked of a
    /// monitor, which clears up behind clients that go.
    pub(crate) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.stop.told() => Err(Stopped.into()),
        }
    }

    /// Runs work that blocks on a thread of its own, and waits for it.
    ///
    /// When a signal comes, the work is expected to notice by [`Stop::flag`] and to clean up; if it
    /// is stuck for longer than a while, it is abandoned.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let mut work = tokio::task::spawn_blocking(work);
        let joined = tokio::select! {
            joined = &mut work => joined,
            () = self.stop.told() => match tokio::time::timeout(GRACE, work).await {
                Ok(joined) => joined,
                Err(_) => return Err(Stopped.into()),
            },
        };
        match joined {
            Ok(result) => result,
            Err(error) => Err(anyhow!("this is a fault in opengcs: {error}")),
        }
    }
}
