//! What the host serves to every guest beside the bridge: seed bytes on port 1, a log on port 109.

use std::sync::Arc;

use opengcs_machine::{Listener, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::record::Recorder;

/// Random bytes that the guest gets for its entropy pool.
const SEED: usize = 512;
/// Log connections served at once; a guest needs one.
const MOST_LOGS: usize = 8;

/// Gives each dial its random bytes. It ends when the machine does.
pub(super) async fn seed(mut listener: Listener) {
    while let Ok(stream) = listener.accept().await {
        if let Err(error) = send_seed(stream).await {
            tracing::warn!(%error, "the guest did not take its random bytes");
        }
    }
}

async fn send_seed(mut stream: Stream) -> std::io::Result<()> {
    let mut bytes = [0; SEED];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// What begins a line that the agent passes on from the kernel.
const KERNEL_LINE: &[u8] = b"{\"level\":\"kernel\"";
/// A longer line is recorded in pieces.
const LONGEST_LINE: usize = 64 << 10;

/// Where the guest's logs are kept: the kernel's apart, so that neither pushes out the other.
#[derive(Clone)]
pub(super) struct Logs {
    pub(super) agent: Arc<Recorder>,
    pub(super) kernel: Arc<Recorder>,
}

impl Logs {
    /// Records the whole lines of `pending`, and leaves the rest there.
    fn take(&self, pending: &mut Vec<u8>) {
        let whole = match pending.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if pending.len() > LONGEST_LINE => pending.len(),
            None => return,
        };
        for line in pending
            .get(..whole)
            .unwrap_or_default()
            .split_inclusive(|byte| *byte == b'\n')
        {
            if line.starts_with(KERNEL_LINE) {
                self.kernel.push(line);
            } else {
                self.agent.push(line);
                let text = String::from_utf8_lossy(line);
                tracing::debug!(target: "opengcs::agent", "{}", text.trim_end());
            }
        }
        pending.drain(..whole);
    }
}

/// Records what the guest's agent logs. It ends when the machine does.
pub(super) async fn record(mut listener: Listener, logs: Logs) {
    let mut connections = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() < MOST_LOGS {
            connections.spawn(keep(stream, logs.clone()));
        }
    }
    // The last words of a guest that died are still on their way.
    while connections.join_next().await.is_some() {}
}

async fn keep(mut stream: Stream, logs: Logs) {
    let mut buffer = vec![0; 16 << 10];
    let mut pending = Vec::new();
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                if !pending.is_empty() {
                    // A guest that died in the middle of a line.
                    pending.push(b'\n');
                    logs.take(&mut pending);
                }
                return;
            }
            Ok(count) => {
                pending.extend_from_slice(buffer.get(..count).unwrap_or_default());
                logs.take(&mut pending);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs() -> Logs {
        let recorder = || Arc::new(Recorder::new(1 << 10, None).unwrap());
        Logs {
            agent: recorder(),
            kernel: recorder(),
        }
    }

    #[test]
    fn the_kernels_lines_are_kept_apart_however_they_are_cut() {
        let logs = logs();
        let (ours, kernels) = ("{\"level\":\"info\"}\nplain\n", "{\"level\":\"kernel\"}\n");
        let mut pending = Vec::new();
        for byte in [kernels, ours, kernels].concat().bytes() {
            pending.push(byte);
            logs.take(&mut pending);
        }
        assert!(pending.is_empty());
        assert_eq!(logs.kernel.text(), [kernels, kernels].concat());
        assert_eq!(logs.agent.text(), ours);
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let logs = logs();
        let mut pending = vec![b'x'; LONGEST_LINE + 1];
        logs.take(&mut pending);
        assert!(pending.is_empty());
        assert_eq!(logs.agent.text().len(), 1 << 10);
    }
}
