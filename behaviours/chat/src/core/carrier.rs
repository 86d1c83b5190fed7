//! Envelopes carried for others: what is taken, what is handed on, and what gives way.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use fog_base::{NodeId, UnixMillis};

use super::{
    envelope::{Envelope, Priority},
    id::EnvelopeId,
    reject::Reject,
};

/// The most envelopes, and bytes.
pub const MAX_CARRIED: (usize, usize) = (4_096, 16 * 1024 * 1024);
/// The most envelopes and bytes from one peer.
pub const MAX_FROM_PEER: (usize, usize) = (256, 1024 * 1024);
/// After so many peers took an envelope it is given up.
pub const MAX_COPIES: usize = 8;

#[derive(Debug)]
struct Carried {
    envelope: Envelope,
    from: NodeId,
    handed: BTreeSet<NodeId>,
    number: u64,
}

/// What is carried.
#[derive(Debug, Default)]
pub struct Carrier {
    envelopes: BTreeMap<EnvelopeId, Carried>,
    /// What gives way first: low priority, then what expires soon, then what came last.
    worth: BTreeSet<(Priority, u32, Reverse<u64>, EnvelopeId)>,
    /// How many were ever taken.
    taken: u64,
    from: BTreeMap<NodeId, (usize, usize)>,
    bytes: usize,
}

impl Carrier {
    /// Takes an envelope that `from` brought.
    pub fn handle_envelope(&mut self, envelope: &Envelope, from: NodeId, now: UnixMillis) -> Result<(), Reject> {
        self.expire(now);
        if self.envelopes.contains_key(&envelope.id()) {
            return Err(Reject::Known);
        }
        let envelope = envelope.forwarded()?;
        let length = envelope.len_bytes();
        let (count, bytes) = self.from.get(&from).copied().unwrap_or_default();
        if count >= MAX_FROM_PEER.0 || bytes + length > MAX_FROM_PEER.1 {
            return Err(Reject::RateLimited);
        }
        while self.envelopes.len() >= MAX_CARRIED.0 || self.bytes + length > MAX_CARRIED.1 {
            let least = self.worth.first().copied().filter(|least| least.0 < envelope.priority());
            let Some((.., least)) = least else { return Err(Reject::Full) };
            self.remove(&least);
        }
        self.bytes += length;
        self.from.insert(from, (count + 1, bytes + length));
        let number = self.taken;
        self.taken += 1;
        self.worth.insert((envelope.priority(), envelope.expires(), Reverse(number), envelope.id()));
        self.envelopes.insert(envelope.id(), Carried { envelope, from, handed: BTreeSet::from([from]), number });
        Ok(())
    }

    /// What `peer` may get, important first, then what expires last, then what came first, and together at most `max_bytes`; the hops are counted already. It counts as
    /// handed on only by [`Carrier::handle_handed`].
    pub fn offer(&mut self, peer: NodeId, max_bytes: usize, now: UnixMillis) -> Vec<Envelope> {
        self.expire(now);
        let (mut offered, mut bytes) = (Vec::new(), 0);
        for (.., id) in self.worth.iter().rev() {
            let Some(carried) = self.envelopes.get(id).filter(|carried| !carried.handed.contains(&peer)) else {
                continue;
            };
            if bytes + carried.envelope.len_bytes() > max_bytes {
                break;
            }
            bytes += carried.envelope.len_bytes();
            offered.push(carried.envelope.clone());
        }
        offered
    }

    /// `peer` has an envelope.
    pub fn handle_handed(&mut self, id: &EnvelopeId, peer: NodeId) {
        let Some(carried) = self.envelopes.get_mut(id) else { return };
        carried.handed.insert(peer);
        // The peer that brought it is among them.
        if carried.handed.len() > MAX_COPIES {
            self.remove(id);
        }
    }

    /// Its recipient has it.
    pub fn handle_delivered(&mut self, id: &EnvelopeId) {
        self.remove(id);
    }

    /// How many envelopes and bytes.
    pub fn load(&self) -> (usize, usize) {
        (self.envelopes.len(), self.bytes)
    }

    fn expire(&mut self, now: UnixMillis) {
        let over: Vec<_> = self
            .worth
            .iter()
            .filter(|(_, expires, ..)| u64::from(*expires) < now.as_secs())
            .map(|(.., id)| *id)
            .collect();
        for id in over {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &EnvelopeId) {
        let Some(Carried { envelope, from, number, .. }) = self.envelopes.remove(id) else { return };
        self.worth.remove(&(envelope.priority(), envelope.expires(), Reverse(number), *id));
        self.bytes -= envelope.len_bytes();
        if let Some((count, bytes)) = self.from.get_mut(&from) {
            *count -= 1;
            *bytes -= envelope.len_bytes();
            if *count == 0 {
                self.from.remove(&from);
            }
        }
    }
}

#[cfg(test)]
#[path = "carrier_tests.rs"]
mod tests;
