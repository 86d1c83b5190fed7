//! Loops that measure: each goes through the relays that the fewest have gone through in its epoch, so that light relays are
//! measured as often as heavy ones.

use std::collections::BTreeMap;

use fog_base::{Epoch, NodeId};

/// Whether loops measure, and how many have gone through each relay.
#[derive(Debug, Default)]
pub(super) struct Measure {
    per_second: Option<f64>,
    epoch: Option<Epoch>,
    loops: BTreeMap<NodeId, u32>,
}

impl Measure {
    /// True if the rate is another one now.
    pub(super) fn set_rate(&mut self, per_second: Option<f64>) -> bool {
        std::mem::replace(&mut self.per_second, per_second) != per_second
    }

    pub(super) fn is_on(&self) -> bool {
        self.per_second.is_some()
    }

    /// A loop of `epoch` leaves through `hops`.
    pub(super) fn sent(&mut self, epoch: Epoch, hops: &[NodeId]) {
        if self.epoch != Some(epoch) {
            (self.epoch, self.loops) = (Some(epoch), BTreeMap::new());
        }
        hops.iter().for_each(|hop| *self.loops.entry(*hop).or_default() += 1);
    }

    /// How many loops of `epoch` have gone through `relay`.
    pub(super) fn loops(&self, epoch: Epoch, relay: &NodeId) -> u32 {
        if self.epoch == Some(epoch) { self.loops.get(relay).copied().unwrap_or_default() } else { 0 }
    }
}
