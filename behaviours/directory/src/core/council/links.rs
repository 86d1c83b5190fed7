//! The chain of certificates, as peers are given it: all links by epoch, the newest in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fog_base::Epoch;

use super::ReadLink;

/// Links in memory; older ones come out of the store.
const RECENT: usize = 64;

pub(super) struct Links {
    epochs: BTreeSet<Epoch>,
    recent: BTreeMap<Epoch, Vec<u8>>,
    read: ReadLink,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("epochs", &self.epochs.len()).finish_non_exhaustive()
    }
}

impl Links {
    pub(super) fn new(epochs: BTreeSet<Epoch>, read: ReadLink) -> Self {
        Self { epochs, recent: BTreeMap::new(), read }
    }

    pub(super) fn insert(&mut self, epoch: Epoch, bytes: Vec<u8>) {
        self.epochs.insert(epoch);
        self.recent.insert(epoch, bytes);
        if self.recent.len() > RECENT {
            self.recent.pop_first();
        }
    }

    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.epochs.contains(&epoch)
    }

    pub(super) fn get(&self, epoch: Epoch) -> Option<Vec<u8>> {
        self.recent.get(&epoch).cloned().or_else(|| (self.read)(epoch))
    }

    /// The newest epochs, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = Epoch> {
        self.epochs.iter().rev().copied()
    }

    /// The first epoch from `epoch` on that has a link.
    pub(super) fn first_from(&self, epoch: Epoch) -> Option<Epoch> {
        self.epochs.range(epoch..).next().copied()
    }

    /// The epochs before `epoch`, the newest first.
    pub(super) fn newest_before(&self, epoch: Epoch) -> impl Iterator<Item = Epoch> {
        self.epochs.range(..epoch).rev().copied()
    }

    /// The links after `after`, as many as fit `max` bytes; whether there are more.
    pub(super) fn after(&self, after: Epoch, max: usize) -> (Vec<Vec<u8>>, bool) {
        let (mut links, mut length) = (Vec::new(), 0);
        for epoch in self.epochs.range(after.next()..) {
            // One that the store has lost ends the row: a chain with a gap is of no use.
            let Some(link) = self.get(*epoch) else { return (links, false) };
            length += link.len();
            if length > max {
                return (links, true);
            }
            links.push(link);
        }
        (links, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_links_come_out_of_the_store_and_a_gap_ends_the_row() {
        let mut links =
            Links::new((1..=10).map(Epoch).collect(), Box::new(|epoch| (epoch.0 != 5).then(|| vec![1; 10])));
        for epoch in 11..=200 {
            links.insert(Epoch(epoch), vec![2; 10]);
        }
        assert_eq!((links.recent.len(), links.newest().next()), (RECENT, Some(Epoch(200))));
        assert_eq!(links.after(Epoch(0), 1000), (vec![vec![1; 10]; 4], false));
        assert_eq!(links.after(Epoch(196), 1000), (vec![vec![2; 10]; 4], false));
        assert_eq!(links.after(Epoch(190), 35), (vec![vec![2; 10]; 3], true));
        assert_eq!(links.after(Epoch(200), 1000), (vec![], false));
    }
}
