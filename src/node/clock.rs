//! The node's clock, and what peers say of it. Cores get the time as a parameter; here it is read.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{NodeId, Now, UnixMillis, time::CLOCK_TOLERANCE};

/// Peers whose clocks are compared.
const MAX_PEERS: usize = 64;

/// Both clocks, now.
#[expect(clippy::disallowed_methods, reason = "the node reads the clock here and nowhere else")]
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

/// How far the peers' clocks are ahead of ours.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    offsets: BTreeMap<NodeId, i64>,
}

impl Clocks {
    /// A peer's clock was compared: it is ahead by so many milliseconds.
    pub(super) fn handle_offset(&mut self, peer: NodeId, offset_ms: i64) {
        if self.offsets.len() < MAX_PEERS || self.offsets.contains_key(&peer) {
            self.offsets.insert(peer, offset_ms);
        }
    }

    /// A peer left.
    pub(super) fn handle_disconnected(&mut self, peer: &NodeId) {
        self.offsets.remove(peer);
    }

    /// What the user should know: our own clock is off if most peers say so, else those peers' clocks are.
    pub(super) fn warnings(&self) -> Vec<String> {
        let tolerance = i64::try_from(CLOCK_TOLERANCE.as_millis()).unwrap_or(i64::MAX);
        let mut offsets: Vec<_> = self.offsets.values().copied().collect();
        offsets.sort_unstable();
        let median = offsets.get(offsets.len() / 2).copied().unwrap_or(0);
        let seconds = |ms: i64| Duration::from_millis(ms.unsigned_abs()).as_secs();
        let word = |ms: i64| if ms > 0 { "behind" } else { "ahead of" };
        let off = offsets.iter().filter(|offset| offset.abs() > tolerance).count();
        if median.abs() > tolerance && off * 2 > offsets.len() {
            let (seconds, word) = (seconds(median), word(median));
            return vec![format!(
                "this host's clock is {seconds} s {word} the clocks of {off} of {} peers",
                offsets.len()
            )];
        }
        let far = self.offsets.iter().filter(|(_, offset)| offset.abs() > tolerance);
        far.map(|(peer, offset)| format!("the clock of {peer} is {} s {} this one", seconds(*offset), word(-*offset)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(offsets: &[i64]) -> Clocks {
        let mut clocks = Clocks::default();
        for (n, offset) in (0u8..).zip(offsets) {
            clocks.handle_offset(NodeId([n; 32]), *offset);
        }
        clocks
    }

    #[test]
    fn clocks_that_agree_warn_of_nothing() {
        assert_eq!(clocks(&[]).warnings(), [""; 0]);
        assert_eq!(clocks(&[0, 59_000, -60_000]).warnings(), [""; 0]);
    }

    #[test]
    fn our_own_clock_is_blamed_when_most_peers_differ() {
        let warnings = clocks(&[90_000, 91_000, 0]).warnings();
        assert_eq!(warnings, ["this host's clock is 90 s behind the clocks of 2 of 3 peers"]);
        assert!(clocks(&[-90_000]).warnings().concat().contains("ahead of"));
    }

    #[test]
    fn a_single_peer_is_blamed_otherwise_and_forgotten_when_it_leaves() {
        let mut clocks = clocks(&[0, 0, 120_000]);
        let warning = clocks.warnings().concat();
        assert!(warning.ends_with("is 120 s ahead of this one"), "{warning}");
        clocks.handle_disconnected(&NodeId([2; 32]));
        assert_eq!(clocks.warnings(), [""; 0]);
    }
}
