//! Variables of this process: wine gives every program those of its registry, whatever its parent has.
#![allow(unsafe_code, reason = "other threads may read a variable meanwhile")]

/// Gives a variable of this process a value, or takes it away.
pub(crate) fn set(name: &str, value: Option<&str>) {
    match value {
        // SAFETY: on Windows it is safe, also while other threads read them.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}
