//! Which beacons were heard before, so that a recorded one tells nothing new.
//!
//! A node numbers its beacons from 1 on after each start, under a random name of that start. What is remembered of a node: its
//! newest start with a window of the last 64 numbers (several interfaces may reorder), and the names of starts before, which are
//! over. A recording of a start that was never heard here is believed once, in its order: it names addresses that the node had,
//! and lives no longer than its day's key.

use std::{collections::BTreeMap, time::Instant};

use fog_base::NodeId;

/// Nodes that are remembered; of more, the one heard longest ago is forgotten.
const MAX_NODES: usize = 1_024;
/// Starts of one node that are over and remembered.
const MAX_STARTS: usize = 4;
const WINDOW: u32 = 64;

pub(super) type Boot = u32;

#[derive(Debug, Clone)]
struct Node {
    boot: Boot,
    highest: u32,
    /// Bit n: the number `highest - n` was heard.
    window: u64,
    over: Vec<Boot>,
    heard: Instant,
}

/// What was heard of whom.
#[derive(Debug, Default)]
pub(super) struct Replay {
    nodes: BTreeMap<NodeId, Node>,
}

impl Replay {
    /// Whether a beacon could be new.
    pub(super) fn is_fresh(&self, node: NodeId, boot: Boot, seq: u32) -> bool {
        let Some(known) = self.nodes.get(&node) else { return true };
        if known.boot != boot {
            return !known.over.contains(&boot);
        }
        match known.highest.checked_sub(seq) {
            None => true,
            Some(age) => age < WINDOW && known.window & (1_u64 << age) == 0,
        }
    }

    /// Remembers a verified beacon, and says whether its start is a new one.
    pub(super) fn note(&mut self, node: NodeId, boot: Boot, seq: u32, now: Instant) -> bool {
        let Some(known) = self.nodes.get_mut(&node) else {
            self.make_room();
            self.nodes.insert(node, Node { boot, highest: seq, window: 1, over: Vec::new(), heard: now });
            return true;
        };
        known.heard = now;
        if known.boot != boot {
            if known.over.len() >= MAX_STARTS {
                known.over.remove(0);
            }
            known.over.push(known.boot);
            (known.boot, known.highest, known.window) = (boot, seq, 1);
            return true;
        }
        match seq.checked_sub(known.highest) {
            Some(ahead) => {
                known.window = if ahead < WINDOW { known.window << ahead | 1 } else { 1 };
                known.highest = seq;
            }
            None => known.window |= 1_u64.checked_shl((known.highest - seq).min(WINDOW)).unwrap_or(0),
        }
        false
    }

    fn make_room(&mut self) {
        if self.nodes.len() < MAX_NODES {
            return;
        }
        let oldest = self.nodes.iter().min_by_key(|(_, node)| node.heard).map(|(id, _)| *id);
        oldest.map(|id| self.nodes.remove(&id));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    #[expect(clippy::disallowed_methods, reason = "tests start their clocks somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_start_that_is_over_stays_over() {
        let (mut replay, now) = (Replay::default(), now());
        assert!(replay.note(NODE, 1, 9, now));
        assert!(replay.is_fresh(NODE, 2, 1));
        assert!(replay.note(NODE, 2, 1, now));
        assert!(!replay.is_fresh(NODE, 1, 10));
        assert!(replay.is_fresh(NODE, 2, 2) && !replay.is_fresh(NODE, 2, 1));
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_goes() {
        let (mut replay, start) = (Replay::default(), now());
        for n in 0..=MAX_NODES as u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            replay.note(NodeId(id), 0, 1, start + Duration::from_millis(n.into()));
        }
        assert_eq!(replay.len(), MAX_NODES);
        assert!(replay.is_fresh(NodeId([0; 32]), 0, 1));
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_fresh_twice_and_all_that_is_new_and_near_is(seqs in proptest::collection::vec(1u32..300, 1..200)) {
            let (mut replay, now, mut heard) = (Replay::default(), now(), BTreeSet::new());
            for seq in seqs {
                let highest = heard.last().copied().unwrap_or(0u32);
                let expected = !heard.contains(&seq) && seq + WINDOW > highest;
                proptest::prop_assert_eq!(replay.is_fresh(NODE, 1, seq), expected);
                if expected {
                    replay.note(NODE, 1, seq, now);
                    heard.insert(seq);
                }
            }
        }
    }
}
