//! Decides what is kept of the errors that the host's storage gives to a machine's disks: the first of each
//! kind and a count, whatever a guest does to bring about more.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Kinds of errors that are told apart; a machine has at most 256 disks.
const MOST: usize = 1024;

/// The errors of a machine's life.
#[derive(Debug, Default)]
pub(crate) struct DiskErrors {
    /// By block node and operation: the first reason, and how many there were.
    seen: BTreeMap<(String, String), (String, u64)>,
}

impl DiskErrors {
    /// Takes a `BLOCK_IO_ERROR` event's data. Gives a line for the log the first time.
    pub(crate) fn note(&mut self, data: &Value) -> Option<String> {
        let word = |key: &str| {
            let word = data.get(key).and_then(Value::as_str).unwrap_or("");
            crate::error::one_line(word)
        };
        let key = (word("node-name"), word("operation"));
        if let Some((_, count)) = self.seen.get_mut(&key) {
            *count = count.saturating_add(1);
            return None;
        }
        if self.seen.len() >= MOST {
            return None;
        }
        let reason = word("reason");
        let line = format!("{}: {} failed on the host: {reason}", key.0, key.1);
        self.seen.insert(key, (reason, 1));
        Some(line)
    }
}

impl fmt::Display for DiskErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((node, operation), (reason, count)) in &self.seen {
            writeln!(
                f,
                "{node}: {operation} failed on the host {count} times, first with: {reason}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_of_a_kind_is_told_and_the_rest_counted() {
        let mut errors = DiskErrors::default();
        let full = json!({
            "node-name": "disk-0-1-1", "operation": "write", "reason": "No space left on device",
        });
        assert!(errors.note(&full).unwrap().contains("No space left"));
        for _ in 0..10 {
            assert_eq!(errors.note(&full), None);
        }
        let text = errors.to_string();
        assert!(
            text.contains("disk-0-1-1: write failed on the host 11 times"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn kinds_without_end_are_not_kept() {
        let mut errors = DiskErrors::default();
        for number in 0..10_000 {
            errors.note(&json!({ "node-name": number.to_string(), "operation": "read" }));
        }
        assert_eq!(errors.to_string().lines().count(), MOST);
    }
}
