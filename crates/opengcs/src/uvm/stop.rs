//! How a VM ends: the guest is asked, then the machine, then it is killed; always in bounded time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use opengcs_bridge::message::{PlainRequest, Request, RequestBase};
use opengcs_machine::{Exit, ExitReason};

use super::UtilityVm;
use crate::error::Result;

/// For the agent to end processes, sync and unmount, unless the caller says otherwise.
const GUEST: Duration = Duration::from_secs(5);
/// For the power button.
const MACHINE: Duration = Duration::from_millis(500);
/// For the end by force. All three together are less than ten seconds.
const FORCE: Duration = Duration::from_millis(4400);

/// How a VM was brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The guest powered off by itself, with everything written.
    Gracefully,
    /// The guest did not: what it had not written to its disks is lost.
    Killed,
    /// It had ended before it was asked.
    Already,
}

impl UtilityVm {
    /// Ends the VM. The agent is asked to sync, unmount and power off; if that does not happen, the
    /// machine's power button is pressed; if that does not help, it is killed. It takes 10 seconds at
    /// worst. Stopping a VM that has ended is no error.
    ///
    /// # Errors
    /// None today; a backend may have some.
    pub async fn stop(&self) -> Result<Stopped> {
        self.stop_within(GUEST).await
    }

    /// [`stop`](Self::stop) with a guest that has `grace` to end its processes, sync, unmount and power
    /// off. The machine has 5 seconds more to end by other means.
    ///
    /// # Errors
    /// As there.
    pub async fn stop_within(&self, grace: Duration) -> Result<Stopped> {
        let inner = &self.inner;
        if inner.machine.state().is_end() {
            inner.machine.wait().await;
            return Ok(Stopped::Already);
        }
        inner.stop_asked.store(true, Ordering::Relaxed);
        let request = Request::ShutdownGraceful(PlainRequest {
            base: RequestBase::utility_vm(),
        });
        let gracefully = async {
            // No answer comes: the connection closes and the machine ends. An agent that refuses
            // leaves the machine running, which the time limit finds.
            let asked = inner.link.request(&request, Some(grace));
            let ended = inner.machine.wait();
            tokio::pin!(ended);
            tokio::select! {
                exit = &mut ended => exit,
                _ = asked => ended.await,
            }
        };
        if let Ok(exit) = tokio::time::timeout(grace, gracefully).await {
            return Ok(how(&exit));
        }
        tracing::warn!(name = %inner.config.name, "the guest does not power off when asked");
        let pressed = async {
            if inner.machine.power_off().await.is_err() {
                return None;
            }
            Some(inner.machine.wait().await)
        };
        if let Ok(Some(exit)) = tokio::time::timeout(MACHINE, pressed).await {
            return Ok(how(&exit));
        }
        // It keeps to less by itself; a backend that does not must not hold the caller.
        let _ = tokio::time::timeout(FORCE, inner.machine.terminate()).await;
        Ok(Stopped::Killed)
    }

    /// Ends the VM at once. What the guest has not written to its disks is lost.
    pub async fn terminate(&self) {
        self.inner.stop_asked.store(true, Ordering::Relaxed);
        self.inner.machine.terminate().await;
    }
}

fn how(exit: &Exit) -> Stopped {
    match exit.reason {
        ExitReason::PoweredOff => Stopped::Gracefully,
        _ => Stopped::Killed,
    }
}
