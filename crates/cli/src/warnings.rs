//! How the warnings of a conversion are shown.

use opengcs::layer::Warnings;
use serde::Serialize;

use crate::context::Context;
use crate::events;
use crate::output;

/// How many are shown in words; the rest is counted.
const SHOWN: usize = 10;

/// The warnings of a conversion as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// The first hundred.
    warnings: Vec<One>,
    /// How many there were.
    warnings_total: u64,
}

#[derive(Debug, Serialize)]
struct One {
    path: String,
    message: String,
}

impl Told {
    pub(crate) fn of(warnings: &Warnings) -> Self {
        Self {
            warnings: warnings
                .iter()
                .map(|warning| One {
                    path: String::from_utf8_lossy(&warning.path).into_owned(),
                    message: warning.message.clone(),
                })
                .collect(),
            warnings_total: warnings.total(),
        }
    }
}

/// Shows them on stderr, unless `--quiet`.
pub(crate) fn note(context: &Context, warnings: &Warnings) {
    if context.quiet {
        return;
    }
    let mut shown = 0;
    // A program reads them all.
    let most = if events::on() { usize::MAX } else { SHOWN };
    for warning in warnings.iter().take(most) {
        if events::on() {
            let path = String::from_utf8_lossy(&warning.path);
            let path = (!path.is_empty()).then_some(&*path);
            output::warn(path, &warning.message);
        } else {
            // For people, what is no text in a path is shown as bytes.
            output::warn(None, &warning.to_string());
        }
        shown += 1;
    }
    let rest = warnings.total().saturating_sub(shown);
    if rest > 0 {
        output::warn(None, &format!("and {rest} more"));
    }
}
