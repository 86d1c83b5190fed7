//! What the fuzz target `services_wire` runs, and the test that replays its corpus.

use std::{str, time::Duration};

use ed25519_dalek::{Signer, SigningKey};
use fog_base::{Epoch, EpochSchedule, NetworkId, NodeId, Now, UnixMillis};
use fog_services::{
    Address,
    core::{
        blinding::{BlindedSecret, Fog, Identity, Subcredential},
        circuit::Circuit,
        descriptor::{ClientKey, ClientSecret, Contents, Descriptor, Draft},
        handshake::{Initiator, PointKeys},
        introduction::Request,
        kdf::Once,
        period::{Calendar, LIFETIME, Period},
        random::Random,
        relay::{MAX_EXCHANGES, Output, Relay},
        ring::Ring,
    },
    wire::{Message, mixed::PIECE},
};

/// Where a command stands: what follows came through the mixnet.
const MIXED: u8 = 255;
const NETWORK: NetworkId = NetworkId([7; 32]);
const US: NodeId = NodeId([1; 32]);
const PERIOD: Period = Period(20_000);
const SIZE: usize = 4096;
const HEADER: usize = 166;
const SIGNATURE: usize = 64;

/// The first byte says what the rest is: a message, the two layers of a descriptor, changes to one, an introduction, a name, or what a relay
/// is told.
pub(crate) fn fuzz_wire(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => message(rest),
        Some((1, rest)) => layers(rest, false),
        Some((2, rest)) => layers(rest, true),
        Some((3, rest)) => changed(rest),
        Some((4, rest)) => introduction(rest),
        Some((5, rest)) => name(rest),
        Some((_, rest)) => relay(rest),
        None => {}
    }
}

fn message(data: &[u8]) {
    if let Some((command, body)) = data.split_first()
        && let Some(message) = Message::decode(*command, body)
    {
        let again = message.encode();
        assert_eq!((again.0, &again.1[..]), (*command, body));
    }
}

fn epoch() -> Epoch {
    Epoch(PERIOD.first_epoch().0 + 10)
}

fn secret() -> (BlindedSecret, Subcredential) {
    let calendar = Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) };
    let identity = Identity::from_seed([1; 32]).expect("a good seed");
    let secret = identity.blind::<Fog>(&calendar.context(PERIOD));
    let subcredential = Subcredential::derive::<Fog>(identity.key(), secret.key());
    (secret, subcredential)
}

/// A descriptor by the page, signed and sealed, whose layers say what the bytes say: the outer one, or the inner one behind sixteen slots.
fn layers(data: &[u8], is_inner: bool) {
    let (secret, subcredential) = secret();
    let key = SigningKey::from_bytes(&[5; 32]);
    let (revision, salt) = (9u64.to_be_bytes(), [3; 16]);
    let public = key.verifying_key().to_bytes();
    let period = PERIOD.0.to_be_bytes();
    let certified = [&b"fog services descriptor key v1"[..], &NETWORK.0, &period, &public].concat();
    let certificate = secret.sign(&certified).expect("a good key");
    let last = (epoch().0 + LIFETIME).to_be_bytes();
    let blinded = secret.key().as_bytes();
    let mut bytes = [&[1, 0][..], &last, &period, &revision, blinded, &public, &certificate, &salt].concat();
    assert_eq!(bytes.len(), HEADER);
    let once = |cookie: &[u8], label: &str| {
        Once::derive(&salt, &[blinded, &subcredential.0, &revision, cookie], &[label.as_bytes()])
    };
    let resized = |data: &[u8], len: usize| {
        let mut plaintext = data.to_vec();
        plaintext.resize(len, 0);
        plaintext
    };
    let room = SIZE - HEADER - SIGNATURE - 16;
    let outer = if is_inner {
        let slots = [&[9; 32][..], &[1], &[4; 16 * 40]].concat();
        let inner = once(&[0; 16], "fog services descriptor inner v1");
        let sealed = inner.seal(&bytes, &resized(data, room - slots.len() - 16));
        [slots, sealed].concat()
    } else {
        resized(data, room)
    };
    let outer = once(&[], "fog services descriptor outer v1").seal(&bytes, &outer);
    bytes.extend_from_slice(&outer);
    let signature = key.sign(&[&b"fog services descriptor v1"[..], &NETWORK.0, &bytes].concat());
    bytes.extend_from_slice(&signature.to_bytes());
    let descriptor = Descriptor::parse(&bytes, &NETWORK).expect("it is made by the page");
    let client = ClientSecret::from_bytes([6; 32]);
    let opened = descriptor.open(&subcredential, None);
    let _ = descriptor.open(&subcredential, Some(&client));
    if let Ok(contents) = opened {
        assert!((1..=20).contains(&contents.points.len()));
    }
}

fn descriptor(clients: Option<&[ClientKey]>) -> Vec<u8> {
    let (secret, subcredential) = secret();
    let points = vec![PointKeys::from_seed(&[1; 32], US).public().clone()];
    let contents = Contents { points, ..Contents::default() };
    let last_epoch = Epoch(epoch().0 + LIFETIME);
    let draft = Draft { network: &NETWORK, period: PERIOD, last_epoch, revision: 5, contents: &contents, clients };
    draft.seal(&secret, &subcredential, &mut Random::new([1; 32])).expect("it fits")
}

fn change(bytes: &mut [u8], data: &[u8]) {
    for change in data.chunks_exact(3).take(64) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
}

/// Whoever changes a byte of a descriptor has none.
fn changed(data: &[u8]) {
    let right = descriptor(None);
    let mut bytes = right.clone();
    change(&mut bytes, data);
    assert_eq!(Descriptor::parse(&bytes, &NETWORK).is_ok(), bytes == right);
    let _ = Descriptor::parse(data, &NETWORK);
}

/// A request, and an introduction that carries it with changes.
fn introduction(data: &[u8]) {
    let mut plaintext = [0; fog_services::core::introduction::PLAINTEXT];
    plaintext.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    if let Some(request) = Request::decode(&plaintext) {
        assert_eq!(request.encode(), plaintext);
    }
    let (keys, subcredential) = (PointKeys::from_seed(&[1; 32], US), secret().1);
    let started = Initiator::start(&NETWORK, &subcredential, keys.public(), &plaintext, &mut Random::new([2; 32]));
    let (_, introduction) = started.expect("good keys");
    let (command, right) = Message::Introduce1(introduction).encode();
    let mut body = right;
    change(&mut body, data);
    if let Some(Message::Introduce1(introduction)) = Message::decode(command, &body) {
        let opened = keys.open(&NETWORK, &[subcredential], &introduction);
        assert!(opened.is_err() || opened.is_ok_and(|opened| opened.plaintext[..] == plaintext));
    }
}

fn name(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(address) = text.parse::<Address>()
    {
        assert_eq!(address.to_string(), text.to_ascii_lowercase());
    }
}

/// A relay hears messages on a few circuits: a circuit, a command, a length in eights, and the bytes.
#[allow(clippy::disallowed_methods, reason = "the clock starts somewhere")]
fn relay(mut data: &[u8]) {
    let now = Now { mono: std::time::Instant::now(), unix: UnixMillis(0) };
    let mut relay = Relay::new(NETWORK, US, now);
    relay.set_rings(vec![Ring::new(NETWORK, PERIOD, &[1; 32], [US])]);
    while let [circuit, command, len, rest @ ..] = data {
        let (body, rest) = rest.split_at((8 * usize::from(*len)).min(rest.len()));
        data = rest;
        let mut body = body.to_vec();
        // Bodies have one length for each command, so that most are read.
        if let Some(len) = length(*command) {
            body.resize(len, 0);
        }
        if *command == MIXED {
            let _ = relay.handle_ask(&body, vec![vec![1; 362]; usize::from(*circuit)], epoch(), now);
        } else {
            let _ = relay.handle_message(Circuit((*circuit % 8).into()), &[5; 32], *command, &body, epoch(), now);
        }
        while let Some(output) = relay.poll_output() {
            match output {
                Output::Offer { client, .. } => relay.handle_offered(client, circuit % 2 == 0),
                Output::Close(circuit) => relay.handle_closed(circuit),
                Output::Pass { exchange, .. } => relay.handle_passed(exchange, circuit % 2 == 0),
                Output::Answer { piece, .. } => assert!(piece.len() <= PIECE),
                Output::Send(..) | Output::Join(..) => {}
            }
        }
        let held = relay.held();
        assert!(held.points <= 8 && held.waiting <= 8 && held.descriptors <= 1, "{held:?}");
        assert!(held.exchanges <= MAX_EXCHANGES, "{held:?}");
    }
    (0..8).for_each(|circuit| relay.handle_closed(Circuit(circuit)));
    assert_eq!((relay.held().points, relay.held().waiting), (0, 0));
}

fn length(command: u8) -> Option<usize> {
    use fog_services::wire::{COOKIE, INTRODUCE, command};
    match command {
        command::ESTABLISH_INTRO => Some(100),
        command::INTRODUCE1 => Some(INTRODUCE),
        command::ESTABLISH_RENDEZVOUS => Some(COOKIE),
        command::RENDEZVOUS1 => Some(COOKIE + 64),
        command::FETCH => Some(32),
        _ => None,
    }
}
