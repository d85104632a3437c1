//! Where in its life a VM is: a pure function of its machine's state and of what only the VM knows.
//!
//! ```text
//!            start                    the agent answers,
//!                                     configured disks are there
//! Created ──────────────► Starting ─────────────────────────────► Running
//!                             │                                    │   │
//!                             │ no answer in time,       stop asked│   │ the machine ended
//!                             │ the machine ended                  ▼   │
//!                             ▼                               Stopping │
//!                          Failed                                  │   │
//!                                               the machine ended  ▼   ▼
//!                                                                 Stopped
//! ```
//!
//! The machine below has states of the same names ([`State`]). A machine runs as soon as its guest's
//! first instruction does, a VM when its agent has answered; a VM is stopping when its guest has been
//! asked to end, a machine only when the hypervisor has.

use opengcs_machine::State;

/// The VM's state. `came_up`: it has been running. `stop_asked`: somebody wants its end.
pub(super) fn state(machine: State, came_up: bool, stop_asked: bool) -> State {
    match machine {
        State::Starting | State::Running | State::Stopping if stop_asked => State::Stopping,
        State::Running if came_up => State::Running,
        State::Running => State::Starting,
        State::Stopped if !came_up => State::Failed,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How far in a life a state is; ends are equally far.
    fn age(state: State) -> u8 {
        match state {
            State::Created => 0,
            State::Starting => 1,
            State::Running => 2,
            State::Stopping => 3,
            _ => 4,
        }
    }

    /// What can happen to a VM, in any order.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Machine(State),
        CameUp,
        StopAsked,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Machine(State::Starting)),
            Just(Step::Machine(State::Running)),
            Just(Step::Machine(State::Stopping)),
            Just(Step::Machine(State::Stopped)),
            Just(Step::Machine(State::Failed)),
            Just(Step::CameUp),
            Just(Step::StopAsked),
        ]
    }

    proptest! {
        #[test]
        fn a_life_goes_forward_only_and_its_end_is_final(
            steps in proptest::collection::vec(step(), 0..24)
        ) {
            let (mut machine, mut came_up, mut stop_asked) = (State::Created, false, false);
            let mut before = state(machine, came_up, stop_asked);
            for step in steps {
                match step {
                    // A machine's own life goes forward; that is tested where it is.
                    Step::Machine(next) if !machine.is_end() && age(next) > age(machine) => {
                        machine = next;
                    }
                    // An agent answers only in a machine that runs.
                    Step::CameUp if machine == State::Running => came_up = true,
                    Step::StopAsked => stop_asked = true,
                    _ => {}
                }
                let now = state(machine, came_up, stop_asked);
                prop_assert!(age(now) >= age(before), "{before} to {now}");
                prop_assert!(!before.is_end() || now == before, "{before} to {now}");
                before = now;
            }
        }

        #[test]
        fn it_is_never_running_unless_its_agent_has_answered(
            stop_asked in any::<bool>(), step in step()
        ) {
            if let Step::Machine(machine) = step {
                let now = state(machine, false, stop_asked);
                prop_assert!(now != State::Running && now != State::Stopped);
            }
        }
    }
}
