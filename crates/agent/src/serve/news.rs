//! Notifications: sent when somebody listens, and kept until then.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opengcs_bridge::{guest, message::Notification};

use super::connection::Answers;
use crate::log;

/// How many notifications are kept while no host is connected; the oldest go first.
const MOST_KEPT: usize = 1024;

/// The way of notifications to the host.
#[derive(Default)]
pub(super) struct News {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connection, once it has agreed on a protocol version.
    listener: Option<Arc<Answers>>,
    kept: VecDeque<Vec<u8>>,
}

impl News {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host has agreed on a protocol version: it gets what has been kept.
    pub(super) fn connected(&self, answers: &Arc<Answers>) {
        let mut state = self.state();
        let same = |listener: &Arc<Answers>| Arc::ptr_eq(listener, answers);
        if !state.listener.as_ref().is_some_and(same) {
            state.listener = Some(Arc::clone(answers));
            state.send();
        }
    }

    /// The connection is gone.
    pub(super) fn disconnected(&self) {
        self.state().listener = None;
    }

    /// Tells the host, now or when it is there again.
    pub(super) fn tell(&self, notification: &Notification) {
        let bytes = match guest::notify(notification) {
            Ok(bytes) => bytes,
            Err(error) => {
                log::error(format_args!("a notification was not made: {error}"));
                return;
            }
        };
        let mut state = self.state();
        state.kept.push_back(bytes);
        if state.kept.len() > MOST_KEPT {
            state.kept.pop_front();
        }
        state.send();
    }
}

impl State {
    fn send(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        while let Some(first) = self.kept.front() {
            if !listener.send(first) {
                return;
            }
            self.kept.pop_front();
        }
    }
}
