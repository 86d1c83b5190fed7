//! A relay's mailbox: slots that keep packets for nodes that cannot be reached, and pushes them while their owners are connected.
//!
//! A slot is an Ed25519 key of its owner; a signed claim says which connected node it belongs to now. The mailbox learns that
//! its client has a slot and when packets arrive for it, never from whom or what. Everything is bounded: slots, packets and bytes
//! in a slot, bytes in total, and time. Packets for a slot that nobody claimed are dropped.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fog_base::{
    DropReason, NetworkId, NodeId, UnixMillis, codec,
    record::{Kind, RecordError, SignedRecord, Validity},
};
use serde::{Deserialize, Serialize};

use super::Write;

/// A slot's name: the key of its owner.
pub type Slot = [u8; 32];

/// Claims are signed records of this kind, by the slot's key.
pub const CLAIM: Kind = Kind { number: 3, version: 1, max_body: 256, max_lifetime: Duration::from_secs(7 * 86_400) };
/// The longest encoding of a stored packet.
const MAX_STORED: usize = 4096;
/// A push that failed is repeated after this while its owner stays connected.
const PUSH_RETRY: Duration = Duration::from_secs(2);
/// Packets in one push.
pub const PUSH_BATCH: usize = 16;

/// Which relay keeps a slot for which node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The relay.
    pub relay: NodeId,
    /// The node that gets the slot's packets.
    pub client: NodeId,
}

impl Claim {
    /// A claim signed with the slot's key.
    pub fn sign(
        self,
        network: &NetworkId,
        slot: &ed25519_dalek::SigningKey,
        now: UnixMillis,
    ) -> Result<SignedRecord, RecordError> {
        let validity = Validity { seq: now.0, not_before: now, lifetime: CLAIM.max_lifetime };
        SignedRecord::sign(&CLAIM, network, slot, validity, &self)
    }
}

/// Bounds of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct MailboxLimits {
    /// Slots in total.
    pub slots: usize,
    /// Slots of one node.
    pub slots_per_client: usize,
    /// Packets in one slot: two messages of 1 MiB.
    pub packets_per_slot: usize,
    /// Bytes in total.
    pub bytes: usize,
    /// How long a packet is kept.
    pub lifetime: Duration,
}

impl Default for MailboxLimits {
    fn default() -> Self {
        Self {
            slots: 4096,
            slots_per_client: 4,
            packets_per_slot: 2048,
            bytes: 64 << 20,
            lifetime: Duration::from_secs(7 * 86_400),
        }
    }
}

/// A packet that waits in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Its number in the slot, rising.
    pub id: u64,
    /// For a reply: the id of its SURB.
    pub surb: Option<[u8; 16]>,
    /// A sealed content, or the payload of a reply.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// When it is dropped, Unix seconds.
    pub expires: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    client: NodeId,
    expires: u64,
}

#[derive(Debug)]
struct SlotState {
    owner: Owner,
    connected: bool,
    /// A push is on its way: it began with this packet.
    pushing: Option<u64>,
    /// Packets up to this number were pushed since the owner claimed the slot.
    pushed: u64,
    /// After a push that failed, the next attempt.
    retry_at: Option<UnixMillis>,
    packets: BTreeMap<u64, Stored>,
    next: u64,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The record is not a valid claim.
    #[error("the claim is not valid: {0}")]
    Record(#[from] RecordError),
    /// The claim names another relay or another node than the one that sent it.
    #[error("the claim is for another relay or node")]
    NotYours,
    /// The mailbox has no room for another slot.
    #[error("the mailbox is full")]
    Full,
}

/// What the mailbox wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send packets to the owner of a slot.
    Push {
        /// The owner, who is connected.
        to: NodeId,
        /// The slot.
        slot: Slot,
        /// At most [`PUSH_BATCH`].
        packets: Vec<Stored>,
    },
    /// Write to the store, so that slots and packets survive a restart.
    Persist(Vec<Write>),
}

/// The slots of one relay.
#[derive(Debug)]
pub struct Mailbox {
    me: NodeId,
    network: NetworkId,
    limits: MailboxLimits,
    slots: BTreeMap<Slot, SlotState>,
    bytes: usize,
    outputs: VecDeque<Output>,
}

impl Mailbox {
    /// A mailbox with what an earlier run has stored. Entries that cannot be read are left out and counted by the caller's store.
    pub fn new(
        me: NodeId,
        network: NetworkId,
        limits: MailboxLimits,
        stored: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Self {
        let mut mailbox = Self { me, network, limits, slots: BTreeMap::new(), bytes: 0, outputs: VecDeque::new() };
        let mut packets = Vec::new();
        for (key, value) in stored {
            let Some((slot, rest)) = key.split_first_chunk::<32>() else { continue };
            if rest.is_empty() {
                if let Ok(owner) = codec::decode(&value, MAX_STORED) {
                    mailbox.slots.insert(*slot, SlotState::new(owner));
                }
            } else if let Ok(packet) = codec::decode::<Stored>(&value, MAX_STORED) {
                packets.push((*slot, packet));
            }
        }
        for (slot, packet) in packets {
            if let Some(state) = mailbox.slots.get_mut(&slot) {
                mailbox.bytes += packet.data.len();
                state.next = state.next.max(packet.id + 1);
                state.packets.insert(packet.id, packet);
            }
        }
        mailbox
    }

    /// A connected node claims a slot; afterwards it gets what the slot holds. Returns until when the claim holds.
    pub fn claim(&mut self, from: NodeId, record: &[u8], now: UnixMillis) -> Result<UnixMillis, ClaimError> {
        let verified = SignedRecord::parse(record)?.verify::<Claim>(&CLAIM, &self.network, now)?;
        if verified.body() != &(Claim { relay: self.me, client: from }) {
            return Err(ClaimError::NotYours);
        }
        let slot = verified.signer().0;
        let expires = verified.record().expires();
        if !self.slots.contains_key(&slot) {
            let of_client = self.slots.values().filter(|s| s.owner.client == from).count();
            if self.slots.len() >= self.limits.slots || of_client >= self.limits.slots_per_client {
                return Err(ClaimError::Full);
            }
        }
        let owner = Owner { client: from, expires: expires.as_secs() };
        self.persist(slot.to_vec(), codec::encode(&owner, MAX_STORED).ok());
        let state = self.slots.entry(slot).or_insert_with(|| SlotState::new(Owner { client: from, expires: 0 }));
        state.owner = owner;
        (state.connected, state.pushing, state.pushed, state.retry_at) = (true, None, 0, None);
        self.push(slot);
        Ok(expires)
    }

    /// Keeps a packet for `slot`.
    pub fn store(
        &mut self,
        slot: Slot,
        surb: Option<[u8; 16]>,
        data: Vec<u8>,
        now: UnixMillis,
    ) -> Result<(), DropReason> {
        let full = self.bytes + data.len() > self.limits.bytes;
        let state = self.slots.get_mut(&slot).ok_or(DropReason::NoRoute)?;
        if full || state.packets.len() >= self.limits.packets_per_slot {
            return Err(DropReason::QueueFull);
        }
        let packet = Stored { id: state.next, surb, data, expires: now.plus(self.limits.lifetime).as_secs() };
        let encoded = codec::encode(&packet, MAX_STORED).map_err(|_| DropReason::Malformed)?;
        state.next += 1;
        self.bytes += packet.data.len();
        let key = packet_key(&slot, packet.id);
        state.packets.insert(packet.id, packet);
        self.persist(key, Some(encoded));
        self.push(slot);
        Ok(())
    }

    /// The owner has got the push that began with packet `first`, or not: then it is pushed again in a moment.
    pub fn push_result(&mut self, to: NodeId, slot: Slot, first: u64, ok: bool, now: UnixMillis) {
        let Some(state) = self.slots.get_mut(&slot).filter(|s| s.owner.client == to) else { return };
        // The answer to a push before the present claim says nothing of this one.
        if state.pushing != Some(first) {
            return;
        }
        state.pushing = None;
        if ok {
            self.push(slot);
        } else {
            (state.pushed, state.retry_at) = (first, Some(now.plus(PUSH_RETRY)));
        }
    }

    /// The owner needs these packets no longer.
    pub fn done(&mut self, from: NodeId, slot: Slot, ids: &[u64]) {
        let Some(state) = self.slots.get_mut(&slot).filter(|s| s.owner.client == from) else { return };
        let mut writes = Vec::new();
        for id in ids {
            if let Some(packet) = state.packets.remove(id) {
                self.bytes = self.bytes.saturating_sub(packet.data.len());
                writes.push(Write { key: packet_key(&slot, *id), value: None });
            }
        }
        if !writes.is_empty() {
            self.outputs.push_back(Output::Persist(writes));
        }
        self.push(slot);
    }

    /// A node is no longer connected.
    pub fn disconnected(&mut self, client: NodeId) {
        for state in self.slots.values_mut().filter(|s| s.owner.client == client) {
            (state.connected, state.pushing) = (false, None);
        }
    }

    /// Drops what has expired: packets, and slots whose claim ended a packet's lifetime ago. Returns how many packets that were.
    pub fn handle_timeout(&mut self, now: UnixMillis) -> u64 {
        let secs = now.as_secs();
        let lifetime = self.limits.lifetime.as_secs();
        let (mut writes, mut dropped) = (Vec::new(), 0);
        self.slots.retain(|slot, state| {
            let gone = state.owner.expires.saturating_add(lifetime) <= secs;
            state.packets.retain(|id, packet| {
                let keep = packet.expires > secs && !gone;
                if !keep {
                    self.bytes = self.bytes.saturating_sub(packet.data.len());
                    writes.push(Write { key: packet_key(slot, *id), value: None });
                    dropped += 1;
                }
                keep
            });
            if gone {
                writes.push(Write { key: slot.to_vec(), value: None });
            }
            !gone
        });
        if !writes.is_empty() {
            self.outputs.push_back(Output::Persist(writes));
        }
        let due = |state: &SlotState| state.retry_at.is_some_and(|at| at <= now);
        let retries: Vec<_> = self.slots.iter().filter(|(_, state)| due(state)).map(|(slot, _)| *slot).collect();
        for slot in retries {
            if let Some(state) = self.slots.get_mut(&slot) {
                state.retry_at = None;
            }
            self.push(slot);
        }
        dropped
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Slots, and bytes in them.
    pub fn usage(&self) -> (usize, usize) {
        (self.slots.len(), self.bytes)
    }

    /// The bounds.
    pub fn limits(&self) -> &MailboxLimits {
        &self.limits
    }

    fn persist(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.outputs.push_back(Output::Persist(vec![Write { key, value }]));
    }

    fn push(&mut self, slot: Slot) {
        let Some(state) = self.slots.get_mut(&slot) else { return };
        if !state.connected || state.pushing.is_some() || state.retry_at.is_some() {
            return;
        }
        let packets: Vec<_> = state.packets.range(state.pushed..).take(PUSH_BATCH).map(|(_, p)| p.clone()).collect();
        if let (Some(first), Some(last)) = (packets.first(), packets.last()) {
            state.pushed = last.id + 1;
            state.pushing = Some(first.id);
            self.outputs.push_back(Output::Push { to: state.owner.client, slot, packets });
        }
    }
}

impl SlotState {
    fn new(owner: Owner) -> Self {
        Self { owner, connected: false, pushing: None, pushed: 0, retry_at: None, packets: BTreeMap::new(), next: 0 }
    }
}

fn packet_key(slot: &Slot, id: u64) -> Vec<u8> {
    [slot.as_slice(), &id.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    const NETWORK: NetworkId = NetworkId([1; 32]);
    const ME: NodeId = NodeId([2; 32]);
    const CLIENT: NodeId = NodeId([3; 32]);
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[4; 32])
    }

    fn slot() -> Slot {
        key().verifying_key().to_bytes()
    }

    fn claim(relay: NodeId, client: NodeId) -> Vec<u8> {
        Claim { relay, client }.sign(&NETWORK, &key(), NOW).unwrap().as_bytes().to_vec()
    }

    fn mailbox() -> Mailbox {
        let limits = MailboxLimits { packets_per_slot: 40, bytes: 50_000, ..MailboxLimits::default() };
        Mailbox::new(ME, NETWORK, limits, [])
    }

    fn pushes(mailbox: &mut Mailbox) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(output) = mailbox.poll_output() {
            if let Output::Push { packets, .. } = output {
                ids.extend(packets.iter().map(|p| p.id));
            }
        }
        ids
    }

    #[test]
    fn packets_wait_for_their_owner_and_are_pushed_in_order_until_done() {
        let mut mailbox = mailbox();
        assert_eq!(mailbox.store(slot(), None, vec![0; 10], NOW), Err(DropReason::NoRoute));
        mailbox.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        mailbox.disconnected(CLIENT);
        for _ in 0..20 {
            mailbox.store(slot(), None, vec![0; 10], NOW).unwrap();
        }
        assert_eq!(pushes(&mut mailbox), [0u64; 0]);
        mailbox.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        assert_eq!(pushes(&mut mailbox), (0..16).collect::<Vec<_>>());
        mailbox.push_result(CLIENT, slot(), 0, true, NOW);
        assert_eq!(pushes(&mut mailbox), (16..20).collect::<Vec<_>>());
        mailbox.push_result(CLIENT, slot(), 16, false, NOW);
        assert_eq!(pushes(&mut mailbox), [0u64; 0]);
        mailbox.handle_timeout(NOW.plus(PUSH_RETRY));
        assert_eq!(pushes(&mut mailbox), (16..20).collect::<Vec<_>>(), "what failed is pushed again");
        mailbox.push_result(CLIENT, slot(), 0, false, NOW);
        mailbox.push_result(CLIENT, slot(), 16, true, NOW);
        mailbox.done(CLIENT, slot(), &(0..19).collect::<Vec<_>>());
        mailbox.disconnected(CLIENT);
        mailbox.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        assert_eq!(pushes(&mut mailbox), [19], "what was not done comes again");
    }

    #[test]
    fn a_claim_for_another_relay_or_by_another_node_is_refused() {
        let mut mailbox = mailbox();
        assert_eq!(mailbox.claim(CLIENT, &claim(CLIENT, CLIENT), NOW), Err(ClaimError::NotYours));
        assert_eq!(mailbox.claim(ME, &claim(ME, CLIENT), NOW), Err(ClaimError::NotYours));
        assert!(matches!(mailbox.claim(CLIENT, &[0; 200], NOW), Err(ClaimError::Record(_))));
        let late = NOW.plus(CLAIM.max_lifetime);
        assert_eq!(mailbox.claim(CLIENT, &claim(ME, CLIENT), late), Err(ClaimError::Record(RecordError::Expired)));
    }

    #[test]
    fn only_the_owner_can_remove_packets() {
        let mut mailbox = mailbox();
        mailbox.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        mailbox.store(slot(), None, vec![0; 10], NOW).unwrap();
        mailbox.done(ME, slot(), &[0]);
        assert_eq!(mailbox.usage(), (1, 10));
        mailbox.done(CLIENT, slot(), &[0]);
        assert_eq!(mailbox.usage(), (1, 0));
    }

    #[test]
    fn the_bounds_hold() {
        let mut mailbox = mailbox();
        mailbox.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        assert_eq!(mailbox.store(slot(), None, vec![0; 50_001], NOW), Err(DropReason::QueueFull));
        for _ in 0..40 {
            mailbox.store(slot(), None, vec![0; 10], NOW).unwrap();
        }
        assert_eq!(mailbox.store(slot(), None, vec![0; 10], NOW), Err(DropReason::QueueFull));
    }

    #[test]
    fn packets_and_slots_survive_a_restart_and_expire() {
        let mut first = mailbox();
        first.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        first.store(slot(), Some([9; 16]), vec![1, 2, 3], NOW).unwrap();
        let mut disk = BTreeMap::new();
        while let Some(output) = first.poll_output() {
            if let Output::Persist(writes) = output {
                for write in writes {
                    match write.value {
                        Some(value) => disk.insert(write.key, value),
                        None => disk.remove(&write.key),
                    };
                }
            }
        }
        let mut second = Mailbox::new(ME, NETWORK, MailboxLimits::default(), disk);
        assert_eq!(second.usage(), (1, 3));
        second.claim(CLIENT, &claim(ME, CLIENT), NOW).unwrap();
        assert_eq!(pushes(&mut second), [0]);
        assert_eq!(second.handle_timeout(NOW.plus(Duration::from_secs(7 * 86_400))), 1);
        assert_eq!(second.usage(), (1, 0));
        second.handle_timeout(NOW.plus(Duration::from_secs(14 * 86_400)));
        assert_eq!(second.usage(), (0, 0));
    }
}
