//! Nodes on one wire, without sockets; and those who attack them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, NodeId, Now, UnixMillis};

use super::{
    lan::{Config, Lan, Output},
    local::{Endpoint, Local, Ports, Source},
    neighbours::{LOST_AFTER, MAX_AT_ONE, MAX_NEIGHBOURS},
    reject::Reject,
};
use crate::wire::{self, Beacon, MAX_PACKET};

const NETWORK: NetworkId = NetworkId([6; 32]);
const PORTS: Ports = Ports { tcp: 4_001, quic: 4_002 };

#[expect(clippy::disallowed_methods, reason = "tests start their clocks somewhere")]
fn start() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) }
}

fn key(n: u32) -> SigningKey {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_bytes(&seed)
}

fn id(n: u32) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

fn source(ip: &str) -> Source {
    Source::new(ip.parse().unwrap(), 0)
}

fn local(ip: &str, ports: Ports) -> Local {
    Local { at: source(ip), interface: 2, prefix: 24, ports }
}

fn lan_of(network: NetworkId, n: u32, ip: &str, now: Now) -> Lan {
    let mut lan = Lan::new(Config::new(network), Arc::new(key(n)), [n as u8; 32], now);
    lan.set_locals(vec![local(ip, PORTS)], now);
    lan
}

fn lan(n: u32, ip: &str, now: Now) -> Lan {
    lan_of(NETWORK, n, ip, now)
}

fn outputs(lan: &mut Lan) -> Vec<Output> {
    std::iter::from_fn(|| lan.poll_output()).collect()
}

/// The packets of the next beacon, and when it left.
fn beat(lan: &mut Lan, now: Now) -> (Vec<(Source, Vec<u8>)>, Now) {
    let now = now.plus(lan.poll_timeout().saturating_duration_since(now.mono));
    lan.handle_timeout(now);
    let sent = outputs(lan).into_iter().filter_map(|output| match output {
        Output::Send { from, bytes } => Some((from, bytes)),
        _ => None,
    });
    (sent.collect(), now)
}

fn packet(lan: &mut Lan, now: Now) -> Vec<u8> {
    beat(lan, now).0.remove(0).1
}

/// A beacon of somebody who needs no address: anybody can make it.
fn forged(n: u32, ip: IpAddr, seq: u64, now: Now) -> Vec<u8> {
    let record = Beacon::new(ip, PORTS).sign(&NETWORK, &key(n), seq, now.unix).unwrap();
    let mut nonce = [1; 24];
    nonce[..4].copy_from_slice(&n.to_be_bytes());
    wire::seal(&record, &NETWORK, nonce, now.unix).unwrap()
}

#[test]
fn two_nodes_find_each_other_with_their_first_beacons_and_lose_who_falls_silent() {
    let now = start();
    let (mut a, mut b) = (lan(1, "10.0.0.1", now), lan(2, "10.0.0.2", now));
    let (sent, at) = beat(&mut a, now);
    assert_eq!((sent.len(), at.mono), (1, now.mono), "the first one leaves at once");
    assert_eq!(b.handle_packet(&sent[0].1, sent[0].0, now), Ok(()));
    let endpoint = Endpoint { at: source("10.0.0.1"), ports: PORTS };
    assert_eq!(outputs(&mut b), [Output::Found { node: id(1), endpoints: vec![endpoint] }]);
    let (_, answered) = beat(&mut b, now);
    let (sent, answered) = (beat(&mut b, answered).0, answered);
    assert!(answered.mono - now.mono <= Duration::from_secs(1), "a newcomer is answered");
    assert_eq!(a.handle_packet(&sent[0].1, sent[0].0, now), Ok(()));
    assert_eq!(a.neighbours(), 1);

    let silent = now.plus(LOST_AFTER);
    b.handle_timeout(now.plus(LOST_AFTER - Duration::from_millis(1)));
    assert_eq!(b.neighbours(), 1);
    b.handle_timeout(silent);
    assert!(outputs(&mut b).contains(&Output::Lost(id(1))));
    assert_eq!((b.neighbours(), b.endpoints(id(1))), (0, vec![]));
}

#[test]
fn a_neighbour_that_is_heard_again_is_no_news_and_a_restarted_one_is() {
    let now = start();
    let (mut a, mut b) = (lan(1, "10.0.0.1", now), lan(2, "10.0.0.2", now));
    for _ in 0..5 {
        let bytes = packet(&mut a, now);
        b.handle_packet(&bytes, source("10.0.0.1"), now).unwrap();
    }
    assert_eq!(outputs(&mut b).len(), 1);
    let mut again = Lan::new(Config::new(NETWORK), Arc::new(key(1)), [99; 32], now);
    let moved = Ports { tcp: 5, quic: 0 };
    again.set_locals(vec![local("10.0.0.7", moved)], now);
    let bytes = packet(&mut again, now);
    b.handle_packet(&bytes, source("10.0.0.7"), now).unwrap();
    let endpoints = vec![Endpoint { at: source("10.0.0.7"), ports: moved }];
    assert_eq!(outputs(&mut b), [Output::Found { node: id(1), endpoints }], "where it was before, it is no more");
    let old = packet(&mut a, now);
    assert_eq!(b.handle_packet(&old, source("10.0.0.1"), now), Err(Reject::Replayed), "that start is over");
}

#[test]
fn a_host_with_two_addresses_is_known_by_both_in_whatever_order_they_come() {
    let now = start();
    let (mut a, mut b) = (lan(1, "10.0.0.1", now), lan(2, "10.0.0.2", now));
    a.set_locals(vec![local("10.0.0.1", PORTS), local("10.0.0.9", PORTS)], now);
    let (mut sent, _) = beat(&mut a, now);
    sent.reverse();
    for (from, bytes) in sent {
        b.handle_packet(&bytes, from, now).unwrap();
    }
    assert_eq!(b.endpoints(id(1)).len(), 2);
}

#[test]
fn a_recorded_beacon_is_worth_nothing_from_another_address_and_nothing_twice() {
    let now = start();
    let (mut a, mut b) = (lan(1, "10.0.0.1", now), lan(2, "10.0.0.2", now));
    let bytes = packet(&mut a, now);
    assert_eq!(b.handle_packet(&bytes, source("10.0.0.66"), now), Err(Reject::WrongSource));
    assert_eq!(b.handle_packet(&bytes, source("10.0.0.1"), now), Ok(()), "which it did not spoil");
    for _ in 0..1_000 {
        assert_eq!(b.handle_packet(&bytes, source("10.0.0.1"), now), Err(Reject::Replayed));
    }
    let bytes = packet(&mut a, now);
    assert_eq!(b.handle_packet(&bytes, source("10.0.0.1"), now), Ok(()), "replays used nothing up");
    b.handle_timeout(now.plus(LOST_AFTER));
    assert_eq!(b.handle_packet(&bytes, source("10.0.0.1"), now.plus(LOST_AFTER)), Err(Reject::Replayed));
    assert_eq!(b.neighbours(), 0, "a recording keeps nobody here");
    assert_eq!((b.counts().refused(Reject::Replayed), b.counts().believed), (1_001, 2));
}

#[test]
fn what_is_not_of_this_network_this_link_or_this_size_is_refused() {
    let now = start();
    let (mut a, mut b) = (lan(1, "10.0.0.1", now), lan(2, "10.0.0.2", now));
    let foreign = packet(&mut lan_of(NetworkId([7; 32]), 3, "10.0.0.3", now), now);
    assert_eq!(b.handle_packet(&foreign, source("10.0.0.3"), now), Err(Reject::Foreign));
    let bytes = packet(&mut a, now);
    for elsewhere in ["192.0.2.1", "10.0.1.1", "127.0.0.1", "fd00::1"] {
        assert_eq!(b.handle_packet(&bytes, source(elsewhere), now), Err(Reject::OffLink), "{elsewhere}");
    }
    for bad in [vec![], bytes[..bytes.len() - 40].to_vec(), [bytes.as_slice(), &[0; 100]].concat(), vec![0; 9_000]] {
        assert_eq!(b.handle_packet(&bad, source("10.0.0.1"), now), Err(Reject::Size));
    }
    assert_eq!(a.handle_packet(&bytes, source("10.0.0.1"), now), Err(Reject::Own));
    let mut late = lan(4, "10.0.0.4", now);
    assert_eq!(
        late.handle_packet(&bytes, source("10.0.0.1"), now.plus(Duration::from_secs(3 * 86_400))),
        Err(Reject::Foreign)
    );
    assert_eq!((b.neighbours(), outputs(&mut b)), (0, vec![]));
}

#[test]
fn a_member_cannot_speak_for_another_one() {
    let now = start();
    let mut b = lan(2, "10.0.0.2", now);
    let genuine = Beacon::new([10, 0, 0, 1].into(), PORTS).sign(&NETWORK, &key(1), wire::seq(1, 1), now.unix).unwrap();
    let mut bytes = genuine.as_bytes().to_vec();
    // Another number under the same signature.
    bytes[43] ^= 2;
    let forged = fog_base::record::SignedRecord::parse(&bytes).unwrap();
    let packet = wire::seal(&forged, &NETWORK, [0; 24], now.unix).unwrap();
    assert_eq!(b.handle_packet(&packet, source("10.0.0.1"), now), Err(Reject::BadSignature));
    let nowhere = Beacon::new([10, 0, 0, 1].into(), Ports::default());
    let record = nowhere.sign(&NETWORK, &key(1), wire::seq(1, 1), now.unix).unwrap();
    let packet = wire::seal(&record, &NETWORK, [0; 24], now.unix).unwrap();
    assert_eq!(b.handle_packet(&packet, source("10.0.0.1"), now), Err(Reject::Malformed));
}

#[test]
fn ten_thousand_forged_peers_at_one_address_are_a_few_and_an_honest_one_is_found() {
    let now = start();
    let mut b = lan(2, "10.0.0.2", now);
    let liar = IpAddr::from([10, 0, 0, 66]);
    let mut found = 0;
    for n in 0..10_000 {
        let at = now.plus(Duration::from_millis(u64::from(n)));
        let _ = b.handle_packet(&forged(100 + n, liar, wire::seq(1, 1), at), Source::new(liar, 0), at);
        found += outputs(&mut b).len();
    }
    assert_eq!((b.neighbours(), found), (MAX_AT_ONE, MAX_AT_ONE));
    let checked = b.counts().believed + b.counts().refused(Reject::Crowded);
    assert!(checked <= 64 + 16 * 10 + 1, "{checked} signatures were checked in 10 s");
    let then = now.plus(Duration::from_secs(10));
    let bytes = packet(&mut lan(1, "10.0.0.1", then), then);
    assert_eq!(b.handle_packet(&bytes, source("10.0.0.1"), then), Ok(()));
}

#[test]
fn forged_peers_at_all_addresses_fill_the_table_and_displace_nobody_who_connected() {
    let now = start();
    let (mut a, mut b) = (lan(1, "10.0.0.1", now), lan(2, "10.0.0.2", now));
    let bytes = packet(&mut a, now);
    b.handle_packet(&bytes, source("10.0.0.1"), now).unwrap();
    b.handle_connected(id(1), now);
    let mut beats = 0;
    for n in 0..10_000_u32 {
        // Twenty seconds.
        let at = now.plus(Duration::from_millis(2 * u64::from(n)));
        let liar = IpAddr::from(Ipv4Addr::new(10, 0, 0, 3 + (n % 250) as u8));
        let _ = b.handle_packet(&forged(100 + n, liar, wire::seq(1, 1), at), Source::new(liar, 0), at);
        assert!(b.neighbours() <= MAX_NEIGHBOURS);
        b.handle_timeout(at);
        beats += outputs(&mut b).iter().filter(|output| matches!(output, Output::Send { .. })).count();
    }
    assert_eq!(b.neighbours(), MAX_NEIGHBOURS);
    assert_eq!(b.endpoints(id(1)).len(), 1, "who connected stays");
    assert!(beats <= 2 * 20 + 1, "forged newcomers got {beats} beacons in 20 s");
    let checked = b.counts().believed + b.counts().refused(Reject::Crowded);
    assert!(checked <= 256 + 64 * 20 + 1, "{checked} signatures were checked in 20 s");
    let then = now.plus(Duration::from_secs(21));
    let newcomer = packet(&mut lan(5, "10.0.0.5", then), then);
    assert_eq!(b.handle_packet(&newcomer, source("10.0.0.5"), then), Ok(()), "there is always room for one more");
    assert_eq!(b.endpoints(id(5)).len(), 1);
}

#[test]
fn a_node_without_addresses_is_silent_and_a_new_address_is_told_at_once() {
    let now = start();
    let mut a = Lan::new(Config::new(NETWORK), Arc::new(key(1)), [1; 32], now);
    let (sent, now) = beat(&mut a, now);
    assert_eq!(sent, []);
    a.set_locals(vec![local("10.0.0.1", Ports::default())], now);
    assert_eq!(beat(&mut a, now).0, [], "it listens nowhere");
    a.set_locals(vec![local("10.0.0.1", PORTS)], now);
    let (sent, at) = beat(&mut a, now);
    assert_eq!((sent.len(), at.mono), (1, now.mono));
    a.handle_connected(id(2), at);
    a.handle_packet(&forged(2, [10, 0, 0, 2].into(), wire::seq(1, 1), at), source("10.0.0.2"), at).unwrap();
    let (_, at) = beat(&mut a, at);
    assert!(a.poll_timeout() - at.mono >= Duration::from_secs(15), "in company it is slow");
    a.set_locals(vec![local("10.0.0.1", PORTS), local("10.0.9.1", PORTS)], at);
    let (sent, moved) = beat(&mut a, at);
    assert!(sent.len() == 2 && moved.mono - at.mono <= Duration::from_millis(100));
    a.handle_disconnected(id(2), moved);
    assert!(a.poll_timeout() - moved.mono <= Duration::from_secs(1), "alone it is fast");
}

proptest::proptest! {
    #[test]
    fn no_packet_makes_a_panic_or_a_neighbour(
        packets in proptest::collection::vec((proptest::collection::vec(proptest::num::u8::ANY, 0..2 * MAX_PACKET), proptest::num::u32::ANY), 0..20),
    ) {
        let now = start();
        let mut b = lan(2, "10.0.0.2", now);
        for (bytes, ip) in &packets {
            let on_link = Ipv4Addr::from_bits(0x0a00_0000 | ip & 0xff);
            proptest::prop_assert!(b.handle_packet(bytes, Source::new(on_link.into(), 0), now).is_err());
        }
        proptest::prop_assert_eq!(b.neighbours(), 0);
        let refused: u64 = Reject::ALL.into_iter().map(|reject| b.counts().refused(reject)).sum();
        proptest::prop_assert_eq!(refused, packets.len() as u64);
    }
}
