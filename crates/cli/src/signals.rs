//! How a signal stops the work: cleanly the first time, at once the second time.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::sys;

/// Told when this process is asked to end.
#[derive(Clone)]
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicU8>,
    told: watch::Receiver<bool>,
    taker: Taker,
}

/// Who gets the signals instead of this process.
type Taker = Arc<Mutex<Option<mpsc::UnboundedSender<u8>>>>;

impl Stop {
    /// Begins to listen for signals. Must be called inside the runtime.
    pub(crate) fn watch() -> Self {
        sys::outlive_file_limit();
        let flag = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicU8::new(0));
        let (tell, told) = watch::channel(false);
        let taker = Taker::default();
        let stop = Self {
            flag: Arc::clone(&flag),
            signal: Arc::clone(&signal),
            told,
            taker: Arc::clone(&taker),
        };
        // Not in the task: until they are taken over, a signal ends the process at once.
        let signals = sys::Signals::listen();
        tokio::spawn(async move {
            let mut signals = match signals {
                Ok(signals) => signals,
                Err(error) => {
                    tracing::warn!(%error, "cannot listen for signals");
                    // The sender must stay, or whoever waits for it would think it was told.
                    tell.closed().await;
                    return;
                }
            };
            let mut asked = false;
            loop {
                let number = signals.next().await;
                let taken = lock(&taker)
                    .as_ref()
                    .is_some_and(|taker| taker.send(number).is_ok());
                if taken {
                    continue;
                }
                if asked {
                    sys::Terminal::restore();
                    std::process::exit(128 + i32::from(number));
                }
                asked = true;
                signal.store(number, Ordering::Release);
                flag.store(true, Ordering::Release);
                let _ = tell.send(true);
            }
        });
        stop
    }

    /// Takes the signals over that ask this process to end, for as long as the receiver is there.
    pub(crate) fn take_over(&self) -> mpsc::UnboundedReceiver<u8> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.taker) = Some(sender);
        receiver
    }

    /// Set once the process is asked to end: for work that polls.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Returns once the process is asked to end.
    pub(crate) async fn told(&self) {
        let mut told = self.told.clone();
        if told.wait_for(|told| *told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The signal that asked, if one has.
    pub(crate) fn signal(&self) -> Option<u8> {
        match self.signal.load(Ordering::Acquire) {
            0 => None,
            number => Some(number),
        }
    }
}

fn lock(taker: &Taker) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<u8>>> {
    taker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work was given up because of a signal.
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by a signal")
    }
}

impl std::error::Error for Stopped {}
