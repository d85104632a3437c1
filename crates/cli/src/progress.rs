//! How work that takes time is shown as it goes: as a bar on a terminal, as events with `--json`,
//! and not at all elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::Context;
use crate::events::Event;

const TICK: Duration = Duration::from_millis(120);
/// The least time between two events of progress.
const BETWEEN: Duration = Duration::from_millis(500);

const SPINNER: &str = "{spinner} {msg} ({elapsed})";
const STREAM: &str = "{spinner} {msg} {binary_bytes}, {binary_bytes_per_sec} ({elapsed})";
const BAR: &str = "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, \
                   {binary_bytes_per_sec}, {eta} left";

/// Where work is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As a line that changes, on a terminal.
    Bar,
    /// As events, for a program.
    Events,
    Nowhere,
}

/// The line that is on the terminal now.
static ON_TERMINAL: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes to the terminal without mixing with the line that changes.
pub(crate) fn aside<T>(write: impl FnOnce() -> T) -> T {
    let bar = on_terminal().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn on_terminal() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    ON_TERMINAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work that goes on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    work: Arc<Work>,
    message: String,
    begun: Instant,
}

#[derive(Debug)]
enum Work {
    Bar(ProgressBar),
    Events(Mutex<Told>),
    Nowhere,
}

impl Progress {
    /// Work of which nobody knows how long it takes.
    pub(crate) fn spinner(context: &Context, message: &str) -> Self {
        Self::start(context, message, None, SPINNER)
    }

    /// Work on a stream of bytes, of which `length` may be known.
    pub(crate) fn bytes(context: &Context, message: &str, length: Option<u64>) -> Self {
        let template = if length.is_some() { BAR } else { STREAM };
        Self::start(context, message, length, template)
    }

    fn start(context: &Context, message: &str, length: Option<u64>, template: &str) -> Self {
        tracing::info!(bytes = length, "{message}");
        let work = match context.shown {
            Shown::Bar => {
                let target = ProgressDrawTarget::stderr();
                let bar = ProgressBar::with_draw_target(length, target)
                    .with_style(style(template))
                    .with_message(message.to_owned());
                bar.enable_steady_tick(TICK);
                *on_terminal() = Some(bar.clone());
                Work::Bar(bar)
            }
            Shown::Events => {
                let start = Event::Start {
                    work: message,
                    total_bytes: length,
                };
                start.tell();
                Work::Events(Mutex::new(Told::new(length)))
            }
            Shown::Nowhere => Work::Nowhere,
        };
        Self {
            work: Arc::new(work),
            message: message.to_owned(),
            begun: Instant::now(),
        }
    }

    /// What moves the work to where a counter is, from any thread.
    pub(crate) fn follow(&self, counter: Arc<AtomicU64>) -> impl Fn() + Send + Sync + 'static {
        let mover = self.mover();
        move || mover(counter.load(Ordering::Relaxed))
    }

    /// What moves the work to a position, in bytes from its start, from any thread.
    pub(crate) fn mover(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let work = Arc::clone(&self.work);
        move |bytes| match &*work {
            Work::Bar(bar) => bar.set_position(bytes),
            Work::Events(told) => lock(told).moved(bytes, Instant::now()),
            Work::Nowhere => {}
        }
    }

    /// What tells how many bytes the work will have, once that is known or guessed.
    pub(crate) fn length(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let work = Arc::clone(&self.work);
        move |length| match &*work {
            Work::Bar(bar) => {
                bar.set_length(length);
                bar.set_style(style(BAR));
            }
            Work::Events(told) => lock(told).length = Some(length),
            Work::Nowhere => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &*self.work {
            Work::Bar(bar) => {
                *on_terminal() = None;
                bar.finish_and_clear();
            }
            Work::Events(told) => lock(told).end(Instant::now()),
            Work::Nowhere => {}
        }
        tracing::info!(took = ?self.begun.elapsed(), "{}: over", self.message);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far work is of which events are told.
#[derive(Debug)]
struct Told {
    begun: Instant,
    last: Instant,
    bytes: u64,
    length: Option<u64>,
}

impl Told {
    fn new(length: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            last: now,
            bytes: 0,
            length,
        }
    }

    fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes = bytes;
        if now.saturating_duration_since(self.last) >= BETWEEN {
            self.tell(now);
        }
    }

    /// Work on bytes ends with how many they were.
    fn end(&mut self, now: Instant) {
        if self.bytes > 0 {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        self.last = now;
        self.event(now).tell();
    }

    fn event(&self, now: Instant) -> Event<'static> {
        let elapsed = now.saturating_duration_since(self.begun);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let share = |part: u64, of: u64, whole: u64| {
            let share = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        // A length that was guessed may have been passed.
        let total_bytes = self.length.map(|length| length.max(self.bytes));
        Event::Progress {
            bytes: self.bytes,
            total_bytes,
            bytes_per_second: share(self.bytes, 1000, elapsed_ms),
            elapsed_ms,
            left_ms: total_bytes
                .filter(|_| self.bytes > 0)
                .map(|total| share(total - self.bytes, elapsed_ms, self.bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_what_is_done() {
        let mut told = Told::new(Some(4000));
        told.bytes = 1000;
        let now = told.begun + Duration::from_secs(2);
        assert!(matches!(
            told.event(now),
            Event::Progress {
                bytes: 1000,
                total_bytes: Some(4000),
                bytes_per_second: 500,
                elapsed_ms: 2000,
                left_ms: Some(6000),
            }
        ));
        told.bytes = 5000;
        assert!(matches!(
            told.event(now),
            Event::Progress {
                total_bytes: Some(5000),
                left_ms: Some(0),
                ..
            }
        ));
        told.length = None;
        assert!(matches!(
            told.event(told.begun),
            Event::Progress {
                total_bytes: None,
                left_ms: None,
                ..
            }
        ));
    }
}
