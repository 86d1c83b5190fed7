//! Who is seated in an epoch, and in which mix layer: a lottery that nobody can aim at and anybody can check.
//!
//! A relay's ticket is its VRF over the epoch's beacon (`beacon.rs`) and its id: both were bound to each other before
//! the beacon was known, so its lot is chance, and there is exactly one. The lot decides whether the relay is seated,
//! with a chance proportional to its weight (`weight.rs`), and its rank among the lots is its layer. All arithmetic is
//! in integers: every node computes the same seats.
//!
//! The VRF is schnorrkel's, in its non-malleable form, as in `delay_vrf.rs`; the sortition is that of Algorand (Gilad
//! et al., SOSP 2017) with one lot for each relay.

use fog_base::{Epoch, NetworkId, NodeId};
use schnorrkel::{
    Keypair, PublicKey,
    context::{attach_rng, signing_context},
    vrf::{VRFInOut, VRFPreOut, VRFProof, VRFSigningTranscript},
};

/// How many seats there are on average in a network that has more relays than that. A multiple of the layers.
pub const SEATS: u64 = 240;
/// Mix layers.
pub const LAYERS: u8 = 3;
/// With fewer mixes there are no layers, and each may stand anywhere on a path: one layer could consist of the sender, the recipient
/// and a relay that has just failed.
pub const LAYERED: usize = 12;

const INPUT_LABEL: &[u8] = b"fog ticket v1";
const PROOF_LABEL: &[u8] = b"fog ticket proof v1";
const LOT_LABEL: &[u8] = b"fog ticket lot v1";
const NONCE_LABEL: &[u8] = b"fog ticket proof nonce v1";

/// What a relay publishes to take part: its VRF output for the epoch and the beacon, and the proof that it is the
/// output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The VRF output: a compressed point. The next beacon takes it in.
    pub output: [u8; 32],
    /// The proof that it is the key's output.
    pub proof: [u8; 64],
}

impl Ticket {
    /// The length of its bytes.
    pub const LEN: usize = 96;

    /// As bytes: output, proof.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.output[..], &self.proof].concat()
    }

    /// From bytes; nothing but the length is checked.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (output, proof) = bytes.split_first_chunk()?;
        Some(Self { output: *output, proof: proof.try_into().ok()? })
    }
}

/// The ticket does not belong to the relay, its key, the epoch and the beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lottery ticket does not verify")]
pub struct BadTicket;

/// What a ticket is worth: 32 uniform bytes. Lots are ranked as big-endian numbers, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lot(pub [u8; 32]);

impl Lot {
    /// The first 64 bits: what is compared with a relay's chance.
    fn leading(&self) -> u64 {
        self.0.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// The lottery of an epoch: what tickets are made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lottery<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The epoch that the seats are for.
    pub epoch: Epoch,
    /// Its beacon.
    pub beacon: &'a [u8; 32],
}

impl Lottery<'_> {
    /// The VRF's input. It names the relay: relays that share a key would otherwise win and lose together, and an
    /// adversary is better off with all seats in a few epochs than with its share in each.
    fn input(&self, relay: &NodeId) -> impl VRFSigningTranscript {
        let epoch = self.epoch.0.to_be_bytes();
        let parts = [self.network.0.as_slice(), &epoch, self.beacon, &relay.0];
        let mut bytes = [0; 100];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        signing_context(INPUT_LABEL).bytes(&bytes)
    }
}

fn lot(in_out: &VRFInOut) -> Lot {
    Lot(in_out.make_bytes(LOT_LABEL))
}

/// Our ticket, as `relay`. `seed` is fresh randomness: it hedges the nonce, which also depends on the secret key and on
/// the input.
pub fn prove(key: &Keypair, relay: &NodeId, lottery: &Lottery<'_>, seed: &[u8; 32]) -> Ticket {
    let nonce_context = [NONCE_LABEL, seed].concat();
    let nonce = key.vrf_create_hash(lottery.input(relay)).make_merlin_rng(&nonce_context);
    let extra = attach_rng(signing_context(PROOF_LABEL).bytes(&lottery.network.0), nonce);
    let (output, proof, _) = key.vrf_sign_extra(lottery.input(relay), extra);
    Ticket { output: *output.as_output_bytes(), proof: proof.to_bytes() }
}

/// Verifies the ticket of `relay`, whose VRF key is `key`, and yields its lot.
pub fn verify(key: &[u8; 32], relay: &NodeId, lottery: &Lottery<'_>, ticket: &Ticket) -> Result<Lot, BadTicket> {
    let key = PublicKey::from_bytes(key).map_err(|_| BadTicket)?;
    let output = VRFPreOut::from_bytes(&ticket.output).map_err(|_| BadTicket)?;
    let proof = VRFProof::from_bytes(&ticket.proof).map_err(|_| BadTicket)?;
    let extra = signing_context(PROOF_LABEL).bytes(&lottery.network.0);
    let (in_out, _) = key.vrf_verify_extra(lottery.input(relay), &output, &proof, extra).map_err(|_| BadTicket)?;
    Ok(lot(&in_out))
}

/// Our own lot: what others compute from our ticket.
pub fn own_lot(key: &Keypair, relay: &NodeId, lottery: &Lottery<'_>) -> Lot {
    lot(&key.vrf_create_hash(lottery.input(relay)))
}

/// A relay that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant {
    /// Who.
    pub relay: NodeId,
    /// Its lot.
    pub lot: Lot,
    /// Its weight; 0 for a relay whose key is not eligible (`beacon.rs`), which is never seated.
    pub weight: u64,
    /// Whether it mixes packets: only mixes have a layer.
    pub is_mix: bool,
}

/// A relay that was seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seated {
    /// Who.
    pub relay: NodeId,
    /// Its share of the traffic and of the votes, relative to the other seats.
    pub weight: u64,
    /// Its mix layer; `None` if it does not mix.
    pub layer: Option<u8>,
}

/// Seats the entrants, of whom there is one for each relay, in any order. The result is in the order of rank: lots from
/// low to high.
///
/// Up to `seats` relays with a weight are all seated. Where there are more, a relay is seated if its lot, as a
/// fraction, is below min(1, seats · weight / total), and its seat weighs max(weight, ⌈total / seats⌉): its weight
/// divided by its chance. So the share of a relay in traffic and votes is on average proportional to its weight, not to
/// the square of it.
pub fn seat(entrants: &[Entrant], seats: u64) -> Vec<Seated> {
    let mut drawn: Vec<_> = entrants.iter().filter(|entrant| entrant.weight > 0).copied().collect();
    let total: u128 = drawn.iter().map(|entrant| u128::from(entrant.weight)).sum();
    let everyone = drawn.len() as u64 <= seats;
    drawn.retain(|entrant| everyone || is_seated(entrant, seats, total));
    drawn.sort_by_key(|entrant| (entrant.lot, entrant.relay));
    let least = if everyone { 0 } else { u64::try_from(total.div_ceil(u128::from(seats.max(1)))).unwrap_or(u64::MAX) };
    let layers = deal(drawn.iter().map(|entrant| entrant.is_mix));
    let seated = |(entrant, layer): (Entrant, Option<u8>)| Seated {
        relay: entrant.relay,
        weight: entrant.weight.max(least),
        layer,
    };
    drawn.into_iter().zip(layers).map(seated).collect()
}

/// The layers of seats in the order of rank, of which it is said whether each mixes. Fewer than [`LAYERED`] mixes have none.
pub fn deal(mixes: impl Iterator<Item = bool> + Clone) -> Vec<Option<u8>> {
    let is_layered = mixes.clone().filter(|is_mix| *is_mix).count() >= LAYERED;
    let mut layers = (0..LAYERS).cycle();
    mixes.map(|is_mix| if is_mix && is_layered { layers.next() } else { None }).collect()
}

/// lot / 2^64 < seats · weight / total, exactly. The product lot · total may exceed 128 bits, so it is taken in two
/// halves: lot · total < 2^64 · x holds just if the part of the product above its lowest 64 bits is below x.
fn is_seated(entrant: &Entrant, seats: u64, total: u128) -> bool {
    let lot = u128::from(entrant.lot.leading());
    let (high, low) = (total >> 64, total & u128::from(u64::MAX));
    lot * high + ((lot * low) >> 64) < u128::from(seats) * u128::from(entrant.weight)
}

#[cfg(test)]
#[path = "lottery_tests.rs"]
mod tests;
