use super::*;
use crate::core::testing::{EPOCH, NETWORK, address, facts, identity, node, schedule, start, vrf};

fn publisher(now: Now) -> Publisher {
    let signer = Signer { identity: Arc::new(identity(1)), vrf: Arc::new(vrf(1)) };
    Publisher::new(signer, NETWORK, schedule(), [1; 32], now)
}

fn published(publisher: &mut Publisher, now: Now) -> Option<Descriptor> {
    publisher.handle_timeout(0, |_| None, now).transpose().unwrap()
}

#[test]
fn without_facts_nothing_is_published() {
    let now = start();
    let mut publisher = publisher(now);
    assert_eq!((publisher.poll_timeout(), published(&mut publisher, now)), (None, None));
}

#[test]
fn the_first_descriptor_and_a_changed_address_go_out_at_once() {
    let now = start();
    let mut publisher = publisher(now);
    publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
    let first = published(&mut publisher, now).unwrap();
    assert_eq!((first.relay(), first.seq(), first.epoch()), (node(1), now.unix.0, EPOCH));
    assert!(publisher.is_published());
    let mut moved = facts(1, EPOCH);
    moved.addresses = vec![address("8.8.8.8")];
    publisher.set_facts(Some((EPOCH, moved.clone())), now);
    assert_eq!(published(&mut publisher, now), None, "not twice within the shortest interval");
    let later = now.plus(MIN_INTERVAL);
    assert_eq!(publisher.poll_timeout(), Some(later.mono));
    assert_eq!(published(&mut publisher, later).unwrap().facts(), &moved);
    assert_eq!(published(&mut publisher, later.plus(Duration::from_secs(100))), None);
}

#[test]
fn the_next_epoch_s_descriptor_goes_out_in_its_first_half_at_a_random_moment() {
    let now = start();
    let moments: std::collections::BTreeSet<_> = (0..20u8)
        .map(|seed| {
            let signer = Signer { identity: Arc::new(identity(1)), vrf: Arc::new(vrf(1)) };
            let mut publisher = Publisher::new(signer, NETWORK, schedule(), [seed; 32], now);
            publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
            published(&mut publisher, now).unwrap();
            let boundary = now.plus(schedule().end(EPOCH).since(now.unix));
            publisher.set_facts(Some((EPOCH.next(), facts(1, EPOCH.next()))), boundary);
            assert!(
                publisher.is_in_force() && !publisher.is_published(),
                "its keys for this epoch are in the last one"
            );
            let due = publisher.poll_timeout().unwrap().duration_since(boundary.mono);
            assert!(due <= schedule().length() / 2, "{due:?}");
            let descriptor = published(&mut publisher, boundary.plus(due)).unwrap();
            assert_eq!(descriptor.epoch(), EPOCH.next());
            due
        })
        .collect();
    assert!(moments.len() > 15, "{moments:?}");
}

#[test]
fn a_seat_signs_late_in_the_first_half() {
    let now = start();
    for seed in 0..20u8 {
        let signer = Signer { identity: Arc::new(identity(1)), vrf: Arc::new(vrf(1)) };
        let mut publisher = Publisher::new(signer, NETWORK, schedule(), [seed; 32], now);
        publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
        published(&mut publisher, now).unwrap();
        publisher.set_seat(true);
        let boundary = now.plus(schedule().end(EPOCH).since(now.unix));
        publisher.set_facts(Some((EPOCH.next(), facts(1, EPOCH.next()))), boundary);
        let due = publisher.poll_timeout().unwrap().duration_since(boundary.mono);
        assert!((schedule().length() * 20 / 48..=schedule().length() / 2).contains(&due), "{due:?}");
    }
}

#[test]
fn a_mix_key_that_was_not_promised_goes_out_at_once() {
    let now = start();
    let mut publisher = publisher(now);
    publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
    published(&mut publisher, now).unwrap();
    let later = now.plus(Duration::from_secs(100));
    publisher.set_facts(Some((EPOCH.next(), facts(2, EPOCH.next()))), later);
    assert!(published(&mut publisher, later).is_some());
}

#[test]
fn the_sequence_number_exceeds_what_others_have_seen() {
    let now = start();
    let mut publisher = publisher(now);
    publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
    let seq = now.unix.0 + 30_000;
    assert_eq!(publisher.handle_timeout(seq, |_| None, now).unwrap().unwrap().seq(), seq);
}

#[test]
fn a_node_that_is_no_relay_any_more_falls_silent() {
    let now = start();
    let mut publisher = publisher(now);
    publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
    publisher.set_facts(None, now);
    assert_eq!(published(&mut publisher, now.plus(Duration::from_secs(1000))), None);
}

#[test]
fn the_ticket_is_of_the_next_set_and_made_anew_when_its_beacon_changes() {
    let now = start();
    let mut publisher = publisher(now);
    let verified = |descriptor: &Descriptor, beacon: &[u8; 32]| {
        let lottery = Lottery { network: &NETWORK, epoch: EPOCH.next(), beacon };
        let ticket = descriptor.candidacy().ticket.as_ref()?;
        lottery::verify(descriptor.vrf_key(), &node(1), &lottery, ticket).ok()
    };
    publisher.set_lottery(Some((EPOCH.next(), [1; 32])), now);
    publisher.set_facts(Some((EPOCH, facts(1, EPOCH))), now);
    let first = published(&mut publisher, now).unwrap();
    assert!(verified(&first, &[1; 32]).is_some() && verified(&first, &[2; 32]).is_none());
    publisher.set_lottery(Some((EPOCH.next(), [1; 32])), now);
    publisher.set_lottery(None, now);
    assert_eq!(publisher.poll_timeout(), None, "nothing new");
    publisher.set_lottery(Some((EPOCH.next(), [2; 32])), now);
    let due = publisher.poll_timeout().unwrap().duration_since(now.mono);
    assert!(due <= schedule().length() / JITTER_PARTS);
    let second = published(&mut publisher, now.plus(due)).unwrap();
    assert!(verified(&second, &[2; 32]).is_some());
    // The set after the next one is the business of the next epoch's descriptor.
    publisher.set_lottery(Some((EPOCH.next().next(), [3; 32])), now);
    assert_eq!(publisher.poll_timeout(), None);
}
