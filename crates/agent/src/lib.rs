//! The guest agent: PID 1 of the utility VM and the guest end of the bridge.
