//! What a conversion left out or had to interpret, told without failing.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Name;
use crate::problem::ProblemKind;

/// How many warnings are kept in words; more are only counted.
const KEPT: usize = 100;

/// The most bytes of a path or message that are kept: foreign names may have millions.
const LONGEST: usize = 4 << 10;

/// One thing that was left out or interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The path it concerns, as raw bytes; empty when it concerns all.
    pub path: Vec<u8>,
    /// What was done about it.
    pub message: String,
    /// Which of a plan's problems it is.
    pub(crate) kind: Option<ProblemKind>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            // It concerns the whole.
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", Name(&self.path), self.message)
    }
}

/// The warnings of a conversion: the first hundred in words, the rest as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    kept: Vec<Warning>,
    total: u64,
    kinds: BTreeMap<ProblemKind, u64>,
}

impl Warnings {
    pub(crate) fn push(&mut self, path: &[u8], message: impl Into<String>) {
        self.add(None, path, message);
    }

    /// A warning that a plan tells as a problem of this kind.
    pub(crate) fn push_as(&mut self, kind: ProblemKind, path: &[u8], message: impl Into<String>) {
        *self.kinds.entry(kind).or_default() += 1;
        self.add(Some(kind), path, message);
    }

    fn add(&mut self, kind: Option<ProblemKind>, path: &[u8], message: impl Into<String>) {
        self.total += 1;
        if self.kept.len() < KEPT {
            let mut message = message.into();
            if message.len() > LONGEST {
                message.truncate(message.floor_char_boundary(LONGEST));
                message.push('…');
                message.shrink_to_fit();
            }
            let path = path.get(..LONGEST).unwrap_or(path).to_vec();
            self.kept.push(Warning {
                path,
                message,
                kind,
            });
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.total += other.total;
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
    }

    /// How many there were of each of a plan's kinds.
    pub(crate) fn kinds(&self) -> &BTreeMap<ProblemKind, u64> {
        &self.kinds
    }

    /// The warnings kept in words.
    pub fn iter(&self) -> impl Iterator<Item = &Warning> {
        self.kept.iter()
    }

    /// How many there were in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}
