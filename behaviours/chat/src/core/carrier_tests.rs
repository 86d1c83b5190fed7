use super::*;
use crate::core::{
    envelope::{LIFETIME, MAX_HOPS},
    tag::TagKey,
    testing::{RoomSeal, node},
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn envelope(n: u64, priority: Priority, length: usize) -> Envelope {
    let message = vec![7; length];
    Envelope::pack(&message, &mut RoomSeal(n), &TagKey([4; 32]), priority, LIFETIME, NOW).unwrap().envelope
}

#[test]
fn an_envelope_is_handed_to_each_peer_once_and_given_up_after_eight() {
    let mut carrier = Carrier::default();
    let envelope = envelope(1, Priority::Message, 10);
    carrier.handle_envelope(&envelope, node(0), NOW).unwrap();
    assert_eq!(carrier.handle_envelope(&envelope, node(9), NOW), Err(Reject::Known));
    assert!(carrier.offer(node(0), 100_000, NOW).is_empty(), "not back to where it came from");
    for peer in 1..=8 {
        let offered = carrier.offer(node(peer), 100_000, NOW);
        assert_eq!((offered[0].id(), offered[0].hops()), (envelope.id(), MAX_HOPS - 1));
        carrier.handle_handed(&envelope.id(), node(peer));
        assert!(carrier.offer(node(peer), 100_000, NOW).is_empty());
    }
    assert_eq!(carrier.load(), (0, 0));
}

#[test]
fn what_has_no_hops_left_or_is_over_is_not_carried() {
    let mut carrier = Carrier::default();
    let mut last = envelope(1, Priority::Message, 10);
    while let Ok(next) = last.forwarded() {
        last = next;
    }
    assert_eq!(carrier.handle_envelope(&last, node(0), NOW), Err(Reject::NoHops));
    carrier.handle_envelope(&envelope(2, Priority::Message, 10), node(0), NOW).unwrap();
    let over = NOW.plus(LIFETIME).plus(std::time::Duration::from_secs(601));
    assert!(carrier.offer(node(1), 100_000, over).is_empty());
    assert_eq!(carrier.load(), (0, 0));
}

#[test]
fn one_peer_has_its_quota() {
    let mut carrier = Carrier::default();
    let taken = |carrier: &mut Carrier, peer: u8, length: usize| {
        let at = u64::from(peer) * 1_000;
        (at..at + 300)
            .filter(|n| carrier.handle_envelope(&envelope(*n, Priority::Message, length), node(peer), NOW).is_ok())
            .count()
    };
    assert_eq!(taken(&mut carrier, 1, 10), MAX_FROM_PEER.0);
    assert_eq!(taken(&mut carrier, 2, 15_000), MAX_FROM_PEER.1 / 16_000);
    // What is delivered makes room.
    let first = envelope(1_000, Priority::Message, 10);
    carrier.handle_delivered(&first.id());
    assert_eq!(carrier.handle_envelope(&first, node(1), NOW), Ok(()));
}

#[test]
fn a_full_carrier_gives_up_what_matters_less() {
    let mut carrier = Carrier::default();
    let mut n = 0;
    for peer in 0..16 {
        for _ in 0..65 {
            n += 1;
            let bulk = envelope(n, Priority::Bulk, 15_000);
            let _full = carrier.handle_envelope(&bulk, node(peer), NOW);
        }
    }
    assert_eq!(carrier.load(), (16 * 65, 16 * 65 * 16_000));
    let mut refused = 0;
    for peer in 20..23 {
        for _ in 0..65 {
            n += 1;
            refused +=
                u32::from(carrier.handle_envelope(&envelope(n, Priority::Bulk, 15_000), node(peer), NOW).is_err());
        }
    }
    assert!(refused > 0);
    let full = carrier.load();
    assert!(full.1 <= MAX_CARRIED.1 && full.1 + 16_000 > MAX_CARRIED.1);
    let important = envelope(100_000, Priority::Membership, 15_000);
    carrier.handle_envelope(&important, node(30), NOW).unwrap();
    assert_eq!(carrier.load(), full);
    // It goes first.
    assert_eq!(carrier.offer(node(40), 20_000, NOW).iter().map(Envelope::id).collect::<Vec<_>>(), [important.id()]);
}

/// Not by ids, which are random: what came first goes first, and what came last gives way first.
#[test]
fn equal_envelopes_go_in_the_order_in_which_they_came() {
    let mut carrier = Carrier::default();
    let came: Vec<_> = (0..40).map(|n| envelope(n, Priority::Message, 10)).collect();
    for envelope in &came {
        carrier.handle_envelope(envelope, node(0), NOW).unwrap();
    }
    let ids = |envelopes: &[Envelope]| envelopes.iter().map(Envelope::id).collect::<Vec<_>>();
    assert_eq!(ids(&carrier.offer(node(1), 1_000_000, NOW)), ids(&came));
}
