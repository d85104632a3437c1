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

/// Records what the guest's agent logs. It ends when the machine does.
pub(super) async fn record(mut listener: Listener, recorder: Arc<Recorder>) {
    let mut connections = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() < MOST_LOGS {
            connections.spawn(keep(stream, Arc::clone(&recorder)));
        }
    }
    // The last words of a guest that died are still on their way.
    while connections.join_next().await.is_some() {}
}

async fn keep(mut stream: Stream, recorder: Arc<Recorder>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                recorder.push(bytes);
                for line in String::from_utf8_lossy(bytes).lines() {
                    tracing::debug!(target: "opengcs::agent", "{line}");
                }
            }
        }
    }
}
