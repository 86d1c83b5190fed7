use std::time::Duration;

use fog_base::{EpochSchedule, UnixMillis};
use proptest::prelude::*;

use super::*;
use crate::{
    core::{
        blinding::{BlindedSecret, Fog, Identity, Subcredential},
        descriptor::{Contents, Draft},
        handshake::PointKeys,
        period::{Calendar, LIFETIME, Period},
        random::Random,
    },
    wire::{EstablishIntro, Introduction, Reply, StoreAnswer, StoreReject, command},
};

const NETWORK: NetworkId = NetworkId([7; 32]);
const US: NodeId = NodeId([1; 32]);
const PERIOD: Period = Period(20_000);
const BINDING: [u8; 32] = [5; 32];

fn epoch() -> Epoch {
    Epoch(PERIOD.first_epoch().0 + 10)
}

fn now() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(0) }
}

/// A relay in a ring of its own.
fn relay(now: Now) -> Relay {
    let mut relay = Relay::new(NETWORK, US, now);
    relay.set_rings(vec![Ring::new(NETWORK, PERIOD, &[1; 32], [US])]);
    relay
}

fn ask(relay: &mut Relay, circuit: u64, message: &Message, now: Now) -> (Result<(), Reject>, Vec<Output>) {
    let (command, body) = message.encode();
    let result = relay.handle_message(Circuit(circuit), &BINDING, command, &body, epoch(), now);
    (result, std::iter::from_fn(|| relay.poll_output()).collect())
}

fn secret(n: u8) -> (BlindedSecret, Subcredential) {
    let calendar = Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) };
    let identity = Identity::from_seed([n; 32]).unwrap();
    let secret = identity.blind::<Fog>(&calendar.context(PERIOD));
    let subcredential = Subcredential::derive::<Fog>(identity.key(), secret.key());
    (secret, subcredential)
}

fn descriptor(n: u8, revision: u64, last_epoch: Epoch, period: Period) -> Vec<u8> {
    let (secret, subcredential) = secret(n);
    let points = vec![PointKeys::from_seed(&[n; 32], NodeId([n; 32])).public().clone()];
    let contents = Contents { points, ..Contents::default() };
    let draft = Draft { network: &NETWORK, period, last_epoch, revision, contents: &contents, clients: None };
    draft.seal(&secret, &subcredential, &mut Random::new([n; 32])).unwrap()
}

fn fresh(n: u8, revision: u64) -> Vec<u8> {
    descriptor(n, revision, Epoch(epoch().0 + LIFETIME), PERIOD)
}

fn answer(outputs: &[Output]) -> StoreAnswer {
    match outputs {
        // What is no descriptor costs the circuit as well.
        [Output::Send(_, Message::StoreAnswer(answer))]
        | [Output::Send(_, Message::StoreAnswer(answer)), Output::Close(_)] => *answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_descriptor_is_kept_renewed_and_not_rolled_back() {
    let now = now();
    let mut relay = relay(now);
    let key = *secret(1).0.key().as_bytes();
    for (circuit, revision, expected) in [
        (1, 5, StoreAnswer::Stored(5)),
        (2, 5, StoreAnswer::Stored(5)),
        (3, 4, StoreAnswer::Stale(5)),
        (4, 6, StoreAnswer::Stored(6)),
    ] {
        let (_, outputs) = ask(&mut relay, circuit, &Message::Store(fresh(1, revision)), now);
        assert_eq!(answer(&outputs), expected, "{revision}");
    }
    let (_, outputs) = ask(&mut relay, 9, &Message::Fetch(key), now);
    assert_eq!(outputs, [Output::Send(Circuit(9), Message::FetchAnswer(Some(fresh(1, 6))))]);
    let (_, outputs) = ask(&mut relay, 9, &Message::Fetch([0; 32]), now);
    assert_eq!(outputs, [Output::Send(Circuit(9), Message::FetchAnswer(None))]);
    assert_eq!((relay.held().descriptors, relay.held().descriptor_bytes), (1, 4096));
    assert_eq!(relay.rejects().get(Reject::RolledBack), 1);
    // It expires with its last epoch.
    relay.handle_timeout(Epoch(epoch().0 + LIFETIME + 1), now);
    assert_eq!((relay.held().descriptors, relay.held().descriptor_bytes), (0, 0));
}

#[test]
fn equal_revisions_with_other_bytes_do_not_replace() {
    let now = now();
    let mut relay = relay(now);
    let _ = ask(&mut relay, 1, &Message::Store(fresh(1, 5)), now);
    let other = descriptor(1, 5, Epoch(epoch().0 + 1), PERIOD);
    let (result, outputs) = ask(&mut relay, 2, &Message::Store(other), now);
    assert_eq!((result, answer(&outputs)), (Err(Reject::RolledBack), StoreAnswer::Stale(5)));
}

#[test]
fn what_may_not_be_kept_is_rejected_with_its_reason() {
    let now = now();
    let mut relay = relay(now);
    let mut forged = fresh(1, 5);
    forged[4000] ^= 1;
    let mut weak = fresh(1, 5);
    weak[22..54].fill(0);
    let mut version = fresh(1, 5);
    version[0] = 2;
    let cases = [
        (forged, StoreReject::Signature),
        (weak, StoreReject::Malformed),
        (version, StoreReject::Malformed),
        (descriptor(1, 5, Epoch(epoch().0 - 1), PERIOD), StoreReject::Expired),
        (descriptor(1, 5, Epoch(epoch().0 + 9), PERIOD), StoreReject::Expired),
        (descriptor(1, 5, epoch(), PERIOD.next()), StoreReject::Period),
        (descriptor(1, 5, epoch(), Period(u64::MAX)), StoreReject::Period),
        (descriptor(1, 5, epoch(), PERIOD.previous()), StoreReject::Period),
    ];
    for (n, (bytes, reason)) in cases.into_iter().enumerate() {
        let (_, outputs) = ask(&mut relay, n as u64, &Message::Store(bytes), now);
        assert_eq!(answer(&outputs), StoreAnswer::Rejected(reason), "{n}");
    }
    // The ring gives it to others.
    let others = (2..40).map(|n| NodeId([n; 32]));
    relay.set_rings(vec![Ring::new(NETWORK, PERIOD, &[1; 32], others)]);
    let (_, outputs) = ask(&mut relay, 99, &Message::Store(fresh(1, 5)), now);
    assert_eq!(answer(&outputs), StoreAnswer::Rejected(StoreReject::NotResponsible));
    assert_eq!(relay.held().descriptors, 0);
}

#[test]
fn a_flood_of_descriptors_is_limited_before_signatures_are_checked() {
    let now = now();
    let mut relay = relay(now);
    let mut forged = fresh(1, 5);
    forged[4000] ^= 1;
    let mut answers = Vec::new();
    for circuit in 0..100 {
        for _ in 0..4 {
            answers.push(answer(&ask(&mut relay, circuit, &Message::Store(forged.clone()), now).1));
        }
        // A fifth on one circuit closes it.
        let (result, outputs) = ask(&mut relay, circuit, &Message::Store(forged.clone()), now);
        assert_eq!((result, outputs), (Err(Reject::Unexpected), vec![Output::Close(Circuit(circuit))]));
    }
    let checked = answers.iter().filter(|answer| **answer == StoreAnswer::Rejected(StoreReject::Signature)).count();
    assert_eq!((checked, answers.len()), (200, 400));
}

fn introduction(auth_key: [u8; 32]) -> Message {
    Message::Introduce1(Box::new(Introduction { auth_key, x: [2; 32], ciphertext: [3; 1088], sealed: [4; 720] }))
}

fn establish(keys: &PointKeys, limits: (u16, u16)) -> Message {
    Message::EstablishIntro(keys.establish(&NETWORK, &BINDING, limits))
}

#[test]
fn an_introduction_reaches_its_service_and_is_acknowledged() {
    let now = now();
    let mut relay = relay(now);
    let keys = PointKeys::from_seed(&[1; 32], US);
    let key = keys.public().auth_key;
    let ack = |status| Output::Send(Circuit(2), Message::IntroduceAck(status));
    let (result, outputs) = ask(&mut relay, 2, &introduction(key), now);
    assert_eq!((result, outputs), (Err(Reject::Unknown), vec![ack(AckStatus::Unknown)]));
    let (result, outputs) = ask(&mut relay, 1, &establish(&keys, (0, 0)), now);
    assert_eq!((result, outputs), (Ok(()), vec![Output::Send(Circuit(1), Message::IntroEstablished(true))]));
    let (_, outputs) = ask(&mut relay, 2, &introduction(key), now);
    let Message::Introduce1(inside) = introduction(key) else { unreachable!() };
    let offer = Output::Offer { service: Circuit(1), client: Circuit(2), introduction: inside };
    assert_eq!(outputs, [offer]);
    relay.handle_offered(Circuit(2), true);
    assert_eq!(relay.poll_output(), Some(ack(AckStatus::PassedOn)));
    relay.handle_closed(Circuit(1));
    let (_, outputs) = ask(&mut relay, 2, &introduction(key), now);
    assert_eq!(outputs, [ack(AckStatus::Unknown)]);
    assert_eq!(relay.held().points, 0);
    // A fourth one on this circuit.
    assert_eq!(ask(&mut relay, 2, &introduction(key), now).0, Err(Reject::Unexpected));
}

#[test]
fn only_the_holder_of_the_key_becomes_its_point_and_takes_it_over() {
    let now = now();
    let mut relay = relay(now);
    let keys = PointKeys::from_seed(&[1; 32], US);
    let good = keys.establish(&NETWORK, &BINDING, (0, 0));
    // It is told, and loses the circuit.
    let refused = |circuit| {
        vec![Output::Send(Circuit(circuit), Message::IntroEstablished(false)), Output::Close(Circuit(circuit))]
    };
    // Recorded on another circuit, for another relay, changed.
    for (circuit, bad) in [
        (1, keys.establish(&NETWORK, &[6; 32], (0, 0))),
        (2, PointKeys::from_seed(&[1; 32], NodeId([2; 32])).establish(&NETWORK, &BINDING, (0, 0))),
        (3, EstablishIntro { rate: 500, ..good }),
        (4, EstablishIntro { auth_key: [0; 32], ..good }),
    ] {
        let (result, outputs) = ask(&mut relay, circuit, &Message::EstablishIntro(bad), now);
        assert_eq!((result, outputs), (Err(Reject::BadSignature), refused(circuit)));
    }
    let _ = ask(&mut relay, 5, &Message::EstablishIntro(good), now);
    let (_, outputs) = ask(&mut relay, 6, &Message::EstablishIntro(good), now);
    let taken = [Output::Send(Circuit(6), Message::IntroEstablished(true)), Output::Close(Circuit(5))];
    assert_eq!(outputs, taken);
    assert_eq!(relay.held().points, 1);
    // The old circuit's end does not take the new one's key.
    relay.handle_closed(Circuit(5));
    assert_eq!(relay.held().points, 1);
    // One key for each circuit.
    let other = PointKeys::from_seed(&[2; 32], US);
    assert_eq!(ask(&mut relay, 6, &establish(&other, (0, 0)), now).0, Err(Reject::Unexpected));
}

#[test]
fn a_flood_of_introductions_is_limited_as_the_service_asked() {
    for (limits, burst, per_second) in [((0, 0), 400, 200), ((10, 25), 25, 10), ((u16::MAX, u16::MAX), 1000, 500)] {
        let now = now();
        let mut relay = relay(now);
        let keys = PointKeys::from_seed(&[1; 32], US);
        let _ = ask(&mut relay, 0, &establish(&keys, limits), now);
        let mut flood = |first: u64, now| {
            let circuits = first..first + 2000;
            let passed = circuits.filter(|circuit| {
                let outputs = ask(&mut relay, *circuit, &introduction(keys.public().auth_key), now).1;
                matches!(outputs.first(), Some(Output::Offer { client, .. }) if *client == Circuit(*circuit))
            });
            passed.count()
        };
        assert_eq!(flood(1, now), burst);
        assert_eq!(flood(5000, now.plus(Duration::from_secs(1))), per_second);
    }
}

#[test]
fn what_a_services_circuit_does_not_take_is_counted_and_its_client_goes_elsewhere() {
    let now = now();
    let mut relay = relay(now);
    let keys = PointKeys::from_seed(&[1; 32], US);
    let _ = ask(&mut relay, 0, &establish(&keys, (0, 0)), now);
    // What of a burst fits into the circuit.
    let room = 192;
    let mut acks = Vec::new();
    for circuit in 1..=400 {
        let (_, outputs) = ask(&mut relay, circuit, &introduction(keys.public().auth_key), now);
        assert!(matches!(outputs[..], [Output::Offer { service: Circuit(0), .. }]), "{circuit}: {outputs:?}");
        relay.handle_offered(Circuit(circuit), circuit <= room);
        acks.extend(std::iter::from_fn(|| relay.poll_output()));
    }
    let told = |wanted| {
        acks.iter()
            .filter(|ack| matches!(ack, Output::Send(_, Message::IntroduceAck(status)) if *status == wanted))
            .count()
    };
    assert_eq!((told(AckStatus::PassedOn), told(AckStatus::Limited), acks.len()), (192, 208, 400));
    assert_eq!((relay.rejects().get(Reject::Full), relay.held().points), (208, 1));
}

#[test]
fn two_circuits_are_joined_by_a_cookie_once() {
    let now = now();
    let mut relay = relay(now);
    let reply = Reply { y: [1; 32], proof: [2; 32] };
    let cookie = [9; 20];
    // Nobody waits.
    let (result, outputs) = ask(&mut relay, 1, &Message::Rendezvous1(cookie, reply), now);
    assert_eq!((result, outputs), (Err(Reject::Unknown), vec![Output::Close(Circuit(1))]));
    let _ = ask(&mut relay, 2, &Message::EstablishRendezvous(cookie), now);
    // Another with the same cookie, and the same one again.
    assert_eq!(ask(&mut relay, 3, &Message::EstablishRendezvous(cookie), now).0, Err(Reject::Unexpected));
    let (_, outputs) = ask(&mut relay, 4, &Message::Rendezvous1(cookie, reply), now);
    let joined = [Output::Send(Circuit(2), Message::Rendezvous2(reply)), Output::Join(Circuit(2), Circuit(4))];
    assert_eq!(outputs, joined);
    assert_eq!(ask(&mut relay, 5, &Message::Rendezvous1(cookie, reply), now).0, Err(Reject::Unknown));
    // Joined circuits carry nothing else.
    assert_eq!(ask(&mut relay, 2, &Message::EstablishRendezvous([8; 20]), now).0, Err(Reject::Unexpected));
    assert_eq!(ask(&mut relay, 4, &Message::Fetch([0; 32]), now).0, Err(Reject::Unexpected));
}

#[test]
fn who_waits_too_long_or_leaves_is_forgotten() {
    let now = now();
    let mut relay = relay(now);
    let _ = ask(&mut relay, 1, &Message::EstablishRendezvous([1; 20]), now);
    let _ = ask(&mut relay, 2, &Message::EstablishRendezvous([2; 20]), now);
    relay.handle_closed(Circuit(1));
    assert_eq!((relay.held().waiting, relay.poll_timeout()), (1, Some(now.mono + WAIT)));
    relay.handle_timeout(epoch(), now.plus(WAIT));
    assert_eq!((relay.held().waiting, relay.poll_output()), (0, Some(Output::Close(Circuit(2)))));
    assert_eq!(relay.rejects().get(Reject::TimedOut), 1);
}

#[test]
fn tables_are_bounded() {
    let now = now();
    let mut relay = relay(now);
    let wait = |relay: &mut Relay, n: u64| {
        let mut cookie = [0; 20];
        cookie[..8].copy_from_slice(&n.to_be_bytes());
        ask(relay, n, &Message::EstablishRendezvous(cookie), now).0
    };
    for n in 0..MAX_COOKIES as u64 {
        assert_eq!(wait(&mut relay, n), Ok(()));
    }
    assert_eq!(wait(&mut relay, u64::MAX), Err(Reject::Full));
    for n in MAX_COOKIES as u64 + 1..MAX_CIRCUITS as u64 {
        let _ = ask(&mut relay, n, &introduction([0; 32]), now);
    }
    assert_eq!(ask(&mut relay, u64::MAX - 1, &introduction([0; 32]), now).0, Err(Reject::Full));
    assert_eq!(relay.uses.len(), MAX_CIRCUITS);
    (0..MAX_CIRCUITS as u64).for_each(|circuit| relay.handle_closed(Circuit(circuit)));
    relay.handle_closed(Circuit(u64::MAX));
    assert_eq!((relay.uses.len(), relay.held()), (0, Held::default()));
}

proptest! {
    #[test]
    fn garbage_is_refused_and_closes_its_circuit_only(command: u8, body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let now = now();
        let mut relay = relay(now);
        let _ = ask(&mut relay, 1, &Message::EstablishRendezvous([1; 20]), now);
        let known = Message::decode(command, &body).is_some();
        let result = relay.handle_message(Circuit(2), &BINDING, command, &body, epoch(), now);
        prop_assert!(known || result == Err(Reject::Malformed));
        while let Some(output) = relay.poll_output() {
            prop_assert!(matches!(output, Output::Close(Circuit(2)) | Output::Send(Circuit(2), _)));
        }
        prop_assert_eq!(relay.held().waiting - usize::from(command == command::ESTABLISH_RENDEZVOUS && known), 1);
    }
}
