//! The descriptor: where a service can be introduced to, signed, and sealed in two layers (README, "Descriptor").
//!
//! [`Descriptor::parse`] gives what a directory may believe: both signatures hold. [`Descriptor::open`] gives what a client may
//! believe. Neither says that there is no newer one.

mod auth;
mod inner;
mod revision;
mod seal;

use fog_base::{Epoch, NetworkId};

use super::{
    blinding::{BlindedKey, Subcredential, verify},
    bytes::Reader,
    kdf::Once,
    period::{LIFETIME, Period},
};

pub use auth::{ClientKey, ClientSecret, KeyError, MAX_CLIENTS};
pub use inner::{Contents, IntroductionPoint, MAX_POINTS, MixedOffer, PuzzleOffer};
pub use revision::Revisions;
pub use seal::Draft;

/// The sizes that a descriptor may have, in bytes.
pub const SIZES: [usize; 3] = [4096, 8192, 16384];

const VERSION: u8 = 1;
const HEADER: usize = 166;
const SIGNATURE: usize = 64;
const KEY_LABEL: &[u8] = b"fog services descriptor key v1";
const LABEL: &[u8] = b"fog services descriptor v1";
const OUTER: &[u8] = b"fog services descriptor outer v1";
const INNER: &[u8] = b"fog services descriptor inner v1";

/// Why a descriptor is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Not one of the fixed sizes.
    #[error("a descriptor has 4, 8 or 16 KiB, this one {0} bytes")]
    Size(usize),
    /// A version that is not known here.
    #[error("descriptor version {0} is not known here")]
    Version(u8),
    /// The blinded key is no valid point.
    #[error("the blinded key is not valid")]
    BlindedKey,
    /// The blinded key did not sign the descriptor key.
    #[error("the blinded key did not sign the descriptor key")]
    Certificate,
    /// The descriptor key did not sign the descriptor.
    #[error("the signature does not verify")]
    Signature,
    /// Of a period that is not open.
    #[error("it belongs to another period")]
    Period,
    /// Its last epoch is over.
    #[error("it has expired")]
    Expired,
    /// It claims to be valid for longer than descriptors are.
    #[error("it claims a lifetime that is too long")]
    Lifetime,
    /// Another service's, or the outer layer was not sealed for this name.
    #[error("it is not this service's")]
    OtherService,
    /// The service wants to know its clients, and no client key was given.
    #[error("the service admits known clients only, and no client key was given")]
    ClientKeyMissing,
    /// The client key that was given is not among those that the service knows.
    #[error("the service does not know this client key")]
    ClientKeyWrong,
    /// Signed by the service, and nonsense.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// A descriptor whose signatures hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Descriptor {
    bytes: Vec<u8>,
    header: Header,
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Descriptor").field("header", &self.header).field("size", &self.bytes.len()).finish()
    }
}

/// What everybody can read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last epoch in which it is valid.
    pub last_epoch: Epoch,
    /// Its period.
    pub period: Period,
    /// Higher is newer.
    pub revision: u64,
    /// Whose it is, in this period.
    pub key: BlindedKey,
    salt: [u8; 16],
}

/// A descriptor that was read and not verified: what it claims, for whoever wants to refuse it before two signatures are checked.
#[derive(Debug, Clone, Copy)]
pub struct Claimed<'a> {
    bytes: &'a [u8],
    /// The last epoch in which it is valid.
    pub last_epoch: Epoch,
    /// Its period.
    pub period: Period,
    /// Higher is newer.
    pub revision: u64,
    /// The blinded key.
    pub key: [u8; 32],
    descriptor_key: [u8; 32],
    certificate: [u8; SIGNATURE],
    salt: [u8; 16],
}

impl<'a> Claimed<'a> {
    /// Reads the size, the version and the header.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DescriptorError> {
        let wrong_size = DescriptorError::Size(bytes.len());
        if !SIZES.contains(&bytes.len()) {
            return Err(wrong_size);
        }
        let mut reader = Reader(bytes);
        let version = reader.u8().ok_or(wrong_size)?;
        if version != VERSION {
            return Err(DescriptorError::Version(version));
        }
        if reader.u8().ok_or(wrong_size)? != 0 {
            return Err(DescriptorError::Malformed("unknown flags"));
        }
        let mut fields = || {
            Some(Self {
                bytes,
                last_epoch: Epoch(reader.u32()?),
                period: Period(reader.u64()?),
                revision: reader.u64()?,
                key: reader.array()?,
                descriptor_key: reader.array()?,
                certificate: reader.array()?,
                salt: reader.array()?,
            })
        };
        fields().ok_or(wrong_size)
    }

    /// Whether it may be kept and believed in `epoch`, if it is what it claims.
    pub fn check(&self, epoch: Epoch) -> Result<(), DescriptorError> {
        check(self.period, self.last_epoch, epoch)
    }

    /// Verifies the key and both signatures.
    pub fn verify(&self, network: &NetworkId) -> Result<Descriptor, DescriptorError> {
        let Self { last_epoch, period, revision, salt, .. } = *self;
        let key = BlindedKey::from_bytes(self.key).map_err(|_| DescriptorError::BlindedKey)?;
        if !key.verify(&certified(network, period, &self.descriptor_key), &self.certificate) {
            return Err(DescriptorError::Certificate);
        }
        let split = self.bytes.split_last_chunk::<SIGNATURE>();
        let (signed, signature) = split.ok_or(DescriptorError::Size(self.bytes.len()))?;
        if !verify(&self.descriptor_key, &[LABEL, &network.0, signed].concat(), signature) {
            return Err(DescriptorError::Signature);
        }
        let header = Header { last_epoch, period, revision, key, salt };
        Ok(Descriptor { bytes: self.bytes.to_vec(), header })
    }
}

fn check(period: Period, last_epoch: Epoch, epoch: Epoch) -> Result<(), DescriptorError> {
    if !period.is_open(epoch) {
        return Err(DescriptorError::Period);
    }
    if last_epoch < epoch {
        return Err(DescriptorError::Expired);
    }
    // One more, for clocks that are ahead.
    if last_epoch.0 > epoch.0.saturating_add(LIFETIME + 1) {
        return Err(DescriptorError::Lifetime);
    }
    Ok(())
}

impl Descriptor {
    /// Reads `bytes` and verifies both signatures. Whether it is still valid is for [`Self::check`].
    pub fn parse(bytes: &[u8], network: &NetworkId) -> Result<Self, DescriptorError> {
        Claimed::read(bytes)?.verify(network)
    }

    /// What everybody can read.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// As it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it may be kept and believed in `epoch`.
    pub fn check(&self, epoch: Epoch) -> Result<(), DescriptorError> {
        check(self.header.period, self.header.last_epoch, epoch)
    }

    /// What a client reads who knows the name, and has a key if the service wants to know its clients.
    pub fn open(
        &self,
        subcredential: &Subcredential,
        client: Option<&ClientSecret>,
    ) -> Result<Contents, DescriptorError> {
        let short = DescriptorError::Size(self.bytes.len());
        let mut reader = Reader(&self.bytes);
        let header = reader.slice(HEADER).ok_or(short)?;
        let length = reader.0.len().checked_sub(SIGNATURE).ok_or(short)?;
        let sealed = reader.slice(length).ok_or(short)?;
        let keys = LayerKeys { header: &self.header, subcredential };
        let outer = keys.outer().open(header, sealed).ok_or(DescriptorError::OtherService)?;
        let (slots, inner) = auth::Slots::read(&outer)?;
        let cookie = client.and_then(|client| slots.cookie(client, subcredential));
        let opened = keys.inner(&cookie.unwrap_or_default()).open(header, inner);
        let plaintext = opened.ok_or(match client {
            Some(_) => DescriptorError::ClientKeyWrong,
            None => DescriptorError::ClientKeyMissing,
        });
        // A client key that is not needed does no harm.
        let plaintext = plaintext.or_else(|e| keys.inner(&[0; 16]).open(header, inner).ok_or(e))?;
        Contents::read(&plaintext)
    }
}

fn certified(network: &NetworkId, period: Period, descriptor_key: &[u8; 32]) -> Vec<u8> {
    [KEY_LABEL, &network.0, &period.0.to_be_bytes(), descriptor_key].concat()
}

/// Makes the keys of both layers.
struct LayerKeys<'a> {
    header: &'a Header,
    subcredential: &'a Subcredential,
}

impl LayerKeys<'_> {
    fn outer(&self) -> Once {
        self.layer(&[], OUTER)
    }

    fn inner(&self, cookie: &[u8; 16]) -> Once {
        self.layer(cookie, INNER)
    }

    fn layer(&self, cookie: &[u8], label: &[u8]) -> Once {
        let Header { key, revision, salt, .. } = self.header;
        Once::derive(salt, &[key.as_bytes(), &self.subcredential.0, &revision.to_be_bytes(), cookie], &[label])
    }
}

#[cfg(test)]
mod tests;
