//! Decides in which order a machine's life goes.
//!
//! ```text
//!            power_on          monitor answers
//! Created ────────────► Starting ────────────► Running
//!    │                     │                    │    │
//!    │ terminate           │ process ended,     │    │ terminate,
//!    │                     │ time is up         │    │ power_off
//!    ▼                     ▼                    │    ▼
//! Stopped ◄────────────  Failed                 │ Stopping
//!    ▲     (never: both are ends)               │    │
//!    └──────────────────────────────────────────┴────┘
//!                  process ended
//! ```
//!
//! `Stopped` and `Failed` are ends. `Failed` means that the machine never ran; a machine that ran and died
//! is `Stopped`, and its exit report says how.

use std::fmt;

/// Where in its life a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Described, with ports to listen on; no process yet.
    Created,
    /// The process is being started.
    Starting,
    /// The guest runs.
    Running,
    /// The end was asked for.
    Stopping,
    /// The process is gone.
    Stopped,
    /// It never came up.
    Failed,
}

/// What happens to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    PowerOn,
    Up,
    StartFailed,
    StopAsked,
    ProcessEnded,
}

impl State {
    /// The state after `event`, or `None` if the event does not fit.
    pub(crate) fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Created, Event::PowerOn) => Some(Self::Starting),
            (Self::Created, Event::StopAsked) => Some(Self::Stopped),
            (Self::Starting, Event::Up) => Some(Self::Running),
            (Self::Starting, Event::StartFailed | Event::ProcessEnded) => Some(Self::Failed),
            (Self::Starting | Self::Running | Self::Stopping, Event::StopAsked) => {
                Some(Self::Stopping)
            }
            (Self::Stopping, Event::Up) => Some(Self::Stopping),
            (Self::Stopping, Event::StartFailed) => Some(Self::Stopped),
            (Self::Running | Self::Stopping, Event::ProcessEnded) => Some(Self::Stopped),
            (Self::Stopped | Self::Failed, Event::ProcessEnded | Event::StopAsked) => Some(self),
            (Self::Failed, Event::StartFailed) => Some(self),
            _ => None,
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::PowerOn),
            Just(Event::Up),
            Just(Event::StartFailed),
            Just(Event::StopAsked),
            Just(Event::ProcessEnded),
        ]
    }

    proptest! {
        #[test]
        fn ends_are_final_and_nothing_returns_to_created(
            events in proptest::collection::vec(event(), 0..32)
        ) {
            let mut state = State::Created;
            for event in events {
                let Some(next) = state.after(event) else { continue };
                prop_assert!(!state.is_end() || next == state);
                prop_assert!(next != State::Created);
                state = next;
            }
        }

        #[test]
        fn a_stop_and_the_process_end_always_lead_to_an_end(
            events in proptest::collection::vec(event(), 0..32)
        ) {
            let mut state = State::Created;
            for event in events {
                state = state.after(event).unwrap_or(state);
            }
            state = state.after(Event::StopAsked).unwrap_or(state);
            state = state.after(Event::ProcessEnded).unwrap_or(state);
            prop_assert!(state.is_end());
        }
    }

    #[test]
    fn a_start_that_fails_after_a_stop_was_asked_is_an_end() {
        let stopping = State::Starting.after(Event::StopAsked).unwrap();
        assert_eq!(stopping.after(Event::StartFailed), Some(State::Stopped));
    }

    #[test]
    fn a_machine_is_started_once() {
        assert_eq!(State::Running.after(Event::PowerOn), None);
        assert_eq!(State::Stopped.after(Event::PowerOn), None);
    }
}
