//! Exchanges with a service in a world in memory.

use fog_base::NodeId;

use super::*;
use crate::{
    core::{
        client,
        handshake::{Initiator, PointKeys},
        random::Random,
        reject::Reject,
        service::Config,
        testing::{NETWORK, mixed::Mixed},
    },
    wire::mixed::{Ask, Denial, PIECE_DATA},
};

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn requests_and_answers_of_all_sizes_arrive_and_are_run_once() {
    let mut mixed = Mixed::new(Config::default());
    for length in [0, 1, 30_000, 30_720, MAX_REQUEST] {
        mixed.served.clear();
        assert!(mixed.ask(Mixed::asking(bytes(length))) == Ok(bytes(length)), "{length}");
        assert_eq!(mixed.served, [bytes(length)]);
    }
    mixed.answer = |_| Ok(bytes(MAX_ANSWER));
    assert!(mixed.ask(Mixed::asking(b"much".to_vec())) == Ok(bytes(MAX_ANSWER)));
    // The descriptor was asked for once, and pieces beyond the first blocks in one message more.
    let fetches = mixed.asked.iter().filter(|(_, ask)| matches!(ask, Ask::Fetch(_))).count();
    assert!((1..=2).contains(&fetches), "{fetches}");
    let asked: Vec<_> = mixed.asked.iter().filter(|(_, ask)| !matches!(ask, Ask::Fetch(_))).collect();
    assert!(matches!(asked.last(), Some((_, Ask::More { .. }))), "{:?}", asked.last());
    assert_eq!(mixed.service().rejects().total(), 0);
}

#[test]
fn pieces_that_are_lost_are_asked_for_again_and_the_request_is_not_run_again() {
    let mut mixed = Mixed::new(Config::default());
    mixed.ask(Asking { request: None, ..Mixed::asking(Vec::new()) }).unwrap();
    mixed.answer = |_| Ok(bytes(200_000));
    mixed.loses_every = 5;
    assert!(mixed.ask(Mixed::asking(b"GET".to_vec())) == Ok(bytes(200_000)));
    assert_eq!(mixed.served.len(), 1);
}

#[test]
fn what_a_service_does_not_serve_is_told_by_the_service() {
    let mut mixed = Mixed::new(Config::default());
    for reason in [NotServed::Port, NotServed::Unreachable, NotServed::TimedOut, NotServed::TooLarge, NotServed::Busy] {
        mixed.answer = match reason {
            NotServed::Port => |_| Err(NotServed::Port),
            NotServed::Unreachable => |_| Err(NotServed::Unreachable),
            NotServed::TimedOut => |_| Err(NotServed::TimedOut),
            NotServed::TooLarge => |_| Ok(vec![0; MAX_ANSWER + 1]),
            NotServed::Busy => |_| Err(NotServed::Busy),
        };
        assert_eq!(mixed.ask(Mixed::asking(b"x".to_vec())), Err(reason.into()));
    }
}

#[test]
fn a_service_that_does_not_take_it_and_requests_that_are_too_large_are_refused_before_anything_is_asked() {
    let mut mixed = Mixed::new(Config { mixed: false, ..Config::default() });
    assert_eq!(mixed.ask(Mixed::asking(b"x".to_vec())), Err(Failure::NotTaken));
    let mut mixed = Mixed::new(Config::default());
    assert_eq!(mixed.ask(Mixed::asking(bytes(MAX_REQUEST + 1))), Err(Failure::TooLarge));
    assert_eq!(mixed.ask(Asking { request: None, ..Mixed::asking(Vec::new()) }), Ok(Vec::new()));
    let other = crate::Address::new(*crate::core::blinding::Identity::from_seed([1; 32]).unwrap().key());
    let unknown = mixed.ask(Asking { address: other, ..Mixed::asking(Vec::new()) });
    assert_eq!(unknown, Err(client::Failure::NotFound.into()));
    assert!(mixed.asked.iter().all(|(_, ask)| matches!(ask, Ask::Fetch(_))) && mixed.served.is_empty());
}

#[test]
fn another_point_is_asked_when_one_cannot_be_reached_and_none_when_the_end_is_not_known() {
    let mut mixed = Mixed::new(Config::default());
    let points: Vec<NodeId> =
        mixed.service().status(mixed.world.now.unix).points.iter().map(|(relay, _)| *relay).collect();
    mixed.ask(Asking { request: None, ..Mixed::asking(Vec::new()) }).unwrap();
    mixed.unreachable = points[..2].to_vec();
    assert_eq!(mixed.ask(Mixed::asking(b"x".to_vec())), Ok(b"x".to_vec()));
    mixed.unreachable = points;
    assert_eq!(mixed.ask(Mixed::asking(b"x".to_vec())), Err(Failure::NoPoint));
    // Nothing comes back at all.
    (mixed.unreachable, mixed.loses_every) = (Vec::new(), 1);
    mixed.served.clear();
    assert_eq!(mixed.ask(Mixed::asking(b"y".to_vec())), Err(Failure::TimedOut));
    assert_eq!(mixed.served, [b"y"]);
}

#[test]
fn a_point_that_lies_cannot_make_a_request_run_twice() {
    let mut mixed = Mixed::new(Config::default());
    mixed.points_lie = true;
    mixed.ask(Asking { request: None, ..Mixed::asking(Vec::new()) }).unwrap();
    let _ = mixed.ask(Mixed::asking(b"once".to_vec()));
    assert_eq!(mixed.served, [b"once"]);
    // Its work was used before, or itself.
    let refused = [Reject::BadWork, Reject::Replayed].map(|reason| mixed.service().rejects().get(reason));
    assert!(refused.iter().sum::<u64>() >= 1, "{refused:?}");
}

#[test]
fn a_replayed_request_is_not_run_even_after_a_crash() {
    let mut mixed = Mixed::new(Config::default());
    assert!(mixed.ask(Mixed::asking(bytes(40_000))) == Ok(bytes(40_000)));
    let recorded = mixed.passed.clone();
    for (relay, circuit, message) in recorded.clone() {
        mixed.pass(relay, circuit, message);
    }
    assert_eq!((mixed.served.len(), mixed.service().rejects().get(Reject::Replayed)), (1, 1));
    mixed.world.kill_service();
    mixed.world.start(Config::default());
    mixed.world.run(std::time::Duration::from_secs(30));
    // The circuits are new ones; the points and their keys are the same.
    for (relay, _, message) in recorded {
        for circuit in mixed.circuits_to(relay) {
            mixed.pass(relay, circuit, message.clone());
        }
    }
    assert_eq!((mixed.served.len(), mixed.service().rejects().get(Reject::Replayed)), (1, 1));
}

#[test]
fn relays_answer_what_they_do_not_know_and_hold_no_more_than_they_may() {
    use crate::core::relay::{MAX_OPEN, Output};
    let mut mixed = Mixed::new(Config::default());
    let (now, epoch) = (mixed.world.now, mixed.world.epoch());
    let (relay, key) = mixed.point();
    let relay = mixed.world.relays.get_mut(&relay).unwrap();
    let mut random = Random::new([1; 32]);
    let mut request = |auth_key: [u8; 32]| {
        let keys = PointKeys::from_seed(&[1; 32], NodeId([1; 32]));
        let subcredential = crate::core::blinding::Subcredential([1; 32]);
        let (_, mut sealed) =
            Initiator::start_request(&NETWORK, &subcredential, keys.public(), &[0; 1024], &mut random).unwrap();
        sealed.auth_key = auth_key;
        Ask::Request { id: random.bytes(), request: Box::new(sealed) }.encode()
    };
    let block = || vec![vec![1; 362]];
    let said = |relay: &mut crate::core::relay::Relay, ask: &[u8]| {
        let result = relay.handle_ask(ask, block(), epoch, now);
        (result, relay.poll_output())
    };
    let denied = |denial| Some(Output::Answer { block: vec![1; 362], piece: vec![1 + denial as u8] });
    let unknown = (Err(Reject::Unknown), denied(Denial::Unknown));
    assert_eq!(said(relay, &request([9; 32])), unknown);
    assert_eq!(said(relay, &Ask::Fetch([9; 32]).encode()), unknown);
    assert_eq!(said(relay, &Ask::More { id: [9; 16], has: Vec::new() }.encode()), unknown);
    assert_eq!(said(relay, b"nothing"), (Err(Reject::Malformed), None));
    for _ in 0..MAX_OPEN {
        assert!(matches!(said(relay, &request(key)), (Ok(()), Some(Output::Pass { .. }))));
    }
    assert_eq!(said(relay, &request(key)), (Err(Reject::Full), denied(Denial::Limited)));
    assert_eq!(relay.held().exchanges, MAX_OPEN);
    let later = now.plus(crate::core::relay::KEPT);
    relay.handle_timeout(epoch, later);
    assert_eq!((relay.held().exchanges, relay.rejects().get(Reject::TimedOut)), (0, MAX_OPEN as u64));
}

#[test]
fn a_request_has_a_size_in_whole_kib_and_other_bytes_are_none() {
    for length in [0, 1, 957, 958, 959, MAX_REQUEST] {
        let request = Request { nonce: [1; 16], work: None, half_closed: true, port: 80, bytes: bytes(length) };
        let encoded = request.encode();
        assert!(encoded.len().is_multiple_of(1024) && encoded.len() <= length + 2 * 1024);
        assert_eq!(Request::decode(&encoded), Some(request));
        let mut padded = encoded.clone();
        *padded.last_mut().unwrap() ^= 1;
        assert!(Request::decode(&padded).is_none_or(|other| other.bytes != bytes(length)));
        assert_eq!(Request::decode(&encoded[1..]), None);
        for (at, byte) in [(0, 2), (17, 2), (20, 1), (58, 2), (61, 0xff)] {
            let mut bad = encoded.clone();
            bad[at] = byte;
            assert_eq!(Request::decode(&bad), None, "{at}");
        }
    }
}

#[test]
fn an_answer_opens_for_who_asked_and_has_whole_pieces() {
    let (subcredential, keys) =
        (crate::core::blinding::Subcredential([2; 32]), PointKeys::from_seed(&[1; 32], NodeId([1; 32])));
    let start = |seed| {
        Initiator::start_request(&NETWORK, &subcredential, keys.public(), &[7; 1024], &mut Random::new([seed; 32]))
            .unwrap()
    };
    let ((initiator, sealed), (other, _)) = (start(1), start(2));
    for length in [0, 1, PIECE_DATA, 5000] {
        let opened = keys.open_request(&NETWORK, &[subcredential], &sealed).unwrap();
        assert_eq!(opened.plaintext.as_slice(), [7; 1024]);
        let (reply, session) = opened.responder.respond(&mut Random::new([3; 32])).unwrap();
        let answer = Answerer::new(reply, session).seal(&Ok(bytes(length)));
        assert!(answer.len().is_multiple_of(PIECE_DATA));
        assert_eq!(open_answer(&initiator, &answer), Ok(Ok(bytes(length))));
        assert!(open_answer(&other, &answer).is_err());
        for at in [0, 40, 70, answer.len() - 1] {
            let mut bad = answer.clone();
            bad[at] ^= 1;
            assert!(open_answer(&initiator, &bad).is_err(), "{at}");
        }
        assert!(open_answer(&initiator, &answer[..60]).is_err());
    }
    // The same bytes as an introduction's do not open as a request, nor the other way round.
    let (_, introduction) =
        Initiator::start(&NETWORK, &subcredential, keys.public(), &[7; 704], &mut Random::new([4; 32])).unwrap();
    let crate::wire::Introduction { auth_key, x, ciphertext, sealed } = *introduction;
    let turned = crate::wire::mixed::SealedRequest { auth_key, x, ciphertext, sealed: sealed.to_vec() };
    assert!(keys.open_request(&NETWORK, &[subcredential], &turned).is_err());
}
