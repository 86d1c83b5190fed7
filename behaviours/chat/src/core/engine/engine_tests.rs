use std::time::Duration;

use super::{testing::World, *};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_open_room_has_one_history_at_all() {
    let mut world = World::new(1, 4);
    let room = world.join_all("#lobby");
    world.connect_all();
    world.run(SECOND);
    for step in 0..20 {
        world.say(step % 4, room, &format!("text {step}"));
        world.run(SECOND / 10);
    }
    world.run(40 * SECOND);
    let first = world.history(0, room);
    assert_eq!(first.len(), 20);
    for n in 0..4 {
        assert_eq!(world.history(n, room), first);
        assert_eq!(world.nodes[n].blamed, 0);
    }
    // Everybody answered: each knows that the others have what it wrote first.
    let state = world.chat(0).shown(&first[0]).unwrap().state;
    assert_eq!(state, State::Delivered);
}

#[test]
fn a_restart_keeps_history_and_goes_on_without_a_fork() {
    let mut world = World::new(2, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    for step in 0..6 {
        world.say(step % 2, room, &format!("{step}"));
        world.run(SECOND);
    }
    let (before, device) = (world.history(0, room), world.chat(0).device());
    world.crash(0);
    world.say(1, room, "while away");
    world.run(SECOND);
    world.reopen(0);
    assert_eq!(world.chat(0).device(), device);
    world.run(5 * SECOND);
    world.say(0, room, "back");
    world.run(5 * SECOND);
    assert_eq!(world.history(0, room)[..6], before);
    assert_eq!(world.history(0, room).len(), 8);
    assert_eq!(world.history(0, room), world.history(1, room));
    assert!(!world.nodes[1].events.iter().any(|event| matches!(event, Event::Forked { .. })));
}

#[test]
fn a_room_that_was_left_and_joined_again_goes_on_where_it_was() {
    let mut world = World::new(2, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    world.say(0, room, "one");
    world.run(SECOND);
    world.act(0, |chat, now| chat.leave(room, now)).unwrap();
    assert!(world.chat(0).conversations().is_empty() && world.chat(0).resolve("#lobby").is_err());
    world.say(1, room, "two");
    world.run(SECOND);
    world.act(0, |chat, now| chat.join_room("#lobby", None, now)).unwrap();
    world.say(0, room, "three");
    world.run(60 * SECOND);
    assert_eq!(world.history(0, room).len(), 3);
    assert_eq!(world.history(0, room), world.history(1, room));
    assert!(world.chat(1).why(&world.history(1, room)[2]).unwrap().order.disputed_from.is_none());
}

#[test]
fn a_password_room_is_read_by_whoever_knows_the_password_alone() {
    let mut world = World::new(4, 3);
    let key = |password: &str| Some(RoomKey::derive(&super::testing::NETWORK, "ops", password).unwrap());
    let room = world.act(0, |chat, now| chat.join_room("#ops", key("horse"), now)).unwrap();
    assert_eq!(world.act(1, |chat, now| chat.join_room("#ops", key("horse"), now)), Ok(room));
    let other = world.act(2, |chat, now| chat.join_room("#ops", key("house"), now)).unwrap();
    assert_ne!(other, room);
    assert_eq!(
        world.act(2, |chat, now| chat.join_room("#ops", None, now)),
        Err(Refusal::OtherPassword("#ops".to_owned()))
    );
    world.connect_all();
    world.say(0, room, "secret");
    world.run(60 * SECOND);
    assert_eq!(world.texts(1, room), ["secret"]);
    assert!(world.texts(2, other).is_empty());
    world.crash(1);
    world.reopen(1);
    world.say(1, room, "still here");
    world.run(60 * SECOND);
    assert_eq!(world.texts(0, room), ["secret", "still here"]);
}

#[test]
fn a_direct_message_arrives_and_says_so() {
    let mut world = World::new(3, 2);
    let direct = world.befriend(0, 1);
    world.can_dial = true;
    let id = world.say(0, direct, "hello");
    world.run(5 * SECOND);
    assert_eq!(world.texts(1, direct), ["hello"]);
    let shown = world.chat(0).shown(&id).unwrap();
    assert_eq!((shown.state, shown.via), (State::Delivered, Some(Transport::Direct)));
    assert_eq!(world.chat(1).shown(&id).unwrap().via, Some(Transport::Direct));
    // Answered by whoever did not have an invite.
    let answer = world.say(1, direct, "hello you");
    world.run(5 * SECOND);
    assert_eq!(world.texts(0, direct), ["hello", "hello you"]);
    assert_eq!(world.chat(1).shown(&answer).unwrap().state, State::Delivered);
    world.act(0, |chat, now| chat.mark_read(direct, now));
    world.run(5 * SECOND);
    assert_eq!(world.chat(1).shown(&answer).unwrap().state, State::Read);
    assert_eq!(world.chat(0).safety_words("dev1"), world.chat(1).safety_words("dev0"));
}

#[test]
fn more_messages_than_a_window_arrive_in_order_though_half_of_all_is_lost() {
    let mut world = World::new(5, 2);
    let direct = world.befriend(0, 1);
    world.can_dial = true;
    world.loss = 0.5;
    // Of this length each has a frame of its own.
    let ids: Vec<_> = (0..120).map(|step| world.say(0, direct, &format!("{step:07000}"))).collect();
    assert_eq!(world.chat(0).shown(&ids[100]).unwrap().reason, Some(Reason::Window));
    world.run(3_600 * SECOND);
    assert_eq!(world.history(1, direct), ids);
    for id in ids {
        assert_eq!(world.chat(0).shown(&id).unwrap().state, State::Delivered);
    }
    assert_eq!(world.chat(0).counts().queued, 0);
}

#[test]
fn what_a_policy_sends_by_the_mixnet_leaves_by_no_other_way() {
    let mut world = World::new(6, 3);
    let direct = world.befriend(0, 1);
    let back = world.befriend(1, 0);
    assert_eq!(direct, back);
    for (n, name) in [(0, "dev1"), (1, "dev0")] {
        world.act(n, |chat, now| chat.set_policy(name, Policy::Mix, now)).unwrap();
    }
    let refused = world.act(0, |chat, now| chat.send(direct, Kind::TEXT, b"x", Via::Direct, now));
    assert_eq!(refused, Err(Refusal::Forbidden));
    world.lan = true;
    world.can_dial = true;
    world.connect_all();
    let id = world.say(0, direct, "quiet");
    world.run(600 * SECOND);
    // Without a mixnet it waits, whatever else is open.
    assert!(world.texts(1, direct).is_empty());
    assert_eq!(world.chat(0).shown(&id).unwrap().reason, Some(Reason::NoRoute));
    for n in 0..2 {
        let is_open = |(via, bytes): &&(Transport, Vec<u8>)| *via != Transport::Mix && matches!(bytes[0], 7..=9);
        let leaked: Vec<_> = world.nodes[n].left.iter().filter(is_open).map(|(via, bytes)| (*via, bytes[0])).collect();
        assert!(leaked.iter().all(|(_, kind)| *kind == 9), "{leaked:?}");
    }
    assert!(world.dials.is_empty());
    for n in 0..2 {
        world.nodes[n].is_mix_ready = true;
        world.act(n, |chat, now| chat.handle_mix_ready(true, now));
    }
    world.run(60 * SECOND);
    assert_eq!(world.texts(1, direct), ["quiet"]);
    assert_eq!(world.chat(0).shown(&id).unwrap().state, State::Delivered);
    assert!(world.nodes[0].left.iter().all(|(via, bytes)| *via == Transport::Mix || bytes[0] != 7));
}

#[test]
fn a_mailbox_keeps_what_is_for_somebody_away() {
    let mut world = World::new(7, 2);
    let direct = world.befriend(0, 1);
    world.nodes[0].is_mix_ready = true;
    world.act(0, |chat, now| chat.handle_mix_ready(true, now));
    let ids: Vec<_> = (0..5).map(|step| world.say(0, direct, &format!("{step}"))).collect();
    world.run(60 * SECOND);
    let shown = world.chat(0).shown(&ids[0]).unwrap();
    assert_eq!((shown.state, shown.via), (State::Carried, Some(Transport::Mailbox)));
    world.nodes[1].is_mix_ready = true;
    world.act(1, |chat, now| chat.handle_mix_ready(true, now));
    world.fetch_mail(1);
    world.run(10 * SECOND);
    assert_eq!(world.history(1, direct), ids);
    assert_eq!(world.chat(1).shown(&ids[0]).unwrap().via, Some(Transport::Mix));
    assert_eq!(world.chat(0).shown(&ids[4]).unwrap().state, State::Delivered);
}

#[test]
fn a_carrier_brings_what_two_who_never_meet_write() {
    let mut world = World::new(8, 3);
    let direct = world.befriend(0, 2);
    world.befriend(0, 1);
    world.befriend(1, 0);
    world.befriend(1, 2);
    world.connect(0, 1);
    let id = world.say(0, direct, "by hand");
    world.run(20 * SECOND);
    let shown = world.chat(0).shown(&id).unwrap();
    assert_eq!((shown.state, shown.via), (State::Carried, Some(Transport::Carrier)));
    assert!(world.chat(1).counts().carried_for_others > 0);
    world.disconnect(0, 1);
    world.run(20 * SECOND);
    world.connect(1, 2);
    world.run(20 * SECOND);
    assert_eq!(world.texts(2, direct), ["by hand"]);
}

#[test]
fn who_is_blocked_is_not_heard_and_not_written_to() {
    let mut world = World::new(9, 2);
    let direct = world.befriend(0, 1);
    world.befriend(1, 0);
    let room = world.join_all("#lobby");
    world.can_dial = true;
    world.connect_all();
    world.say(1, direct, "before");
    world.run(5 * SECOND);
    world.act(0, |chat, now| chat.set_blocked("dev1", true, now)).unwrap();
    world.say(1, direct, "after");
    world.say(1, room, "in the room");
    world.run(60 * SECOND);
    assert!(world.texts(0, direct).is_empty() && world.texts(0, room).is_empty());
    assert_eq!(world.act(0, |chat, now| chat.send(direct, Kind::TEXT, b"x", Via::Auto, now)), Err(Refusal::Blocked));
    world.crash(0);
    world.reopen(0);
    world.run(600 * SECOND);
    assert!(world.texts(0, room).is_empty() && world.chat(0).contacts()[0].blocked);
    world.act(0, |chat, now| chat.set_blocked("dev1", false, now)).unwrap();
    world.run(1_200 * SECOND);
    // What was refused was never acknowledged, and comes.
    assert_eq!(world.texts(0, direct), ["before", "after"]);
    assert_eq!(world.texts(0, room), ["in the room"]);
}

#[test]
fn sessions_that_are_lost_heal_and_nothing_is_missing() {
    let mut world = World::new(10, 2);
    let direct = world.befriend(0, 1);
    world.can_dial = true;
    world.say(0, direct, "one");
    world.run(5 * SECOND);
    world.say(1, direct, "two");
    world.run(5 * SECOND);
    world.crash(1);
    world.nodes[1].store.0.lock().unwrap().retain(|key, _| key[0] != 3);
    world.say(0, direct, "three");
    world.reopen(1);
    world.run(600 * SECOND);
    assert_eq!(world.texts(1, direct), ["one", "two", "three"]);
    assert!(world.nodes[1].events.iter().any(|event| matches!(event, Event::Desynced(_))));
    assert!(world.chat(0).counts().healed > 0);
    world.say(1, direct, "four");
    world.run(60 * SECOND);
    assert_eq!(world.texts(0, direct), ["one", "two", "three", "four"]);
}

#[test]
fn a_store_that_fails_lets_nothing_out() {
    let mut world = World::new(11, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    world.run(SECOND);
    let now = world.time(0);
    let chat = world.nodes[0].chat.as_mut().unwrap();
    chat.send(room, Kind::TEXT, b"text", Via::Auto, now).unwrap();
    let number = loop {
        match chat.poll_output().unwrap() {
            Output::Persist { number, is_synced, .. } => {
                assert!(is_synced);
                break number;
            }
            Output::Publish { .. } | Output::Request { .. } | Output::Event(_) => panic!("before the disk"),
            _ => {}
        }
    };
    chat.handle_persisted(number, false, now);
    assert_eq!(chat.poll_output(), None);
    assert_eq!(chat.send(room, Kind::TEXT, b"more", Via::Auto, now), Err(Refusal::StoreFailed));
}

#[test]
fn texts_and_names_that_move_a_terminal_are_refused() {
    let mut world = World::new(12, 1);
    let room = world.join_all("#lobby");
    for (text, refusal) in [
        ("\u{1b}[2J", Refusal::BadText),
        ("\u{202e}", Refusal::BadText),
        ("", Refusal::TooLong(MAX_TEXT)),
        (&"x".repeat(MAX_TEXT + 1), Refusal::TooLong(MAX_TEXT)),
    ] {
        let sent = world.act(0, |chat, now| chat.send(room, Kind::TEXT, text.as_bytes(), Via::Auto, now));
        assert_eq!(sent, Err(refusal));
    }
    assert!(world.act(0, |chat, now| chat.send(room, Kind::TEXT, &[b'x'; MAX_TEXT], Via::Auto, now)).is_ok());
    for name in ["#a\u{7}", "#", "# a", "@x", "#@x", "##x", "&x"] {
        assert_eq!(world.act(0, |chat, now| chat.join_room(name, None, now)), Err(Refusal::BadName));
    }
}

#[test]
fn gossip_that_is_lost_everywhere_comes_with_the_next_hello() {
    let mut world = World::new(13, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    world.run(60 * SECOND);
    world.loss = 1.0;
    let id = world.say(0, room, "into the void");
    world.run(SECOND);
    world.loss = 0.0;
    assert!(world.history(1, room).is_empty());
    world.run(60 * SECOND);
    assert_eq!(world.history(1, room), [id]);
}

#[test]
fn a_device_that_lost_its_last_message_does_not_use_its_number_again() {
    let mut world = World::new(14, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    let first = world.say(0, room, "one");
    world.run(5 * SECOND);
    let before: std::collections::BTreeSet<_> = world.nodes[0].store.0.lock().unwrap().keys().cloned().collect();
    let second = world.say(0, room, "two");
    world.run(5 * SECOND);
    world.crash(0);
    world.disconnect(0, 1);
    world.nodes[0].store.0.lock().unwrap().retain(|key, _| key[0] != 9 || before.contains(key));
    world.reopen(0);
    assert_eq!(world.history(0, room), [first]);
    let refused = world.act(0, |chat, now| chat.send(room, Kind::TEXT, b"three", Via::Auto, now));
    assert_eq!(refused, Err(Refusal::Incomplete));
    world.connect(0, 1);
    world.run(5 * SECOND);
    assert_eq!(world.history(0, room), [first, second]);
    world.say(0, room, "three");
    world.run(5 * SECOND);
    assert_eq!(world.texts(1, room), ["one", "two", "three"]);
}

#[test]
fn no_byte_of_a_card_can_be_changed_and_no_other_network_takes_it() {
    let mut world = World::new(15, 1);
    let slots = vec![(NodeId([1; 32]), [2; 32]), (NodeId([3; 32]), [4; 32])];
    world.act(0, |chat, now| chat.set_mailboxes(slots.clone(), now));
    let card = world.act(0, |chat, now| chat.card(now));
    assert_eq!((card.name.as_str(), &card.mailboxes), ("dev0", &slots));
    let (bytes, now) = (card.to_bytes(), world.now.unix);
    assert!(bytes.len() <= MAX_CARD && MAX_CARD <= 1_024);
    assert_eq!(Card::from_bytes(&super::testing::NETWORK, &bytes, now), Ok(card));
    assert!(Card::from_bytes(&fog_base::NetworkId([1; 32]), &bytes, now).is_err());
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Card::from_bytes(&super::testing::NETWORK, &bad, now).is_err(), "byte {at}");
        assert!(Card::from_bytes(&super::testing::NETWORK, &bytes[..at], now).is_err(), "{at} bytes");
    }
}

#[test]
fn a_card_that_names_a_foreign_node_is_refused_over_a_link_and_not_found_by_that_node() {
    let mut world = World::new(16, 3);
    // Device 0 says that it is at node 2.
    let chat = world.nodes[0].chat.as_mut().unwrap();
    chat.config.node = super::testing::node_id(2);
    chat.mailboxes = vec![(NodeId([9; 32]), [9; 32])];
    let lie = world.act(0, |chat, now| chat.card(now));
    let from = super::testing::node_id(0);
    let bytes = [&[9], &lie.to_bytes()[..]].concat();
    assert_eq!(world.act(1, |chat, now| chat.handle_request(from, &bytes, now)), Err(Reject::Malformed));
    world.act(1, |chat, now| chat.take_card(&lie, false, now)).unwrap();
    let asked = format!("@{}", super::testing::node_id(2));
    assert!(matches!(world.chat(1).resolve(&asked), Err(Refusal::NoCard(_))));
}

#[test]
fn a_hello_that_is_not_answered_is_repeated_though_nothing_changed() {
    let mut world = World::new(17, 1);
    world.join_all("#lobby");
    let peer = super::testing::node_id(1);
    let mut now = world.time(0);
    let chat = world.nodes[0].chat.as_mut().unwrap();
    chat.handle_connected(peer, false, now);
    let hello = |chat: &mut Chat| {
        std::iter::from_fn(|| chat.poll_output()).find_map(|output| match output {
            Output::Request { request, bytes, .. } if bytes[0] == 1 => Some(request),
            _ => None,
        })
    };
    let first = hello(chat).unwrap();
    chat.handle_response(peer, first, Err(()), now);
    now = now.plus(SECOND * 31);
    chat.handle_timeout(now);
    let second = hello(chat).unwrap();
    chat.handle_response(peer, second, Ok(&[2, 0, 0]), now);
    now = now.plus(SECOND * 31);
    chat.handle_timeout(now);
    assert_eq!(hello(chat), None);
}

#[test]
fn a_device_is_told_of_its_own_messages_and_none_of_them_is_unread() {
    let mut world = World::new(18, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    let id = world.say(0, room, "mine");
    world.run(5 * SECOND);
    let unread = |n: usize| world.chat(n).conversations().into_iter().find(|one| one.id == room).unwrap().unread;
    assert_eq!((unread(0), unread(1)), (0, 1));
    for node in &world.nodes {
        assert_eq!(node.events.iter().filter(|event| **event == Event::Message(id)).count(), 1);
    }
}

#[test]
fn what_tells_the_kind_of_a_conversation_begins_no_name_of_a_contact() {
    let mut world = World::new(19, 2);
    let chat = world.nodes[0].chat.as_mut().unwrap();
    chat.config.name = "@#ada".into();
    chat.mailboxes = vec![(NodeId([9; 32]), [9; 32])];
    let card = world.act(0, |chat, now| chat.card(now));
    for name in ["@bob", "#bob", "&bob", "", "b b"] {
        let added = world.act(1, |chat, now| chat.add_contact(card.clone(), Some(name), now));
        assert_eq!(added.map(|contact| contact.name), Err(Refusal::BadName), "{name:?}");
    }
    let added = world.act(1, |chat, now| chat.add_contact(card.clone(), None, now)).unwrap();
    assert_eq!(added.name, "ada");
}

/// The card of a device that calls itself so.
fn card_of(world: &mut World, n: usize, name: &str) -> Card {
    let chat = world.nodes[n].chat.as_mut().unwrap();
    chat.config.name = name.into();
    chat.mailboxes = vec![(NodeId([9; 32]), [9; 32])];
    world.act(n, |chat, now| chat.card(now))
}

#[test]
fn nobody_takes_the_place_of_another_by_what_it_calls_itself() {
    let (alice, mallory) = (1, 2);
    let node = super::testing::node_id(alice).to_string();
    for name in [node.clone(), format!("@{node}"), format!(" @{node} ")] {
        let mut world = World::new(20, 3);
        let lie = card_of(&mut world, mallory, &name);
        let added = world.act(0, |chat, now| chat.add_contact(lie, None, now)).unwrap();
        assert_eq!(added.name, "somebody", "{name}");
        // Neither in chat nor in the mixnet is it found by the other's id.
        assert!(matches!(world.chat(0).find_person(&format!("@{node}")), Err(Refusal::NoCard(_))));
        assert_eq!(world.chat(0).contact_address(&node), None);
        let honest = card_of(&mut world, alice, "alice");
        let device = honest.device;
        world.act(0, |chat, now| chat.add_contact(honest, None, now)).unwrap();
        assert_eq!(world.chat(0).find_person(&format!("@{node}")), Ok(device));
        assert_eq!(world.chat(0).contact_address("@alice").unwrap().node, super::testing::node_id(alice));
    }
}

#[test]
fn a_contact_has_its_name_whoever_had_it_before_unless_that_is_a_contact() {
    for (chosen, called) in [(None, "al ice"), (Some("al_ice"), "dev1")] {
        let mut world = World::new(21, 3);
        let squatter = card_of(&mut world, 2, "al_ice");
        world.act(0, |chat, now| chat.take_card(&squatter, true, now)).unwrap();
        assert_eq!(world.chat(0).find_person("@al_ice"), Ok(squatter.device));
        let card = card_of(&mut world, 1, called);
        let added = world.act(0, |chat, now| chat.add_contact(card.clone(), chosen, now)).unwrap();
        assert_eq!((added.name.as_str(), added.device), ("al_ice", card.device));
        assert_eq!(world.chat(0).find_person("@al_ice"), Ok(card.device));
        // The other one is there still, under another name, also after a restart; and as a contact it does not get it back.
        world.crash(0);
        world.reopen(0);
        assert_eq!(world.chat(0).find_person("@al_ice"), Ok(card.device));
        let taken = world.act(0, |chat, now| chat.add_contact(squatter.clone(), Some("al_ice"), now));
        assert_eq!(taken, Err(Refusal::NameTaken("al_ice".into())));
        let other = world.act(0, |chat, now| chat.add_contact(squatter.clone(), None, now)).unwrap();
        assert!(other.name.starts_with("al_ice-"), "{}", other.name);
    }
}

#[test]
fn who_was_verified_or_blocked_keeps_its_name() {
    for block in [false, true] {
        let mut world = World::new(22, 3);
        let known = card_of(&mut world, 2, "al_ice");
        world.act(0, |chat, now| chat.take_card(&known, true, now)).unwrap();
        let mark = |chat: &mut Chat, now| match block {
            false => chat.set_verified("@al_ice", true, now),
            true => chat.set_blocked("@al_ice", true, now),
        };
        world.act(0, mark).unwrap();
        let card = card_of(&mut world, 1, "al_ice");
        let added = world.act(0, |chat, now| chat.add_contact(card.clone(), None, now)).unwrap();
        assert_ne!(added.name, "al_ice");
        assert_eq!(world.chat(0).find_person("@al_ice"), Ok(known.device));
    }
}
