//! In which order the nodes of a tree are written: a folder before what is in it, the rest as chosen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// The order among nodes whose folders have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Folder by folder, siblings by name.
    Names,
    /// By the nodes' numbers; several names of one node by path.
    Numbers,
}

/// A name in a folder. Folders have theirs in others, so that a deep tree's paths take no more memory
/// than its names.
#[derive(Clone)]
pub(super) struct Place {
    folder: Option<Rc<Place>>,
    name: Box<[u8]>,
}

impl Place {
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The path from the root.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = vec![&*self.name];
        let mut folder = &self.folder;
        while let Some(place) = folder {
            names.push(&place.name);
            folder = &place.folder;
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Drop for Place {
    /// Lets go of what lies above one by one: a chain may be longer than the stack is deep.
    fn drop(&mut self) {
        let mut folder = self.folder.take();
        while let Some(mut place) = folder.and_then(Rc::into_inner) {
            folder = place.folder.take();
        }
    }
}

/// A name that leads to a node.
pub(super) struct Found<N> {
    pub(super) place: Place,
    pub(super) node: N,
}

impl<N> Found<N> {
    /// The path from the root.
    pub(super) fn path(&self) -> Vec<u8> {
        self.place.path()
    }
}

/// The names that were found and not yet taken.
pub(super) enum Frontier<N> {
    Names(Vec<std::vec::IntoIter<Found<N>>>),
    Numbers(BinaryHeap<Reverse<Numbered<N>>>),
}

impl<N> Frontier<N> {
    pub(super) fn new(order: Order) -> Self {
        match order {
            Order::Names => Self::Names(Vec::new()),
            Order::Numbers => Self::Numbers(BinaryHeap::new()),
        }
    }

    /// Adds what is in a folder, the root without one. `number` tells a node's number.
    pub(super) fn add(
        &mut self,
        folder: Option<&Place>,
        children: Vec<(Vec<u8>, N)>,
        number: impl Fn(&N) -> u64,
    ) {
        let folder = folder.map(|folder| Rc::new(folder.clone()));
        let mut found = children.into_iter().map(|(name, node)| Found {
            place: Place {
                folder: folder.clone(),
                name: name.into(),
            },
            node,
        });
        match self {
            Self::Names(levels) => {
                let mut level: Vec<_> = found.collect();
                level.sort_by(|a, b| a.place.name.cmp(&b.place.name));
                levels.push(level.into_iter());
            }
            Self::Numbers(heap) => {
                for found in found.by_ref() {
                    heap.push(Reverse(Numbered {
                        number: number(&found.node),
                        found,
                    }));
                }
            }
        }
    }

    /// Takes the next.
    pub(super) fn next(&mut self) -> Option<Found<N>> {
        match self {
            Self::Names(levels) => loop {
                match levels.last_mut()?.next() {
                    Some(found) => return Some(found),
                    None => levels.pop(),
                };
            },
            Self::Numbers(heap) => heap.pop().map(|Reverse(numbered)| numbered.found),
        }
    }
}

/// What is found, compared by number and path.
pub(super) struct Numbered<N> {
    number: u64,
    found: Found<N>,
}

impl<N> Ord for Numbered<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let path = |this: &Self| this.found.path();
        self.number
            .cmp(&other.number)
            .then_with(|| path(self).cmp(&path(other)))
    }
}

impl<N> PartialOrd for Numbered<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<N> PartialEq for Numbered<N> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<N> Eq for Numbered<N> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(order: Order) -> Vec<String> {
        let mut frontier = Frontier::new(order);
        let names = |names: &[(&str, u64)]| {
            names
                .iter()
                .map(|&(name, number)| (name.as_bytes().to_vec(), number))
                .collect::<Vec<_>>()
        };
        frontier.add(None, names(&[("z", 12), ("a", 15), ("d", 13)]), |n| *n);
        let mut seen = Vec::new();
        while let Some(found) = frontier.next() {
            let path = found.path();
            if path == b"d" {
                // The second name of node 12 cannot come before the folder it lies in.
                frontier.add(
                    Some(&found.place),
                    names(&[("late", 16), ("early", 14), ("link", 12)]),
                    |n| *n,
                );
            }
            seen.push(String::from_utf8(path).unwrap());
        }
        seen
    }

    #[test]
    fn names_go_folder_by_folder() {
        assert_eq!(
            walk(Order::Names),
            ["a", "d", "d/early", "d/late", "d/link", "z"]
        );
    }

    #[test]
    fn numbers_go_across_folders() {
        assert_eq!(
            walk(Order::Numbers),
            ["z", "d", "d/link", "d/early", "a", "d/late"]
        );
    }
}
