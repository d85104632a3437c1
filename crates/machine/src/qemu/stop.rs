//! Decides how a machine ends, and what is told of the end.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::Inner;
use crate::machine::{Exit, ExitReason};
use crate::state::{Event, State};

/// The steps of an end: asked over QMP, by SIGTERM, by SIGKILL. Together four seconds: with the six that an
/// owner may grant the guest, an end takes ten.
const QUIT_TIMEOUT: Duration = Duration::from_millis(1500);
const TERM_TIMEOUT: Duration = Duration::from_millis(500);
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

impl Inner {
    /// What the end was, from the exit status and what QEMU and the guest said before.
    pub(super) fn exit_report(
        &self,
        status: Option<ExitStatus>,
        shutdown: Option<&str>,
        asked: bool,
    ) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let panic = crate::console::panic_message(&self.output.console());
        let reason = match (shutdown, status.and_then(|status| status.signal())) {
            (Some("guest-shutdown"), _) => ExitReason::PoweredOff,
            (Some("guest-reset" | "guest-panic"), _) => {
                panic.map_or(ExitReason::Reset, ExitReason::Panicked)
            }
            _ if asked => ExitReason::Terminated,
            (_, Some(signal)) => ExitReason::Killed(signal),
            _ => ExitReason::Crashed(status.and_then(|status| status.code()).unwrap_or(-1)),
        };
        Exit {
            reason,
            stderr: self.output.stderr(),
        }
    }

    pub(super) async fn terminate(self: &Arc<Self>) -> Exit {
        if let Ok(State::Created) = self.life.advance(Event::StopAsked) {
            let exit = self.exit_report(None, None, true);
            self.life.end(exit.clone(), Event::ProcessEnded);
            self.vsock.stop();
            return exit;
        }
        let Some(live) = self.live.get() else {
            // It is starting, or never came up: either way the report is on its way.
            return self.life.wait().await;
        };
        if !live.process.is_stopped() {
            let quit = async {
                let _ = live.qmp.execute("quit", Value::Null).await;
                live.process.wait().await;
            };
            let _ = tokio::time::timeout(QUIT_TIMEOUT, quit).await;
        }
        if !live.process.has_ended() && !live.process.is_stopped() {
            live.process.signal(Signal::TERM);
            live.process.wait_for(TERM_TIMEOUT).await;
        }
        if !live.process.has_ended() {
            live.process.signal(Signal::KILL);
        }
        match tokio::time::timeout(KILL_TIMEOUT, self.life.wait()).await {
            Ok(exit) => exit,
            // The kernel holds it (a disk on a dead network share); it is killed, and we are not held.
            Err(_) => self.exit_report(None, None, true),
        }
    }
}

/// Reports the end once the process, its last words and its device are through.
pub(super) async fn watch_end(inner: Arc<Inner>) {
    let Some(live) = inner.live.get() else { return };
    let status = live.process.wait().await;
    // The monitor's last event may still be on its way.
    let _ = tokio::time::timeout(Duration::from_secs(1), live.qmp.ended()).await;
    let device = Arc::clone(&inner);
    let _ = tokio::task::spawn_blocking(move || device.vsock.stop()).await;
    let asked = inner.life.state() == State::Stopping;
    let exit = inner.exit_report(Some(status), live.qmp.shutdown_reason().as_deref(), asked);
    tracing::debug!(machine = %inner.config.name, %exit, "the machine has ended");
    inner.life.end(exit, Event::ProcessEnded);
}
