//! Building a packet: one header for the whole path, then the payload in one layer per hop.

use core::ops::Deref;
use core::{fmt, mem};

use fog_x25519::{GroupPoint, GroupScalar, agree};
use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::header::{self, Command, RoutingBlock};
use crate::kdf::{CheckKeys, HopKeys};
use crate::layout::{
    ALPHA_AT, BETA_AT, BETA_LEN, BODY_LEN, GAMMA_AT, HEADER_LEN, HOP_LEN, MAC_LEN, MAX_HOPS, PACKET_LEN, PAYLOAD_LEN,
    PREFIX_LEN, PacketBytes, TAG_LEN, VERSION, set_field,
};
use crate::secret::Secret;
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

/// A packet to build.
pub struct Order<'a> {
    /// The hops, from the first to the last.
    pub path: &'a [Hop],
    /// The epoch of their keys.
    pub epoch: u32,
    /// What the last hop does with it.
    pub last: LastHop,
    /// What it carries.
    pub body: &'a [u8; BODY_LEN],
    /// Where it is written.
    pub packet: &'a mut PacketBytes,
}

impl fmt::Debug for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("path", &self.path).field("epoch", &self.epoch).finish_non_exhaustive()
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
    let header = Draft::new(path, epoch, last.forward_block(), rng)?.build();
    Ok(header.wrap(body, packet))
}

/// [`build`] for many packets; cheaper per packet, most so in multiples of four. Takes its randomness as so many calls of
/// [`build`] in a row would.
///
/// # Errors
/// If a path has no hop or more than [`MAX_HOPS`]; then no packet is built.
pub fn build_batch(orders: &mut [Order<'_>], rng: &mut impl CryptoRng) -> Result<Vec<Route>, BuildError> {
    let mut drafts = Vec::with_capacity(orders.len());
    for order in &*orders {
        drafts.push(Draft::new(order.path, order.epoch, order.last.forward_block(), rng)?);
    }
    let headers = build_headers(drafts);
    Ok(headers.into_iter().zip(orders).map(|(header, order)| header.wrap(order.body, order.packet)).collect())
}

/// The zero tag and the body.
pub(crate) fn tagged(body: &[u8; BODY_LEN]) -> Secret<PAYLOAD_LEN> {
    let mut payload = Secret::new([0; PAYLOAD_LEN]);
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
    /// The packet of this header that carries `body`.
    fn wrap(self, body: &[u8; BODY_LEN], packet: &mut PacketBytes) -> Route {
        let mut payload = tagged(body);
        for keys in self.hops.iter().rev() {
            wide_block::encrypt(keys.payload(), &mut payload);
        }
        assemble(&self.header, &payload, packet);
        self.route
    }
}

/// A header to build, and its randomness.
pub(crate) struct Draft<'a> {
    path: &'a [Hop],
    first: [u8; 32],
    epoch: u32,
    last: RoutingBlock,
    padding: [u8; BETA_LEN],
    secrets: PathSecrets,
}

impl<'a> Draft<'a> {
    /// Takes 32 bytes of randomness for the ephemeral secret, then 49 for each hop that the path lacks to the longest.
    pub(crate) fn new(
        path: &'a [Hop],
        epoch: u32,
        last: RoutingBlock,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, BuildError> {
        let first = match path {
            [first, ..] if path.len() <= MAX_HOPS => first.id,
            _ => return Err(BuildError::PathLength(path.len())),
        };
        let mut ephemeral = Secret::new([0; 32]);
        rng.fill_bytes(&mut *ephemeral);
        let mut padding = [0; BETA_LEN];
        rng.fill_bytes(padding.split_at_mut((MAX_HOPS - path.len()) * HOP_LEN).0);
        Ok(Self { path, first, epoch, last, padding, secrets: PathSecrets::new(&ephemeral) })
    }

    /// The header alone; many together are cheaper ([`build_headers`]).
    pub(crate) fn build(mut self) -> BuiltHeader {
        derive_secrets(core::slice::from_mut(&mut self));
        self.assemble()
    }

    /// The header, once the secrets of every hop are derived.
    fn assemble(&mut self) -> BuiltHeader {
        let Self { path, first, epoch, last, padding, secrets } = self;
        let mut prefix = [VERSION; PREFIX_LEN];
        set_field::<1, 4, PREFIX_LEN>(&mut prefix, &epoch.to_be_bytes());
        let mut beta = last_beta(&secrets.hops, *last, padding);
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
        let route = Route { first: *first, delay_seeds };
        BuiltHeader { header, hops: mem::take(&mut secrets.hops), route }
    }
}

/// Builds many headers, their multiplications together.
pub(crate) fn build_headers(mut drafts: Vec<Draft<'_>>) -> Vec<BuiltHeader> {
    derive_secrets(&mut drafts);
    // In place: what is moved out of a vector stays in its memory, and these scalars are erased there.
    drafts.iter_mut().map(Draft::assemble).collect()
}

/// β of the last hop: its block and random padding, hidden; then the filler, which its stream must leave as the hops
/// before it produce it.
fn last_beta(hops: &[HopKeys], last: RoutingBlock, padding: &[u8; BETA_LEN]) -> [u8; BETA_LEN] {
    let filler_len = hops.len().saturating_sub(1).min(MAX_HOPS - 1) * HOP_LEN;
    let mut beta = [0; BETA_LEN];
    set_field::<0, HOP_LEN, BETA_LEN>(&mut beta, &last.to_bytes());
    let (head, tail) = beta.split_at_mut(BETA_LEN - filler_len);
    // Zeros here would tell the last hop how long the path was (Kuhn, Beck, Strufe, arXiv 1910.13772).
    head.iter_mut().skip(HOP_LEN).zip(padding).for_each(|(byte, random)| *byte = *random);
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

/// α and the keys of every hop, as far as they are derived.
struct PathSecrets {
    /// The ephemeral secret, times every blinding factor so far. Reducing it modulo ℓ is sound, as the base point and every
    /// mix key lie in the subgroup of order ℓ.
    scalar: GroupScalar,
    alphas: Vec<[u8; 32]>,
    checks: Vec<CheckKeys>,
    hops: Vec<HopKeys>,
}

impl PathSecrets {
    fn new(ephemeral: &[u8; 32]) -> Self {
        // With the capacity of the longest path nothing secret is moved within the heap and left behind.
        Self {
            scalar: GroupScalar::clamped(ephemeral),
            alphas: Vec::with_capacity(MAX_HOPS),
            checks: Vec::with_capacity(MAX_HOPS),
            hops: Vec::with_capacity(MAX_HOPS),
        }
    }

    /// Takes in the α of the next hop and the secret that is shared with it.
    fn push(&mut self, alpha: [u8; 32], shared: &[u8; 32]) {
        let check = CheckKeys::derive(shared);
        let keys = HopKeys::derive(&check);
        self.scalar.multiply_clamped(keys.blinding());
        self.alphas.push(alpha);
        self.checks.push(check);
        self.hops.push(keys);
    }
}

/// Derives the secrets of all drafts hop by hop: two multiplications each, with the base point and with the hop's key.
fn derive_secrets(drafts: &mut [Draft<'_>]) {
    let mut shared = Zeroizing::new(vec![[0; 32]; drafts.len()]);
    for hop in 0..MAX_HOPS {
        let mut secrets: Vec<GroupScalar> = Vec::with_capacity(drafts.len());
        let mut keys: Vec<&GroupPoint> = Vec::with_capacity(drafts.len());
        for (draft, hop) in drafts.iter().filter_map(|draft| Some((draft, draft.path.get(hop)?))) {
            secrets.push(draft.secrets.scalar.clone());
            keys.push(hop.key.point());
        }
        let mut alphas = vec![[0; 32]; secrets.len()];
        let (shared, _) = shared.split_at_mut(secrets.len());
        agree(&secrets, &keys, &mut alphas, shared);
        let longer = drafts.iter_mut().filter(|draft| draft.path.len() > hop);
        for (draft, (alpha, shared)) in longer.zip(alphas.into_iter().zip(shared)) {
            draft.secrets.push(alpha, shared);
        }
    }
}
