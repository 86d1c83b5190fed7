//! The envelope: what carries one message, the same on every transport.
//!
//! Outsiders see a length out of six, a priority, an expiry by ten minutes and a tag of the day. Who wrote, and where, is
//! inside. The hop counter is outside the id, so that an envelope is the same one on all paths.

use std::time::Duration;

use fog_base::{UnixMillis, time::CLOCK_TOLERANCE};

use super::{
    id::EnvelopeId,
    reject::Reject,
    seal::{Opened, Seal, SealError},
    tag::{Tag, TagKey},
};
use crate::wire::{Reader, VERSION};

/// The lengths that an envelope can have.
pub const SIZES: [usize; 6] = [512, 1_024, 2_048, 4_096, 8_192, 16_000];
/// The longest envelope.
pub const MAX_ENVELOPE: usize = 16_000;
/// The header's length.
pub const HEADER: usize = 24;
/// Hops at the start.
pub const MAX_HOPS: u8 = 7;
/// How long an envelope lives unless its author says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// The longest life.
pub const MAX_LIFETIME: Duration = Duration::from_secs(14 * 86_400);
/// Expiry is rounded up to this, so that it does not tell when an envelope was made.
const EXPIRY_STEP: u64 = 600;
const ID_CONTEXT: &str = "fog chat v1 envelope id";

/// What goes first, and what is given up last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// What can wait.
    Bulk,
    /// Receipts.
    Receipt,
    /// Messages of people.
    Message,
    /// Operations on members.
    Membership,
}

impl Priority {
    fn from_number(number: u8) -> Result<Self, Reject> {
        [Self::Bulk, Self::Receipt, Self::Message, Self::Membership]
            .into_iter()
            .find(|priority| *priority as u8 == number)
            .ok_or(Reject::Malformed)
    }
}

/// An envelope: well-formed, and nothing inside known.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    hops: u8,
    priority: Priority,
    expires: u32,
    tag: Tag,
    ciphertext: Vec<u8>,
    id: EnvelopeId,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope").field("id", &self.id).field("priority", &self.priority).finish_non_exhaustive()
    }
}

/// A sealed envelope, and what must be stored before it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The envelope, with all its hops.
    pub envelope: Envelope,
    /// The sealer's state, as [`Sealed`](super::seal::Sealed) has it.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a message cannot be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It fits no envelope.
    #[error("longer than the largest envelope")]
    TooLong,
    /// The sealer refused, or did not return the length that was asked for.
    #[error("cannot be sealed")]
    Seal(#[from] SealError),
}

impl Envelope {
    /// Seals `message` into the smallest envelope that fits.
    pub fn pack(
        message: &[u8],
        seal: &mut dyn Seal,
        key: &TagKey,
        priority: Priority,
        lifetime: Duration,
        now: UnixMillis,
    ) -> Result<Packed, PackError> {
        let needed = HEADER + message.len() + seal.overhead();
        let size = SIZES.into_iter().find(|size| *size >= needed).ok_or(PackError::TooLong)?;
        let end = now.plus(lifetime.min(MAX_LIFETIME)).as_secs();
        // The last step before the longest life is over: an expiry is never too far ahead.
        let expires =
            if lifetime >= MAX_LIFETIME { end / EXPIRY_STEP } else { end.div_ceil(EXPIRY_STEP) } * EXPIRY_STEP;
        let expires = u32::try_from(expires).map_err(|_| PackError::TooLong)?;
        let tag = key.tag(expires);
        let sealed = seal.seal(&header(0, priority, expires, tag), message, size - HEADER)?;
        if sealed.ciphertext.len() != size - HEADER {
            return Err(PackError::Seal(SealError));
        }
        let id = envelope_id(priority, expires, tag, &sealed.ciphertext);
        let envelope = Self { hops: MAX_HOPS, priority, expires, tag, ciphertext: sealed.ciphertext, id };
        Ok(Packed { envelope, state: sealed.state })
    }

    /// From bytes, with lengths, ranges and expiry checked.
    pub fn parse(bytes: &[u8], now: UnixMillis) -> Result<Self, Reject> {
        if !SIZES.contains(&bytes.len()) {
            return Err(Reject::Malformed);
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Reject::UnknownVersion);
        }
        let hops = reader.u8()?;
        let priority = Priority::from_number(reader.u8()?)?;
        let zero = reader.u8()?;
        let expires = reader.u32()?;
        if hops > MAX_HOPS || zero != 0 || u64::from(expires) % EXPIRY_STEP != 0 {
            return Err(Reject::Malformed);
        }
        let latest = now.plus(MAX_LIFETIME).plus(CLOCK_TOLERANCE).as_secs();
        let is_over = u64::from(expires) < now.minus(CLOCK_TOLERANCE).as_secs();
        if is_over || u64::from(expires) > latest {
            return Err(Reject::Expired);
        }
        let tag = reader.array()?;
        let ciphertext = reader.rest().to_vec();
        let id = envelope_id(priority, expires, tag, &ciphertext);
        Ok(Self { hops, priority, expires, tag, ciphertext, id })
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&header(self.hops, self.priority, self.expires, self.tag)[..], &self.ciphertext].concat()
    }

    /// Opens it; the plaintext is one message, not verified.
    pub fn open(&self, seal: &mut dyn Seal) -> Result<Opened, Reject> {
        seal.open(&header(0, self.priority, self.expires, self.tag), &self.ciphertext).map_err(|_| Reject::Sealed)
    }

    /// The same envelope with one hop less, for somebody else.
    pub fn forwarded(&self) -> Result<Self, Reject> {
        let hops = self.hops.checked_sub(1).ok_or(Reject::NoHops)?;
        Ok(Self { hops, ..self.clone() })
    }

    /// Its id, the same for any number of hops.
    pub fn id(&self) -> EnvelopeId {
        self.id
    }

    /// What goes first.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Unix seconds.
    pub fn expires(&self) -> u32 {
        self.expires
    }

    /// When it is over.
    pub fn expires_at(&self) -> UnixMillis {
        UnixMillis(u64::from(self.expires) * 1_000)
    }

    /// The tag of its conversation and day.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// How much further it may travel.
    pub fn hops(&self) -> u8 {
        self.hops
    }

    /// The length of [`Envelope::encode`].
    pub fn len_bytes(&self) -> usize {
        HEADER + self.ciphertext.len()
    }
}

fn header(hops: u8, priority: Priority, expires: u32, tag: Tag) -> [u8; HEADER] {
    let [a, b, c, d] = expires.to_be_bytes();
    let mut header = [0; HEADER];
    let fields = [VERSION, hops, priority as u8, 0, a, b, c, d];
    for (to, from) in header.iter_mut().zip(fields.iter().chain(&tag)) {
        *to = *from;
    }
    header
}

fn envelope_id(priority: Priority, expires: u32, tag: Tag, ciphertext: &[u8]) -> EnvelopeId {
    let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
    hasher.update(&header(0, priority, expires, tag)).update(ciphertext);
    EnvelopeId(*hasher.finalize().as_bytes())
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
