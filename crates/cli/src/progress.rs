//! How work that takes time is shown as it goes: on a terminal, and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::Context;

const TICK: Duration = Duration::from_millis(120);

/// A line on the terminal that shows that something goes on; it goes when this is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Work of which nobody knows how long it takes.
    pub(crate) fn spinner(context: &Context, message: &str) -> Self {
        Self::start(context, message, None, "{spinner} {msg} ({elapsed})")
    }

    /// Work on a stream of bytes, of which `length` may be known.
    pub(crate) fn bytes(context: &Context, message: &str, length: Option<u64>) -> Self {
        let template = if length.is_some() {
            "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        } else {
            "{spinner} {msg} {binary_bytes}, {binary_bytes_per_sec} ({elapsed})"
        };
        Self::start(context, message, length, template)
    }

    fn start(context: &Context, message: &str, length: Option<u64>, template: &str) -> Self {
        let bar = if context.progress {
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        bar.set_message(message.to_owned());
        if context.progress {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// What moves the bar to where a counter is, from any thread.
    pub(crate) fn follow(&self, counter: Arc<AtomicU64>) -> impl Fn() + Send + Sync + 'static {
        let bar = self.bar.clone();
        move || bar.set_position(counter.load(Ordering::Relaxed))
    }

    /// What moves the bar to a position, from any thread.
    pub(crate) fn mover(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |position| bar.set_position(position)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
