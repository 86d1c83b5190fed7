//! What a relay does with a packet, in two steps that are two types.
//!
//! [`open`] costs one scalar multiplication and proves the header: the result, [`Opened`], carries the replay tag.
//! Between the steps the caller tests and sets that tag. [`Opened::process`] then spends the rest: routing, payload,
//! and the blinding multiplication of a packet that goes on. `Opened` owns the header bytes that it verified, so what
//! is processed is what was proved.

use core::fmt;

use fog_x25519::{x25519, x25519_one_scalar};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::header::{self, Command, RoutingBlock};
use crate::kdf::{CheckKeys, HopKeys};
use crate::layout::{
    ALPHA_AT, ALPHA_LEN, BETA_AT, BETA_LEN, GAMMA_AT, HOP_LEN, MAC_LEN, PACKET_LEN, PAYLOAD_LEN, PREFIX_LEN,
    PacketBytes, TAG_LEN, field, peek, set_field,
};
use crate::secret::Secret;
use crate::{MixSecretKey, Reject, wide_block};

/// A packet whose header was made for this key and is unchanged. Erased when dropped.
pub struct Opened {
    keys: CheckKeys,
    alpha: [u8; ALPHA_LEN],
    prefix: [u8; PREFIX_LEN],
    beta: [u8; BETA_LEN],
}

impl Opened {
    /// The tag that is the same for every packet with this shared secret, and tells nothing of it. It is unique per
    /// key and packet: whoever sees a tag again under the same key drops the packet.
    #[must_use]
    pub fn replay_tag(&self) -> [u8; 16] {
        *self.keys.replay_tag()
    }

    /// Does what the header says. Afterwards `packet`, which must be the packet that was opened, is the next hop's
    /// packet (`Forward`), or its [`body`](crate::body) or [`payload`](crate::payload) is readable.
    ///
    /// # Errors
    /// [`Reject::Malformed`] for an unknown command, [`Reject::BadPayload`] for a body that was changed. `packet` is
    /// then garbage.
    pub fn process(self, packet: &mut PacketBytes) -> Result<Unwrapped, Reject> {
        let peeled = self.peel(packet)?;
        if let Some(blinding) = peeled.blinding {
            let mut alphas = [self.alpha];
            x25519(&[*blinding], &mut alphas);
            let [alpha] = &alphas;
            set_field::<ALPHA_AT, ALPHA_LEN, PACKET_LEN>(packet, alpha);
        }
        Ok(peeled.unwrapped)
    }

    /// All of [`process`](Self::process) but the blinding multiplication.
    fn peel(&self, packet: &mut PacketBytes) -> Result<Peeled, Reject> {
        let keys = HopKeys::derive(&self.keys);
        let mut routing = [0; BETA_LEN + HOP_LEN];
        set_field::<0, BETA_LEN, { BETA_LEN + HOP_LEN }>(&mut routing, &self.beta);
        header::mask(keys.stream(), &mut routing);
        let block = RoutingBlock::parse(field::<0, HOP_LEN, { BETA_LEN + HOP_LEN }>(&routing))?;

        let payload = packet.last_chunk_mut::<PAYLOAD_LEN>().ok_or(Reject::Malformed)?;
        wide_block::decrypt(keys.payload(), payload);

        let delay_seed = *keys.delay_seed();
        let unwrapped = match block.command {
            Command::Forward => {
                set_field::<0, PREFIX_LEN, PACKET_LEN>(packet, &self.prefix);
                set_field::<GAMMA_AT, MAC_LEN, PACKET_LEN>(packet, &block.tail);
                set_field::<BETA_AT, BETA_LEN, PACKET_LEN>(packet, field::<HOP_LEN, BETA_LEN, _>(&routing));
                Unwrapped::Forward { next: block.id, delay_seed }
            }
            Command::Deliver => {
                check_tag(payload)?;
                Unwrapped::Deliver { reference: block.tail, delay_seed }
            }
            Command::Slot => {
                check_tag(payload)?;
                Unwrapped::Slot { slot: block.id, reference: block.tail, delay_seed }
            }
            Command::Reply => Unwrapped::Reply { surb_id: block.tail, delay_seed },
            Command::SlotReply => Unwrapped::SlotReply { slot: block.id, surb_id: block.tail, delay_seed },
        };
        let blinding = (block.command == Command::Forward).then(|| Secret::new(*keys.blinding()));
        Ok(Peeled { unwrapped, blinding })
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(..)")
    }
}

struct Peeled {
    unwrapped: Unwrapped,
    /// Present if the packet goes on.
    blinding: Option<Secret<32>>,
}

/// What to do with a processed packet. The delay seed is known to the sender and to this hop alone; every delay is
/// drawn from it.
#[derive(Clone, PartialEq, Eq)]
pub enum Unwrapped {
    /// Pass the packet on, after its delay.
    Forward {
        /// Node id (Ed25519 public key) of the next hop.
        next: [u8; 32],
        /// Seed of this hop's delay.
        delay_seed: [u8; 32],
    },
    /// The body is for this node.
    Deliver {
        /// Free for the sender's use.
        reference: [u8; 16],
        /// Seed of this hop's delay.
        delay_seed: [u8; 32],
    },
    /// The body is for a mailbox slot of this node.
    Slot {
        /// The slot.
        slot: [u8; 32],
        /// Free for the sender's use.
        reference: [u8; 16],
        /// Seed of this hop's delay.
        delay_seed: [u8; 32],
    },
    /// The payload is a reply to this node: [`SurbKeys::open`](crate::SurbKeys::open) it.
    Reply {
        /// The reference under which this node made the reply block.
        surb_id: [u8; 16],
        /// Seed of this hop's delay.
        delay_seed: [u8; 32],
    },
    /// The payload is a reply to the owner of a mailbox slot of this node.
    SlotReply {
        /// The slot.
        slot: [u8; 32],
        /// The reference under which the slot's owner made the reply block.
        surb_id: [u8; 16],
        /// Seed of this hop's delay.
        delay_seed: [u8; 32],
    },
}

impl fmt::Debug for Unwrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward { .. } => "Forward(..)",
            Self::Deliver { .. } => "Deliver(..)",
            Self::Slot { .. } => "Slot(..)",
            Self::Reply { .. } => "Reply(..)",
            Self::SlotReply { .. } => "SlotReply(..)",
        })
    }
}

/// Proves that a packet was made for `key` and that its header is unchanged, for one scalar multiplication.
///
/// # Errors
/// [`Reject::UnknownVersion`], [`Reject::Malformed`] for a low-order α, else [`Reject::BadMac`].
pub fn open(packet: &PacketBytes, key: &MixSecretKey) -> Result<Opened, Reject> {
    peek(packet)?;
    let alpha = *field::<ALPHA_AT, ALPHA_LEN, PACKET_LEN>(packet);
    let mut shared = Zeroizing::new([alpha]);
    x25519_one_scalar(key.secret(), &mut *shared);
    let [shared] = &*shared;
    verify(packet, alpha, shared)
}

/// [`open`] for many packets under one key; cheaper per packet, most so in multiples of eight. A packet of another version
/// costs as much as any: [`peek`] first. Overwrites `out`: one result per packet, in order.
pub fn open_batch<'a>(
    packets: impl IntoIterator<Item = &'a PacketBytes, IntoIter: Clone>,
    key: &MixSecretKey,
    out: &mut Vec<Result<Opened, Reject>>,
) {
    let packets = packets.into_iter();
    let alphas = || packets.clone().map(|packet| *field::<ALPHA_AT, ALPHA_LEN, PACKET_LEN>(packet));
    let mut shared = Zeroizing::new(alphas().collect::<Vec<_>>());
    x25519_one_scalar(key.secret(), &mut shared);
    out.clear();
    out.extend(packets.clone().zip(alphas()).zip(shared.iter()).map(|((packet, alpha), shared)| {
        peek(packet)?;
        verify(packet, alpha, shared)
    }));
}

/// [`Opened::process`] for many packets; cheaper per packet, most so in multiples of eight. The `n`th opened header
/// belongs to the `n`th packet. Overwrites `out`: one result per packet, in order.
pub fn process_batch<'a>(
    opened: impl IntoIterator<Item = (Opened, &'a mut PacketBytes), IntoIter: ExactSizeIterator>,
    out: &mut Vec<Result<Unwrapped, Reject>>,
) {
    let opened = opened.into_iter();
    // Room for all of them: a vector that grows leaves copies of secrets behind.
    let mut blindings = Zeroizing::new(Vec::with_capacity(opened.len()));
    let mut forwards = Vec::with_capacity(opened.len());
    let mut alphas = Vec::with_capacity(opened.len());
    out.clear();
    out.extend(opened.map(|(opened, packet)| {
        let peeled = opened.peel(packet)?;
        if let Some(blinding) = peeled.blinding {
            blindings.push(*blinding);
            alphas.push(opened.alpha);
            forwards.push(packet);
        }
        Ok(peeled.unwrapped)
    }));
    x25519(&blindings, &mut alphas);
    for (packet, alpha) in forwards.into_iter().zip(&alphas) {
        set_field::<ALPHA_AT, ALPHA_LEN, PACKET_LEN>(packet, alpha);
    }
}

fn verify(packet: &PacketBytes, alpha: [u8; ALPHA_LEN], shared: &[u8; 32]) -> Result<Opened, Reject> {
    if bool::from(shared.ct_eq(&[0; 32])) {
        return Err(Reject::Malformed);
    }
    let keys = CheckKeys::derive(shared);
    let prefix = *field::<0, PREFIX_LEN, PACKET_LEN>(packet);
    let beta = *field::<BETA_AT, BETA_LEN, PACKET_LEN>(packet);
    let gamma = header::mac(keys.mac(), &prefix, &alpha, &beta);
    if bool::from(gamma.ct_eq(field::<GAMMA_AT, MAC_LEN, PACKET_LEN>(packet))) {
        Ok(Opened { keys, alpha, prefix, beta })
    } else {
        Err(Reject::BadMac)
    }
}

/// All that a relay computes for a packet whose shared secret is known: everything but multiplications. For benches.
#[doc(hidden)]
pub fn symmetric_part(shared_secret: &[u8; 32], packet: &mut PacketBytes) -> Result<Unwrapped, Reject> {
    let alpha = *field::<ALPHA_AT, ALPHA_LEN, PACKET_LEN>(packet);
    Ok(verify(packet, alpha, shared_secret)?.peel(packet)?.unwrapped)
}

/// The 16 zero bytes in front of the body, in constant time.
pub(crate) fn check_tag(payload: &[u8; PAYLOAD_LEN]) -> Result<(), Reject> {
    if bool::from(field::<0, TAG_LEN, PAYLOAD_LEN>(payload).ct_eq(&[0; TAG_LEN])) {
        Ok(())
    } else {
        Err(Reject::BadPayload)
    }
}
