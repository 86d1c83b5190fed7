//! Makes a descriptor.

use ed25519_dalek::{Signer, SigningKey};
use fog_base::{Epoch, NetworkId};

use super::{
    ClientKey, Contents, DescriptorError, HEADER, Header, LABEL, LayerKeys, SIGNATURE, SIZES, VERSION, auth, certified,
};
use crate::core::{
    blinding::{BlindedSecret, Subcredential},
    kdf::TAG,
    period::Period,
    random::Random,
};

/// What a descriptor is made of.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The period.
    pub period: Period,
    /// The last epoch in which it is valid.
    pub last_epoch: Epoch,
    /// Higher than all before.
    pub revision: u64,
    /// What it tells.
    pub contents: &'a Contents,
    /// Whom it tells; `None`: everybody who knows the name.
    pub clients: Option<&'a [ClientKey]>,
}

impl Draft<'_> {
    /// Sealed and signed. Fails if it does not fit into the largest size, or tells nothing.
    pub fn seal(
        &self,
        secret: &BlindedSecret,
        subcredential: &Subcredential,
        random: &mut Random,
    ) -> Result<Vec<u8>, DescriptorError> {
        if self.contents.points.is_empty() {
            return Err(DescriptorError::Malformed("no introduction point"));
        }
        let cookie = self.clients.map_or([0; 16], |_| random.bytes());
        let slots = auth::write(self.clients.unwrap_or_default(), &cookie, subcredential, random);
        let mut contents = self.contents.write();
        let used = HEADER + slots.len() + contents.len() + 2 * TAG + SIGNATURE;
        let size = SIZES.into_iter().find(|size| *size >= used).ok_or(DescriptorError::Size(used))?;
        contents.resize(contents.len() + size - used, 0);

        let header = Header {
            last_epoch: self.last_epoch,
            period: self.period,
            revision: self.revision,
            key: *secret.key(),
            salt: random.bytes(),
        };
        let descriptor_key = SigningKey::from_bytes(&random.bytes());
        let mut bytes = self.header(&header, &descriptor_key, secret)?;
        let keys = LayerKeys { header: &header, subcredential };
        let inner = keys.inner(&cookie).seal(&bytes, &contents);
        let outer = keys.outer().seal(&bytes, &[slots, inner].concat());
        bytes.extend_from_slice(&outer);
        let signature = descriptor_key.sign(&[LABEL, &self.network.0, &bytes].concat());
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(bytes)
    }

    fn header(&self, header: &Header, key: &SigningKey, secret: &BlindedSecret) -> Result<Vec<u8>, DescriptorError> {
        let public = key.verifying_key().to_bytes();
        let certificate = secret.sign(&certified(self.network, self.period, &public));
        let certificate = certificate.ok_or(DescriptorError::BlindedKey)?;
        let mut bytes = vec![VERSION, 0];
        bytes.extend_from_slice(&header.last_epoch.0.to_be_bytes());
        bytes.extend_from_slice(&header.period.0.to_be_bytes());
        bytes.extend_from_slice(&header.revision.to_be_bytes());
        bytes.extend_from_slice(header.key.as_bytes());
        bytes.extend_from_slice(&public);
        bytes.extend_from_slice(&certificate);
        bytes.extend_from_slice(&header.salt);
        Ok(bytes)
    }
}
