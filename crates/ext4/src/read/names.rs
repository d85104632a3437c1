//! What fast commits make of a directory's names.

use std::collections::{HashMap, HashSet};

use super::directory::DirEntry;
use crate::types::InodeNo;

/// A name that came or went.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) is_new: bool,
    pub(super) inode: u32,
    pub(super) name: Box<[u8]>,
}

/// All changes of one directory, in order.
#[derive(Debug, Default)]
pub(super) struct DirectoryChange {
    /// The directory itself is new: what its blocks hold was never its content.
    pub(super) is_fresh: bool,
    pub(super) names: Vec<NameChange>,
}

/// The changes of one name.
struct Pending<'a> {
    changes: Vec<&'a NameChange>,
    /// The name was among those on disk.
    met: bool,
}

/// Goes through a directory's entries on disk and gives back what they have become.
pub(super) struct Edits<'a> {
    is_casefolded: bool,
    names: Vec<Pending<'a>>,
    index: HashMap<Vec<u8>, usize>,
    /// Inodes of names that were to go.
    leaving: HashSet<u32>,
    /// Those of them whose name was not found.
    missed: HashSet<u32>,
    /// Those of them that still have a name here.
    staying: HashSet<u32>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(change: &'a DirectoryChange, is_casefolded: bool) -> Self {
        let mut edits = Self {
            is_casefolded,
            names: Vec::new(),
            index: HashMap::new(),
            leaving: HashSet::new(),
            missed: HashSet::new(),
            staying: HashSet::new(),
        };
        for change in &change.names {
            if !change.is_new {
                edits.leaving.insert(change.inode);
            }
            let at = *edits
                .index
                .entry(edits.key(&change.name))
                .or_insert_with(|| {
                    edits.names.push(Pending {
                        changes: Vec::new(),
                        met: false,
                    });
                    edits.names.len().saturating_sub(1)
                });
            if let Some(pending) = edits.names.get_mut(at) {
                pending.changes.push(change);
            }
        }
        edits
    }

    /// What names are compared by. Only ASCII is folded: [`Edits::rest`] sees where that is too little.
    fn key(&self, name: &[u8]) -> Vec<u8> {
        if self.is_casefolded {
            name.to_ascii_lowercase()
        } else {
            name.to_vec()
        }
    }

    /// What an entry on disk has become.
    pub(super) fn entry(&mut self, entry: DirEntry) -> Option<DirEntry> {
        let found = match self.index.get(&self.key(&entry.name)) {
            Some(&at) => self.resolve(at, Some(entry)),
            None => Some(entry),
        };
        if let Some(entry) = &found
            && self.leaving.contains(&entry.inode.0)
        {
            self.staying.insert(entry.inode.0);
        }
        found
    }

    fn resolve(&mut self, at: usize, mut state: Option<DirEntry>) -> Option<DirEntry> {
        let pending = self.names.get_mut(at)?;
        pending.met = true;
        for change in &pending.changes {
            let is_it = state
                .as_ref()
                .is_some_and(|entry| entry.inode.0 == change.inode);
            match (change.is_new, &state) {
                (true, None) => {
                    state = Some(DirEntry {
                        name: change.name.to_vec(),
                        inode: InodeNo(change.inode),
                    });
                }
                // The kernel leaves a name that exists, and one that has become another's.
                (true, Some(_)) => {}
                (false, _) if is_it => state = None,
                (false, _) => {
                    self.missed.insert(change.inode);
                }
            }
        }
        state
    }

    /// The entries that are not on disk; none of them when a name without case could not be told.
    pub(super) fn rest(&mut self) -> Result<Vec<DirEntry>, &'static str> {
        let mut rest = Vec::new();
        for at in 0..self.names.len() {
            if self.names.get(at).is_some_and(|pending| !pending.met)
                && let Some(entry) = self.resolve(at, None)
            {
                rest.push(entry);
            }
        }
        if self.is_casefolded && !self.missed.is_disjoint(&self.staying) {
            return Err("a fast commit removes a name in another case");
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        disk: &[(&str, u32)],
        changes: &[(char, &str, u32)],
        fold: bool,
    ) -> Option<Vec<(String, u32)>> {
        let names = changes.iter().map(|&(sign, name, inode)| NameChange {
            is_new: sign == '+',
            inode,
            name: name.as_bytes().into(),
        });
        let change = DirectoryChange {
            is_fresh: false,
            names: names.collect(),
        };
        let mut edits = Edits::new(&change, fold);
        let mut found = Vec::new();
        for &(name, inode) in disk {
            found.extend(edits.entry(DirEntry {
                name: name.as_bytes().to_vec(),
                inode: InodeNo(inode),
            }));
        }
        found.extend(edits.rest().ok()?);
        let show = |entry: DirEntry| (String::from_utf8(entry.name).unwrap(), entry.inode.0);
        Some(found.into_iter().map(show).collect())
    }

    #[test]
    fn names_come_go_and_come_again() {
        let disk = [("a", 12), ("b", 13), ("c", 14)];
        let changes = [
            ('-', "a", 12),
            ('+', "d", 12),
            ('-', "b", 13),
            ('+', "b", 15),
            ('+', "e", 16),
            ('-', "e", 16),
            ('+', "e", 17),
        ];
        let found = run(&disk, &changes, false).unwrap();
        let expected = [("b", 15), ("c", 14), ("d", 12), ("e", 17)];
        assert_eq!(
            found,
            expected.map(|(name, inode)| (name.to_owned(), inode))
        );
    }

    #[test]
    fn what_is_there_already_stays() {
        let found = run(
            &[("a", 12)],
            &[('+', "a", 13), ('-', "a", 14), ('-', "x", 12)],
            false,
        );
        assert_eq!(found.unwrap(), [("a".to_owned(), 12)]);
    }

    #[test]
    fn names_without_case_are_told_or_refused() {
        let found = run(&[("Ab", 12)], &[('-', "aB", 12), ('+', "AB", 13)], true);
        assert_eq!(found.unwrap(), [("AB".to_owned(), 13)]);
        assert_eq!(run(&[("Ä", 12)], &[('-', "ä", 12)], true), None);
        let found = run(&[("Ä", 12)], &[('-', "ä", 13)], true);
        assert_eq!(found.unwrap(), [("Ä".to_owned(), 12)]);
    }
}
