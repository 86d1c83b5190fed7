//! A relay's descriptor: what it says of itself for one epoch and the next, under its identity.
//!
//! A [`Descriptor`] exists only verified: bytes become one through [`Descriptor::verify`], which checks everything that the README
//! names, cheap checks first.

use std::time::Duration;

use curve25519_dalek::{MontgomeryPoint, edwards::EdwardsPoint, traits::IsIdentity};
use ed25519_dalek::SigningKey;
use fog_base::{
    DropReason, Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis,
    id::byte_array,
    record::{Kind, RecordError, SignedRecord, Validity},
    relay::{RelayHop, Roles},
    time::CLOCK_TOLERANCE,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    address::{Address, Net, Scope},
    delay_vrf::{self, Outputs},
    loops::SignedLoops,
    lottery::Ticket,
};

/// Descriptors among the signed records: two epochs of at most seven days, and the rounding to seconds.
pub const KIND: Kind =
    Kind { number: 1, version: 1, max_body: 3172, max_lifetime: Duration::from_secs(2 * 7 * 86_400 + 60) };
/// The longest descriptor: the envelope of 128 bytes and the body.
pub const MAX_LEN: usize = 128 + KIND.max_body;
/// The most addresses.
pub const MAX_ADDRESSES: usize = 8;
const MAX_VERSIONS: usize = 8;
const MAX_EXIT_POLICY: usize = 256;
const MAX_EXTENSIONS: usize = 512;
/// Among the extensions: the circuit key.
const CIRCUIT_KEY: u8 = 1;

/// What a relay says of itself. The keys are those of the descriptor's epoch and of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where it can be dialled; at least one.
    pub addresses: Vec<Address>,
    /// What it offers.
    pub roles: Roles,
    /// Its mix keys: of the epoch and of the next.
    pub mix_keys: [[u8; 32]; 2],
    /// Its long-term key for sealed messages.
    pub seal_key: [u8; 32],
    /// Its long-term X25519 key for circuits; without one it is on none.
    pub circuit_key: Option<[u8; 32]>,
    /// Packets per second that it takes.
    pub capacity: u32,
    /// Versions of the mix protocol that it speaks.
    pub mix_versions: Vec<u16>,
    /// Relays of one operator name one family.
    pub family: Option<[u8; 16]>,
    /// What an exit opens connections to.
    pub exit_policy: Option<String>,
}

/// What a relay adds for the set that it wants to stand in: its part in the lottery, and what it saw of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidacy {
    /// For the lottery of the epoch after the descriptor's.
    pub ticket: Option<Ticket>,
    /// If it has a seat: how its loops fared.
    pub loops: Option<SignedLoops>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    epoch: Epoch,
    addresses: Vec<ByteBuf>,
    roles: u16,
    #[serde(with = "byte_array")]
    mix_key: [u8; 32],
    #[serde(with = "byte_array")]
    next_mix_key: [u8; 32],
    #[serde(with = "byte_array")]
    seal_key: [u8; 32],
    #[serde(with = "byte_array")]
    vrf_key: [u8; 32],
    #[serde(with = "byte_array")]
    vrf_output: [u8; 32],
    #[serde(with = "byte_array")]
    next_vrf_output: [u8; 32],
    #[serde(with = "byte_array")]
    vrf_proof: [u8; 64],
    capacity: u32,
    mix_versions: Vec<u16>,
    family: Option<ByteBuf>,
    exit_policy: Option<String>,
    ticket: Option<ByteBuf>,
    loops: Option<ByteBuf>,
    extensions: Option<ByteBuf>,
}

/// Why a descriptor is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not a descriptor, or a field out of its range.
    #[error("not a valid descriptor")]
    Malformed,
    /// A version that this node does not speak.
    #[error("a descriptor of an unknown version")]
    UnknownVersion,
    /// The signature does not verify on this network.
    #[error("the signature does not verify")]
    BadSignature,
    /// A mix key (or our own circuit key) on the twist, with torsion, or not canonical.
    #[error("a key is not a point of the prime-order group")]
    BadKey,
    /// The VRF outputs do not verify.
    #[error("the VRF proof does not verify")]
    BadVrf,
    /// From the future: its clock, or ours, is off by more than a minute.
    #[error("the descriptor comes from the future")]
    TooEarly,
    /// Over.
    #[error("the descriptor has expired")]
    Expired,
    /// A newer one is known.
    #[error("a newer descriptor is known")]
    Rollback,
    /// The source brought too many.
    #[error("the source exceeds its rate")]
    RateLimited,
    /// No room for another relay.
    #[error("the set is full")]
    Full,
}

impl Reject {
    /// Under which reason it is counted.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::Malformed,
            Self::UnknownVersion => DropReason::UnknownVersion,
            Self::BadSignature => DropReason::BadMac,
            Self::BadKey | Self::BadVrf => DropReason::BadPayload,
            Self::TooEarly => DropReason::WrongEpoch,
            Self::Expired => DropReason::Expired,
            Self::Rollback => DropReason::Replayed,
            Self::RateLimited => DropReason::RateLimited,
            Self::Full => DropReason::QueueFull,
        }
    }

    /// Whether no honest peer would have passed it on.
    pub fn is_misbehaviour(self) -> bool {
        matches!(self, Self::Malformed | Self::BadSignature | Self::BadKey | Self::BadVrf)
    }
}

impl From<RecordError> for Reject {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::WrongKind(1, _) => Self::UnknownVersion,
            RecordError::BadSignature => Self::BadSignature,
            RecordError::TooEarly => Self::TooEarly,
            RecordError::Expired => Self::Expired,
            RecordError::Malformed | RecordError::WrongKind(..) | RecordError::TooLarge | RecordError::BadBody => {
                Self::Malformed
            }
        }
    }
}

/// Why our own descriptor cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A fact is out of its range.
    #[error("the facts do not make a valid descriptor: {0}")]
    Facts(Reject),
    /// Larger than a descriptor may be.
    #[error("the descriptor would be too large")]
    TooLarge,
}

/// A verified descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    record: SignedRecord,
    hash: [u8; 32],
    epoch: Epoch,
    facts: Facts,
    candidacy: Candidacy,
    vrf_key: [u8; 32],
    delay_salts: [[u8; 32]; 2],
}

impl Descriptor {
    /// Signs `facts` for `epoch`; valid until the end of the next. `seed` is fresh randomness for the VRF proof.
    pub fn sign(
        keys: (&SigningKey, &schnorrkel::Keypair),
        network: (&NetworkId, &EpochSchedule),
        (facts, candidacy): (&Facts, &Candidacy),
        (epoch, seq): (Epoch, u64),
        now: UnixMillis,
        seed: &[u8; 32],
    ) -> Result<Self, SignError> {
        let (identity, vrf) = keys;
        let (id, schedule) = network;
        check(facts).map_err(SignError::Facts)?;
        let vrf_outputs = delay_vrf::prove(vrf, id, epoch, seed);
        let vrf_key = vrf.public.to_bytes();
        let body = Body::new((facts, candidacy), epoch, vrf_key, &vrf_outputs);
        // Whole seconds: a rounded-up start would end after the epoch does.
        let start = UnixMillis(now.as_secs() * 1000);
        let validity = Validity { seq, not_before: start, lifetime: schedule.end(epoch.next()).since(start) };
        let record = SignedRecord::sign(&KIND, id, identity, validity, &body).map_err(|_| SignError::TooLarge)?;
        let delay_salts = [epoch, epoch.next()].map(|epoch| delay_vrf::own_salt(vrf, id, epoch));
        let (facts, candidacy) = (facts.clone(), candidacy.clone());
        Ok(Self { hash: record.hash(), record, epoch, facts, candidacy, vrf_key, delay_salts })
    }

    /// Checks everything that one descriptor alone can be checked for.
    pub fn verify(
        record: SignedRecord,
        network: &NetworkId,
        schedule: &EpochSchedule,
        now: UnixMillis,
    ) -> Result<Self, Reject> {
        let verified = record.verify::<Body>(&KIND, network, now)?;
        let (record, body) = (verified.record().clone(), verified.body());
        let soon = now.plus(CLOCK_TOLERANCE);
        if body.epoch > schedule.at(soon) || record.seq() > soon.0 {
            return Err(Reject::TooEarly);
        }
        if record.expires() > schedule.end(body.epoch.next()) {
            return Err(Reject::Malformed);
        }
        let facts = body.facts()?;
        check(&facts)?;
        let outputs = Outputs { outputs: [body.vrf_output, body.next_vrf_output], proof: body.vrf_proof };
        let delay_salts =
            delay_vrf::verify(&body.vrf_key, network, body.epoch, &outputs).map_err(|_| Reject::BadVrf)?;
        let (epoch, candidacy, vrf_key) = (body.epoch, body.candidacy()?, body.vrf_key);
        Ok(Self { hash: record.hash(), epoch, record, facts, candidacy, vrf_key, delay_salts })
    }

    /// Whose it is.
    pub fn relay(&self) -> NodeId {
        self.record.signer()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.record.as_bytes()
    }

    /// BLAKE3 of its bytes.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// A higher one replaces a lower one.
    pub fn seq(&self) -> u64 {
        self.record.seq()
    }

    /// When it ends.
    pub fn expires(&self) -> UnixMillis {
        self.record.expires()
    }

    /// The epoch that it was signed in; its keys are for this one and the next.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What it adds for the next epoch's set. The ticket is not verified: that takes the beacon (`lottery.rs`).
    pub fn candidacy(&self) -> &Candidacy {
        &self.candidacy
    }

    /// Its VRF key.
    pub fn vrf_key(&self) -> &[u8; 32] {
        &self.vrf_key
    }

    /// Whether it has keys for `epoch`.
    pub fn covers(&self, epoch: Epoch) -> bool {
        epoch == self.epoch || epoch == self.epoch.next()
    }

    /// The relay as a path needs it in `epoch`.
    pub fn hop(&self, epoch: Epoch) -> Option<RelayHop> {
        let ([now_key, next_key], [now_salt, next_salt]) = (self.facts.mix_keys, self.delay_salts);
        let (mix_key, delay_salt) = match epoch {
            e if e == self.epoch => (now_key, now_salt),
            e if e == self.epoch.next() => (next_key, next_salt),
            _ => return None,
        };
        let versions = self.facts.mix_versions.as_slice().into();
        Some(RelayHop { id: self.relay(), mix_key, delay_salt, seal_key: self.facts.seal_key, versions })
    }

    /// The global networks that it stands in.
    pub fn nets(&self) -> Vec<Net> {
        let mut nets: Vec<_> = self.facts.addresses.iter().filter_map(Address::net).collect();
        nets.sort();
        nets.dedup();
        nets
    }
}

impl Body {
    fn new((facts, candidacy): (&Facts, &Candidacy), epoch: Epoch, vrf_key: [u8; 32], vrf: &Outputs) -> Self {
        let ([mix_key, next_mix_key], [vrf_output, next_vrf_output]) = (facts.mix_keys, vrf.outputs);
        Self {
            epoch,
            addresses: facts.addresses.iter().map(|address| ByteBuf::from(address.to_bytes())).collect(),
            roles: facts.roles.bits(),
            mix_key,
            next_mix_key,
            seal_key: facts.seal_key,
            vrf_key,
            vrf_output,
            next_vrf_output,
            vrf_proof: vrf.proof,
            capacity: facts.capacity,
            mix_versions: facts.mix_versions.clone(),
            family: facts.family.map(ByteBuf::from),
            exit_policy: facts.exit_policy.clone(),
            ticket: candidacy.ticket.as_ref().map(|ticket| ByteBuf::from(ticket.to_bytes())),
            loops: candidacy.loops.as_ref().map(|loops| ByteBuf::from(loops.to_bytes())),
            extensions: facts.circuit_key.map(|key| ByteBuf::from(extension(CIRCUIT_KEY, &key))),
        }
    }

    fn candidacy(&self) -> Result<Candidacy, Reject> {
        if self.extensions.as_ref().is_some_and(|bytes| bytes.len() > MAX_EXTENSIONS) {
            return Err(Reject::Malformed);
        }
        let ticket =
            self.ticket.as_ref().map(|bytes| Ticket::from_bytes(bytes).ok_or(Reject::Malformed)).transpose()?;
        let loops =
            self.loops.as_ref().map(|bytes| SignedLoops::from_bytes(bytes).ok_or(Reject::Malformed)).transpose()?;
        Ok(Candidacy { ticket, loops })
    }

    fn facts(&self) -> Result<Facts, Reject> {
        let family = self.family.as_ref().map(|bytes| <[u8; 16]>::try_from(bytes.as_slice())).transpose();
        let addresses: Option<_> = self.addresses.iter().map(|bytes| Address::from_bytes(bytes)).collect();
        Ok(Facts {
            addresses: addresses.ok_or(Reject::Malformed)?,
            roles: Roles::known(self.roles),
            mix_keys: [self.mix_key, self.next_mix_key],
            seal_key: self.seal_key,
            circuit_key: self.extensions.as_ref().and_then(|bytes| circuit_key(bytes)),
            capacity: self.capacity,
            mix_versions: self.mix_versions.clone(),
            family: family.map_err(|_| Reject::Malformed)?,
            exit_policy: self.exit_policy.clone(),
        })
    }
}

/// The ranges of the README, for what comes and for what we sign.
fn check(facts: &Facts) -> Result<(), Reject> {
    let Facts { addresses, mix_versions, exit_policy, .. } = facts;
    let loopback = addresses.iter().filter(|address| address.scope() == Scope::Loopback).count();
    let valid = (1..=MAX_ADDRESSES).contains(&addresses.len())
        && (loopback == 0 || loopback == addresses.len())
        && addresses.iter().all(|address| Address::from_bytes(&address.to_bytes()).is_some())
        && (1..=MAX_VERSIONS).contains(&mix_versions.len())
        && exit_policy.as_ref().is_none_or(|text| text.len() <= MAX_EXIT_POLICY)
        && !facts.roles.is_empty();
    if !valid {
        return Err(Reject::Malformed);
    }
    if facts.mix_keys.iter().chain(&facts.circuit_key).all(is_prime_order_key) { Ok(()) } else { Err(Reject::BadKey) }
}

/// An extension: its type, the length of its content (u16), its content.
fn extension(number: u8, content: &[u8; 32]) -> Vec<u8> {
    [&[number, 0, 32][..], content].concat()
}

/// The content of the first extension of type `number`; those of other types are skipped.
fn find_extension(number: u8, mut bytes: &[u8]) -> Option<&[u8]> {
    while let Some(([found, length @ ..], rest)) = bytes.split_first_chunk::<3>() {
        let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if *found == number {
            return Some(content);
        }
        bytes = rest;
    }
    None
}

/// The circuit key, if it is a good one. Releases before it do not look at extensions and pass on what stands there, so a bad one
/// must not make the descriptor false: two nodes would take each other for liars, and their sets would differ.
fn circuit_key(extensions: &[u8]) -> Option<[u8; 32]> {
    find_extension(CIRCUIT_KEY, extensions)?.try_into().ok().filter(is_prime_order_key)
}

/// Whether `key` is the canonical u-coordinate of a point of the prime-order group other than the neutral element. So its
/// multiplication with any clamped scalar is the same on the Montgomery ladder and in Edwards form, and never zero.
fn is_prime_order_key(key: &[u8; 32]) -> bool {
    MontgomeryPoint(*key).to_edwards(0).is_some_and(|point: EdwardsPoint| {
        point.to_montgomery().to_bytes() == *key && point.is_torsion_free() && !point.is_identity()
    })
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
