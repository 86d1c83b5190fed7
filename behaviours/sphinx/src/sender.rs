//! Building a packet: one header for the whole path, then the payload in one layer per hop.

use core::fmt;
use core::ops::Deref;

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::header::{self, Command, RoutingBlock};
use crate::kdf::{CheckKeys, HopKeys};
use crate::layout::{
    ALPHA_AT, BETA_AT, BETA_LEN, BODY_LEN, GAMMA_AT, HEADER_LEN, HOP_LEN, MAC_LEN, MAX_HOPS, PACKET_LEN, PAYLOAD_LEN,
    PREFIX_LEN, PacketBytes, TAG_LEN, VERSION, set_field,
};
use crate::x25519::{self, SenderScalar};
use crate::{BuildError, MixPublicKey, wide_block};

/// One hop of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Node id (Ed25519 public key), by which the hop before it finds it.
    pub id: [u8; 32],
    /// Its mix key for the packet's epoch.
    pub key: MixPublicKey,
}

/// What the last hop does with the packet. In a reply block the reference is the block's id, for its owner to find
/// the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastHop {
    /// Keep it.
    Deliver {
        /// Free for the sender's use; the last hop sees it.
        reference: [u8; 16],
    },
    /// Put it into a mailbox slot.
    Slot {
        /// The slot.
        slot: [u8; 32],
        /// Free for the sender's use; the last hop sees it.
        reference: [u8; 16],
    },
}

impl LastHop {
    fn forward_block(&self) -> RoutingBlock {
        match *self {
            Self::Deliver { reference } => RoutingBlock { command: Command::Deliver, id: [0; 32], tail: reference },
            Self::Slot { slot, reference } => RoutingBlock { command: Command::Slot, id: slot, tail: reference },
        }
    }

    pub(crate) fn reply_block(&self) -> RoutingBlock {
        let command = match self {
            Self::Deliver { .. } => Command::Reply,
            Self::Slot { .. } => Command::SlotReply,
        };
        RoutingBlock { command, ..self.forward_block() }
    }
}

/// What the sender remembers of a path that it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Node id of the hop that the packet is sent to.
    pub first: [u8; 32],
    /// From these the sender computes when the packet will arrive.
    pub delay_seeds: DelaySeeds,
}

/// The delay seed of each hop, in the order of the path.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DelaySeeds {
    seeds: [[u8; 32]; MAX_HOPS],
    len: usize,
}

impl Deref for DelaySeeds {
    type Target = [[u8; 32]];

    fn deref(&self) -> &Self::Target {
        self.seeds.split_at(self.len.min(MAX_HOPS)).0
    }
}

impl fmt::Debug for DelaySeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DelaySeeds({})", self.len)
    }
}

/// Builds a packet that carries `body` along `path`, into `packet`.
///
/// # Errors
/// A path of no hop or of more than [`MAX_HOPS`].
pub fn build(
    path: &[Hop],
    epoch: u32,
    last: &LastHop,
    body: &[u8; BODY_LEN],
    rng: &mut impl CryptoRng,
    packet: &mut PacketBytes,
) -> Result<Route, BuildError> {
    let built = BuiltHeader::new(path, epoch, last.forward_block(), rng)?;
    let mut payload = tagged(body);
    for keys in built.hops.iter().rev() {
        wide_block::encrypt(keys.payload(), &mut payload);
    }
    assemble(&built.header, &payload, packet);
    Ok(built.route)
}

/// The zero tag and the body.
pub(crate) fn tagged(body: &[u8; BODY_LEN]) -> Zeroizing<[u8; PAYLOAD_LEN]> {
    let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
    set_field::<TAG_LEN, BODY_LEN, PAYLOAD_LEN>(&mut payload, body);
    payload
}

pub(crate) fn assemble(header: &[u8; HEADER_LEN], payload: &[u8; PAYLOAD_LEN], packet: &mut PacketBytes) {
    set_field::<0, HEADER_LEN, PACKET_LEN>(packet, header);
    set_field::<HEADER_LEN, PAYLOAD_LEN, PACKET_LEN>(packet, payload);
}

/// A header and what its maker keeps: the keys of every hop, in the order of the path.
pub(crate) struct BuiltHeader {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) hops: Vec<HopKeys>,
    pub(crate) route: Route,
}

impl BuiltHeader {
    /// Takes 32 bytes of randomness for the ephemeral secret, then 49 for each hop that the path lacks to the longest.
    pub(crate) fn new(
        path: &[Hop],
        epoch: u32,
        last: RoutingBlock,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, BuildError> {
        let first = match path {
            [first, ..] if path.len() <= MAX_HOPS => first.id,
            _ => return Err(BuildError::PathLength(path.len())),
        };
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *ephemeral);
        let secrets = PathSecrets::derive(path, *ephemeral);

        let mut prefix = [VERSION; PREFIX_LEN];
        set_field::<1, 4, PREFIX_LEN>(&mut prefix, &epoch.to_be_bytes());
        let mut beta = last_beta(&secrets.hops, last, rng);
        let mut gamma = [0; MAC_LEN];
        let mut alpha = [0; 32];
        // From the last hop to the first: hide the block, then prove it. `inner` is the hop that was done before.
        let mut inner: Option<&Hop> = None;
        let hops = path.iter().zip(&secrets.hops).zip(secrets.checks.iter().zip(&secrets.alphas));
        for ((hop, keys), (check, hop_alpha)) in hops.rev() {
            if let Some(next) = inner {
                let block = RoutingBlock { command: Command::Forward, id: next.id, tail: gamma };
                beta.copy_within(..BETA_LEN - HOP_LEN, HOP_LEN);
                set_field::<0, HOP_LEN, BETA_LEN>(&mut beta, &block.to_bytes());
                header::mask(keys.stream(), &mut beta);
            }
            gamma = header::mac(check.mac(), &prefix, hop_alpha, &beta);
            alpha = *hop_alpha;
            inner = Some(hop);
        }

        let mut header = [0; HEADER_LEN];
        set_field::<0, PREFIX_LEN, HEADER_LEN>(&mut header, &prefix);
        set_field::<ALPHA_AT, 32, HEADER_LEN>(&mut header, &alpha);
        set_field::<GAMMA_AT, MAC_LEN, HEADER_LEN>(&mut header, &gamma);
        set_field::<BETA_AT, BETA_LEN, HEADER_LEN>(&mut header, &beta);
        let mut delay_seeds = DelaySeeds { seeds: [[0; 32]; MAX_HOPS], len: secrets.hops.len() };
        for (seed, keys) in delay_seeds.seeds.iter_mut().zip(&secrets.hops) {
            *seed = *keys.delay_seed();
        }
        Ok(Self { header, hops: secrets.hops, route: Route { first, delay_seeds } })
    }
}

/// β of the last hop: its block and random padding, hidden; then the filler, which its stream must leave as the hops
/// before it produce it.
fn last_beta(hops: &[HopKeys], last: RoutingBlock, rng: &mut impl CryptoRng) -> [u8; BETA_LEN] {
    let filler_len = hops.len().saturating_sub(1).min(MAX_HOPS - 1) * HOP_LEN;
    let mut beta = [0; BETA_LEN];
    set_field::<0, HOP_LEN, BETA_LEN>(&mut beta, &last.to_bytes());
    let (head, tail) = beta.split_at_mut(BETA_LEN - filler_len);
    // Zeros here would tell the last hop how long the path was (Kuhn, Beck, Strufe, arXiv 1910.13772).
    rng.fill_bytes(head.split_at_mut(HOP_LEN).1);
    if let Some(keys) = hops.last() {
        header::mask(keys.stream(), head);
    }
    tail.copy_from_slice(filler(hops).split_at(BETA_LEN + HOP_LEN - filler_len).1);
    beta
}

/// What the hops before the last leave at the end of β, at the end of a buffer that is as long as their streams: each
/// moves it up by one block, appends zeros, and adds its stream.
fn filler(hops: &[HopKeys]) -> [u8; BETA_LEN + HOP_LEN] {
    let mut filler = [0; BETA_LEN + HOP_LEN];
    let mut len = 0;
    for keys in hops.split_last().map_or(&[][..], |(_, before)| before) {
        filler.copy_within(HOP_LEN.., 0);
        set_field::<BETA_LEN, HOP_LEN, { BETA_LEN + HOP_LEN }>(&mut filler, &[0; HOP_LEN]);
        len += HOP_LEN;
        let mut stream = [0; BETA_LEN + HOP_LEN];
        header::mask(keys.stream(), &mut stream);
        for (byte, mask) in filler.iter_mut().zip(&stream).skip(BETA_LEN + HOP_LEN - len) {
            *byte ^= mask;
        }
    }
    filler
}

/// α and the keys of every hop. One multiplication with the base point and one with the hop's key each, one inversion
/// for all α.
struct PathSecrets {
    alphas: Vec<[u8; 32]>,
    checks: Vec<CheckKeys>,
    hops: Vec<HopKeys>,
}

impl PathSecrets {
    fn derive(path: &[Hop], ephemeral: [u8; 32]) -> Self {
        let mut scalar = SenderScalar::new(ephemeral);
        // With the capacity of the longest path nothing secret is ever moved and left behind.
        let mut alphas = Vec::with_capacity(MAX_HOPS);
        let mut checks = Vec::with_capacity(MAX_HOPS);
        let mut hops = Vec::with_capacity(MAX_HOPS);
        for hop in path {
            alphas.push(scalar.alpha());
            let shared = Zeroizing::new(scalar.shared(hop.key.point()));
            let check = CheckKeys::derive(&shared);
            let keys = HopKeys::derive(&check);
            scalar.blind(*keys.blinding());
            checks.push(check);
            hops.push(keys);
        }
        Self { alphas: x25519::encode(&alphas).collect(), checks, hops }
    }
}
