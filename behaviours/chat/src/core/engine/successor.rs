//! The device at a node is another one than before: after a restore, or after `panic`. A node has one.

use std::time::Duration;

use fog_base::Now;

use super::{Chat, Event, Person};
use crate::core::{delivery::Policy, id::DeviceId};

/// A person hears of another device at a node no more often.
const QUIET: Duration = Duration::from_secs(3_600);

impl Chat {
    /// The policy for a peer, and whether it is blocked: what was chosen for it or for another device of its node. Who only says that it is at a node
    /// is hidden from it as that is, and not blocked with it.
    pub(super) fn terms(&self, peer: DeviceId) -> (Policy, bool) {
        let Some(person) = self.people.get(&peer) else { return (Policy::Auto, false) };
        let is_mixed = person.is_mixed || self.is_hidden_from(person.card.node);
        (if is_mixed { Policy::Mix } else { Policy::Auto }, self.is_shut_out(person))
    }

    /// Whether nothing is heard of a person.
    pub(super) fn is_shut_out(&self, person: &Person) -> bool {
        let is_other_self = |other: &Person| other.is_proved && other.card.node == person.card.node;
        let is_blocked_too = |device| self.people.get(device).is_some_and(is_other_self);
        person.is_blocked || person.is_proved && self.secrets.blocked().iter().any(is_blocked_too)
    }

    /// A node stands for a device that is new here: who knows the one before is told.
    pub(super) fn note_successor(&mut self, device: DeviceId, now: Now) {
        let Some(person) = self.people.get(&device).filter(|person| !self.is_shut_out(person)) else { return };
        let node = person.card.node;
        let is_before =
            |it: &&Person| it.is_proved && it.is_contact && it.card.node == node && it.card.device != device;
        let Some(of) = self.people.values().find(is_before).map(|before| before.card.device) else { return };
        if self.successors.get(&node).is_none_or(|told| now.mono >= *told + QUIET) {
            self.successors.insert(node, now.mono);
            self.tell(Event::NewDevice { device, of });
        }
    }
}
