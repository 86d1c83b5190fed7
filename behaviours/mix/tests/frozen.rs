//! Version 1 as it was released: link bytes, packets, bodies and replies that were made once and are never made again. Whatever
//! this crate becomes, it reads them and answers as version 1 does.
//!
//! `fixtures/mix-v1.hex` has one item a line, name and hex. Forward packets go through relays 1, 2, 3 to 4, replies through 3, 2, 1
//! to 5; relay n has the mix key, seal key, identity and delay salt `[n; 32]`.
#![allow(clippy::disallowed_methods, reason = "the clock starts somewhere")]

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey};
use fog_base::{
    DropCounters, DropReason, Epoch, EpochSchedule, MessageId, NetworkId, NodeId, Now, UnixMillis,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role},
};
use fog_mix::{
    core::{
        PacketBuf,
        cover::Cover,
        delay::Delays,
        endpoint::{Audience, Config, Delivery, Endpoint, Output, Restored, Secrets},
        keyring::{EpochKey, Keyring},
        relay::{Arrival, Done, Outcome, Processor, ReplayLog},
        replay::Fingerprint,
        seal,
    },
    wire::{Bitmap, Content, Envelope, Form, Fragment, ReplyBody},
};
use fog_sphinx::{
    BODY_LEN, Hop, LastHop, MixPublicKey, MixSecretKey, PACKET_LEN, PAYLOAD_LEN, SURB_LEN, Surb, SurbKeys, TAG_LEN,
    build, build_surb,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([1; 32]);
const EPOCH: Epoch = Epoch(1_000_000);
const CREATED: u64 = 1_800_000_900;
const DELAYS: Delays = Delays { mean: Duration::from_millis(20), max: Duration::from_millis(200) };
const SLOT: [u8; 32] = [77; 32];
const THERE: [u8; 4] = [1, 2, 3, 4];
const BACK: [u8; 4] = [3, 2, 1, 5];

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(1800))
}

fn now() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(CREATED * 1000) }
}

fn identity(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn id(n: u8) -> NodeId {
    NodeId(identity(n).verifying_key().to_bytes())
}

fn seal_key(n: u8) -> [u8; 32] {
    seal::public_key(&Zeroizing::new([n; 32])).unwrap()
}

#[derive(Debug)]
struct Five;

impl PathSelector for Five {
    fn path(&self, request: &PathRequest<'_>, _: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        Err(NoPath::UnknownRelay(request.last))
    }
    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        _: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        self.path(request, rng)
    }
    fn relay(&self, _: Epoch, relay: NodeId) -> Option<RelayHop> {
        let n = (1..=5).find(|n| id(*n) == relay)?;
        let mix_key = MixSecretKey::from_bytes([n; 32]).public().to_bytes();
        Some(RelayHop { id: relay, mix_key, delay_salt: [n; 32], seal_key: seal_key(n), versions: [1].into() })
    }
    fn with_role(&self, _: Epoch, _: Role) -> Vec<NodeId> {
        Vec::new()
    }
}

struct NoLog;
impl ReplayLog for NoLog {
    fn append(&self, _: Epoch, _: &[Fingerprint]) -> bool {
        true
    }
}

/// Relays that have seen nothing yet.
struct Relays(BTreeMap<NodeId, Keyring>);

impl Relays {
    fn new() -> Self {
        let relay = |n: u8| {
            let mut keyring = Keyring::default();
            keyring.insert(EpochKey::new(EPOCH, MixSecretKey::from_bytes([n; 32]), [n; 32], 1000, 1, []));
            (id(n), keyring)
        };
        Self((1..=5).map(relay).collect())
    }

    /// Where the packet ends that goes to `first`, and what its last hop does with it.
    fn carry(&self, mut first: NodeId, mut packet: PacketBuf) -> (NodeId, Outcome) {
        let processor = Processor { schedule: schedule(), delays: DELAYS, forwards: true };
        loop {
            let (mut done, drops) = (Done::default(), DropCounters::default());
            let mut arrivals = vec![Arrival { packet, at: Instant::now() }];
            processor.process(&self.0[&first], &NoLog, &mut arrivals, now().unix, &drops, &mut done);
            match done.outcomes.pop().expect("the packet is good") {
                Outcome::Forward { packet: onward, next, .. } => (first, packet) = (next, onward),
                last => return (first, last),
            }
        }
    }
}

fn fixture() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = include_str!("fixtures/mix-v1.hex").lines();
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let item = |line: &'static str| {
        let (name, hex) = line.split_once(' ').unwrap();
        (name, hex.as_bytes().chunks(2).map(byte).collect())
    };
    lines.map(item).collect()
}

/// The packets on the link to relay 1, by what they carry.
fn link(fixture: &BTreeMap<&str, Vec<u8>>) -> [PacketBuf; 5] {
    let (packets, rest) = fixture["link"].as_chunks::<PACKET_LEN>();
    assert!(rest.is_empty());
    let packets: Vec<PacketBuf> = packets.iter().map(|packet| Box::new(*packet)).collect();
    packets.try_into().unwrap()
}

fn recipient(drops: &Arc<DropCounters>) -> Endpoint {
    let config = Config {
        me: id(4),
        network: NETWORK,
        schedule: schedule(),
        delays: DELAYS,
        send_per_second: 50.0,
        cover: Cover::None,
        loops_per_second: 0.2,
        hops: 4,
        offers_roles: true,
    };
    let secrets = Secrets { identity: identity(4), seal: Zeroizing::new([4; 32]), slot: identity(40) };
    Endpoint::new(config, secrets, Restored::default(), Arc::new(Five), drops.clone(), [4; 32], now()).unwrap()
}

/// What `endpoint` says within a second.
fn outputs(endpoint: &mut Endpoint) -> Vec<Output> {
    let mut outputs: Vec<_> = std::iter::from_fn(|| endpoint.poll_output()).collect();
    for ms in (0..1000).step_by(10) {
        endpoint.handle_timeout(now().plus(Duration::from_millis(ms)));
        outputs.extend(std::iter::from_fn(|| endpoint.poll_output()));
    }
    outputs
}

fn sent(outputs: Vec<Output>) -> (NodeId, PacketBuf) {
    let sent = outputs.into_iter().find_map(|output| match output {
        Output::Send { first, packet, .. } => Some((first, packet)),
        _ => None,
    });
    sent.expect("an answer leaves")
}

/// What the reply says that comes to `relay` with `packet`.
fn read_reply(keys: &[u8], payload: &[u8; PAYLOAD_LEN]) -> ReplyBody {
    let mut payload = *payload;
    SurbKeys::from_bytes(keys).unwrap().open(&mut payload).unwrap();
    ReplyBody::read(payload[TAG_LEN..].first_chunk::<BODY_LEN>().unwrap()).unwrap()
}

fn ack(accepted: bool) -> ReplyBody {
    let (message, fragments) = (MessageId([6; 16]), Bitmap::all(1));
    ReplyBody::Ack { message, incarnation: [8; 8], accepted, count: 1, fragments }
}

#[test]
fn a_frozen_message_is_delivered_and_acknowledged_by_its_reply_block() {
    let (fixture, relays, drops) = (fixture(), Relays::new(), Arc::default());
    let [message, ..] = link(&fixture);
    let (at, Outcome::Deliver { packet }) = relays.carry(id(1), message) else { panic!("not delivered") };
    assert_eq!(at, id(4));
    let mut endpoint = recipient(&drops);
    endpoint.handle_body(fog_sphinx::body(&packet), now());
    let delivery = Delivery {
        message: MessageId([6; 16]),
        from: Some(id(5)),
        audience: Audience::Person,
        body: b"version one".to_vec(),
        created: CREATED,
    };
    assert!(matches!(endpoint.poll_output(), Some(Output::Deliver(found)) if found == delivery));
    endpoint.accepted(delivery.message, true, now());
    let (first, answer) = sent(outputs(&mut endpoint));
    assert_eq!(first, id(3));
    let (at, Outcome::Reply { packet, surb }) = relays.carry(first, answer) else { panic!("no reply") };
    assert_eq!((at, surb), (id(5), [21; 16]));
    let said = read_reply(&fixture["ack-keys"], fog_sphinx::payload(&packet));
    assert!(matches!(said, ReplyBody::Ack { message: MessageId(m), accepted: true, count: 1, .. } if m == [6; 16]));
    assert!(DropReason::ALL.into_iter().all(|reason| drops.get(reason) == 0));
}

#[test]
fn a_frozen_ping_is_answered_and_frozen_cover_is_taken() {
    let (fixture, relays, drops) = (fixture(), Relays::new(), Arc::default());
    let [_, ping, returned, nothing, _] = link(&fixture);
    let mut endpoint = recipient(&drops);
    for packet in [ping, returned, nothing] {
        let (at, Outcome::Deliver { packet }) = relays.carry(id(1), packet) else { panic!("not delivered") };
        assert_eq!(at, id(4));
        endpoint.handle_body(fog_sphinx::body(&packet), now());
    }
    // The loop is not this node's own: it was read, and nothing waited for it.
    let counted: Vec<_> = DropReason::ALL.into_iter().filter(|reason| drops.get(*reason) > 0).collect();
    assert_eq!((counted, drops.get(DropReason::Expired)), (vec![DropReason::Expired], 1));
    let (first, answer) = sent(outputs(&mut endpoint));
    let (at, Outcome::Reply { packet, surb }) = relays.carry(first, answer) else { panic!("no reply") };
    assert_eq!((at, surb), (id(5), [22; 16]));
    assert_eq!(read_reply(&fixture["pong-keys"], fog_sphinx::payload(&packet)), ReplyBody::Pong);
}

#[test]
fn a_frozen_packet_for_a_slot_is_read_and_its_receipt_comes_back() {
    let (fixture, relays) = (fixture(), Relays::new());
    let [.., stored] = link(&fixture);
    let (at, Outcome::Slot { packet, slot, surb, .. }) = relays.carry(id(1), stored) else { panic!("not stored") };
    assert_eq!((at, slot, surb), (id(4), SLOT, None));
    let (receipt, sealed) = fog_sphinx::body(&packet).split_at(SURB_LEN);
    let mut sealed = sealed.to_vec();
    let content = seal::open(&mut sealed, &Zeroizing::new([9; 32]), &NETWORK).unwrap();
    let Ok(Content::Fragment(fragment)) = Content::read(content, Form::Slot) else { panic!("no fragment") };
    assert_eq!((fragment.message, fragment.index, fragment.count), (MessageId([7; 16]), 0, 1));
    assert_eq!(Envelope::read(fragment.data), Ok(Envelope::Anonymous { body: b"for a slot" }));
    let mut answer: PacketBuf = Box::new([0; PACKET_LEN]);
    let first = Surb::parse(receipt).unwrap().reply(&ReplyBody::Stored.to_body().unwrap(), &mut answer);
    let (at, Outcome::Reply { packet, .. }) = relays.carry(NodeId(first), answer) else { panic!("no reply") };
    assert_eq!(at, id(5));
    assert_eq!(read_reply(&fixture["receipt-keys"], fog_sphinx::payload(&packet)), ReplyBody::Stored);
}

#[test]
fn frozen_replies_are_read_at_their_maker_and_in_a_slot() {
    let (fixture, relays) = (fixture(), Relays::new());
    let packet = |name| -> PacketBuf { Box::new(fixture[name].as_slice().try_into().unwrap()) };
    let (at, Outcome::Reply { packet: reply, surb }) = relays.carry(id(3), packet("reply")) else { panic!("no reply") };
    assert_eq!((at, surb), (id(5), [24; 16]));
    assert_eq!(read_reply(&fixture["reply-keys"], fog_sphinx::payload(&reply)), ack(true));
    let outcome = relays.carry(id(3), packet("slot-reply"));
    let (at, Outcome::Slot { packet: reply, slot, surb, .. }) = outcome else { panic!("no slot") };
    assert_eq!((at, slot, surb), (id(5), SLOT, Some([25; 16])));
    assert_eq!(read_reply(&fixture["slot-reply-keys"], fog_sphinx::payload(&reply)), ack(false));
}

#[test]
fn today_writes_the_same_bodies() {
    let fixture = fixture();
    for (name, body) in [("ack", ack(true)), ("stored", ReplyBody::Stored), ("pong", ReplyBody::Pong)] {
        assert_eq!(body.to_body().unwrap().as_slice(), fixture[name], "{name}");
    }
    assert_eq!(envelope(), fixture["envelope"]);
}

fn hops(path: [u8; 4]) -> Vec<Hop> {
    let key = |n: u8| MixPublicKey::from_bytes(&MixSecretKey::from_bytes([n; 32]).public().to_bytes()).unwrap();
    path.into_iter().map(|n| Hop { id: id(n).0, key: key(n) }).collect()
}

/// From node 5 to node 4, signed; Ed25519 signatures are deterministic.
fn envelope() -> Vec<u8> {
    let label = b"fog mix message v1\0".as_slice();
    let body = b"version one".as_slice();
    let signed = [label, &NETWORK.0, &[6; 16], &seal_key(4), &CREATED.to_be_bytes(), body].concat();
    let signature = identity(5).sign(&signed).to_bytes();
    Envelope::Signed { sender: id(5), signature: &signature, body }.to_bytes()
}

/// Run once for version 1. A later version gets a file of its own.
#[test]
#[ignore = "writes fixtures/mix-v1.hex, which is frozen, if it is empty"]
fn write_the_fixture() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut out = String::new();
    let mut put = |name: &str, bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "{name} {hex}").unwrap();
    };
    let deliver = |n: u8| LastHop::Deliver { reference: [n; 16] };
    let mut block = |last: LastHop| build_surb(&hops(BACK), EPOCH.0, &last, &mut rng).unwrap();
    let (ack_surb, ack_keys, _) = block(deliver(21));
    let (pong_surb, pong_keys, _) = block(deliver(22));
    let (receipt, receipt_keys, _) = block(deliver(23));
    let (reply, reply_keys, _) = block(deliver(24));
    let (slot_reply, slot_reply_keys, _) = block(LastHop::Slot { slot: SLOT, reference: [25; 16] });
    let (spare, ..) = block(deliver(26));
    let (signed, anonymous) = (envelope(), Envelope::Anonymous { body: b"for a slot" }.to_bytes());
    let fragment = |message, surb, data: &'static [u8]| {
        let length = data.len() as u32;
        Content::Fragment(Fragment { message, created: CREATED, length, index: 0, count: 1, surb, data })
    };
    let (ack_bytes, pong_bytes, spare_bytes) = (ack_surb.to_bytes(), pong_surb.to_bytes(), spare.to_bytes());
    let (ack_bytes, spare_bytes): (&'static _, &'static _) =
        (Box::leak(Box::new(ack_bytes)), Box::leak(Box::new(spare_bytes)));
    let contents = [
        (fragment(MessageId([6; 16]), ack_bytes, signed.leak()), Form::Deliver, 4),
        (Content::Ping { surb: &pong_bytes }, Form::Deliver, 4),
        (Content::Loop { id: [31; 16] }, Form::Deliver, 4),
        (Content::Drop, Form::Deliver, 4),
        (fragment(MessageId([7; 16]), spare_bytes, anonymous.leak()), Form::Slot, 9),
    ];
    let mut link = Vec::new();
    for (content, form, to) in contents {
        let mut body = [0; BODY_LEN];
        let at = if form == Form::Slot { SURB_LEN } else { 0 };
        content.write(&mut body[at + 32..at + 32 + form.content_len()]).unwrap();
        seal::seal(&mut body[at..], &seal_key(to), &NETWORK, &mut rng).unwrap();
        let mut last = deliver(1);
        if form == Form::Slot {
            body[..SURB_LEN].copy_from_slice(&receipt.to_bytes());
            last = LastHop::Slot { slot: SLOT, reference: [1; 16] };
        }
        let mut packet = [0; PACKET_LEN];
        build(&hops(THERE), EPOCH.0, &last, &body, &mut rng, &mut packet).unwrap();
        link.extend(packet);
    }
    put("link", &link);
    let mut packet = [0; PACKET_LEN];
    reply.reply(&ack(true).to_body().unwrap(), &mut packet);
    put("reply", &packet);
    slot_reply.reply(&ack(false).to_body().unwrap(), &mut packet);
    put("slot-reply", &packet);
    let all_keys = [
        ("ack-keys", ack_keys),
        ("pong-keys", pong_keys),
        ("receipt-keys", receipt_keys),
        ("reply-keys", reply_keys),
        ("slot-reply-keys", slot_reply_keys),
    ];
    all_keys.iter().for_each(|(name, keys)| put(name, keys.to_bytes().as_slice()));
    put("ack", &ack(true).to_body().unwrap());
    put("stored", &ReplyBody::Stored.to_body().unwrap());
    put("pong", &ReplyBody::Pong.to_body().unwrap());
    put("envelope", &envelope());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mix-v1.hex");
    if std::fs::read(path).is_ok_and(|old| old.is_empty()) {
        std::fs::write(path, out).unwrap();
    }
}
