//! Fragments back into messages, within bounds: nobody can make a node keep more than [`Limits`] says.
//!
//! Fragments come from anybody, so a message takes memory only as its fragments arrive, whatever length it claims, and when the
//! bounds are reached the message that has waited longest for progress gives way.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use fog_base::MessageId;

use crate::wire::{Bitmap, Form, Fragment};

/// How much may be unfinished at one time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes of their fragments.
    pub bytes: usize,
    /// Without progress for this long, a message is given up.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: 256, bytes: 16 << 20, idle: Duration::from_secs(600) }
    }
}

#[derive(Debug)]
struct Partial {
    form: Form,
    created: u64,
    length: u32,
    count: u16,
    /// Another one tells the sender that what was acknowledged before is gone.
    incarnation: [u8; 8],
    parts: BTreeMap<u16, Box<[u8]>>,
    bytes: usize,
    progress: Instant,
}

/// What a fragment did.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// More fragments are needed.
    Incomplete,
    /// The message is whole; it is no longer kept here.
    Complete {
        /// The message with its envelope.
        bytes: Vec<u8>,
        /// The number under which it was collected.
        incarnation: [u8; 8],
    },
    /// The fragment contradicts earlier ones of the same message.
    Contradiction,
}

/// Unfinished messages.
#[derive(Debug)]
pub struct Reassembly {
    limits: Limits,
    partial: BTreeMap<MessageId, Partial>,
    bytes: usize,
    /// Messages given up, each with all its fragments.
    evicted: Vec<MessageId>,
}

impl Reassembly {
    /// Nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, partial: BTreeMap::new(), bytes: 0, evicted: Vec::new() }
    }

    /// Takes a fragment that came in a body of `form`; if it is the first of its message, `incarnation` is a fresh random number.
    pub fn insert(&mut self, fragment: &Fragment<'_>, form: Form, incarnation: [u8; 8], now: Instant) -> Outcome {
        let id = fragment.message;
        let fresh = || Partial {
            form,
            created: fragment.created,
            length: fragment.length,
            count: fragment.count,
            incarnation,
            parts: BTreeMap::new(),
            bytes: 0,
            progress: now,
        };
        let partial = self.partial.entry(id).or_insert_with(fresh);
        if (partial.form, partial.length, partial.count, partial.created)
            != (form, fragment.length, fragment.count, fragment.created)
        {
            return Outcome::Contradiction;
        }
        if let Entry::Vacant(part) = partial.parts.entry(fragment.index) {
            part.insert(fragment.data.into());
            partial.bytes += fragment.data.len();
            partial.progress = now;
            self.bytes += fragment.data.len();
        }
        if partial.parts.len() == usize::from(partial.count) {
            let bytes = partial.parts.values().flat_map(|part| part.iter().copied()).collect();
            let incarnation = partial.incarnation;
            self.remove(&id);
            return Outcome::Complete { bytes, incarnation };
        }
        self.make_room();
        Outcome::Incomplete
    }

    /// Which fragments of an unfinished message are here, and under which number.
    pub fn fragments(&self, id: &MessageId) -> Option<([u8; 8], Bitmap)> {
        let partial = self.partial.get(id)?;
        let mut bitmap = Bitmap::none(partial.count);
        partial.parts.keys().for_each(|index| bitmap.set(*index));
        Some((partial.incarnation, bitmap))
    }

    /// Gives up what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |p: &Partial| now.saturating_duration_since(p.progress) >= self.limits.idle;
        let ids: Vec<_> = self.partial.iter().filter(|(_, p)| late(p)).map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.remove(id));
        self.evicted.extend(ids);
    }

    /// When something would be given up.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.partial.values().map(|p| p.progress + self.limits.idle).min()
    }

    /// Takes the messages that were given up since the last call.
    pub fn take_evicted(&mut self) -> Vec<MessageId> {
        std::mem::take(&mut self.evicted)
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn make_room(&mut self) {
        while self.partial.len() > self.limits.messages || self.bytes > self.limits.bytes {
            let Some(id) = self.partial.iter().min_by_key(|(_, p)| p.progress).map(|(id, _)| *id) else { return };
            self.remove(&id);
            self.evicted.push(id);
        }
    }

    fn remove(&mut self, id: &MessageId) {
        if let Some(partial) = self.partial.remove(id) {
            self.bytes = self.bytes.saturating_sub(partial.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use fog_sphinx::SURB_LEN;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{fragment_count, fragment_range};

    fn fragment(message: &[u8], id: u8, index: u16) -> Fragment<'_> {
        let count = fragment_count(message.len(), Form::Slot);
        let range = fragment_range(message.len(), index, count, Form::Slot).unwrap();
        Fragment {
            message: MessageId([id; 16]),
            created: 1,
            length: message.len() as u32,
            index,
            count,
            surb: &[0; SURB_LEN],
            data: &message[range],
        }
    }

    proptest! {
        #[test]
        fn a_message_is_whole_again_whatever_the_order_and_the_duplicates(
            message in proptest::collection::vec(any::<u8>(), 1..20_000), order: Vec<prop::sample::Index>, seed: u64,
        ) {
            let count = fragment_count(message.len(), Form::Slot);
            let mut indices: Vec<u16> = order.iter().map(|i| i.index(usize::from(count)) as u16).collect();
            let mut rest: Vec<u16> = (0..count).collect();
            rest.sort_by_key(|i| (u64::from(*i) + 1).wrapping_mul(seed | 1));
            indices.extend(rest);
            let now = Instant::now();
            let mut reassembly = Reassembly::new(Limits::default());
            let mut completed = None;
            for index in indices {
                if let Outcome::Complete { bytes, .. } =
                    reassembly.insert(&fragment(&message, 1, index), Form::Slot, [1; 8], now) {
                    completed = Some(bytes);
                    break;
                }
            }
            prop_assert_eq!(completed.as_deref(), Some(message.as_slice()));
            prop_assert_eq!(reassembly.bytes(), 0);
        }

        #[test]
        fn the_bounds_hold_whatever_comes(fragments in proptest::collection::vec((0u8..50, 0u16..3), 1..300)) {
            let limits = Limits { messages: 5, bytes: 8_000, idle: Duration::from_secs(1) };
            let mut reassembly = Reassembly::new(limits);
            let message = vec![1; 3000];
            let start = Instant::now();
            for (n, (id, index)) in fragments.into_iter().enumerate() {
                let at = start + Duration::from_millis(n as u64);
                let _outcome = reassembly.insert(&fragment(&message, id, index), Form::Slot, [1; 8], at);
                prop_assert!(reassembly.bytes() <= 8_000 && reassembly.partial.len() <= 5);
                prop_assert_eq!(reassembly.bytes(), reassembly.partial.values().map(|p| p.bytes).sum::<usize>());
            }
            reassembly.handle_timeout(start + Duration::from_secs(10));
            prop_assert_eq!(reassembly.bytes(), 0);
            prop_assert_eq!(reassembly.poll_timeout(), None);
        }
    }

    #[test]
    fn a_fragment_that_contradicts_the_first_changes_nothing() {
        let message = vec![1; 3000];
        let now = Instant::now();
        let mut reassembly = Reassembly::new(Limits::default());
        assert_eq!(reassembly.insert(&fragment(&message, 1, 0), Form::Slot, [1; 8], now), Outcome::Incomplete);
        let other = Fragment { created: 2, ..fragment(&message, 1, 1) };
        assert_eq!(reassembly.insert(&other, Form::Slot, [1; 8], now), Outcome::Contradiction);
        assert!(!reassembly.fragments(&MessageId([1; 16])).unwrap().1.has(1));
    }
}
