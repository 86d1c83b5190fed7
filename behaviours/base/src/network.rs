//! The network file: what all nodes of one network must agree on before they meet.
//!
//! A file is JSON for people to read: the parameters, the key that signed them, and the signature over their canonical form (the
//! fields in fixed order, below). Its id is random; whoever has the file knows the network. Without a file a node is in LAN
//! mode: [`Network::lan`], the same constants for everybody, open and uncertified.

use std::time::Duration;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{EpochSchedule, NetworkId, NodeId};

const LABEL: &[u8] = b"fog network file v1\0";
/// Delays are drawn again when they exceed this many means.
const MAX_DELAY_IN_MEANS: u32 = 10;
/// The largest file that is read.
pub const MAX_FILE: usize = 1024 * 1024;

/// Why a network cannot be made or a file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not JSON of this shape, or too large.
    #[error("not a network file: {0}")]
    Malformed(String),
    /// The signature does not verify: the file was changed after it was made.
    #[error("the network file's signature does not verify: it was changed after it was made")]
    BadSignature,
    /// The parameters do not fit each other.
    #[error("{0}")]
    Parameters(&'static str),
}

/// The parameters of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// What protocols and signatures call it.
    pub id: NetworkId,
    /// The length of an epoch.
    pub epoch_length: Duration,
    /// The mean of the exponential delay at each mix.
    pub mean_delay: Duration,
    /// The relays that certify the first snapshot, with their stake.
    pub genesis: Vec<(NodeId, u64)>,
    /// Multiaddresses of first contacts.
    pub bootstrap: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    id: String,
    epoch_seconds: u64,
    mean_delay_ms: u64,
    genesis: Vec<Stake>,
    bootstrap: Vec<String>,
    public_key: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stake {
    peer_id: String,
    stake: u64,
}

impl Network {
    /// LAN mode: everybody without a file. 30-minute epochs, 50 ms mean delay.
    pub fn lan() -> Self {
        Self {
            name: "lan".into(),
            id: NetworkId(*blake3::hash(b"fog lan network v1").as_bytes()),
            epoch_length: Duration::from_secs(1800),
            mean_delay: Duration::from_millis(50),
            genesis: Vec::new(),
            bootstrap: Vec::new(),
        }
    }

    /// Whether this is LAN mode's open network.
    pub fn is_lan(&self) -> bool {
        self.id == Self::lan().id
    }

    /// How UTC is cut into epochs.
    pub fn schedule(&self) -> EpochSchedule {
        EpochSchedule::new(self.epoch_length)
    }

    /// The longest delay at one mix.
    pub fn max_delay(&self) -> Duration {
        self.mean_delay * MAX_DELAY_IN_MEANS
    }

    /// Checks that the parameters fit each other.
    pub fn check(&self) -> Result<(), NetworkError> {
        let complain = |text| Err(NetworkError::Parameters(text));
        if self.name.is_empty() || self.name.len() > 64 || self.name.chars().any(char::is_control) {
            return complain("a network's name has 1 to 64 bytes and no control characters");
        }
        if self.epoch_length < Duration::from_secs(10) || self.epoch_length > Duration::from_secs(7 * 86_400) {
            return complain("an epoch lasts from 10 seconds to 7 days");
        }
        if self.mean_delay < Duration::from_millis(1) {
            return complain("the mean delay is at least 1 ms");
        }
        if self.mean_delay.saturating_mul(20) > self.schedule().grace() {
            return complain("the mean delay is at most a twentieth of the grace (a third of an epoch, at most 60 s)");
        }
        let mut relays: Vec<_> = self.genesis.iter().map(|(relay, _)| relay).collect();
        relays.sort();
        relays.dedup();
        if relays.len() != self.genesis.len() || self.genesis.iter().any(|(_, stake)| *stake == 0) {
            return complain("each genesis relay is named once, with a stake above zero");
        }
        Ok(())
    }

    /// The signed file's text.
    pub fn to_file(&self, key: &SigningKey) -> Result<String, NetworkError> {
        self.check()?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let public_key = key.verifying_key().to_bytes();
        let file = File {
            name: self.name.clone(),
            id: self.id.to_string(),
            epoch_seconds: self.epoch_length.as_secs(),
            mean_delay_ms: u64::try_from(self.mean_delay.as_millis()).unwrap_or(u64::MAX),
            genesis: self.genesis.iter().map(|(id, stake)| Stake { peer_id: id.to_string(), stake: *stake }).collect(),
            bootstrap: self.bootstrap.clone(),
            public_key: hex(&public_key),
            signature: hex(&key.sign(&self.signed_bytes(&public_key)).to_bytes()),
        };
        serde_json::to_string_pretty(&file).map(|text| text + "\n").map_err(|e| NetworkError::Malformed(e.to_string()))
    }

    /// Reads and verifies a file's text.
    pub fn from_file(text: &str) -> Result<Self, NetworkError> {
        let malformed = |what: &dyn ToString| NetworkError::Malformed(what.to_string());
        if text.len() > MAX_FILE {
            return Err(malformed(&"larger than 1 MiB"));
        }
        let file: File = serde_json::from_str(text).map_err(|e| malformed(&e))?;
        let network = Self {
            name: file.name,
            id: file.id.parse().map_err(|e| malformed(&e))?,
            epoch_length: Duration::from_secs(file.epoch_seconds),
            mean_delay: Duration::from_millis(file.mean_delay_ms),
            genesis: file
                .genesis
                .iter()
                .map(|s| Ok((s.peer_id.parse().map_err(|e| malformed(&e))?, s.stake)))
                .collect::<Result<_, NetworkError>>()?,
            bootstrap: file.bootstrap,
        };
        network.check()?;
        let bytes = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|e| malformed(&e));
        let public_key: [u8; 32] = bytes(&file.public_key)?.try_into().map_err(|_| malformed(&"a key has 32 bytes"))?;
        let signature = Signature::from_slice(&bytes(&file.signature)?).map_err(|_| NetworkError::BadSignature)?;
        VerifyingKey::from_bytes(&public_key)
            .and_then(|key| key.verify_strict(&network.signed_bytes(&public_key), &signature))
            .map_err(|_| NetworkError::BadSignature)?;
        Ok(network)
    }

    /// The canonical form: each text with its length (u32, big-endian) before it, numbers as u64 big-endian.
    fn signed_bytes(&self, public_key: &[u8; 32]) -> Vec<u8> {
        fn number(out: &mut Vec<u8>, n: usize) {
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
        fn text(out: &mut Vec<u8>, text: &str) {
            number(out, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        let mut out = [LABEL, public_key.as_slice(), self.id.0.as_slice()].concat();
        text(&mut out, &self.name);
        out.extend_from_slice(&self.epoch_length.as_secs().to_be_bytes());
        number(&mut out, usize::try_from(self.mean_delay.as_millis()).unwrap_or(usize::MAX));
        number(&mut out, self.genesis.len());
        for (id, stake) in &self.genesis {
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&stake.to_be_bytes());
        }
        number(&mut out, self.bootstrap.len());
        for address in &self.bootstrap {
            text(&mut out, address);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            name: "test".into(),
            id: NetworkId([3; 32]),
            epoch_length: Duration::from_secs(60),
            mean_delay: Duration::from_millis(50),
            genesis: vec![(NodeId([1; 32]), 5)],
            bootstrap: vec!["/ip4/127.0.0.1/tcp/1".into()],
        }
    }

    #[test]
    fn a_file_survives_the_round_trip() {
        let text = network().to_file(&SigningKey::from_bytes(&[8; 32])).unwrap();
        assert_eq!(Network::from_file(&text), Ok(network()));
    }

    #[test]
    fn a_changed_file_is_refused() {
        let text = network().to_file(&SigningKey::from_bytes(&[8; 32])).unwrap();
        for (from, to) in [("60", "61"), ("\"test\"", "\"tesu\""), ("tcp/1", "tcp/2"), ("\"stake\": 5", "\"stake\": 6")]
        {
            assert_eq!(Network::from_file(&text.replace(from, to)), Err(NetworkError::BadSignature), "{from}");
        }
        assert!(matches!(Network::from_file("{}"), Err(NetworkError::Malformed(_))));
    }

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        let slow = Network { mean_delay: Duration::from_secs(2), ..network() };
        assert!(matches!(slow.check(), Err(NetworkError::Parameters(_))));
        let short = Network { epoch_length: Duration::from_secs(1), ..network() };
        assert!(matches!(short.check(), Err(NetworkError::Parameters(_))));
        assert_eq!(Network::lan().check(), Ok(()));
    }
}
