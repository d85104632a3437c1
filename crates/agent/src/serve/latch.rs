//! A door that opens once and stays open.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Closed at first.
#[derive(Default)]
pub(super) struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    pub(super) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    /// Waits until it is open, but not for longer than `limit`; tells whether it is.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.opened.wait_timeout_while(open, limit, |open| !*open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_it_is_opened() {
        let latch = Latch::default();
        assert!(!latch.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| latch.wait(Duration::from_secs(60)));
            latch.open();
            assert!(waiting.join().unwrap());
        });
        assert!(latch.wait(Duration::ZERO));
    }
}
