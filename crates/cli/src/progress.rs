//! How work that takes time is shown as it goes: on a terminal, and nowhere else.

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
        let bar = if context.progress {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style("{spinner} {msg} ({elapsed})"))
        } else {
            ProgressBar::hidden()
        };
        bar.set_message(message.to_owned());
        if context.progress {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
