//! What a device knows of one peer: its keys, its sessions, and the messages on their way to it.

use std::time::{Duration, Instant};

use fog_base::MessageId;
use serde::{Deserialize, Serialize};

use super::{
    bundle::{Bundle, DeviceId, PreKeyKind},
    frame::{Kind, MAX_ACKS},
    reject::Reject,
    seen::Seen,
    sessions::{Place, Sessions, Started, WINDOW},
    vault::{Row, RowKind, Vault},
};

/// Messages to one peer that may wait for an acknowledgement.
pub const MAX_PENDING: usize = WINDOW as usize;
/// How far a frame may be ahead of the oldest one that waits, whatever chains they are of: with 55 messages in each the peer has room for all (4,096)
/// while they wait for the first. A restart may forget as much; then it asks for what it lacks.
pub(super) const MAX_AHEAD: u64 = 64;
/// After so many sendings of the same bytes a message is sealed anew: its key may be gone at the other side. Each takes a step of the chain: with
/// fewer, a slow way closes the window before a mailbox has the first ones.
const SAME_BYTES: u32 = 8;
/// The first and the longest time between two healings of a broken conversation.
pub(super) const HEAL_BACKOFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// A message on its way, until it is acknowledged. Its text is stored; what it was sealed as is not: after a restart it is sealed anew.
pub(super) struct Pending {
    /// Its place in the order of sending.
    pub(super) number: u64,
    pub(super) id: MessageId,
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    pub(super) sealed: Option<Sealed>,
    pub(super) sendings: u32,
}

/// What a message was sealed as.
pub(super) struct Sealed {
    pub(super) wire: Vec<u8>,
    pub(super) place: Place,
    /// The `seq` of our bundle that it carries.
    pub(super) tells: Option<u64>,
}

impl Pending {
    /// Stores `number (8) ‖ id (16) ‖ kind (1) ‖ body`.
    pub(super) fn save(&self, vault: &mut Vault, rows: &mut Vec<Row>, conversation: &[u8]) {
        let number = self.number.to_be_bytes();
        let parts = [number.as_slice(), &self.id.0, &[self.kind as u8], &self.body];
        vault.put_parts(rows, RowKind::Outbox, conversation, &self.id.0, &parts);
    }

    pub(super) fn restore(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (kind, body) = rest.split_first()?;
        let number = u64::from_be_bytes(*number);
        let (id, kind, body) = (MessageId(*id), Kind::of(*kind)?, body.to_vec());
        Some(Self { number, id, kind, body, sealed: None, sendings: 0 })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.body);
    }
}

/// What of a peer is stored besides its sessions and messages.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) device: DeviceId,
    identity: [u8; 32],
    fallback: Option<Bundle>,
    one_time: Option<Bundle>,
    started: Started,
    /// The `seq` of our bundle that the peer acknowledged.
    pub(super) told: Option<u64>,
}

/// A peer.
pub(super) struct Peer {
    known: Known,
    saved: Option<Known>,
    pub(super) sessions: Sessions,
    pub(super) pending: Vec<Pending>,
    pub(super) next_number: u64,
    pub(super) seen: Seen,
    pub(super) acks: Vec<MessageId>,
    pub(super) ack_at: Option<Instant>,
    /// No message of the peer opened since one did not.
    pub(super) broken: bool,
    heal_at: Option<Instant>,
    backoff: Duration,
}

impl Peer {
    /// A peer of `own` whose bundle was verified.
    pub(super) fn new(bundle: Bundle, own: DeviceId) -> Self {
        let (fallback, one_time) = match bundle.kind {
            PreKeyKind::Fallback => (Some(bundle), None),
            PreKeyKind::OneTime => (None, Some(bundle)),
        };
        let (device, identity, started) = (bundle.device, bundle.identity, Started::default());
        Self::with(Known { device, identity, fallback, one_time, started, told: None }, None, own)
    }

    pub(super) fn restore(known: Known, own: DeviceId) -> Self {
        let saved = Some(known.clone());
        Self::with(known, saved, own)
    }

    fn with(known: Known, saved: Option<Known>, own: DeviceId) -> Self {
        Self {
            sessions: Sessions::new(known.started, own < known.device),
            known,
            saved,
            pending: Vec::new(),
            next_number: 0,
            seen: Seen::default(),
            acks: Vec::new(),
            ack_at: None,
            broken: false,
            heal_at: None,
            backoff: HEAL_BACKOFF.0,
        }
    }

    pub(super) fn device(&self) -> DeviceId {
        self.known.device
    }

    pub(super) fn identity(&self) -> [u8; 32] {
        self.known.identity
    }

    pub(super) fn told(&self) -> Option<u64> {
        self.known.told
    }

    /// The peer acknowledged a message that carried our bundle `seq`.
    pub(super) fn was_told(&mut self, seq: Option<u64>) {
        self.known.told = self.known.told.max(seq);
    }

    /// What must be stored, if it changed since it was last asked for.
    pub(super) fn unsaved(&mut self) -> Option<Vec<u8>> {
        self.known.started = self.sessions.started;
        if self.saved.as_ref() == Some(&self.known) {
            return None;
        }
        self.saved = Some(self.known.clone());
        serde_json::to_vec(&self.known).ok()
    }

    /// Takes a newer bundle of the same device. Its identity key never changes.
    pub(super) fn renew(&mut self, bundle: Bundle) -> Result<(), Reject> {
        if bundle.device != self.known.device || bundle.identity != self.known.identity {
            return Err(Reject::WrongBinding);
        }
        let held = match bundle.kind {
            PreKeyKind::Fallback => &mut self.known.fallback,
            PreKeyKind::OneTime => &mut self.known.one_time,
        };
        if held.is_none_or(|held| bundle.seq > held.seq) {
            *held = Some(bundle);
        }
        Ok(())
    }

    /// The key to start a session from: a one-time key, once, or else the fallback key.
    pub(super) fn take_pre_key(&mut self) -> Option<Bundle> {
        self.known.one_time.take().or(self.known.fallback)
    }

    #[cfg(test)]
    pub(super) fn one_time(&self) -> Option<Bundle> {
        self.known.one_time
    }

    /// How much of the window is used, by the count of what is pending and by the indices since the oldest of it.
    pub(super) fn used_window(&self) -> usize {
        let oldest = self.pending.iter().map(|pending| pending.number).min();
        let numbers = oldest.map_or(0, |oldest| self.next_number.saturating_sub(oldest));
        self.pending.len().max(usize::try_from(numbers).unwrap_or(usize::MAX))
    }

    /// Whether one more message may be sent, as far as the ratchet goes.
    pub(super) fn check_room(&mut self) -> Result<(), Reject> {
        let Self { sessions, pending, next_number, .. } = self;
        let oldest = pending.iter().map(|pending| pending.number).min();
        if oldest.is_some_and(|oldest| next_number.saturating_sub(oldest) >= MAX_AHEAD) {
            return Err(Reject::Full);
        }
        let room = sessions.preferred().is_none_or(|slot| {
            let places = pending.iter().filter_map(|pending| Some(&pending.sealed.as_ref()?.place));
            slot.has_room(places.filter(|place| slot.is_chain_of(place)).map(|place| place.index).min())
        });
        if room && pending.len() < MAX_PENDING { Ok(()) } else { Err(Reject::Full) }
    }

    /// Whether the message at `at` must be sealed anew before it is sent again.
    pub(super) fn is_stale(&mut self, at: usize) -> bool {
        let Some(pending) = self.pending.get(at) else { return false };
        let worn = pending.sendings > 0 && pending.sendings % SAME_BYTES == 0;
        let Some(place) = pending.sealed.as_ref().map(|sealed| sealed.place.clone()) else { return true };
        worn || self.sessions.preferred().is_some_and(|slot| slot.has_left(&place))
    }

    /// Queues an acknowledgement, to be sent with the next frame or at `by`.
    pub(super) fn acknowledge(&mut self, id: MessageId, by: Instant) {
        if !self.acks.contains(&id) && self.acks.len() < MAX_ACKS {
            self.acks.push(id);
        }
        self.ack_at = Some(self.ack_at.map_or(by, |at| at.min(by)));
    }

    /// Whether there is no key to start a session from.
    pub(super) fn needs_invite(&self) -> bool {
        self.known.fallback.is_none() && self.known.one_time.is_none()
    }

    /// Whether a healing may begin now; if so, the next one must wait longer.
    pub(super) fn may_heal(&mut self, now: Instant) -> bool {
        let may = !self.needs_invite() && self.heal_at.is_none_or(|at| now >= at);
        if may {
            self.heal_at = Some(now + self.backoff);
            self.backoff = (self.backoff * 2).min(HEAL_BACKOFF.1);
        }
        may
    }

    /// A message opened: whether that ends a break.
    pub(super) fn opened(&mut self) -> bool {
        let healed = self.broken;
        self.broken = false;
        self.backoff = HEAL_BACKOFF.0;
        healed
    }
}
