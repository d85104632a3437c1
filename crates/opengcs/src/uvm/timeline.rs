//! When each stage of a VM's start was reached, on the host's clock.
//!
//! The host knows when the machine was up, when the agent dialled, when the bridge was negotiated. The
//! guest says on its console how long it had been running at each of its stages. Both clocks meet where
//! the agent dials, so everything can be told in one line of time. What a guest says is its word only.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// What begins a line of the agent's on the console.
const MARK: &str = "gcs: +";

/// The agent's line when it has dialled.
const DIALLED: &str = "bridge connected";

/// The stages of a start, in the order in which they were reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timeline {
    /// Milliseconds since the start was asked for, and what was reached then.
    pub stages: Vec<Stage>,
    /// Whether the guest's stages are exact: the agent has dialled. If not, the guest is taken to have
    /// begun when its machine was up.
    pub aligned: bool,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stage {
    /// `asked`, `machine up`, `kernel entered`, `init`, `modules`, `root`, `agent`, `dialled`,
    /// `negotiated`, `ready`.
    pub name: &'static str,
    /// Milliseconds since the start was asked for.
    pub at_ms: f64,
}

/// The host's own marks, made as they come.
#[derive(Debug)]
pub(super) struct Marks {
    begin: Instant,
    made: Mutex<Vec<(&'static str, f64)>>,
}

impl Marks {
    /// The start is asked for now.
    pub(super) fn begin() -> Self {
        Self {
            begin: Instant::now(),
            made: Mutex::new(vec![("asked", 0.0)]),
        }
    }

    /// Reached now; only the first time counts.
    pub(super) fn mark(&self, name: &'static str) {
        let now = self.begin.elapsed().as_secs_f64() * 1000.0;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.iter().any(|(have, _)| *have == name) {
            made.push((name, now));
        }
    }

    /// Both sides' stages.
    pub(super) fn timeline(&self, console: &str) -> Timeline {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        put_together(&made, console)
    }
}

/// What the guest said: its stages with milliseconds of its own clock.
fn guest_stages(console: &str) -> Vec<(&'static str, f64)> {
    let mut found = Vec::new();
    for line in console.lines() {
        let Some((_, rest)) = line.split_once(MARK) else {
            continue;
        };
        let Some((seconds, text)) = rest.split_once("s ") else {
            continue;
        };
        let Ok(seconds) = seconds.parse::<f64>() else {
            continue;
        };
        let name = match text.trim() {
            "init" => "init",
            "root mounted" => "root",
            "agent" => "agent",
            DIALLED => "dialled",
            text if text.ends_with("modules loaded") => "modules",
            _ => continue,
        };
        if seconds.is_finite() && !found.iter().any(|(have, _)| *have == name) {
            found.push((name, seconds * 1000.0));
        }
    }
    found
}

fn put_together(host: &[(&'static str, f64)], console: &str) -> Timeline {
    let at = |stages: &[(&'static str, f64)], name: &str| {
        stages
            .iter()
            .find(|(have, _)| *have == name)
            .map(|(_, at)| *at)
    };
    let guest = guest_stages(console);
    let both = at(host, "dialled").zip(at(&guest, "dialled"));
    // When the guest's clock began, on ours.
    let entered = match both {
        Some((ours, theirs)) => Some(ours - theirs),
        None => at(host, "machine up").filter(|_| !guest.is_empty()),
    };
    let mut stages = host.to_vec();
    if let Some(entered) = entered {
        stages.push(("kernel entered", entered));
        let known: Vec<_> = host.iter().map(|(name, _)| *name).collect();
        stages.extend(
            guest
                .iter()
                .filter(|(name, _)| !known.contains(name))
                .map(|(name, at)| (*name, entered + at)),
        );
    }
    stages.sort_by(|a, b| a.1.total_cmp(&b.1));
    Timeline {
        stages: stages
            .into_iter()
            .map(|(name, at)| Stage {
                name,
                // Microseconds are as exact as any of this is.
                at_ms: (at * 1000.0).round() / 1000.0,
            })
            .collect(),
        aligned: both.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.5] something of the kernel's\r\ngcs: +1.000s init\r\n\
        gcs: +1.200s 12 modules loaded\r\ngcs: +1.300s agent\r\ngcs: +1.500s bridge connected\r\n";

    #[test]
    fn both_clocks_meet_where_the_agent_dials() {
        let host = [
            ("asked", 0.0),
            ("machine up", 100.0),
            ("dialled", 1700.0),
            ("negotiated", 1750.0),
        ];
        let timeline = put_together(&host, CONSOLE);
        assert!(timeline.aligned);
        let names: Vec<_> = timeline.stages.iter().map(|stage| stage.name).collect();
        assert_eq!(
            names,
            [
                "asked",
                "machine up",
                "kernel entered",
                "init",
                "modules",
                "agent",
                "dialled",
                "negotiated"
            ]
        );
        let at: Vec<_> = timeline.stages.iter().map(|stage| stage.at_ms).collect();
        assert_eq!(at[2..6], [200.0, 1200.0, 1400.0, 1500.0]);
    }

    #[test]
    fn a_guest_that_never_dialled_has_its_stages_from_its_machine_on() {
        let host = [("asked", 0.0), ("machine up", 100.0)];
        let timeline = put_together(&host, "gcs: +1.000s init\r\n");
        assert!(!timeline.aligned);
        assert_eq!(timeline.stages.last().unwrap().at_ms, 1100.0);
        let silent = put_together(&host, "");
        assert_eq!(silent.stages.len(), 2);
    }

    #[test]
    fn what_a_guest_makes_up_is_passed_over() {
        let console = "gcs: +NaNs init\ngcs: +1e999s init\ngcs: +xs init\ngcs: +1.0s \u{1b}[2J\n";
        assert!(guest_stages(console).is_empty());
    }
}
