//! Relays for tests.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId, Now, UnixMillis,
    relay::{Role, Roles},
};
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};

use super::{
    address::{Address, Transport},
    descriptor::{Candidacy, Descriptor, Facts},
    relay_set::{Config, RelaySet},
};

pub(crate) const NETWORK: NetworkId = NetworkId([3; 32]);
pub(crate) const EPOCH: Epoch = Epoch(1_000_000);
const EPOCH_LENGTH: Duration = Duration::from_secs(600);

pub(crate) fn schedule() -> EpochSchedule {
    EpochSchedule::new(EPOCH_LENGTH)
}

/// A tenth into the epoch.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
pub(crate) fn start() -> Now {
    Now { mono: Instant::now(), unix: schedule().start(EPOCH).plus(EPOCH_LENGTH / 10) }
}

pub(crate) fn identity(n: u16) -> SigningKey {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_bytes(&bytes)
}

pub(crate) fn node(n: u16) -> NodeId {
    NodeId(identity(n).verifying_key().to_bytes())
}

pub(crate) fn vrf(n: u16) -> Keypair {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    MiniSecretKey::from_bytes(&bytes).unwrap().expand_to_keypair(ExpansionMode::Uniform)
}

/// A valid mix key.
pub(crate) fn mix_key(seed: u64) -> [u8; 32] {
    let mut bytes = [5; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    curve25519_dalek::MontgomeryPoint::mul_base_clamped(bytes).to_bytes()
}

pub(crate) fn address(ip: &str) -> Address {
    Address { ip: ip.parse().unwrap(), transport: Transport::Tcp, port: 4001 }
}

/// Facts of relay `n` with keys for `epoch`; a private address.
pub(crate) fn facts(n: u16, epoch: Epoch) -> Facts {
    let key = |epoch: Epoch| mix_key(u64::from(n) << 32 | u64::from(epoch.0));
    let [high, low] = n.to_be_bytes();
    Facts {
        addresses: vec![address(&format!("10.0.{high}.{low}"))],
        roles: Roles::NONE.with(Role::Mix).with(Role::Mailbox),
        mix_keys: [key(epoch), key(epoch.next())],
        seal_key: mix_key(u64::from(n)),
        circuit_key: Some(mix_key(u64::from(n) | 1 << 63)),
        capacity: 1000,
        mix_versions: vec![1],
        family: None,
        exit_policy: None,
    }
}

pub(crate) fn sign(n: u16, facts: &Facts, epoch: Epoch, seq: u64, now: UnixMillis) -> Descriptor {
    sign_candidate(n, (facts, &Candidacy::default()), epoch, seq, now)
}

pub(crate) fn sign_candidate(
    n: u16,
    contents: (&Facts, &Candidacy),
    epoch: Epoch,
    seq: u64,
    now: UnixMillis,
) -> Descriptor {
    let (identity, vrf) = (identity(n), vrf(n));
    Descriptor::sign((&identity, &vrf), (&NETWORK, &schedule()), contents, (epoch, seq), now, &[1; 32]).unwrap()
}

pub(crate) fn relay_at(n: u16, epoch: Epoch) -> Descriptor {
    let now = start().unix;
    sign(n, &facts(n, epoch), epoch, now.0, now)
}

pub(crate) fn relay(n: u16) -> Descriptor {
    relay_at(n, EPOCH)
}

pub(crate) fn set(now: Now) -> RelaySet {
    RelaySet::new(Config::new(NETWORK, schedule()), now)
}
