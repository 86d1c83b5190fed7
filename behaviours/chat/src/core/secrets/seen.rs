//! Which messages of a peer came: by id, because a message may be sealed twice, and by the digest of its ciphertext, which costs no key.

use std::collections::{BTreeSet, HashMap, VecDeque};

use fog_base::MessageId;

/// Messages of one peer that are remembered. Older copies are known by their ratchet keys, which are gone.
pub(super) const MAX_SEEN: usize = 1024;

/// A digest, and the id of the message that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) digest: [u8; 16],
    pub(super) id: MessageId,
}

/// Entries of one row: those whose numbers have the same quotient by this.
const GROUP: u64 = 16;
/// `number (8) ‖ digest (16) ‖ id (16)`.
const ENTRY: usize = 8 + 16 + 16;

impl Entry {
    /// The entries of a row.
    pub(super) fn parse_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        rest.is_empty().then(|| entries.iter().filter_map(Self::parse).collect())
    }

    fn parse(bytes: &[u8; ENTRY]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<16>()?;
        let id = rest.try_into().ok()?;
        Some(Self { number: u64::from_be_bytes(*number), digest: *digest, id: MessageId(id) })
    }

    fn group(&self) -> u64 {
        self.number / GROUP
    }
}

/// The last [`MAX_SEEN`] messages of a peer, and a few more of the oldest one's row.
#[derive(Debug, Default)]
pub(super) struct Seen {
    order: VecDeque<Entry>,
    digests: HashMap<[u8; 16], MessageId>,
    ids: HashMap<MessageId, u32>,
    next: u64,
    /// Rows that are older than what is here, and rows of which nothing is left.
    changed: BTreeSet<u64>,
    gone: Vec<u64>,
}

impl Seen {
    pub(super) fn by_digest(&self, digest: &[u8; 16]) -> Option<MessageId> {
        self.digests.get(digest).copied()
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.ids.contains_key(id)
    }

    /// Remembers a message, and forgets the oldest ones, a row at a time.
    pub(super) fn insert(&mut self, digest: [u8; 16], id: MessageId) {
        let entry = Entry { number: self.next, digest, id };
        self.put(entry);
        self.changed.insert(entry.group());
        let Some(oldest) = self.order.front().map(Entry::group) else { return };
        let of_oldest = self.order.iter().take_while(|entry| entry.group() == oldest).count();
        if self.order.len() - of_oldest >= MAX_SEEN {
            for old in self.order.drain(..of_oldest) {
                self.digests.remove(&old.digest);
                if let Some(count) = self.ids.get_mut(&old.id) {
                    *count -= 1;
                    if *count == 0 {
                        self.ids.remove(&old.id);
                    }
                }
            }
            self.gone.push(oldest);
        }
    }

    /// The rows to store, by number, and those to delete.
    pub(super) fn unsaved(&mut self) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
        let Self { order, changed, gone, .. } = self;
        let row = |group: u64| {
            // New entries are at the end.
            let entries = order.iter().rev().skip_while(|entry| entry.group() > group);
            let entries: Vec<_> = entries.take_while(|entry| entry.group() == group).collect();
            let mut bytes = Vec::with_capacity(ENTRY * entries.len());
            for entry in entries.into_iter().rev() {
                bytes.extend_from_slice(&entry.number.to_be_bytes());
                bytes.extend_from_slice(&entry.digest);
                bytes.extend_from_slice(&entry.id.0);
            }
            (group, bytes)
        };
        (std::mem::take(changed).into_iter().map(row).collect(), std::mem::take(gone))
    }

    /// Takes entries back from the store, in any order.
    pub(super) fn restore(&mut self, mut entries: Vec<Entry>) {
        entries.sort_by_key(|entry| entry.number);
        entries.into_iter().for_each(|entry| self.put(entry));
    }

    fn put(&mut self, entry: Entry) {
        self.order.push_back(entry);
        self.digests.insert(entry.digest, entry.id);
        *self.ids.entry(entry.id).or_default() += 1;
        self.next = self.next.max(entry.number.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> ([u8; 16], MessageId) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        (bytes, MessageId(bytes))
    }

    #[test]
    fn the_oldest_are_forgotten_and_what_was_stored_says_the_same() {
        let mut seen = Seen::default();
        let mut stored = std::collections::BTreeMap::new();
        for n in 0..MAX_SEEN as u64 + GROUP + 1 {
            let (digest, id) = entry(n);
            seen.insert(digest, id);
            // Batches of several numbers.
            if n % 3 == 0 || n >= MAX_SEEN as u64 {
                let (changed, gone) = seen.unsaved();
                stored.extend(changed);
                gone.iter().for_each(|group| drop(stored.remove(group)));
            }
        }
        let mut restored = Seen::default();
        restored.restore(stored.values().flat_map(|bytes| Entry::parse_all(bytes).unwrap()).collect());
        for seen in [&seen, &restored] {
            assert!(!seen.contains(&entry(GROUP - 1).1) && seen.by_digest(&entry(GROUP - 1).0).is_none());
            assert!(seen.contains(&entry(GROUP).1) && seen.by_digest(&entry(GROUP).0) == Some(entry(GROUP).1));
            assert_eq!(seen.order.len(), MAX_SEEN + 1);
        }
        assert_eq!(restored.next, seen.next);
        assert!(Entry::parse_all(&[0; ENTRY + 1]).is_none());
    }

    #[test]
    fn a_message_that_was_sealed_twice_is_known_until_both_are_forgotten() {
        let mut seen = Seen::default();
        let id = entry(0).1;
        seen.insert(entry(1).0, id);
        (2..=GROUP).for_each(|n| seen.insert(entry(n).0, entry(n).1));
        // In the next row.
        seen.insert(entry(GROUP + 1).0, id);
        for n in GROUP + 2..=MAX_SEEN as u64 + GROUP {
            seen.insert(entry(n).0, entry(n).1);
        }
        assert!(seen.by_digest(&entry(1).0).is_none() && seen.contains(&id), "the second is remembered");
        (0..GROUP).for_each(|n| seen.insert(entry(90_000 + n).0, entry(90_000 + n).1));
        assert!(!seen.contains(&id));
    }
}
