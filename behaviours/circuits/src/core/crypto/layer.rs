//! The layers of a circuit: at the client one for each hop, at a relay one for each circuit.
//!
//! Each direction of a layer chains its cells: the tag of a cell is the tweak of the next, so whoever changes a bit destroys that
//! cell and all that follow. A cell is *recognised* by the hop it is for when its left part decrypts to the nonce of that
//! direction; then keys and nonce move on, and cannot be computed back. There is one outcome for whatever is not recognised.

use aes::{Aes256Dec, Aes256Enc};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::uiv::{Left, SEED_LEN, Seed, Tag, Uiv};
use crate::core::cell::{Body, Command, TAG_LEN};

/// The keys of both directions, away from the client first.
pub const KEYS_LEN: usize = 2 * SEED_LEN;

/// What the tag of a cell was; acknowledgements carry it.
pub type CellTag = Tag;

/// The command is a part of the tweak.
const RELAY: u8 = Command::Relay.byte();

struct State<L> {
    uiv: Uiv<L>,
    nonce: Zeroizing<Tag>,
    tag: Tag,
}

impl<L: Left> State<L> {
    fn new(seed: &[u8; SEED_LEN]) -> Self {
        let (uiv, nonce) = Uiv::new(seed);
        Self { uiv, nonce, tag: [0; TAG_LEN] }
    }

    fn update(&mut self, nonce: &Tag) {
        let seed: Seed = self.uiv.next_seed(nonce);
        (self.uiv, self.nonce) = Uiv::new(&seed);
    }
}

fn left(body: &Body) -> Tag {
    body.first_chunk().copied().unwrap_or_default()
}

fn write_left(body: &mut Body, tag: &Tag) {
    body.iter_mut().zip(tag).for_each(|(to, from)| *to = *from);
}

fn is_equal(a: &Tag, b: &Tag) -> bool {
    a.ct_eq(b).into()
}

fn halves(keys: &[u8; KEYS_LEN]) -> (&[u8; SEED_LEN], &[u8; SEED_LEN]) {
    let away = keys.first_chunk().unwrap_or(&[0; SEED_LEN]);
    (away, keys.last_chunk().unwrap_or(&[0; SEED_LEN]))
}

/// What a relay has of a circuit; and a service, of its virtual hop.
pub struct RelayLayer {
    away: State<Aes256Enc>,
    back: State<Aes256Enc>,
}

impl RelayLayer {
    /// From the keys of a handshake.
    pub fn new(keys: &[u8; KEYS_LEN]) -> Self {
        let (away, back) = halves(keys);
        Self { away: State::new(away), back: State::new(back) }
    }

    /// Takes this relay's layer off a cell that comes from the client's side. If the cell is for this relay, its payload is plain
    /// now, and the tag that it came with is returned.
    pub fn open(&mut self, body: &mut Body) -> Option<CellTag> {
        let came = left(body);
        let state = &mut self.away;
        state.uiv.encrypt((&state.tag, RELAY), body);
        state.tag = left(body);
        if !is_equal(&state.tag, &state.nonce) {
            return None;
        }
        let nonce = *state.nonce;
        state.update(&nonce);
        Some(came)
    }

    /// Puts this relay's layer on a cell that goes on towards the client.
    pub fn pass(&mut self, body: &mut Body) {
        let state = &mut self.back;
        state.uiv.encrypt((&state.tag, RELAY), body);
        state.tag = left(body);
    }

    /// Encrypts a cell of this relay for the client, and says its tag.
    pub fn seal(&mut self, body: &mut Body) -> CellTag {
        write_left(body, &self.back.nonce);
        self.pass(body);
        let tag = self.back.tag;
        self.back.update(&tag);
        tag
    }
}

/// What the client has of one hop.
pub struct ClientLayer {
    away: State<Aes256Dec>,
    back: State<Aes256Dec>,
}

impl ClientLayer {
    /// From the keys of a handshake.
    pub fn new(keys: &[u8; KEYS_LEN]) -> Self {
        let (away, back) = halves(keys);
        Self { away: State::new(away), back: State::new(back) }
    }

    /// Encrypts a cell for this hop, and says the tag that the hop will see.
    pub fn seal(&mut self, body: &mut Body) -> CellTag {
        write_left(body, &self.away.nonce);
        self.pass(body);
        let nonce = *self.away.nonce;
        self.away.update(&nonce);
        left(body)
    }

    /// Puts the layer of this hop on a cell for one beyond it.
    pub fn pass(&mut self, body: &mut Body) {
        let next = left(body);
        let state = &mut self.away;
        state.uiv.decrypt((&state.tag, RELAY), body);
        state.tag = next;
    }

    /// Takes the layer of this hop off. If the cell is from this hop, its payload is plain now, and its tag is returned.
    pub fn open(&mut self, body: &mut Body) -> Option<CellTag> {
        let came = left(body);
        let state = &mut self.back;
        state.uiv.decrypt((&state.tag, RELAY), body);
        state.tag = came;
        if !is_equal(&left(body), &state.nonce) {
            return None;
        }
        state.update(&came);
        Some(came)
    }
}

impl std::fmt::Debug for RelayLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayLayer(..)")
    }
}

impl std::fmt::Debug for ClientLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientLayer(..)")
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
