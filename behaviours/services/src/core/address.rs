//! A service's name: its public key in base32, with a checksum and a version (rend-spec-v3, section 6).
//!
//! One service has one name. A key with torsion would have eight (section 2.2.7 there), so such keys are refused; so are encodings
//! that are not canonical.

use std::{fmt, str::FromStr};

use curve25519_dalek::edwards::CompressedEdwardsY;
use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use sha3::{Digest, Sha3_256};
use subtle::ConstantTimeEq;

use super::blinding::{Constants, Fog};

/// Characters before the suffix.
pub const NAME_LENGTH: usize = 56;
const BYTES: usize = 35;

/// Why a text is not the name of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Does not end as names of services do.
    #[error("not a name of a service: it does not end in `{0}`")]
    Suffix(&'static str),
    /// Something stands before the name.
    #[error("a service has no subdomains: only the 56 characters before the suffix name it")]
    Subdomain,
    /// Not 56 characters.
    #[error("a service's name has 56 characters, this one {0}")]
    Length(usize),
    /// Not base32.
    #[error("a service's name has the letters a to z and the digits 2 to 7")]
    Alphabet,
    /// Made for another version.
    #[error("the name is of version {0}, which is not known here")]
    Version(u8),
    /// A letter is wrong.
    #[error("the checksum does not match: the name was mistyped or cut")]
    Checksum,
    /// Not a public key that a service may have.
    #[error("the name holds no valid public key")]
    Key,
}

/// A service's identity key, checked: a canonical point of prime order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey([u8; 32]);

impl ServiceKey {
    /// Checks that the bytes are a canonical encoding of a point without torsion that is not the identity.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, AddressError> {
        let point = CompressedEdwardsY(bytes).decompress().ok_or(AddressError::Key)?;
        let canonical = point.compress().0 == bytes;
        let proper = !point.is_small_order() && point.is_torsion_free();
        if canonical && proper { Ok(Self(bytes)) } else { Err(AddressError::Key) }
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey(…)")
    }
}

/// A name; `C` are the constants it is made with. Prints in lower case with its suffix; `Debug` shows the first letters only.
pub struct Name<C> {
    key: ServiceKey,
    constants: std::marker::PhantomData<C>,
}

/// The name of a `.fog` service.
pub type Address = Name<Fog>;

impl<C> Clone for Name<C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Name<C> {}
impl<C> PartialEq for Name<C> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<C> Eq for Name<C> {}
impl<C> PartialOrd for Name<C> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<C> Ord for Name<C> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl<C: Constants> Name<C> {
    /// The name of a key.
    pub fn new(key: ServiceKey) -> Self {
        Self { key, constants: std::marker::PhantomData }
    }

    /// The key.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    fn checksum(key: &[u8; 32], version: u8) -> [u8; 2] {
        let hash = Sha3_256::new().chain_update(C::CHECKSUM).chain_update(key).chain_update([version]).finalize();
        let [first, second, ..] = <[u8; 32]>::from(hash);
        [first, second]
    }
}

impl<C: Constants> fmt::Display for Name<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key.0.as_slice(), &Self::checksum(&self.key.0, C::VERSION), &[C::VERSION]].concat();
        write!(f, "{}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase(), C::SUFFIX)
    }
}

impl<C: Constants> fmt::Debug for Name<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "{}…{}", text.get(..4).unwrap_or_default(), C::SUFFIX)
    }
}

impl<C: Constants> FromStr for Name<C> {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let from_suffix = text.len().checked_sub(C::SUFFIX.len());
        let (name, suffix) = from_suffix.and_then(|at| text.split_at_checked(at)).unwrap_or(("", text));
        if !suffix.eq_ignore_ascii_case(C::SUFFIX) {
            return Err(AddressError::Suffix(C::SUFFIX));
        }
        if name.contains('.') {
            return Err(AddressError::Subdomain);
        }
        if name.len() != NAME_LENGTH {
            return Err(AddressError::Length(name.chars().count()));
        }
        let bytes = BASE32_NOPAD_NOCASE.decode(name.as_bytes()).map_err(|_| AddressError::Alphabet)?;
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| AddressError::Alphabet)?;
        let [key @ .., first, second, version] = bytes;
        if version != C::VERSION {
            return Err(AddressError::Version(version));
        }
        if !bool::from(Self::checksum(&key, version).ct_eq(&[first, second])) {
            return Err(AddressError::Checksum);
        }
        ServiceKey::from_bytes(key).map(Self::new)
    }
}

/// Whether `host` claims to be the name of a service, valid or not: it must then never be looked up elsewhere.
pub fn is_service_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let from_suffix = host.len().checked_sub(Fog::SUFFIX.len());
    from_suffix.and_then(|at| host.get(at..)).is_some_and(|suffix| suffix.eq_ignore_ascii_case(Fog::SUFFIX))
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
