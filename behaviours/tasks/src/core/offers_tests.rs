use ed25519_dalek::SigningKey;

use super::*;
use crate::core::offer::{Accepts, LIFETIME, Price};

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn record(n: u8, seq: u64, at: UnixMillis) -> Vec<u8> {
    let offer = Offer {
        slots: 1,
        free: 1,
        queued: 0,
        speed: 1,
        memory_bytes: 1,
        staging_bytes: 1,
        features: Vec::new(),
        price: Price::default(),
        accepts: Accepts::default(),
        family: None,
        milliwatts: 0,
        eligible: true,
    };
    offer.sign(&SigningKey::from_bytes(&[n; 32]), &NETWORK, seq, at).unwrap().as_bytes().to_vec()
}

fn worker(n: u8) -> NodeId {
    NodeId(SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes())
}

fn secs(n: u64) -> UnixMillis {
    NOW.plus(Duration::from_secs(n))
}

fn none(_: NodeId) -> bool {
    false
}

#[test]
fn a_later_offer_replaces_an_earlier_one_and_not_too_often() {
    let mut offers = Offers::new(NETWORK, [7; 32], 10);
    let take = |offers: &mut Offers, seq, at| offers.handle(&record(1, seq, secs(at)), none, secs(at));
    assert_eq!(take(&mut offers, 2, 0), Ok(Accept::New(worker(1))));
    assert_eq!(take(&mut offers, 2, 0), Ok(Accept::Known));
    assert_eq!(take(&mut offers, 1, 100), Ok(Accept::Known));
    assert_eq!(take(&mut offers, 3, 3), Err(OfferReject::TooOften));
    assert_eq!(take(&mut offers, 3, 5), Ok(Accept::New(worker(1))));
    assert_eq!((offers.len(), offers.get(worker(1), secs(5)).map(Listed::seq)), (1, Some(3)));
    assert_eq!(offers.get(worker(1), secs(65)).map(|listed| listed.age(secs(65))), Some(Duration::from_secs(60)));
    // One that claims to be older than what it replaces.
    assert_eq!(offers.handle(&record(1, 9, secs(0)), none, secs(6)), Err(OfferReject::TooOften));
}

#[test]
fn bad_offers_are_refused_and_counted() {
    let mut offers = Offers::new(NETWORK, [7; 32], 10);
    let mut forged = record(1, 1, NOW);
    *forged.last_mut().unwrap() ^= 1;
    let reason = |outcome: Result<Accept, OfferReject>| outcome.unwrap_err().drop_reason();
    assert_eq!(reason(offers.handle(&forged, none, NOW)), DropReason::BadMac);
    assert_eq!(reason(offers.handle(b"offer", none, NOW)), DropReason::Malformed);
    let over = NOW.plus(LIFETIME);
    assert_eq!(reason(offers.handle(&record(1, 1, NOW), none, over)), DropReason::Expired);
    assert!(offers.is_empty());
}

#[test]
fn what_expired_is_not_given_and_is_forgotten_in_its_time() {
    let mut offers = Offers::new(NETWORK, [7; 32], 10);
    assert_eq!(offers.next_expiry(), None);
    offers.handle(&record(1, 1, NOW), none, NOW).unwrap();
    offers.handle(&record(2, 1, secs(60)), none, secs(60)).unwrap();
    let over = NOW.plus(LIFETIME);
    assert!(offers.get(worker(1), over).is_none() && offers.iter(over).count() == 1);
    assert_eq!((offers.next_expiry(), offers.expire(over.minus(Duration::from_millis(1)))), (Some(over), vec![]));
    assert_eq!((offers.len(), offers.expire(over), offers.len()), (2, vec![worker(1)], 1));
    // A later one moves it.
    offers.handle(&record(2, 2, secs(120)), none, secs(120)).unwrap();
    assert_eq!(offers.next_expiry(), Some(secs(120).plus(LIFETIME)));
    assert_eq!((offers.expire(secs(120).plus(LIFETIME)), offers.next_expiry()), (vec![worker(2)], None));
}

#[test]
fn strangers_do_not_push_out_who_proved_something_and_chance_decides_among_them() {
    let mut offers = Offers::new(NETWORK, [7; 32], 8);
    let proven = worker(200);
    offers.handle(&record(200, 1, NOW), |it| it == proven, NOW).unwrap();
    let outcomes: Vec<_> = (1..100).map(|n| offers.handle(&record(n, 1, NOW), none, NOW)).collect();
    assert!(offers.len() == 8 && offers.get(proven, NOW).is_some());
    assert!(outcomes.contains(&Err(OfferReject::Full)));
    let mut backwards = Offers::new(NETWORK, [7; 32], 8);
    backwards.handle(&record(200, 1, NOW), |it| it == proven, NOW).unwrap();
    for n in (1..100).rev() {
        let _either_way = backwards.handle(&record(n, 1, NOW), none, NOW);
    }
    assert_eq!(offers.summary(), backwards.summary());
    // A newcomer that proved something gets in.
    assert_eq!(offers.handle(&record(201, 1, NOW), |it| it == worker(201), NOW), Ok(Accept::New(worker(201))));
    assert_eq!(offers.len(), 8);
}

#[test]
fn two_sets_are_equal_after_one_exchange() {
    let (mut one, mut other) = (Offers::new(NETWORK, [1; 32], 1000), Offers::new(NETWORK, [2; 32], 1000));
    for n in 1..200 {
        let old = record(n, 1, NOW);
        let new = record(n, 2, secs(10));
        let (to_one, to_other) = match n % 5 {
            0 => (Some(&old), None),
            1 => (None, Some(&old)),
            2 => (Some(&old), Some(&new)),
            3 => (Some(&new), Some(&old)),
            _ => (Some(&old), Some(&old)),
        };
        to_one.map(|bytes| one.handle(bytes, none, secs(10)).unwrap());
        to_other.map(|bytes| other.handle(bytes, none, secs(10)).unwrap());
    }
    let (buckets, places) = other.differing(&one.summary());
    assert!(places.len() < 190 && !places.is_empty());
    let Difference { send, want } = one.difference(&buckets, &places);
    assert!((send.len(), want.len()) == (79, 80), "{} {}", send.len(), want.len());
    for bytes in other.records(&want) {
        one.handle(&bytes, none, secs(10)).unwrap();
    }
    for bytes in send {
        other.handle(&bytes, none, secs(10)).unwrap();
    }
    assert_eq!(one.summary(), other.summary());
    assert_eq!((one.len(), other.differing(&one.summary())), (199, (Vec::new(), Vec::new())));
    assert_eq!(one.differing(&Summary(vec![0; 3])), (Vec::new(), Vec::new()));
}
