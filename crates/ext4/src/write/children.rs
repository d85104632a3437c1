//! The names in a directory: a short list while they are few, which most are, a tree after.

use std::collections::BTreeMap;

use super::tree::NodeId;

/// Names that a list keeps. A tree's first block of memory is as large as so many.
const FEW: usize = 8;

/// A directory's names and the nodes they lead to, sorted by their bytes.
#[allow(
    clippy::box_collection,
    reason = "most directories have few names, and none of them pays for the largest variant"
)]
#[derive(Debug)]
pub(super) enum Children {
    Few(Vec<(Box<[u8]>, NodeId)>),
    Many(Box<BTreeMap<Box<[u8]>, NodeId>>),
}

impl Children {
    pub(super) fn new() -> Self {
        Self::Few(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(tree) => tree.len(),
        }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<NodeId> {
        match self {
            Self::Few(list) => list
                .iter()
                .find_map(|(known, node)| (**known == *name).then_some(*node)),
            Self::Many(tree) => tree.get(name).copied(),
        }
    }

    /// Adds a name that is not there.
    pub(super) fn insert(&mut self, name: &[u8], node: NodeId) {
        match self {
            Self::Few(list) if list.len() < FEW => {
                let place = list.partition_point(|(known, _)| **known < *name);
                if list.len() == list.capacity() {
                    list.reserve_exact(list.len().max(1));
                }
                list.insert(place, (name.into(), node));
            }
            Self::Few(list) => {
                let mut tree: BTreeMap<_, _> = std::mem::take(list).into_iter().collect();
                tree.insert(name.into(), node);
                *self = Self::Many(Box::new(tree));
            }
            Self::Many(tree) => {
                tree.insert(name.into(), node);
            }
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<NodeId> {
        match self {
            Self::Few(list) => {
                let place = list.iter().position(|(known, _)| **known == *name)?;
                Some(list.remove(place).1)
            }
            Self::Many(tree) => tree.remove(name),
        }
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], NodeId)> + Clone {
        let (list, tree) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(tree) => (None, Some(tree)),
        };
        let list = list.into_iter().flatten();
        let list = list.map(|(name, node)| (&**name, *node));
        let tree = tree.into_iter().flat_map(|tree| tree.iter());
        list.chain(tree.map(|(name, node)| (&**name, *node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_found_sorted_and_removed() {
        let mut children = Children::new();
        let name = |number: u32| format!("{:02}", number.wrapping_mul(37) % 50).into_bytes();
        for number in 0..50u32 {
            assert_eq!(children.get(&name(number)), None);
            children.insert(&name(number), NodeId::from_number(number));
            let names: Vec<_> = children.iter().map(|(name, _)| name.to_vec()).collect();
            assert!(names.is_sorted());
            assert_eq!(
                (names.len(), children.len()),
                (number as usize + 1, names.len())
            );
        }
        for number in 0..50 {
            let node = Some(NodeId::from_number(number));
            assert_eq!(children.get(&name(number)), node);
            assert_eq!(children.remove(&name(number)), node);
            assert_eq!(children.remove(&name(number)), None);
        }
        assert_eq!(children.len(), 0);
    }
}
