//! `vectors/fog-sphinx-v1.json`: one test makes it again and fails when it would change, one uses nothing but the file.
//!
//! `FOG_UPDATE_VECTORS=1 cargo test -p fog-sphinx --release --test vectors` writes it. Version 1 is frozen: do not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::convert::Infallible;

use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::constants::EIGHT_TORSION;
use data_encoding::HEXLOWER;
use fog_sphinx::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};
use serde::{Deserialize, Serialize};

/// From the package, where cargo runs tests.
const PATH: &str = "../../vectors/fog-sphinx-v1.json";
const EPOCH: u32 = 0x0102_0304;

#[derive(Serialize, Deserialize)]
struct Vectors {
    about: String,
    cases: Vec<Case>,
    twist: HopState,
    invalid: Vec<Invalid>,
}

/// One packet over a whole path.
#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    /// deliver, slot, reply, slot-reply
    kind: String,
    epoch: u32,
    path: Vec<PathHop>,
    slot: Option<String>,
    reference: String,
    body: String,
    /// The random bytes that the sender (for replies: the maker of the reply block) draws, in order.
    entropy: String,
    surb: Option<String>,
    surb_keys: Option<String>,
    hops: Vec<HopState>,
    /// δ after the last hop.
    payload_out: String,
}

#[derive(Serialize, Deserialize)]
struct PathHop {
    id: String,
    mix_secret: String,
    mix_public: String,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct HopState {
    mix_secret: String,
    packet_in: String,
    shared_secret: String,
    replay_tag: String,
    command: String,
    /// Next hop or slot.
    id: Option<String>,
    reference: Option<String>,
    delay_seed: String,
    /// On a path it is the next hop's `packet_in`, and left out.
    packet_out: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Invalid {
    name: String,
    /// packet, surb, reply (to be opened with `surb_keys`)
    input: String,
    mix_secret: Option<String>,
    surb_keys: Option<String>,
    bytes: String,
    reason: String,
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

/// Remembers what it gave.
struct Recorder {
    inner: ChaCha20Rng,
    drawn: Vec<u8>,
}

/// Gives what was remembered.
struct Replayer(std::vec::IntoIter<u8>);

macro_rules! crypto_rng {
    ($name:ident, |$rng:ident, $bytes:ident| $fill:expr) => {
        impl TryRng for $name {
            type Error = Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Infallible> {
                panic!("only bytes are drawn")
            }
            fn try_next_u64(&mut self) -> Result<u64, Infallible> {
                panic!("only bytes are drawn")
            }
            fn try_fill_bytes(&mut self, $bytes: &mut [u8]) -> Result<(), Infallible> {
                let $rng = self;
                $fill;
                Ok(())
            }
        }
        impl TryCryptoRng for $name {}
    };
}
crypto_rng!(Recorder, |rng, bytes| {
    rng.inner.fill_bytes(bytes);
    rng.drawn.extend_from_slice(bytes);
});
crypto_rng!(Replayer, |rng, bytes| bytes.fill_with(|| rng.0.next().unwrap()));

/// Takes one packet through one hop of a path.
fn path_state(secret: [u8; 32], packet: &mut PacketBytes) -> HopState {
    HopState { packet_out: None, ..hop_state(secret, packet) }
}

/// Takes one packet through one hop.
fn hop_state(secret: [u8; 32], packet: &mut PacketBytes) -> HopState {
    let packet_in = hex(&packet);
    let shared = x25519_dalek::x25519(secret, packet[5..37].try_into().unwrap());
    let opened = open(packet, &MixSecretKey::from_bytes(secret)).unwrap();
    let replay_tag = hex(opened.replay_tag());
    let unwrapped = opened.process(packet).unwrap();
    let (command, id, reference, delay_seed) = match unwrapped {
        Unwrapped::Forward { next, delay_seed } => ("forward", Some(next), None, delay_seed),
        Unwrapped::Deliver { reference, delay_seed } => ("deliver", None, Some(reference), delay_seed),
        Unwrapped::Slot { slot, reference, delay_seed } => ("slot", Some(slot), Some(reference), delay_seed),
        Unwrapped::Reply { surb_id, delay_seed } => ("reply", None, Some(surb_id), delay_seed),
        Unwrapped::SlotReply { slot, surb_id, delay_seed } => ("slot-reply", Some(slot), Some(surb_id), delay_seed),
    };
    HopState {
        mix_secret: hex(secret),
        packet_in,
        shared_secret: hex(shared),
        replay_tag,
        command: command.into(),
        id: id.map(hex),
        reference: reference.map(hex),
        delay_seed: hex(delay_seed),
        packet_out: (command == "forward").then(|| hex(packet)),
    }
}

fn random<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn hops_of(path: &[PathHop]) -> Vec<Hop> {
    path.iter()
        .map(|hop| Hop { id: array(&hop.id), key: MixPublicKey::from_bytes(&array(&hop.mix_public)).unwrap() })
        .collect()
}

fn make_case(kind: &str, hops: usize, seed: u64) -> Case {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let path: Vec<PathHop> = (0..hops)
        .map(|_| {
            let secret = MixSecretKey::generate(&mut rng);
            PathHop {
                id: hex(random::<32>(&mut rng)),
                mix_secret: hex(*secret.to_bytes()),
                mix_public: hex(secret.public().to_bytes()),
            }
        })
        .collect();
    let body = random::<BODY_LEN>(&mut rng);
    let reference = random::<16>(&mut rng);
    let slot = kind.starts_with("slot").then(|| random::<32>(&mut rng));
    let last = slot.map_or(LastHop::Deliver { reference }, |slot| LastHop::Slot { slot, reference });
    let mut recorder = Recorder { inner: rng, drawn: Vec::new() };
    let mut packet = [0; PACKET_LEN];
    let (mut surb, mut surb_keys) = (None, None);
    if kind.ends_with("reply") {
        let (block, keys, _) = build_surb(&hops_of(&path), EPOCH, &last, &mut recorder).unwrap();
        surb = Some(hex(block.to_bytes()));
        surb_keys = Some(hex(*keys.to_bytes()));
        block.reply(&body, &mut packet);
    } else {
        build(&hops_of(&path), EPOCH, &last, &body, &mut recorder, &mut packet).unwrap();
    }
    let states = path.iter().map(|hop| path_state(array(&hop.mix_secret), &mut packet)).collect();
    Case {
        name: format!("{kind} over {hops}"),
        kind: kind.into(),
        epoch: EPOCH,
        path,
        slot: slot.map(hex),
        reference: hex(reference),
        body: hex(body),
        entropy: hex(recorder.drawn),
        surb,
        surb_keys,
        hops: states,
        payload_out: hex(payload(&packet)),
    }
}

/// A packet whose α is on the twist: nobody can make one without the relay's secret, but a relay must not treat it
/// specially.
fn make_twist(secret: [u8; 32]) -> HopState {
    let mut rng = ChaCha20Rng::seed_from_u64(900);
    let mut packet = [0; PACKET_LEN];
    rng.fill_bytes(&mut packet);
    packet[0] = VERSION;
    while MontgomeryPoint(packet[5..37].try_into().unwrap()).to_edwards(0).is_some() {
        packet[5] = packet[5].wrapping_add(1);
    }
    let mut block: [u8; 49] = random(&mut rng);
    block[0] = 1;
    common::forge(&mut packet, &secret, &block, &random(&mut rng));
    hop_state(secret, &mut packet)
}

fn make_invalid(good: &Case, other_secret: &str) -> Vec<Invalid> {
    let first: PacketBytes = array(&good.hops[0].packet_in);
    let secret = &good.path[0].mix_secret;
    let alpha: [u8; 32] = first[5..37].try_into().unwrap();
    let alpha_point = MontgomeryPoint(alpha).to_edwards(0).unwrap();
    let mut all = Vec::new();
    let mut packet = |name: &str, secret: &str, bytes: &[u8], reason: &str| {
        all.push(Invalid {
            name: name.into(),
            input: "packet".into(),
            mix_secret: Some(secret.into()),
            surb_keys: None,
            bytes: hex(bytes),
            reason: reason.into(),
        });
    };
    packet("no bytes", secret, &[], "Malformed");
    packet("one byte short", secret, &first[..PACKET_LEN - 1], "Malformed");
    packet("one byte long", secret, &[&first[..], &[0]].concat(), "Malformed");
    let changed = |range: std::ops::Range<usize>, value: &[u8]| {
        let mut bytes = first;
        bytes[range].copy_from_slice(value);
        bytes
    };
    let flipped = |index: usize, bit: u8| changed(index..index + 1, &[first[index] ^ bit]);
    packet("version 0", secret, &changed(0..1, &[0]), "UnknownVersion");
    packet("version 2", secret, &changed(0..1, &[2]), "UnknownVersion");
    packet("another epoch", secret, &flipped(4, 1), "BadMac");
    packet("alpha: one bit", secret, &flipped(5, 1), "BadMac");
    packet("alpha: bit 255, same secret", secret, &flipped(36, 0x80), "BadMac");
    let torsion = (alpha_point + EIGHT_TORSION[1]).to_montgomery().to_bytes();
    packet("alpha: a point of order 8 added, same secret", secret, &changed(5..37, &torsion), "BadMac");
    packet("alpha: zero, of order 2", secret, &changed(5..37, &[0; 32]), "Malformed");
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    packet("alpha: 2^255 - 19, not canonical, of order 2", secret, &changed(5..37, &p), "Malformed");
    let order_8 = EIGHT_TORSION[1].to_montgomery().to_bytes();
    packet("alpha: of order 8", secret, &changed(5..37, &order_8), "Malformed");
    p[0] = 0xec;
    packet("alpha: -1, of order 4 on the twist", secret, &changed(5..37, &p), "Malformed");
    packet("gamma: one bit", secret, &flipped(52, 0x80), "BadMac");
    packet("beta: first bit", secret, &flipped(53, 0x80), "BadMac");
    packet("beta: last bit", secret, &flipped(297, 1), "BadMac");
    packet("for another relay", other_secret, &first, "BadMac");
    let last = good.hops.last().unwrap();
    let mut bytes: PacketBytes = array(&last.packet_in);
    bytes[PACKET_LEN - 1] ^= 1;
    packet("payload: last bit, at the last hop", &last.mix_secret, &bytes, "BadPayload");
    for command in [0, 6, 255] {
        let mut bytes = first;
        let mut block = [0; 49];
        block[0] = command;
        common::forge(&mut bytes, &array(secret), &block, &[0x5a; 196]);
        packet(&format!("command {command}, with a right MAC"), secret, &bytes, "Malformed");
    }
    all
}

fn make_invalid_replies(good: &Case) -> Vec<Invalid> {
    let surb = unhex(good.surb.as_ref().unwrap());
    let entry = |name: &str, input: &str, bytes: &[u8], reason: &str| Invalid {
        name: name.into(),
        input: input.into(),
        mix_secret: None,
        surb_keys: (input == "reply").then(|| good.surb_keys.clone().unwrap()),
        bytes: hex(bytes),
        reason: reason.into(),
    };
    let mut version = surb.clone();
    version[32] = 2;
    let mut changed = unhex(&good.payload_out);
    changed[0] ^= 1;
    vec![
        entry("reply block, one byte short", "surb", &surb[..SURB_LEN - 1], "Malformed"),
        entry("reply block, one byte long", "surb", &[&surb[..], &[0]].concat(), "Malformed"),
        entry("reply block of version 2", "surb", &version, "UnknownVersion"),
        entry("reply with one bit changed", "reply", &changed, "BadPayload"),
    ]
}

fn make() -> Vectors {
    let mut cases = Vec::new();
    for (index, kind) in ["deliver", "slot", "reply"].into_iter().enumerate() {
        cases.extend((1..=MAX_HOPS).map(|hops| make_case(kind, hops, (index * 10 + hops) as u64)));
    }
    cases.push(make_case("slot-reply", 4, 99));
    let twist = make_twist(array(&cases[0].path[0].mix_secret));
    let mut invalid = make_invalid(&cases[2], &cases[0].path[0].mix_secret);
    invalid.extend(make_invalid_replies(&cases[12]));
    let about = "fog-sphinx version 1, see behaviours/sphinx/README.md. All bytes are lower-case hex. \
                 Packets in `invalid` must be refused with `reason` by a relay that holds `mix_secret`.";
    Vectors { about: about.into(), cases, twist, invalid }
}

#[test]
fn the_vectors_have_not_changed() {
    let made = serde_json::to_string_pretty(&make()).unwrap() + "\n";
    if std::env::var_os("FOG_UPDATE_VECTORS").is_some() {
        std::fs::write(PATH, &made).unwrap();
    }
    let stored = std::fs::read_to_string(PATH).unwrap();
    assert!(made == stored, "the packet format has changed: version 1 is frozen");
}

fn stored() -> Vectors {
    serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap()
}

#[test]
fn senders_and_relays_reproduce_the_stored_vectors() {
    for case in stored().cases {
        let path = hops_of(&case.path);
        let reference = array(&case.reference);
        let last = case
            .slot
            .as_ref()
            .map_or(LastHop::Deliver { reference }, |slot| LastHop::Slot { slot: array(slot), reference });
        let mut rng = Replayer(unhex(&case.entropy).into_iter());
        let mut packet = [0; PACKET_LEN];
        let route = if let Some(stored) = &case.surb {
            let (surb, keys, route) = build_surb(&path, case.epoch, &last, &mut rng).unwrap();
            assert_eq!(hex(surb.to_bytes()), *stored, "{}", case.name);
            assert_eq!(hex(*keys.to_bytes()), *case.surb_keys.as_ref().unwrap(), "{}", case.name);
            assert_eq!(surb.reply(&array(&case.body), &mut packet), path[0].id);
            route
        } else {
            build(&path, case.epoch, &last, &array(&case.body), &mut rng, &mut packet).unwrap()
        };
        assert_eq!(rng.0.len(), 0, "{}: all of the entropy is used", case.name);
        assert_eq!(route.first, path[0].id);
        assert!(case.hops.iter().map(|hop| &hop.delay_seed).eq(&route.delay_seeds.iter().map(hex).collect::<Vec<_>>()));

        for (index, hop) in case.hops.iter().enumerate() {
            assert_eq!(path_state(array(&hop.mix_secret), &mut packet), *hop, "{}, hop {index}", case.name);
        }
        let mut payload = *payload(&packet);
        assert_eq!(hex(payload), case.payload_out);
        if let Some(keys) = &case.surb_keys {
            SurbKeys::from_bytes(&unhex(keys)).unwrap().open(&mut payload).unwrap();
        }
        assert_eq!(hex(&payload[TAG_LEN..]), case.body);
    }
}

#[test]
fn an_alpha_on_the_twist_is_treated_like_any_other() {
    let twist = stored().twist;
    assert_eq!(hop_state(array(&twist.mix_secret), &mut array(&twist.packet_in)), twist);
}

#[test]
fn the_stored_invalid_inputs_are_refused_for_their_reason() {
    let invalid = stored().invalid;
    assert!(invalid.len() >= 10);
    for case in invalid {
        let bytes = unhex(&case.bytes);
        let refused = match case.input.as_str() {
            "packet" => peek(&bytes).err().or_else(|| {
                let mut packet: PacketBytes = bytes.try_into().unwrap();
                let key = MixSecretKey::from_bytes(array(case.mix_secret.as_ref().unwrap()));
                open(&packet, &key).and_then(|opened| opened.process(&mut packet)).err()
            }),
            "surb" => Surb::parse(&bytes).err(),
            "reply" => {
                let keys = SurbKeys::from_bytes(&unhex(case.surb_keys.as_ref().unwrap())).unwrap();
                keys.open(&mut bytes.try_into().unwrap()).err()
            }
            other => panic!("unknown input {other}"),
        };
        assert_eq!(format!("{:?}", refused.unwrap()), case.reason, "{}", case.name);
    }
}
