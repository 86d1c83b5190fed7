use std::time::Duration;

use super::{
    bundle::DeviceId,
    device::{FALLBACK_LIFETIME, MAX_ONE_TIME_KEYS, MAX_WIRE, Output, Report},
    frame::{Kind, MAX_ACKS, MAX_BODY},
    peer::{MAX_AHEAD, MAX_PENDING},
    reject::Reject,
    sessions::WINDOW,
    testing::{Node, carry, id, key_of, mutual, pair, settle, start},
    words::safety_words,
};

#[test]
fn an_invite_is_enough_to_write_and_to_be_answered() {
    let mut now = start();
    let (mut a, mut b) = pair(now);
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    assert_eq!(b.texts(), [1]);
    assert_eq!(b.reports, [Report::NewPeer(a.id())]);
    assert_eq!(a.acknowledged, [id(1)]);
    b.send(a.id(), 2).unwrap();
    settle(&mut a, &mut b, &mut now);
    assert_eq!((a.texts(), &b.acknowledged[..]), (vec![2], &[id(2)][..]));
    let words = |node: &Node, peer: DeviceId| {
        let (ours, theirs) = (node.device.fingerprinted(None), node.device.fingerprinted(Some(&peer)));
        safety_words(&super::testing::NETWORK, ours.unwrap(), theirs.unwrap())
    };
    assert_eq!(words(&a, b.id()), words(&b, a.id()));
}

#[test]
fn a_one_time_key_starts_one_session() {
    let mut now = start();
    let (mut a, mut b, mut c) = (Node::new(1, now), Node::new(2, now), Node::new(3, now));
    let bundle = b.device.one_time_bundles(1).unwrap().remove(0);
    b.run();
    for node in [&mut a, &mut c] {
        node.device.handle_bundle(&bundle, now).unwrap();
        node.run();
    }
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    b.crash();
    c.send(b.id(), 2).unwrap();
    let (_, _, bytes) = c.sent.remove(0);
    assert_eq!(b.receive(c.id(), &bytes, now), Err(Reject::UnknownDevice), "the key is used up, also after a restart");
    assert_eq!(b.texts(), [1]);
    assert_eq!(b.device.one_time_bundles(MAX_ONE_TIME_KEYS + 1), Err(Reject::Full));
}

#[test]
fn at_most_32_messages_wait_and_any_of_them_may_come_last() {
    let mut now = start();
    let (mut a, mut b) = pair(now);
    for n in 0..MAX_PENDING as u64 {
        a.send(b.id(), n).unwrap();
    }
    assert_eq!(a.send(b.id(), 99), Err(Reject::Full));
    a.sent.reverse();
    settle(&mut a, &mut b, &mut now);
    assert_eq!(b.history.len(), MAX_PENDING);
    assert_eq!(a.acknowledged.len(), MAX_PENDING);
    a.send(b.id(), 99).unwrap();
}

#[test]
fn a_message_that_is_not_acknowledged_holds_up_what_follows_in_whatever_chain() {
    let mut now = start();
    let (mut a, mut b) = pair(now);
    a.send(b.id(), 0).unwrap();
    a.sent.clear();
    let mut n = 1;
    // Each other one is acknowledged and answered, so that a new chain begins with each.
    let full = loop {
        match a.send(b.id(), n) {
            Ok(()) => {
                settle(&mut a, &mut b, &mut now);
                b.send(a.id(), 10_000 + n).unwrap();
                settle(&mut a, &mut b, &mut now);
                a.sent.clear();
                n += 1;
            }
            Err(reject) => break reject,
        }
        assert!(n < 1_000, "nothing held them up");
    };
    assert_eq!((full, n), (Reject::Full, MAX_AHEAD));
    a.device.handle_give_up(b.id(), id(0)).unwrap();
    a.send(b.id(), n).unwrap();
}

#[test]
fn a_message_that_is_not_acknowledged_holds_its_chain_within_the_window() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.send(b.id(), 0).unwrap();
    let (_, _, first) = a.sent.remove(0);
    let mut n = 1;
    // All others are given up, so that the chain goes on while the first one waits.
    let full = loop {
        match a.send(b.id(), n) {
            Ok(()) => {
                a.device.handle_give_up(b.id(), id(n)).unwrap();
                n += 1;
            }
            Err(reject) => break reject,
        }
        assert!(n < 1_000, "the window never closed");
    };
    assert_eq!((full, n), (Reject::Full, WINDOW));
    carry(&mut a, &mut b, now);
    assert_eq!(b.receive(a.id(), &first, now), Ok(()), "the key of the first is still there");
}

#[test]
fn a_key_that_is_gone_is_replaced_on_the_eighth_attempt() {
    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    a.send(b.id(), 2).unwrap();
    let first = a.sent.remove(0).2;
    let mut attempts = Vec::new();
    for _ in 0..8 {
        a.device.handle_resend(b.id(), id(2)).unwrap();
        a.run();
        attempts.push(a.sent.remove(0).2);
    }
    let anew = attempts.pop().unwrap();
    assert!(attempts.iter().all(|attempt| *attempt == first));
    assert_ne!(key_of(&anew), key_of(&first));
    assert_eq!(b.receive(a.id(), &anew, now), Ok(()));
    assert_eq!(b.receive(a.id(), &first, now), Ok(()), "another copy of the same message");
    assert_eq!(b.texts(), [1, 2], "shown once");
}

#[test]
fn a_copy_is_known_before_a_key_is_used_and_is_acknowledged_again() {
    let mut now = start();
    let (mut a, mut b) = pair(now);
    a.send(b.id(), 1).unwrap();
    let bytes = a.sent[0].2.clone();
    carry(&mut a, &mut b, now);
    b.flush(now.plus(Duration::from_secs(1)));
    b.sent.clear();
    assert_eq!(b.receive(a.id(), &bytes, now), Err(Reject::Replayed));
    settle(&mut a, &mut b, &mut now);
    assert_eq!((b.texts(), a.acknowledged.len()), (vec![1], 1));
}

#[test]
fn simultaneous_starts_end_in_one_session() {
    for round in 0..8 {
        let mut now = start();
        let (mut a, mut b) = mutual(now);
        a.send(b.id(), 1).unwrap();
        b.send(a.id(), 2).unwrap();
        settle(&mut a, &mut b, &mut now);
        assert_eq!((a.texts(), b.texts()), (vec![2], vec![1]), "round {round}");
        let (a_id, b_id) = (a.id(), b.id());
        let session =
            |node: &mut Node, peer| node.device.peers.get_mut(&peer).unwrap().sessions.preferred().unwrap().id.clone();
        assert_eq!(session(&mut a, b_id), session(&mut b, a_id));
        let began =
            |node: &mut Node, peer| node.device.peers.get_mut(&peer).unwrap().sessions.preferred().unwrap().is_ours();
        assert_eq!(began(&mut a, b_id), a_id < b_id, "the device with the lower id began it");
        assert!(!a.reports.iter().chain(&b.reports).any(|report| matches!(report, Report::Desynced(_))));
    }
}

/// Loses the sessions of `node`, as a damaged store would.
fn lose_sessions(node: &mut Node) {
    node.disk.retain(|key, _| key[0] != super::vault::RowKind::Session as u8);
    node.crash();
}

#[test]
fn a_broken_conversation_heals_says_so_and_loses_nothing() {
    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    b.send(a.id(), 2).unwrap();
    settle(&mut a, &mut b, &mut now);
    lose_sessions(&mut b);
    for n in 3..9 {
        a.send(b.id(), n).unwrap();
    }
    settle(&mut a, &mut b, &mut now);
    assert_eq!(b.texts(), [1, 3, 4, 5, 6, 7, 8]);
    assert!(b.reports.contains(&Report::Desynced(a.id())) && b.reports.contains(&Report::Healed(a.id())));
    assert!(a.reports.contains(&Report::Healed(b.id())));
    b.send(a.id(), 10).unwrap();
    a.send(b.id(), 11).unwrap();
    settle(&mut a, &mut b, &mut now);
    assert_eq!((a.texts().last(), b.texts().last()), (Some(&10), Some(&11)));
}

#[test]
fn both_sides_broken_at_once_heal_too() {
    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    b.send(a.id(), 2).unwrap();
    settle(&mut a, &mut b, &mut now);
    a.send(b.id(), 3).unwrap();
    b.send(a.id(), 4).unwrap();
    lose_sessions(&mut a);
    lose_sessions(&mut b);
    settle(&mut a, &mut b, &mut now);
    assert_eq!((a.texts(), b.texts()), (vec![2, 4], vec![1, 3]));
}

#[test]
fn garbage_in_a_peers_name_starts_few_sessions_and_stops_nothing() {
    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    a.send(b.id(), 2).unwrap();
    let good = a.sent.remove(0).2;
    let mut heals = 0;
    for at in 40..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(b.receive(a.id(), &bad, now).is_err(), "byte {at}");
        heals += b.sent.len();
        b.sent.clear();
    }
    assert!(heals <= 1, "{heals} sessions started");
    assert_eq!(b.receive(a.id(), &good, now), Ok(()));
    settle(&mut a, &mut b, &mut now);
    a.send(b.id(), 3).unwrap();
    settle(&mut a, &mut b, &mut now);
    assert_eq!(b.texts(), [1, 2, 3]);
}

#[test]
fn an_old_pre_key_message_starts_nothing_again() {
    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    let old = a.sent[0].2.clone();
    settle(&mut a, &mut b, &mut now);
    // The session and every memory of the message go; what the peer started does not.
    b.disk.retain(|key, _| {
        let kind = key[0];
        kind != super::vault::RowKind::Session as u8 && kind != super::vault::RowKind::Seen as u8
    });
    b.crash();
    assert_eq!(b.receive(a.id(), &old, now), Err(Reject::Replayed));
}

#[test]
fn nobody_speaks_for_another() {
    let now = start();
    let (mut a, mut b) = mutual(now);
    let mallory = Node::new(3, now);
    a.send(b.id(), 1).unwrap();
    let bytes = a.sent.remove(0).2;
    assert_eq!(b.receive(mallory.id(), &bytes, now), Err(Reject::WrongBinding), "not its own message");
    assert_eq!(b.receive(b.id(), &bytes, now), Err(Reject::WrongBinding));
    let mut c = Node::new(4, now);
    assert_eq!(c.receive(a.id(), &bytes, now), Err(Reject::UnknownDevice), "not for this one");
    for bytes in [&b""[..], &[1], &[3, 2, 3], &[9; 100], &vec![3; 1 << 20]] {
        assert!(b.receive(a.id(), bytes, now).is_err());
    }
    assert!(b.history.is_empty());
}

#[test]
fn a_blocked_device_is_not_heard_and_not_written_to() {
    let now = start();
    let (mut a, mut b) = mutual(now);
    let (a_id, b_id) = (a.id(), b.id());
    b.device.block_list().block(a_id);
    a.send(b_id, 1).unwrap();
    let bytes = a.sent.remove(0).2;
    assert_eq!(b.receive(a_id, &bytes, now), Err(Reject::Blocked));
    assert_eq!(b.send(a_id, 2), Err(Reject::Blocked));
    assert_eq!(b.device.handle_bundle(&a.device.bundle(), now), Err(Reject::Blocked));
}

#[test]
fn an_invite_lives_through_one_rotation_and_peers_learn_the_new_key() {
    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    let mut c = Node::new(3, now);
    c.device.handle_bundle(&b.device.bundle(), now).unwrap();
    c.run();
    now = now.plus(FALLBACK_LIFETIME + Duration::from_secs(1));
    b.flush(now);
    c.send(b.id(), 2).unwrap();
    settle(&mut c, &mut b, &mut now);
    assert_eq!(b.texts(), [1, 2], "the old key still opens");
    // A second rotation destroys it; whoever spoke with b in between has the new one.
    b.send(a.id(), 3).unwrap();
    settle(&mut a, &mut b, &mut now);
    lose_sessions(&mut a);
    b.send(a.id(), 4).unwrap();
    settle(&mut a, &mut b, &mut now);
    assert_eq!(a.texts(), [3, 4]);
}

#[test]
fn a_failed_store_silences_the_device() {
    let now = start();
    let (mut a, b) = pair(now);
    a.device.handle_send(b.id(), id(1), Kind::Data, b"x").unwrap();
    assert!(matches!(a.device.poll_output(), Some(Output::Persist { .. })));
    a.device.handle_store_failed();
    assert!(a.device.poll_output().is_none());
    assert_eq!(a.device.handle_send(b.id(), id(2), Kind::Data, b"x"), Err(Reject::StoreFailed));
}

#[test]
fn ids_and_lengths_are_checked() {
    let now = start();
    let (mut a, b) = pair(now);
    a.send(b.id(), 1).unwrap();
    assert_eq!(a.send(b.id(), 1), Err(Reject::Duplicate));
    let long = vec![0; MAX_BODY + 1];
    assert_eq!(a.device.handle_send(b.id(), id(2), Kind::Data, &long), Err(Reject::TooLong));
    a.device.handle_send(b.id(), id(2), Kind::Data, &long[1..]).unwrap();
    a.run();
    assert!(a.sent.last().unwrap().2.len() + 16 * MAX_ACKS <= MAX_WIRE);
    assert_eq!(a.device.handle_send(DeviceId([9; 32]), id(3), Kind::Data, b""), Err(Reject::UnknownDevice));
    a.device.handle_give_up(b.id(), id(1)).unwrap();
    assert_eq!(a.device.handle_resend(b.id(), id(1)), Err(Reject::Expired));
}

#[test]
fn debug_shows_no_secret() {
    let now = start();
    let (mut a, b) = pair(now);
    a.device.handle_send(b.id(), id(1), Kind::Data, b"canary").unwrap();
    let shown = format!("{:?} ", a.device) + &format!("{:?}", a.device.vault());
    assert!(!shown.contains("canary") && shown.len() < 300, "{shown}");
    while let Some(output) = a.device.poll_output() {
        if let Output::Persist { batch, rows, .. } = &output {
            assert!(!format!("{rows:?}").contains("canary"));
            let batch = *batch;
            a.device.handle_persisted(batch);
        }
    }
}
