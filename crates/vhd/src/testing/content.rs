//! Decides how a file in memory holds its bytes: by pages, none for what was never written.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::number::{clamp, wide};

const PAGE: usize = 4096;

/// The bytes of a file; pages that were never written are zero and not held.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
    pub(super) length: u64,
}

impl Content {
    pub(super) fn write(&mut self, mut position: u64, mut data: &[u8]) {
        self.length = self.length.max(position.saturating_add(wide(data.len())));
        while !data.is_empty() {
            let within = usize::try_from(position % 4096).unwrap_or(0);
            let (piece, rest) = data.split_at(data.len().min(PAGE.saturating_sub(within)));
            let page = self
                .pages
                .entry(position / 4096)
                .or_insert_with(|| Arc::new([0; PAGE]));
            if let Some(target) =
                Arc::make_mut(page).get_mut(within..within.saturating_add(piece.len()))
            {
                target.copy_from_slice(piece);
            }
            position = position.saturating_add(wide(piece.len()));
            data = rest;
        }
    }

    pub(super) fn resize(&mut self, length: u64) {
        self.length = length;
        self.pages.split_off(&length.div_ceil(4096));
        if let Some(page) = self.pages.get_mut(&(length / 4096)) {
            let within = usize::try_from(length % 4096).unwrap_or(0);
            if let Some(gone) = Arc::make_mut(page).get_mut(within..) {
                gone.fill(0);
            }
        }
    }

    pub(super) fn read(&self, mut position: u64, buf: &mut [u8]) -> usize {
        let total = clamp(buf.len(), self.length.saturating_sub(position));
        let mut rest = buf.get_mut(..total).unwrap_or_default();
        while !rest.is_empty() {
            let within = usize::try_from(position % 4096).unwrap_or(0);
            let length = rest.len().min(PAGE.saturating_sub(within));
            let (piece, tail) = rest.split_at_mut(length);
            match self.pages.get(&(position / 4096)) {
                Some(page) => {
                    let end = within.saturating_add(length);
                    piece.copy_from_slice(page.get(within..end).unwrap_or_default());
                }
                None => piece.fill(0),
            }
            position = position.saturating_add(wide(length));
            rest = tail;
        }
        total
    }

    /// Makes bytes zero, and does not hold pages that are.
    pub(super) fn punch(&mut self, position: u64, length: u64) {
        let end = position.saturating_add(length).min(self.length);
        let (first, last) = (position.div_ceil(4096), end / 4096);
        if first < last {
            let mut behind = self.pages.split_off(&first);
            self.pages.append(&mut behind.split_off(&last));
        }
        for (from, to) in [
            (position, end.min(first.saturating_mul(4096))),
            (position.max(last.saturating_mul(4096)), end),
        ] {
            if let (Some(length), Some(page)) =
                (to.checked_sub(from), self.pages.get_mut(&(from / 4096)))
            {
                let start = usize::try_from(from % 4096).unwrap_or(0);
                let length = usize::try_from(length).unwrap_or(0);
                let upto = start.saturating_add(length).min(PAGE);
                if let Some(gone) = Arc::make_mut(page).get_mut(start..upto) {
                    gone.fill(0);
                }
            }
        }
    }
}
