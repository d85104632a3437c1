//! The threads that serve slow requests: as many as there are requests, and a few stay for the next ones.
//!
//! Making a thread and taking it down costs more than a short request does.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::spawn;

/// How many threads stay without work.
const MOST_IDLE: usize = 2;

/// For how long one stays.
const IDLE: Duration = Duration::from_secs(30);

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Workers {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads without work; there are never fewer than there is `work`.
    idle: usize,
    work: VecDeque<Work>,
}

impl Workers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do the work now.
    pub(super) fn begin(self: &Arc<Self>, work: Work) -> io::Result<()> {
        let mut state = self.state();
        if state.idle > state.work.len() {
            state.work.push_back(work);
            drop(state);
            self.news.notify_one();
            return Ok(());
        }
        drop(state);
        let workers = Arc::clone(self);
        spawn("request", move || {
            work();
            while let Some(work) = workers.next() {
                work();
            }
        })
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        if state.idle >= MOST_IDLE {
            return None;
        }
        state.idle += 1;
        let waited = self
            .news
            .wait_timeout_while(state, IDLE, |state| state.work.is_empty());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.work.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::mpsc,
        thread::{self, ThreadId},
    };

    use super::*;

    fn wait_for_idle(workers: &Workers, count: usize) {
        while workers.state().idle < count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_without_work_takes_the_next() {
        let workers = Arc::new(Workers::default());
        let (tell, told) = mpsc::channel();
        let mut threads: HashSet<ThreadId> = HashSet::new();
        for _ in 0..20 {
            let tell = tell.clone();
            let work = move || tell.send(thread::current().id()).unwrap();
            workers.begin(Box::new(work)).unwrap();
            threads.insert(told.recv().unwrap());
            wait_for_idle(&workers, 1);
        }
        assert_eq!(threads.len(), 1);
    }

    #[test]
    fn work_never_waits_for_other_work() {
        let workers = Arc::new(Workers::default());
        for _ in 0..2 {
            let all = Arc::new(std::sync::Barrier::new(9));
            for _ in 0..8 {
                let all = Arc::clone(&all);
                let work = move || {
                    all.wait();
                };
                workers.begin(Box::new(work)).unwrap();
            }
            // Each of the eight runs while the others do.
            all.wait();
            wait_for_idle(&workers, MOST_IDLE);
        }
        assert!(workers.state().idle <= MOST_IDLE);
    }
}
