//! Whether the monitor answers at all: it is asked again and again for as long as anything is asked of it.
//!
//! What a call waits for may take its time: a guest stops, a command runs. So no call has a time limit of its
//! own; but a monitor that was stopped, or has lost its way, is told from one that works by a question that
//! is answered at once.

use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;
use crate::proto;
use crate::proto::monitor_client::MonitorClient;

/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take. It takes milliseconds; the rest is for hosts that are busy beyond measure.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the monitor of a connection until the last copy of this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    name: Name,
    monitor: Option<u32>,
    silent: watch::Receiver<bool>,
}

impl Pulse {
    pub(crate) fn begin(
        name: Name,
        monitor: Option<u32>,
        mut client: MonitorClient<Channel>,
        patience: Duration,
    ) -> Self {
        let (tell, silent) = watch::channel(false);
        let asking = async move {
            loop {
                let answer = client.inspect(proto::InspectRequest {});
                match tokio::time::timeout(patience, answer).await {
                    Ok(Ok(_)) => {}
                    // The connection broke: whoever waits for it is told that by itself.
                    Ok(Err(_)) => return,
                    Err(_) => {
                        let _ = tell.send(true);
                        return;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = tell.closed() => return,
                }
            }
        };
        tokio::spawn(asking);
        Self {
            name,
            monitor,
            silent,
        }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn monitor(&self) -> Option<u32> {
        self.monitor
    }

    /// What a call comes to, unless the monitor turns out not to answer.
    pub(crate) async fn guard<T>(
        &self,
        call: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        let mut told = self.silent.clone();
        let silence = async move {
            if told.wait_for(|silent| *silent).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            answer = call => Ok(answer?),
            () = silence => Err(silent(&self.name, self.monitor)),
        }
    }
}

/// A monitor that is there and does not answer.
pub(super) fn silent(name: &Name, monitor: Option<u32>) -> Error {
    let (which, go_on) = match monitor {
        Some(process) => (
            format!("process {process}"),
            format!("`kill -CONT {process}` has it go on if it was stopped"),
        ),
        None => (
            "a process of yours".to_owned(),
            "it may be stopped".to_owned(),
        ),
    };
    Error::new(
        ErrorKind::Silent,
        format!("the monitor of the VM {name}, {which}, does not answer"),
    )
    .hint(format!(
        "{go_on}; `opengcs vm stop --force {name}` kills it and the VM"
    ))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use opengcs::Environment;

    use crate::client::Client;
    use crate::folder::Folders;
    use crate::sys::Listener;

    use super::*;

    #[tokio::test]
    async fn a_monitor_that_never_answers_is_told_of_whatever_was_asked() {
        let parent = tempfile::tempdir().unwrap();
        let environment = Environment::fixed([("XDG_RUNTIME_DIR", parent.path())]);
        let folders = Folders::of(&environment).unwrap();
        let name: Name = "a".parse().unwrap();
        let claim = folders.claim(&name).unwrap();
        let _listener = Listener::bind(claim.path()).unwrap();
        let process = std::process::id();
        let start = proto::ExecStart::default;
        let patience = Duration::from_millis(100);
        let client = Client::dial_with(&name, claim.path(), patience).await;
        let mut client = client.unwrap().unwrap();
        assert_eq!(client.monitor(), Some(process));
        let hour = Duration::from_secs(3600);
        for error in [
            client.inspect().await.unwrap_err(),
            client.stop(hour).await.unwrap_err(),
            client.exec(start()).await.unwrap_err(),
            client.logs(&[], true, None).await.unwrap_err(),
            client.stats(Some(hour)).await.unwrap_err(),
            client.debug().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Silent);
            let line = format!("the monitor of the VM a, process {process}, does not answer");
            assert_eq!(error.to_string(), line);
            let hint = error.advice().unwrap();
            assert!(hint.contains("opengcs vm stop --force a"), "{hint}");
        }
    }
}
