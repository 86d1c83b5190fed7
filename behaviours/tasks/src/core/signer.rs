//! Signing and checking the records of one node on one network.

use std::{sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use fog_base::{
    NetworkId, NodeId, Now,
    record::{Kind, SignedRecord, Validity, Verified},
};
use serde::{Serialize, de::DeserializeOwned};

use super::reject::Reject;

#[derive(Clone)]
pub(crate) struct Signer {
    key: Arc<SigningKey>,
    network: NetworkId,
    me: NodeId,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Signer {
    pub(crate) fn new(key: Arc<SigningKey>, network: NetworkId) -> Self {
        let me = NodeId(key.verifying_key().to_bytes());
        Self { key, network, me }
    }

    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) fn network(&self) -> &NetworkId {
        &self.network
    }

    pub(crate) fn sign<T: Serialize>(&self, kind: &Kind, seq: u64, now: Now, body: &T) -> Result<SignedRecord, Reject> {
        let lifetime = Duration::from_secs(u64::MAX / 4_000);
        let validity = Validity { seq, not_before: now.unix, lifetime };
        Ok(SignedRecord::sign(kind, &self.network, &self.key, validity, body)?)
    }

    /// A record that `from` brought and must have signed. What this node says to itself was never out of its hands: there the
    /// signature is not checked again.
    pub(crate) fn open<T: DeserializeOwned>(
        &self,
        record: SignedRecord,
        kind: &Kind,
        from: NodeId,
        now: Now,
    ) -> Result<Verified<T>, Reject> {
        if record.signer() != from {
            return Err(Reject::Stranger);
        }
        if from == self.me {
            return Ok(record.take_own(kind, &self.me)?);
        }
        Ok(record.verify(kind, &self.network, now.unix)?)
    }
}
