//! Exit codes that have been collected: who may collect them once more.
//!
//! That an answer was written to a connection does not mean that the host has read it. On the same
//! connection a second wait finds no process, as the protocol has it; on a later one it finds the
//! code, because the connection before may have broken with the answer in it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// How many codes are kept; the oldest go first.
const MOST_KEPT: usize = 1024;

#[derive(Default)]
pub(super) struct Collected {
    kept: HashMap<u32, Kept>,
    /// Oldest first; entries whose serial is not the kept one's are stale.
    order: VecDeque<(u32, u64)>,
    serial: u64,
}

struct Kept {
    exit_code: u32,
    container: Option<Arc<str>>,
    /// The number of the connection that has had it.
    connection: u64,
    serial: u64,
}

impl Collected {
    /// The code has been written to a connection.
    pub(super) fn keep(
        &mut self,
        pid: u32,
        exit_code: u32,
        container: Option<Arc<str>>,
        connection: u64,
    ) {
        self.serial += 1;
        let serial = self.serial;
        let kept = Kept {
            exit_code,
            container,
            connection,
            serial,
        };
        self.kept.insert(pid, kept);
        self.order.push_back((pid, serial));
        while self.order.len() > MOST_KEPT {
            if let Some((pid, serial)) = self.order.pop_front()
                && self
                    .kept
                    .get(&pid)
                    .is_some_and(|kept| kept.serial == serial)
            {
                self.kept.remove(&pid);
            }
        }
    }

    /// The code, for a connection that comes after the one that had it; that one has it then.
    pub(super) fn again(
        &mut self,
        pid: u32,
        container: Option<&str>,
        connection: u64,
    ) -> Option<u32> {
        let kept = self.kept.get_mut(&pid)?;
        let addressed = kept.container.is_none() || kept.container.as_deref() == container;
        if !addressed || connection <= kept.connection {
            return None;
        }
        kept.connection = connection;
        Some(kept.exit_code)
    }

    /// The number is given to another process.
    pub(super) fn forget(&mut self, pid: u32) {
        self.kept.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connection_has_it_once_more_and_its_own_does_not() {
        let mut collected = Collected::default();
        collected.keep(5, 42, None, 1);
        assert_eq!(collected.again(5, None, 1), None);
        assert_eq!(collected.again(5, None, 2), Some(42));
        assert_eq!(collected.again(5, None, 2), None);
        assert_eq!(collected.again(5, None, 7), Some(42));
        collected.forget(5);
        assert_eq!(collected.again(5, None, 8), None);
    }

    #[test]
    fn a_containers_code_is_for_its_container() {
        let mut collected = Collected::default();
        collected.keep(5, 42, Some("c".into()), 1);
        assert_eq!(collected.again(5, None, 2), None);
        assert_eq!(collected.again(5, Some("d"), 2), None);
        assert_eq!(collected.again(5, Some("c"), 2), Some(42));
    }

    #[test]
    fn the_oldest_go_when_there_are_many() {
        let mut collected = Collected::default();
        for pid in 0..2000 {
            collected.keep(pid, pid, None, 1);
        }
        // Kept twice, it is as young as its second time.
        collected.keep(1500, 7, None, 1);
        for pid in 2000..2900 {
            collected.keep(pid, pid, None, 1);
        }
        assert!(collected.order.len() <= MOST_KEPT && collected.kept.len() <= MOST_KEPT);
        assert_eq!(collected.again(100, None, 2), None);
        assert_eq!(collected.again(1500, None, 2), Some(7));
        assert_eq!(collected.again(2899, None, 2), Some(2899));
    }
}
