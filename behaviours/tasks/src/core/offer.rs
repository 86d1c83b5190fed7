//! What a worker offers: a signed record that anybody may carry. An offer promises nothing; the agreement does. A worker that does not
//! keep to what it offered is found out by its refusals and failures.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use fog_base::{
    NetworkId, UnixMillis,
    record::{Kind, RecordError, SignedRecord, Validity, Verified},
};
use serde::{Deserialize, Serialize};

use super::{
    pay,
    terms::{Class, Privacy, are_features},
};

/// Kind 9 of the signed records.
pub const OFFER: Kind = Kind { number: 9, version: 1, max_body: 2048, max_lifetime: LIFETIME };
/// How long an offer is valid.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How often a worker repeats it, changed or not.
pub const REFRESH: Duration = Duration::from_secs(2 * 60);
/// The least time between two offers of one worker.
pub const MIN_GAP: Duration = Duration::from_secs(5);
/// The longest name of a family, in bytes.
pub const MAX_FAMILY: usize = 64;

/// What a worker asks for its fuel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Micro-credits for 10⁹ units of fuel on an idle worker.
    pub rate: u64,
    /// By how much the rate grows with the square of the load, in ppm of the rate.
    pub scarcity_ppm: u32,
    /// The multiplier for its uptime, in ppm: 1,000,000 is none.
    pub uptime_ppm: u32,
}

impl Default for Price {
    fn default() -> Self {
        Self { rate: 1_000, scarcity_ppm: 500_000, uptime_ppm: 1_000_000 }
    }
}

/// Which tasks a worker takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepts {
    /// The classes, ascending.
    pub classes: Vec<Class>,
    /// The privacy labels, ascending.
    pub privacy: Vec<Privacy>,
}

impl Default for Accepts {
    fn default() -> Self {
        Self { classes: Class::ALL.to_vec(), privacy: Privacy::ALL.to_vec() }
    }
}

/// What a worker offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// How many tasks it runs at once.
    pub slots: u16,
    /// How many of these are free.
    pub free: u16,
    /// How many agreed tasks wait for a slot.
    pub queued: u32,
    /// Fuel per second of one slot; 0 where it was not measured.
    pub speed: u64,
    /// The most linear memory of one task, in bytes.
    pub memory_bytes: u64,
    /// The most bytes of module and inputs of one task.
    pub staging_bytes: u64,
    /// What it has beside WebAssembly, such as `gpu:cuda`; sorted.
    pub features: Vec<String>,
    /// What it asks.
    pub price: Price,
    /// Which tasks it takes.
    pub accepts: Accepts,
    /// Its operator, as it says: replicas of one task never go to two of one family.
    pub family: Option<String>,
    /// Milliwatts that one busy slot takes; 0 where it is not known.
    pub milliwatts: u32,
    /// Whether its host lets it work now.
    pub eligible: bool,
}

/// Why an offer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The envelope: layout, times, signature.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A field out of its range.
    #[error("an offer that contradicts itself")]
    Malformed,
}

impl Offer {
    /// Signs it. `seq` is higher than that of every earlier offer of this worker, also after a restart.
    pub fn sign(
        &self,
        key: &SigningKey,
        network: &NetworkId,
        seq: u64,
        now: UnixMillis,
    ) -> Result<SignedRecord, OfferError> {
        self.check()?;
        let validity = Validity { seq, not_before: now, lifetime: LIFETIME };
        Ok(SignedRecord::sign(&OFFER, network, key, validity, self)?)
    }

    /// Reads and verifies what a peer sent.
    pub fn verify(bytes: &[u8], network: &NetworkId, now: UnixMillis) -> Result<Verified<Self>, OfferError> {
        let verified = SignedRecord::parse(bytes)?.verify::<Self>(&OFFER, network, now)?;
        verified.body().check()?;
        Ok(verified)
    }

    /// The load: tasks running and waiting for each slot, in ppm, at most 2,000,000.
    pub fn load_ppm(&self) -> u32 {
        pay::load_ppm(self.slots, self.free, self.queued)
    }

    /// Micro-credits for 10⁹ units of fuel at its present load.
    pub fn rate(&self) -> u64 {
        pay::rate(&self.price, self.load_ppm())
    }

    fn check(&self) -> Result<(), OfferError> {
        let ascending = |labels: &[u8]| labels.iter().zip(labels.iter().skip(1)).all(|(one, next)| one < next);
        let classes: Vec<u8> = self.accepts.classes.iter().map(|class| *class as u8).collect();
        let privacy: Vec<u8> = self.accepts.privacy.iter().map(|label| *label as u8).collect();
        let family = self.family.as_ref().is_none_or(|family| (1..=MAX_FAMILY).contains(&family.len()));
        let sound = self.free <= self.slots
            && are_features(&self.features)
            && ascending(&classes)
            && ascending(&privacy)
            && family
            && self.price.is_sound();
        if sound { Ok(()) } else { Err(OfferError::Malformed) }
    }
}

#[cfg(test)]
#[path = "offer_tests.rs"]
mod tests;
