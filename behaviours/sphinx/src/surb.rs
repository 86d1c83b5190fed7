//! Single-use reply blocks: a header that leads back to its maker, and one key. Whoever holds one can answer without
//! learning where the answer goes, and learns no key of any hop: a replier and a relay together cannot recognise the
//! reply on its way.

use core::fmt;

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::layout::{
    BODY_LEN, HEADER_LEN, MAX_HOPS, PAYLOAD_LEN, PREFIX_LEN, PacketBytes, SURB_LEN, VERSION, field, set_field,
};
use crate::relay::check_tag;
use crate::secret::Secret;
use crate::sender::{BuiltHeader, Draft, assemble, build_headers, tagged};
use crate::{BuildError, Hop, LastHop, Reject, Route, wide_block};

/// Bytes of [`SurbKeys`] when they are stored.
pub const SURB_KEYS_LEN: usize = 1 + 32 + MAX_HOPS * 32;

/// A reply block as its maker hands it out. Using it consumes it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Surb {
    first: [u8; 32],
    header: [u8; HEADER_LEN],
    key: [u8; 32],
}

/// What the maker of a reply block keeps in order to read the reply. Erased when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SurbKeys {
    key: [u8; 32],
    hops: [[u8; 32]; MAX_HOPS],
    len: u8,
}

/// A reply block to make.
#[derive(Debug, Clone, Copy)]
pub struct SurbOrder<'a> {
    /// The hops, from the replier's first to the maker or its mailbox.
    pub path: &'a [Hop],
    /// The epoch of their keys.
    pub epoch: u32,
    /// What the last hop does with the reply; the reference is the block's id.
    pub last: LastHop,
}

/// Makes a reply block that leads along `path`. The reference in `last` is the block's id: the last hop reports it
/// with the reply.
///
/// # Errors
/// A path of no hop or of more than [`MAX_HOPS`].
pub fn build_surb(
    path: &[Hop],
    epoch: u32,
    last: &LastHop,
    rng: &mut impl CryptoRng,
) -> Result<(Surb, SurbKeys, Route), BuildError> {
    let (draft, key) = draft(&SurbOrder { path, epoch, last: *last }, rng)?;
    Ok(surb(draft.build(), &key))
}

/// [`build_surb`] for many blocks; cheaper per block, most so in multiples of four. Takes its randomness as so many calls
/// of [`build_surb`] in a row would.
///
/// # Errors
/// If a path has no hop or more than [`MAX_HOPS`]; then no block is made.
pub fn build_surbs(
    orders: &[SurbOrder<'_>],
    rng: &mut impl CryptoRng,
) -> Result<Vec<(Surb, SurbKeys, Route)>, BuildError> {
    let (mut drafts, mut keys) = (Vec::with_capacity(orders.len()), Vec::with_capacity(orders.len()));
    for order in orders {
        let (draft, key) = draft(order, rng)?;
        drafts.push(draft);
        keys.push(key);
    }
    Ok(build_headers(drafts).into_iter().zip(&keys).map(|(built, key)| surb(built, key)).collect())
}

/// The header, and the payload key, whose randomness follows the header's.
fn draft<'a>(order: &SurbOrder<'a>, rng: &mut impl CryptoRng) -> Result<(Draft<'a>, Secret<32>), BuildError> {
    let draft = Draft::new(order.path, order.epoch, order.last.reply_block(), rng)?;
    let mut key = Secret::new([0; 32]);
    rng.fill_bytes(&mut *key);
    Ok((draft, key))
}

fn surb(built: BuiltHeader, key: &[u8; 32]) -> (Surb, SurbKeys, Route) {
    let mut keys = SurbKeys { key: *key, hops: [[0; 32]; MAX_HOPS], len: 0 };
    for (slot, hop) in keys.hops.iter_mut().zip(&built.hops) {
        *slot = *hop.payload();
        keys.len += 1;
    }
    let surb = Surb { first: built.route.first, header: built.header, key: *key };
    (surb, keys, built.route)
}

impl Surb {
    /// `first hop ‖ header ‖ payload key`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SURB_LEN] {
        let mut bytes = [0; SURB_LEN];
        set_field::<0, 32, SURB_LEN>(&mut bytes, &self.first);
        set_field::<32, HEADER_LEN, SURB_LEN>(&mut bytes, &self.header);
        set_field::<{ 32 + HEADER_LEN }, 32, SURB_LEN>(&mut bytes, &self.key);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Only its relays can tell whether the header is good.
    ///
    /// # Errors
    /// [`Reject::Malformed`] if it is not [`SURB_LEN`] bytes, [`Reject::UnknownVersion`] if its header is of another
    /// version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reject> {
        let bytes: &[u8; SURB_LEN] = bytes.try_into().map_err(|_| Reject::Malformed)?;
        let header = *field::<32, HEADER_LEN, SURB_LEN>(bytes);
        let [version] = *field::<0, 1, HEADER_LEN>(&header);
        if version != VERSION {
            return Err(Reject::UnknownVersion);
        }
        Ok(Self {
            first: *field::<0, 32, SURB_LEN>(bytes),
            header,
            key: *field::<{ 32 + HEADER_LEN }, 32, SURB_LEN>(bytes),
        })
    }

    /// The epoch in which it works.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        let [_, epoch @ ..] = *field::<0, PREFIX_LEN, HEADER_LEN>(&self.header);
        u32::from_be_bytes(epoch)
    }

    /// Writes the packet that carries `body` back, and returns the node id of the hop to send it to.
    pub fn reply(self, body: &[u8; BODY_LEN], packet: &mut PacketBytes) -> [u8; 32] {
        let mut payload = tagged(body);
        wide_block::encrypt(&self.key, &mut payload);
        assemble(&self.header, &payload, packet);
        self.first
    }
}

impl fmt::Debug for Surb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surb(..)")
    }
}

impl SurbKeys {
    /// Undoes what the hops of the return path and the replier did to the payload, in place. The body is then at byte
    /// 16.
    ///
    /// # Errors
    /// [`Reject::BadPayload`] if the reply was changed, or answers another block; `payload` is then garbage.
    pub fn open(&self, payload: &mut [u8; PAYLOAD_LEN]) -> Result<(), Reject> {
        for key in self.hops.iter().take(self.len.into()).rev() {
            wide_block::encrypt(key, payload);
        }
        wide_block::decrypt(&self.key, payload);
        check_tag(payload)
    }

    /// For the owner's own store: `number of hops ‖ payload key ‖ five hop keys, unused ones zero`. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SURB_KEYS_LEN]> {
        let mut bytes = Zeroizing::new([0; SURB_KEYS_LEN]);
        let all = [self.len].into_iter().chain(self.key).chain(self.hops.iter().flatten().copied());
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`Reject::Malformed`] for any other length, or a number of hops that is not 1 to [`MAX_HOPS`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Reject> {
        let bytes: &[u8; SURB_KEYS_LEN] = bytes.try_into().map_err(|_| Reject::Malformed)?;
        let [len] = *field::<0, 1, SURB_KEYS_LEN>(bytes);
        if len == 0 || usize::from(len) > MAX_HOPS {
            return Err(Reject::Malformed);
        }
        let mut keys = Self { key: *field::<1, 32, SURB_KEYS_LEN>(bytes), hops: [[0; 32]; MAX_HOPS], len };
        let (stored, _) = field::<33, { MAX_HOPS * 32 }, SURB_KEYS_LEN>(bytes).as_chunks::<32>();
        for (to, from) in keys.hops.iter_mut().zip(stored) {
            *to = *from;
        }
        Ok(keys)
    }
}

impl fmt::Debug for SurbKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SurbKeys(..)")
    }
}
