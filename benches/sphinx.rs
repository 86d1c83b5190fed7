//! The packet format against its rivals: `sphinx-packet` 0.8 (Nym), from bytes to bytes, and `nox-crypto` 0.1 (NOX); and the
//! choice of the wide-block cipher.
//!
//! What multiplies is measured with every backend of fog-x25519 that this processor has: with the fastest under its own
//! name, with the others, each in a process of its own, under the name and the backend's.

#![allow(missing_docs, clippy::unwrap_used)]

mod harness;

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use fog_sphinx::{
    BODY_LEN, Hop, LastHop, MixSecretKey, Opened, Order, PACKET_LEN, PAYLOAD_LEN, PacketBytes, Reject, SURB_KEYS_LEN,
    SurbKeys, Unwrapped, build, build_batch, open_batch, process_batch, symmetric_part,
};
use fog_x25519::Backend;
use harness::{Harness, Side};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sphinx_packet::header::delays;
use sphinx_packet::packet::ProcessedPacketData;
use sphinx_packet::packet::builder::SphinxPacketBuilder;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};

const BATCH: usize = 64;
/// Packets that are built together.
const CROWD: usize = 4;
const HOPS: usize = 3;
const LAST: LastHop = LastHop::Deliver { reference: [0; 16] };
const SPHINX_PACKET: &str = "sphinx-packet 0.8";

fn main() {
    let mut harness = Harness::from_env();
    if let Ok(backend) = std::env::var(SUFFIX) {
        multiplying(&mut harness, &backend);
        return harness.finish();
    }
    assert!(std::env::var_os(Backend::VARIABLE).is_none(), "{} is set: the names would lie", Backend::VARIABLE);
    println!("{:30} {:>10} {:9} {:>10} {:>7}  {:12} rival", "name", "ours", "", "rival", "ratio", "target");
    multiplying(&mut harness, "");
    for slower in Backend::available().skip(1) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env(Backend::VARIABLE, slower.name()).env(SUFFIX, format!("_{}", slower.name()));
        assert!(child.status().unwrap().success());
    }
    sphinx_reject(&mut harness);
    sphinx_unwrap_nox(&mut harness);
    sphinx_wide_block(&mut harness);
    sphinx_symmetric(&mut harness);
    harness.finish();
}

/// In the environment of a process that measures another backend: what its results' names end in.
const SUFFIX: &str = "FOG_BENCH_SUFFIX";

fn multiplying(harness: &mut Harness, suffix: &str) {
    let fast = Backend::current().name() == "ifma";
    sphinx_unwrap(harness, suffix, if fast { 0.18 } else { 0.64 });
    sphinx_build(harness, suffix, if fast { 0.20 } else { 0.45 });
    sphinx_build_one(harness, suffix);
}

// ---------------------------------------------------------------- ours

struct Ours {
    keys: Vec<MixSecretKey>,
    path: Vec<Hop>,
    rng: ChaCha20Rng,
    packets: Vec<PacketBytes>,
}

impl Ours {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let keys: Vec<_> = (0..HOPS).map(|_| MixSecretKey::generate(&mut rng)).collect();
        let path = keys.iter().map(|key| Hop { id: [1; 32], key: key.public() }).collect();
        let mut ours = Self { keys, path, rng, packets: Vec::new() };
        for _ in 0..BATCH {
            let mut packet = [0; PACKET_LEN];
            ours.build(&mut packet);
            ours.packets.push(packet);
        }
        ours
    }

    fn build(&mut self, packet: &mut PacketBytes) {
        build(&self.path, 1, &LAST, &[5; BODY_LEN], &mut self.rng, packet).unwrap();
    }

    fn build_crowd(&mut self, packets: &mut [PacketBytes; CROWD]) {
        let order = |packet| Order { path: &self.path, epoch: 1, last: LAST, body: &[5; BODY_LEN], packet };
        let mut orders = packets.each_mut().map(order);
        build_batch(&mut orders, &mut self.rng).unwrap();
    }
}

/// What a relay's worker keeps between batches.
#[derive(Default)]
struct Worker {
    buffers: Vec<PacketBytes>,
    opened: Vec<Result<Opened, Reject>>,
    unwrapped: Vec<Result<Unwrapped, Reject>>,
}

impl Worker {
    /// The bytes of the packets come in, the bytes of the next packets stay in the buffers.
    fn open(&mut self, packets: &[PacketBytes], key: &MixSecretKey) {
        self.buffers.clear();
        self.buffers.extend_from_slice(packets);
        open_batch(&self.buffers, key, &mut self.opened);
    }

    fn process(&mut self) {
        let opened = self.opened.drain(..).map(Result::unwrap);
        process_batch(opened.zip(&mut self.buffers), &mut self.unwrapped);
        assert!(self.unwrapped.iter().all(|unwrapped| matches!(unwrapped, Ok(Unwrapped::Forward { .. }))));
        black_box(&self.buffers);
    }
}

fn our_unwrap(ours: &Ours) -> Side<'_> {
    let mut worker = Worker::default();
    Side::new(BATCH as u32, move || {
        worker.open(&ours.packets, &ours.keys[0]);
        worker.process();
    })
}

// ---------------------------------------------------------------- sphinx-packet

struct Nym {
    secret: x25519_dalek::StaticSecret,
    route: Vec<Node>,
    destination: Destination,
}

impl Nym {
    fn new() -> Self {
        let secrets: Vec<_> = (1..=HOPS as u8).map(|i| x25519_dalek::StaticSecret::from([i; 32])).collect();
        let route = secrets
            .iter()
            .map(|secret| Node::new(NodeAddressBytes::from_bytes([5; 32]), x25519_dalek::PublicKey::from(secret)))
            .collect();
        let destination = Destination::new(DestinationAddressBytes::from_bytes([3; 32]), [4; 16]);
        Self { secret: secrets[0].clone(), route, destination }
    }

    fn build(&self) -> Vec<u8> {
        let delays = delays::generate_from_average_duration(HOPS, Duration::from_millis(10));
        SphinxPacketBuilder::new()
            .with_payload_size(BODY_LEN + 17)
            .build_packet([5; BODY_LEN], &self.route, &self.destination, &delays)
            .unwrap()
            .to_bytes()
    }

    fn unwrap(&self, bytes: &[u8]) -> Vec<u8> {
        let packet = sphinx_packet::SphinxPacket::from_bytes(bytes).unwrap();
        match packet.process(&self.secret).unwrap().data {
            ProcessedPacketData::ForwardHop { next_hop_packet, .. } => next_hop_packet.to_bytes(),
            ProcessedPacketData::FinalHop { .. } => unreachable!(),
        }
    }
}

// ---------------------------------------------------------------- comparisons

fn sphinx_unwrap(harness: &mut Harness, suffix: &str, target: f64) {
    let name = format!("sphinx_unwrap{suffix}");
    if !harness.wants(&name) {
        return;
    }
    let (ours, nym) = (Ours::new(), Nym::new());
    let bytes = nym.build();
    let rival = Side::new(1, || drop(black_box(nym.unwrap(black_box(&bytes)))));
    harness.compare_us(&name, our_unwrap(&ours), Some((SPHINX_PACKET, rival)), Some(target));
}

/// Packets that are built together, as a node builds its cover and its fragments.
fn sphinx_build(harness: &mut Harness, suffix: &str, target: f64) {
    let name = format!("sphinx_build{suffix}");
    if !harness.wants(&name) {
        return;
    }
    let (mut ours, nym) = (Ours::new(), Nym::new());
    let mut packets = [[0; PACKET_LEN]; CROWD];
    let side = Side::new(CROWD as u32, || ours.build_crowd(black_box(&mut packets)));
    let rival = Side::new(1, || drop(black_box(nym.build())));
    harness.compare_us(&name, side, Some((SPHINX_PACKET, rival)), Some(target));
}

/// One packet that nothing else is built with.
fn sphinx_build_one(harness: &mut Harness, suffix: &str) {
    let name = format!("sphinx_build_one{suffix}");
    if !harness.wants(&name) {
        return;
    }
    let (mut ours, nym) = (Ours::new(), Nym::new());
    let mut packet = [0; PACKET_LEN];
    let side = Side::new(1, || ours.build(black_box(&mut packet)));
    let rival = Side::new(1, || drop(black_box(nym.build())));
    harness.compare_us(&name, side, Some((SPHINX_PACKET, rival)), None);
}

/// A header whose MAC is wrong, against a packet that is passed on.
fn sphinx_reject(harness: &mut Harness) {
    if !harness.wants("sphinx_reject") {
        return;
    }
    let ours = Ours::new();
    let mut bad = ours.packets.clone();
    bad.iter_mut().for_each(|packet| packet[100] ^= 1);
    let mut worker = Worker::default();
    let side = Side::new(BATCH as u32, || {
        worker.open(&bad, &ours.keys[0]);
        assert!(worker.opened.iter().all(|opened| matches!(opened, Err(Reject::BadMac))));
    });
    harness.compare_us("sphinx_reject", side, Some(("our own unwrap", our_unwrap(&ours))), Some(0.6));
}

/// NOX's own `Sphinx_PerHop/process/hop_0`: a forward hop of three, with its header parsed before. Its packets have one size,
/// 32 KiB, so the ratio compares two networks' packets and not two ways to do one thing.
fn sphinx_unwrap_nox(harness: &mut Harness) {
    use nox_crypto::sphinx::{PathHop, SphinxHeader, build_multi_hop_packet};

    if !harness.wants("sphinx_unwrap_nox") {
        return;
    }
    let ours = Ours::new();
    // nox-crypto has another version of x25519-dalek, so its keys are made from bytes.
    let public_key = |i: u8| x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([i; 32])).to_bytes();
    let path: Vec<PathHop> = (1..=HOPS as u8)
        .map(|i| PathHop {
            public_key: public_key(i).into(),
            address: format!("/ip4/127.0.0.1/tcp/{}", 9000 + u16::from(i)),
        })
        .collect();
    let bytes = build_multi_hop_packet(&path, &[0; 1024], 0).unwrap();
    let (header, body) = SphinxHeader::from_bytes(&bytes).unwrap();
    let secret = [1; 32].into();
    let rival = Side::new(1, || {
        black_box(black_box(&header).process(&secret, black_box(body.to_vec())).unwrap());
    });
    harness.compare_us("sphinx_unwrap_nox", our_unwrap(&ours), Some(("nox-crypto 0.1, hop_0", rival)), None);
}

/// LIONESS over ChaCha20 and keyed BLAKE3, the wide-block cipher that was not chosen.
fn lioness(key: &[u8; 32], message: &mut [u8; PAYLOAD_LEN]) {
    let (left, right) = message.split_at_mut(32);
    for round in 0..2 {
        let mut stream_key = *key;
        stream_key.iter_mut().zip(left.iter()).for_each(|(key, byte)| *key ^= byte);
        ChaCha20::new(&stream_key.into(), &[round; 12].into()).apply_keystream(right);
        let hash = blake3::keyed_hash(key, right);
        left.iter_mut().zip(hash.as_bytes()).for_each(|(byte, hash)| *byte ^= hash);
    }
}

fn sphinx_wide_block(harness: &mut Harness) {
    if !harness.wants("sphinx_wide_block") {
        return;
    }
    // To open a reply that came over one hop is one encryption and one decryption, with their key schedules.
    let mut bytes = [7; SURB_KEYS_LEN];
    bytes[0] = 1;
    let keys = SurbKeys::from_bytes(&bytes).unwrap();
    let mut payload = [3; PAYLOAD_LEN];
    let side = Side::new(2, || assert_eq!(black_box(keys.open(black_box(&mut payload))), Err(Reject::BadPayload)));
    let mut message = [3; PAYLOAD_LEN];
    let rival = Side::new(1, || lioness(black_box(&[7; 32]), black_box(&mut message)));
    harness.compare_us("sphinx_wide_block", side, Some(("LIONESS (ChaCha20, BLAKE3)", rival)), None);
}

/// Keys, MAC, header stream and payload of a forward hop: all that is not a scalar multiplication, and a copy of the
/// packet.
fn sphinx_symmetric(harness: &mut Harness) {
    if !harness.wants("sphinx_symmetric_us") {
        return;
    }
    let mut ours = Ours::new();
    let mut packet = [0; PACKET_LEN];
    ours.build(&mut packet);
    let alpha: [u8; 32] = packet[5..37].try_into().unwrap();
    let shared = x25519_dalek::x25519(*ours.keys[0].to_bytes(), alpha);
    let side = Side::new(1, || {
        let mut copy = *black_box(&packet);
        assert!(symmetric_part(black_box(&shared), &mut copy).is_ok());
        black_box(copy);
    });
    harness.compare_us("sphinx_symmetric_us", side, None, Some(4.0));
}
