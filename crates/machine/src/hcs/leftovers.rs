//! Decides which machines are leftovers: those of an owner of our kind that no longer lives.
//!
//! Machines end with the last handle to them, so there are none unless the service failed to end one.

use std::sync::Arc;
use std::time::Duration;

use super::document;
use super::outcome;
use super::sys::library::Library;
use super::sys::process::{self, Found, Identity};
use super::sys::system;

/// What the names of our owners begin with.
const PREFIX: &str = "opengcs-";

/// How long each request may take; nobody's start waits for more than two of them.
const LIMIT: Duration = Duration::from_secs(10);

/// The name that this process's machines are owned under.
pub(super) fn owner() -> String {
    name(process::own())
}

fn name(owner: Identity) -> String {
    format!("{PREFIX}{}-{}", owner.id, owner.born)
}

fn parse(name: &str) -> Option<Identity> {
    let (id, born) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some(Identity {
        id: id.parse().ok()?,
        born: born.parse().ok()?,
    })
}

/// Whether nobody is left who made machines under this name. When in doubt, somebody is.
fn is_orphaned(owner: &str, look: impl Fn(u32) -> Found) -> bool {
    parse(owner).is_some_and(|owner| match look(owner.id) {
        Found::Nobody => true,
        Found::Born(born) => owner.born != 0 && born != owner.born,
        Found::Unknown => false,
    })
}

/// Ends leftovers. A failure is told to the log alone: it harms no start.
pub(super) fn end(library: &Arc<Library>) {
    let query = document::list_machines().to_string();
    let listing = match system::enumerate(library, &query, LIMIT) {
        Ok(listing) => listing.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "machines that earlier processes may have left are not looked for");
            return;
        }
    };
    let machines = outcome::listed(&listing).into_iter();
    for machine in machines.filter(|machine| is_orphaned(&machine.owner, process::born)) {
        match system::end(library, &machine.id, LIMIT) {
            Ok(()) => {
                tracing::info!(id = %machine.id, "ended a machine that a killed owner had left");
            }
            Err(error) => tracing::warn!(%error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_of_dead_owners_of_our_kind_are_left_over() {
        let look = |id| match id {
            1 => Found::Born(100),
            2 => Found::Unknown,
            _ => Found::Nobody,
        };
        for (owner, orphaned) in [
            ("opengcs-1-100", false),
            ("opengcs-1-99", true),
            ("opengcs-1-0", false),
            ("opengcs-2-99", false),
            ("opengcs-3-99", true),
            ("opengcs", false),
            ("opengcs-x-1", false),
            ("docker", false),
            ("", false),
        ] {
            assert_eq!(is_orphaned(owner, look), orphaned, "{owner}");
        }
        assert!(!is_orphaned(&owner(), process::born));
    }
}
