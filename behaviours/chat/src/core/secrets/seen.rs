//! Which messages of a peer came: by id, because a message may be sealed twice, and by the digest of its ciphertext, which costs no key.

use std::collections::{HashMap, VecDeque};

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

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        [self.number.to_be_bytes().as_slice(), &self.digest, &self.id.0].concat()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<16>()?;
        let id = rest.try_into().ok()?;
        Some(Self { number: u64::from_be_bytes(*number), digest: *digest, id: MessageId(id) })
    }
}

/// The last [`MAX_SEEN`] messages of a peer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    order: VecDeque<Entry>,
    digests: HashMap<[u8; 16], MessageId>,
    ids: HashMap<MessageId, u32>,
    next: u64,
}

impl Seen {
    pub(super) fn by_digest(&self, digest: &[u8; 16]) -> Option<MessageId> {
        self.digests.get(digest).copied()
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.ids.contains_key(id)
    }

    /// Remembers a message: the entry to store, and the one to delete for it.
    pub(super) fn insert(&mut self, digest: [u8; 16], id: MessageId) -> (Entry, Option<Entry>) {
        let entry = Entry { number: self.next, digest, id };
        self.put(entry);
        let old = if self.order.len() > MAX_SEEN { self.order.pop_front() } else { None };
        if let Some(old) = &old {
            self.digests.remove(&old.digest);
            if let Some(count) = self.ids.get_mut(&old.id) {
                *count -= 1;
                if *count == 0 {
                    self.ids.remove(&old.id);
                }
            }
        }
        (entry, old)
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
    fn the_oldest_is_forgotten_and_what_was_stored_says_the_same() {
        let mut seen = Seen::default();
        let mut stored = std::collections::BTreeMap::new();
        for n in 0..MAX_SEEN as u64 + 10 {
            let (digest, id) = entry(n);
            let (new, old) = seen.insert(digest, id);
            stored.insert(new.digest, new.encode());
            if let Some(old) = old {
                stored.remove(&old.digest);
            }
        }
        let mut restored = Seen::default();
        restored.restore(stored.values().map(|bytes| Entry::parse(bytes).unwrap()).collect());
        for seen in [&seen, &restored] {
            assert!(!seen.contains(&entry(9).1) && seen.by_digest(&entry(9).0).is_none());
            assert!(seen.contains(&entry(10).1) && seen.by_digest(&entry(10).0) == Some(entry(10).1));
            assert_eq!(seen.order.len(), MAX_SEEN);
        }
        assert_eq!(restored.next, seen.next);
    }

    #[test]
    fn a_message_that_was_sealed_twice_is_known_until_both_are_forgotten() {
        let mut seen = Seen::default();
        let id = entry(0).1;
        seen.insert(entry(1).0, id);
        seen.insert(entry(2).0, id);
        for n in 3..MAX_SEEN as u64 + 2 {
            seen.insert(entry(n).0, entry(n).1);
        }
        assert!(seen.contains(&id), "the second is remembered");
        seen.insert(entry(99_999).0, entry(99_999).1);
        assert!(!seen.contains(&id));
    }
}
