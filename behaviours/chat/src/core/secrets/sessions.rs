//! The Olm sessions with one peer: which one writes, which one reads, and where each chain stands.
//!
//! This file, `device.rs` and `group.rs` are the ones that use vodozemac. Its ratchets take the randomness of their keys from the operating
//! system themselves; no seed reaches them, so a run with Olm in it is not repeatable byte by byte.

use serde::{Deserialize, Serialize};
use vodozemac::olm::{DecryptionError, OlmMessage, PreKeyMessage, Session, SessionPickle};
use zeroize::Zeroizing;

use super::{reject::Reject, room::Mode};

/// Sessions that are kept with one peer.
pub(super) const MAX_SESSIONS: usize = 4;
/// Messages of one sending chain that may be on their way: the recipient keeps 40 skipped keys of a chain.
pub(super) const WINDOW: u64 = 32;
/// A message whose chain is this many behind is sealed anew: the recipient keeps five chains.
pub(super) const CHAINS: u32 = 4;
/// How far the generation of a peer's session may be ahead of all that we know.
const MAX_GENERATION_STEP: u32 = 1024;

const DIRECT: u8 = Mode::Direct as u8;

/// The bytes of an Olm message on the wire: the mode 3, type (0 with a pre-key, 1 without), and the message as Olm defines it.
pub(super) fn to_wire(message: &OlmMessage) -> Vec<u8> {
    let (kind, bytes) = message.to_parts();
    let mut wire = Vec::with_capacity(2 + bytes.len());
    wire.extend_from_slice(&[DIRECT, kind as u8]);
    wire.extend_from_slice(&bytes);
    wire
}

/// The Olm message in these bytes.
pub(super) fn from_wire(wire: &[u8]) -> Result<OlmMessage, Reject> {
    match wire {
        [DIRECT, kind @ 0..=1, bytes @ ..] => {
            OlmMessage::from_parts(usize::from(*kind), bytes).map_err(|_| Reject::Malformed)
        }
        _ => Err(Reject::Malformed),
    }
}

/// Where in the ratchet a message was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) session: String,
    pub(super) chain: u32,
    pub(super) index: u64,
}

/// One session and where its sending chain stands.
pub(super) struct Slot {
    session: Session,
    pub(super) id: String,
    pub(super) generation: u32,
    ours: bool,
    chain: u32,
    next_index: u64,
    /// The ratchet keys that the peer used, the last five: an unknown one turns our chain.
    remote: Vec<[u8; 32]>,
    /// How long its row was when it was last saved.
    saved_bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct SavedSlot {
    session: SessionPickle,
    generation: u32,
    ours: bool,
    chain: u32,
    next_index: u64,
    remote: Vec<[u8; 32]>,
}

impl Slot {
    pub(super) fn outbound(session: Session, generation: u32) -> Self {
        let id = session.session_id();
        Self { session, id, generation, ours: true, chain: 0, next_index: 0, remote: Vec::new(), saved_bytes: 0 }
    }

    pub(super) fn inbound(session: Session, generation: u32, first: &PreKeyMessage) -> Self {
        let id = session.session_id();
        let remote = vec![first.message().ratchet_key().to_bytes()];
        Self { session, id, generation, ours: false, chain: 0, next_index: 0, remote, saved_bytes: 0 }
    }

    /// What is stored. JSON, because vodozemac's states are internally tagged, which the packed CBOR of fog-base does not carry.
    pub(super) fn save(&mut self) -> Zeroizing<Vec<u8>> {
        let saved = SavedSlot {
            session: self.session.pickle(),
            generation: self.generation,
            ours: self.ours,
            chain: self.chain,
            next_index: self.next_index,
            remote: self.remote.clone(),
        };
        // With room for it all: a vector that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(self.saved_bytes + self.saved_bytes / 8));
        if serde_json::to_writer(&mut *text, &saved).is_err() {
            text.clear();
        }
        self.saved_bytes = text.len();
        text
    }

    pub(super) fn restore(bytes: &[u8]) -> Option<Self> {
        let saved: SavedSlot = serde_json::from_slice(bytes).ok()?;
        let session = Session::from_pickle(saved.session);
        let id = session.session_id();
        let SavedSlot { generation, ours, chain, next_index, remote, .. } = saved;
        Some(Self { session, id, generation, ours, chain, next_index, remote, saved_bytes: bytes.len() })
    }

    /// The identity key of the side that began the session.
    pub(super) fn peer_identity(&self) -> [u8; 32] {
        self.session.session_keys().identity_key.to_bytes()
    }

    /// Whether our device began it.
    #[cfg(test)]
    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    pub(super) fn needs_bundle(&self) -> bool {
        !self.session.has_received_message()
    }

    pub(super) fn encrypt(&mut self, frame: &[u8]) -> Result<(Vec<u8>, Place), Reject> {
        let message = self.session.encrypt(frame).map_err(|_| Reject::BadKey)?;
        let index = match &message {
            OlmMessage::Normal(message) => message.chain_index(),
            OlmMessage::PreKey(message) => message.message().chain_index(),
        };
        let place = Place { session: self.id.clone(), chain: self.chain, index };
        self.next_index = index.saturating_add(1);
        Ok((to_wire(&message), place))
    }

    fn decrypt(&mut self, message: &OlmMessage) -> Result<Zeroizing<Vec<u8>>, DecryptionError> {
        let text = self.session.decrypt(message).map(Zeroizing::new)?;
        let key = ratchet_key(message);
        if !self.remote.contains(&key) {
            if self.remote.len() >= 5 {
                self.remote.remove(0);
            }
            self.remote.push(key);
            self.chain = self.chain.saturating_add(1);
            self.next_index = 0;
        }
        Ok(text)
    }

    /// Whether one more message keeps `lowest`, the lowest index of this chain that is not acknowledged, within the window.
    pub(super) fn has_room(&self, lowest: Option<u64>) -> bool {
        lowest.is_none_or(|lowest| self.next_index.saturating_sub(lowest) < WINDOW)
    }

    /// Whether a message that was sealed at `place` should be sealed anew rather than sent again.
    pub(super) fn has_left(&self, place: &Place) -> bool {
        place.session != self.id || self.chain.saturating_sub(place.chain) >= CHAINS
    }

    pub(super) fn is_chain_of(&self, place: &Place) -> bool {
        place.session == self.id && place.chain == self.chain
    }
}

fn ratchet_key(message: &OlmMessage) -> [u8; 32] {
    match message {
        OlmMessage::Normal(message) => message.ratchet_key().to_bytes(),
        OlmMessage::PreKey(message) => message.message().ratchet_key().to_bytes(),
    }
}

/// All sessions with one peer.
pub(super) struct Sessions {
    slots: Vec<Slot>,
    /// The highest generation that each side started; outlives the sessions themselves.
    pub(super) started: Started,
    /// Whether our device has the lower id of the two.
    is_lower: bool,
}

/// The highest generation that we, and that the peer, started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) ours: Option<u32>,
    pub(super) theirs: Option<u32>,
}

impl Started {
    /// The generation of the next session that we start: zero, or above all others.
    pub(super) fn next(&self) -> u32 {
        self.ours.max(self.theirs).map_or(0, |highest| highest.saturating_add(1))
    }

    /// Whether the peer may start a session of this generation: each side starts one of each, so an old pre-key message that comes again
    /// starts nothing.
    pub(super) fn may_start(&self, generation: u32) -> bool {
        self.theirs.is_none_or(|theirs| generation > theirs)
            && generation <= self.next().saturating_add(MAX_GENERATION_STEP)
    }
}

impl Sessions {
    /// None yet, or none read back yet.
    pub(super) fn new(started: Started, is_lower: bool) -> Self {
        Self { slots: Vec::new(), started, is_lower }
    }

    /// The session that writes: of the highest generation, then the one that the device with the lower id began; each begins one of a
    /// generation. Both sides choose the same one as soon as both know the same sessions, so that simultaneous starts end in one.
    pub(super) fn preferred(&mut self) -> Option<&mut Slot> {
        let is_lower = self.is_lower;
        self.slots.iter_mut().max_by_key(|slot| (slot.generation, slot.ours == is_lower))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.slots.iter().any(|slot| slot.id == id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    pub(super) fn generation(&self) -> Option<u32> {
        self.slots.iter().map(|slot| slot.generation).max()
    }

    /// Adds a session; the id of the one that had to go for it.
    pub(super) fn add(&mut self, slot: Slot) -> Option<String> {
        let started = if slot.ours { &mut self.started.ours } else { &mut self.started.theirs };
        *started = (*started).max(Some(slot.generation));
        self.slots.push(slot);
        if self.slots.len() <= MAX_SESSIONS {
            return None;
        }
        let worst = self
            .slots
            .iter()
            .enumerate()
            .min_by_key(|(_, slot)| (slot.generation, slot.ours == self.is_lower))
            .map(|(at, _)| at)?;
        Some(self.slots.remove(worst).id)
    }

    /// The text of `message` and the id of the session that opened it. The session changes only on success.
    pub(super) fn decrypt(&mut self, message: &OlmMessage) -> Result<(Zeroizing<Vec<u8>>, String), Reject> {
        let key = ratchet_key(message);
        let wanted = match message {
            OlmMessage::PreKey(message) => Some(message.session_id()),
            OlmMessage::Normal(_) => None,
        };
        // A session that knows the chain comes first: the others would each cost a multiplication.
        self.slots.sort_by_key(|slot| !slot.remote.contains(&key));
        for slot in self.slots.iter_mut().filter(|slot| wanted.as_ref().is_none_or(|id| *id == slot.id)) {
            match slot.decrypt(message) {
                Ok(text) => return Ok((text, slot.id.clone())),
                Err(DecryptionError::MissingMessageKey(_)) => return Err(Reject::KeyGone),
                Err(_) => {}
            }
        }
        Err(Reject::Undecryptable)
    }
}

/// What a copy of a ciphertext is known by before any key is used: its last 16 bytes, which are half of its authenticator. Something else that
/// ends alike is refused as a copy; its own authenticator would not hold either.
pub(super) fn digest(wire: &[u8]) -> [u8; 16] {
    wire.last_chunk().copied().unwrap_or_default()
}
