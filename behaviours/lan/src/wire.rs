//! A beacon's bytes: a signed record of fog-base, sealed for the network and the day. The README has the layout.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use ed25519_dalek::SigningKey;
use fog_base::{
    NetworkId, UnixMillis,
    record::{Kind, RecordError, SignedRecord, Validity},
};
use serde::{Deserialize, Serialize};

use crate::core::{local::Ports, reject::Reject};

/// Signed records that are beacons.
pub const KIND: Kind = Kind { number: 8, version: 1, max_body: 32, max_lifetime: Duration::from_secs(3 * DAY_S) };
/// Where beacons are sent to: administratively scoped (RFC 2365), with a hop limit of 1.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 70, 79);
/// The same on IPv6: link-local scope.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x46, 0x6f67);
/// The UDP port of both.
pub const PORT: u16 = 17_079;
/// The longest packet.
pub const MAX_PACKET: usize = NONCE + RECORD + KIND.max_body + TAG;
/// The shortest one that could be a beacon.
pub const MIN_PACKET: usize = NONCE + RECORD + TAG;

const NONCE: usize = 24;
const TAG: usize = 16;
/// A signed record without its body.
const RECORD: usize = 128;
const DAY_S: u64 = 86_400;
const LABEL: &[u8] = b"fog lan beacon v1\0";

/// What a beacon tells: an address of the node, which it is sent from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// 4 bytes of an IPv4 address, or 16 of an IPv6 address.
    #[serde(with = "serde_bytes")]
    ip: Vec<u8>,
    tcp: u16,
    quic: u16,
}

impl Beacon {
    /// Of a node that listens at `ip` on these ports.
    pub fn new(ip: IpAddr, ports: Ports) -> Self {
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self { ip, tcp: ports.tcp, quic: ports.quic }
    }

    /// The address; `None` if it is none.
    pub fn ip(&self) -> Option<IpAddr> {
        let v4 = <[u8; 4]>::try_from(self.ip.as_slice()).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(self.ip.as_slice()).map(IpAddr::from)).ok()
    }

    /// Where the node listens.
    pub fn ports(&self) -> Ports {
        Ports { tcp: self.tcp, quic: self.quic }
    }

    /// Signs it. `seq` is made by [`seq`].
    ///
    /// The record says nothing of the clock but the day: it is valid from the day before until the end of the day after.
    pub fn sign(
        &self,
        network: &NetworkId,
        key: &SigningKey,
        seq: u64,
        now: UnixMillis,
    ) -> Result<SignedRecord, RecordError> {
        let today = UnixMillis(now.as_secs() / DAY_S * DAY_S * 1_000);
        let not_before = today.minus(Duration::from_secs(DAY_S));
        let validity = Validity { seq, not_before, lifetime: KIND.max_lifetime };
        SignedRecord::sign(&KIND, network, key, validity, self)
    }
}

/// A record's sequence number: the name of the node's start, and the beacon's number since then, from 1 on.
pub fn seq(boot: u32, number: u32) -> u64 {
    u64::from(boot) << 32 | u64::from(number)
}

/// The name of the start, and the beacon's number.
pub fn split_seq(seq: u64) -> (u32, u32) {
    ((seq >> 32) as u32, seq as u32)
}

fn cipher(network: &NetworkId, day: u64) -> XChaCha20Poly1305 {
    let day = u32::try_from(day).unwrap_or(u32::MAX).to_be_bytes();
    let key = blake3::keyed_hash(&network.0, &[LABEL, &day].concat());
    XChaCha20Poly1305::new(key.as_bytes().into())
}

/// Seals a signed beacon for all who know the network.
pub fn seal(
    record: &SignedRecord,
    network: &NetworkId,
    nonce: [u8; NONCE],
    now: UnixMillis,
) -> Result<Vec<u8>, Reject> {
    let mut sealed = record.as_bytes().to_vec();
    let cipher = cipher(network, now.as_secs() / DAY_S);
    cipher.encrypt_in_place(&nonce.into(), &[], &mut sealed).map_err(|_| Reject::Malformed)?;
    let packet = [nonce.as_slice(), &sealed].concat();
    if packet.len() > MAX_PACKET { Err(Reject::Size) } else { Ok(packet) }
}

/// Opens what was sealed for this network today, yesterday or tomorrow. Nothing in it is believed yet.
pub fn open(packet: &[u8], network: &NetworkId, now: UnixMillis) -> Result<SignedRecord, Reject> {
    if !(MIN_PACKET..=MAX_PACKET).contains(&packet.len()) {
        return Err(Reject::Size);
    }
    let (nonce, sealed) = packet.split_first_chunk::<NONCE>().ok_or(Reject::Size)?;
    let today = now.as_secs() / DAY_S;
    for day in [today, today.saturating_sub(1), today.saturating_add(1)] {
        let mut opened = sealed.to_vec();
        if cipher(network, day).decrypt_in_place(nonce.into(), &[], &mut opened).is_ok() {
            return SignedRecord::parse(&opened).map_err(|_| Reject::Malformed);
        }
    }
    Err(Reject::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);
    const NOON: UnixMillis = UnixMillis((20_000 * DAY_S + DAY_S / 2) * 1_000);

    fn packet(ip: &str) -> Vec<u8> {
        let beacon = Beacon::new(ip.parse().unwrap(), Ports { tcp: 65_535, quic: 65_535 });
        let record = beacon.sign(&NETWORK, &SigningKey::from_bytes(&[9; 32]), u64::MAX, NOON).unwrap();
        seal(&record, &NETWORK, [5; 24], NOON).unwrap()
    }

    #[test]
    fn a_beacon_is_one_small_packet_that_reads_back() {
        for (ip, bytes) in [("10.1.2.3", 183), ("fe80::1:2:3:4", 195)] {
            let packet = packet(ip);
            assert_eq!(packet.len(), bytes);
            let verified = open(&packet, &NETWORK, NOON).unwrap().verify::<Beacon>(&KIND, &NETWORK, NOON).unwrap();
            assert_eq!(verified.body().ip(), Some(ip.parse().unwrap()));
            assert_eq!(verified.body().ports(), Ports { tcp: 65_535, quic: 65_535 });
        }
    }

    /// A second implementation makes the same bytes.
    #[test]
    fn the_layout_is_frozen() {
        let hash = blake3::hash(&packet("192.0.2.7"));
        assert_eq!(hash.to_hex().as_str(), "9d758dd265c5c5e342199aa4607a085bf9df8753260d454ceedc8ad6ac9c8e6e");
    }

    #[test]
    fn who_does_not_know_the_network_reads_nothing_and_every_flipped_bit_is_refused() {
        let good = packet("10.1.2.3");
        assert_eq!(open(&good, &NetworkId([5; 32]), NOON), Err(Reject::Foreign));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&bad, &NETWORK, NOON), Err(Reject::Foreign), "bit {bit}");
        }
        let identity = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
        assert!(!good.windows(8).any(|part| identity.windows(8).any(|of| of == part)), "it names its sender in clear");
    }

    #[test]
    fn clocks_may_be_half_a_day_apart_and_not_two() {
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        let believed = |now| {
            open(&packet("10.1.2.3"), &NETWORK, now)
                .is_ok_and(|record| record.verify::<Beacon>(&KIND, &NETWORK, now).is_ok())
        };
        for near in [0, 12, 24, 35] {
            assert!(believed(NOON.plus(hours(near))) && believed(NOON.minus(hours(near))), "{near} h");
        }
        for far in [37, 48, 1_000] {
            assert!(!believed(NOON.plus(hours(far))) && !believed(NOON.minus(hours(far))), "{far} h");
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            proptest::prop_assert!(open(&bytes, &NETWORK, NOON).is_err());
        }

        #[test]
        fn whatever_a_member_seals_is_read_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 128..160)) {
            let mut sealed = bytes;
            cipher(&NETWORK, 20_000).encrypt_in_place(&[0; 24].into(), &[], &mut sealed).unwrap();
            let packet = [[0; 24].as_slice(), &sealed].concat();
            let read = open(&packet, &NETWORK, NOON).map(|record| record.verify::<Beacon>(&KIND, &NETWORK, NOON).is_ok());
            proptest::prop_assert!(matches!(read, Err(Reject::Malformed) | Ok(false)));
        }
    }
}
