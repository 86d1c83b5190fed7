//! Names that people choose, what rooms are about, what expires, and how far somebody is.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    Event, Kind, Reason, Refusal, State, Transport, Via, kept,
    testing::{Store, World},
};

const SECOND: Duration = Duration::from_secs(1);
const MASTER: [u8; 32] = [100; 32];

#[test]
fn a_chosen_name_reaches_others_and_outlives_the_process_and_the_device() {
    let mut world = World::new(91, 4);
    world.connect_all();
    world.join_all("#lobby");
    world.run(60 * SECOND);
    world.befriend(1, 0);
    let device = world.chat(0).device();
    world.act(0, |chat, now| chat.set_nick("ada", now).unwrap());
    world.run(60 * SECOND);
    assert_eq!(world.chat(0).nick(), "ada");
    // To whom it is a stranger it is what it calls itself; a contact stays what it was, and its person is told.
    assert_eq!(world.chat(2).name_of(device), "ada");
    assert_eq!(world.chat(1).name_of(device), "dev0");
    assert_eq!(world.chat(1).calls_itself(device).as_deref(), Some("ada"));
    let renamed = Event::Renamed { device, was: "dev0".into() };
    assert!(world.nodes[1].events.contains(&renamed) && !world.nodes[2].events.contains(&renamed));
    // Nobody takes the name of another.
    world.act(3, |chat, now| chat.set_nick("ada", now).unwrap());
    world.run(60 * SECOND);
    let other = world.chat(3).device();
    assert_eq!(world.chat(2).find_person("@ada"), Ok(device));
    assert!(world.chat(2).name_of(other).starts_with("ada-"), "{}", world.chat(2).name_of(other));
    for bad in ["", "@ada", "a b", "a\u{1b}[2J", &device.to_string()] {
        assert_eq!(world.act(0, |chat, now| chat.set_nick(bad, now)), Err(Refusal::BadName), "{bad:?}");
    }
    world.crash(0);
    world.reopen(0);
    assert_eq!(world.act(0, |chat, now| (chat.nick(), chat.card(now).name)), ("ada".to_owned(), "ada".to_owned()));

    let given = kept(Zeroizing::new(MASTER), &world.nodes[0].store).unwrap();
    world.crash(0);
    world.nodes[0].store = Store::default();
    world.reopen(0);
    assert_eq!(world.chat(0).nick(), "dev0");
    for one in &given {
        assert!(world.act(0, |chat, now| chat.adopt(one, now)));
    }
    assert_eq!(world.chat(0).nick(), "ada");
}

#[test]
fn nobody_gets_a_name_that_another_gave_up_nor_ones_own() {
    let mut world = World::new(96, 4);
    world.connect_all();
    world.join_all("#lobby");
    world.run(60 * SECOND);
    let [reader, ann, mallory] = [0, 1, 2];
    let device = world.chat(ann).device();
    let nick = |world: &mut World, n: usize, name: &str| {
        world.act(n, |chat, now| chat.set_nick(name, now).unwrap());
        world.run(20 * SECOND);
    };
    nick(&mut world, reader, "rea");
    nick(&mut world, ann, "ann");
    nick(&mut world, ann, "zed");
    nick(&mut world, mallory, "ann");
    world.crash(reader);
    world.reopen(reader);
    world.run(60 * SECOND);
    assert_eq!(["@ann", "@zed"].map(|name| world.chat(reader).find_person(name)), [Ok(device), Ok(device)]);
    nick(&mut world, mallory, "rea");
    assert!(world.chat(reader).name_of(world.chat(mallory).device()).starts_with("rea-"));
    // Its own it may have again; and somebody who goes on keeps the last one.
    nick(&mut world, ann, "ann");
    assert_eq!(world.chat(reader).find_person("@ann"), Ok(device));
    (0..6).for_each(|n| nick(&mut world, ann, &format!("ann{n}")));
    let called = world.chat(reader).name_of(device);
    nick(&mut world, ann, "another");
    assert_eq!(world.chat(reader).name_of(device), called);
}

#[test]
fn a_contact_whose_name_said_nothing_is_called_what_it_calls_itself() {
    let mut world = World::new(101, 2);
    let default = super::default_name(super::testing::node_id(1));
    world.act(1, |chat, now| chat.set_nick(&default, now).unwrap());
    world.connect(0, 1);
    let card = world.act(1, |chat, now| chat.card(now));
    let device = card.device;
    world.act(0, |chat, now| chat.add_contact(card, None, now).unwrap());
    let direct = world.chat(0).resolve(&format!("@{default}")).unwrap();
    // It answers, so the other one is a contact, and hears of its name.
    for n in [0, 1] {
        world.say(n, direct, "hello");
        world.run(30 * SECOND);
    }
    assert_eq!(world.chat(0).name_of(device), default);
    for (nick, called) in [("bob", "bob"), ("ben", "bob")] {
        world.act(1, |chat, now| chat.set_nick(nick, now).unwrap());
        world.run(30 * SECOND);
        assert_eq!(world.chat(0).name_of(device), called, "{nick}");
    }
    assert!(world.nodes[0].events.contains(&Event::Renamed { device, was: default.clone() }));
    // What it was called before still leads to it.
    assert_eq!(["@bob", &*default].map(|name| world.chat(0).find_person(name)), [Ok(device), Ok(device)]);
}

#[test]
fn an_old_card_brings_no_old_name_back_and_who_is_blocked_hears_of_none() {
    let mut world = World::new(97, 4);
    world.connect_all();
    world.join_all("#lobby");
    world.run(60 * SECOND);
    world.befriend(0, 3);
    world.run(20 * SECOND);
    let (device, blocked) = (world.chat(0).device(), world.chat(3).device().to_string());
    let old = world.act(0, |chat, now| chat.card(now));
    world.act(0, |chat, now| chat.set_blocked(&blocked, true, now).unwrap());
    world.act(0, |chat, now| chat.set_nick("ada", now).unwrap());
    world.run(60 * SECOND);
    for is_proved in [true, false] {
        world.act(1, |chat, now| chat.take_card(&old, is_proved, now).unwrap());
        assert_eq!(world.chat(1).name_of(device), "ada");
    }
    assert_eq!(world.chat(3).name_of(device), "dev0");
    assert_eq!(world.chat(3).calls_itself(device), None);
}

fn topic(world: &World, n: usize, name: &str) -> Option<String> {
    world.chat(n).conversations().into_iter().find(|one| one.to == name).and_then(|one| one.topic)
}

#[test]
fn a_room_is_about_what_was_said_last_by_somebody_who_is_heard() {
    let mut world = World::new(92, 3);
    world.connect_all();
    let room = world.join_all("#dev");
    world.run(60 * SECOND);
    let set = |world: &mut World, n: usize, topic: &str| {
        let set = world.act(n, |chat, now| chat.send(room, Kind::TOPIC, topic.as_bytes(), Via::Auto, now));
        world.run(20 * SECOND);
        set
    };
    let all = |world: &World| [0, 1, 2].map(|n| topic(world, n, "#dev"));
    assert_eq!(all(&world), [None, None, None]);
    set(&mut world, 0, "release on Friday").unwrap();
    set(&mut world, 1, "release on Monday").unwrap();
    assert_eq!(all(&world), [(); 3].map(|()| Some("release on Monday".to_owned())));
    world.crash(2);
    world.reopen(2);
    assert_eq!(topic(&world, 2, "#dev").as_deref(), Some("release on Monday"));
    let author = world.chat(1).device().to_string();
    world.act(2, |chat, now| chat.set_blocked(&author, true, now).unwrap());
    assert_eq!(topic(&world, 2, "#dev").as_deref(), Some("release on Friday"));
    set(&mut world, 0, "").unwrap();
    assert_eq!(all(&world), [None, None, None]);
    for bad in ["two\nlines", "a\u{202e}b", &"x".repeat(257)] {
        assert_eq!(set(&mut world, 0, bad), Err(Refusal::BadTopic(256)), "{bad:?}");
    }
    // Another program may say more, and none of it is shown.
    set(&mut world, 0, "short").unwrap();
    world.act(1, |chat, now| {
        let long = chat.write(room, Kind::TOPIC, &[b'x'; 300], now).unwrap().id();
        chat.queue_publication(room, long, now);
    });
    world.run(20 * SECOND);
    assert_eq!(world.history(0, room).len(), world.history(1, room).len());
    assert_eq!(all(&world), [(); 3].map(|()| Some("short".to_owned())));
    let direct = world.befriend(0, 1);
    let refused = world.act(0, |chat, now| chat.send(direct, Kind::TOPIC, b"us", Via::Auto, now));
    assert_eq!(refused, Err(Refusal::WrongKind));
}

#[test]
fn a_message_with_a_short_life_is_given_up_alone_and_the_conversation_goes_on() {
    let mut world = World::new(93, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    world.say(0, direct, "hello");
    world.run(30 * SECOND);
    world.disconnect(0, 1);
    let within = |world: &mut World, text: &str, lifetime: Duration| {
        let send = |chat: &mut super::Chat, now| {
            chat.send_within(direct, Kind::TEXT, text.as_bytes(), (Via::Auto, Some(lifetime)), now)
        };
        world.act(0, send).unwrap()
    };
    let state = |world: &World, id| world.chat(0).shown(&id).map(|shown| (shown.state, shown.reason)).unwrap();
    // So many under way that what follows goes together.
    let before: Vec<_> = (0..12).map(|n| world.say(0, direct, &format!("{n}"))).collect();
    let gone = within(&mut world, "dinner in ten minutes?", 600 * SECOND);
    let stays = within(&mut world, "and tomorrow?", 3_600 * SECOND);
    let always = world.say(0, direct, "whenever");
    world.run(300 * SECOND);
    // Its life is stored with it.
    world.crash(0);
    world.reopen(0);
    world.run(200 * SECOND);
    assert_eq!(state(&world, gone).0, State::Queued);
    world.run(120 * SECOND);
    assert_eq!(state(&world, gone), (State::Failed, Some(Reason::Expired)));
    assert_eq!(state(&world, stays).0, State::Queued);
    world.connect(0, 1);
    world.run(120 * SECOND);
    let texts = world.texts(1, direct);
    assert_eq!(
        (&*texts[0], &texts[1 + before.len()..]),
        ("hello", &["and tomorrow?".to_owned(), "whenever".into()][..])
    );
    assert_eq!([stays, always].map(|id| state(&world, id).0), [State::Delivered; 2]);
    let room = world.act(0, |chat, now| chat.join_room("#r", None, now).unwrap());
    let sent = world.act(0, |chat, now| chat.send_within(room, Kind::TEXT, b"x", (Via::Auto, Some(600 * SECOND)), now));
    assert_eq!(sent, Err(Refusal::NeverExpires));
}

#[test]
fn a_message_with_a_short_life_that_waits_for_the_window_ends_in_time() {
    let mut world = World::new(95, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    world.say(0, direct, "hello");
    world.run(30 * SECOND);
    world.disconnect(0, 1);
    let long = "x".repeat(8_000);
    let stays: Vec<_> = (0..100).map(|_| world.say(0, direct, &long)).collect();
    let send =
        |chat: &mut super::Chat, now| chat.send_within(direct, Kind::TEXT, b"now", (Via::Auto, Some(60 * SECOND)), now);
    let gone = world.act(0, send).unwrap();
    let shown = |world: &World, id| world.chat(0).shown(&id).map(|shown| (shown.state, shown.reason)).unwrap();
    assert_eq!(shown(&world, gone), (State::Queued, Some(Reason::Window)));
    world.run(62 * SECOND);
    assert_eq!(shown(&world, gone), (State::Failed, Some(Reason::Expired)));
    world.connect(0, 1);
    world.run(300 * SECOND);
    assert!(stays.iter().all(|id| shown(&world, *id).0 == State::Delivered));
    assert_eq!(world.texts(1, direct).len(), 1 + stays.len());
}

#[test]
fn messages_with_short_lives_leave_the_window_to_others_however_many_there_are() {
    let mut world = World::new(98, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    world.say(0, direct, "hello");
    world.run(30 * SECOND);
    world.disconnect(0, 1);
    world.say(0, direct, "before");
    let mut short = Vec::new();
    for _ in 0..10 {
        for _ in 0..10 {
            let how = (Via::Auto, Some(60 * SECOND));
            short.push(world.act(0, |chat, now| chat.send_within(direct, Kind::TEXT, b"now", how, now).unwrap()));
        }
        world.run(65 * SECOND);
    }
    let state = |world: &World, id| world.chat(0).shown(&id).unwrap().state;
    assert!(short.iter().all(|id| state(&world, *id) == State::Failed));
    world.say(0, direct, "after");
    let trace = world.chat(0).trace("@dev1").unwrap();
    assert!(trace.waiting == 0 && trace.under_way <= 4, "what stays is sealed, with the places before it: {trace:?}");
    world.connect(0, 1);
    world.run(300 * SECOND);
    assert_eq!(world.texts(1, direct), ["hello", "before", "after"]);
}

#[test]
fn what_follows_a_message_that_was_given_up_is_shown_at_once() {
    for written_before in [true, false] {
        let mut world = World::new(99, 2);
        world.connect(0, 1);
        let direct = world.befriend(0, 1);
        world.say(0, direct, "hello");
        world.run(30 * SECOND);
        world.disconnect(0, 1);
        let how = (Via::Auto, Some(60 * SECOND));
        for _ in 0..3 {
            world.act(0, |chat, now| chat.send_within(direct, Kind::TEXT, b"now", how, now).unwrap());
            world.run(25 * SECOND);
        }
        if written_before {
            world.say(0, direct, "stays");
            world.run(70 * SECOND);
            world.connect(0, 1);
        } else {
            world.run(70 * SECOND);
            world.connect(0, 1);
            world.run(20 * SECOND);
            world.say(0, direct, "stays");
        }
        // Who has to ask for what is missing waits for longer.
        world.run(15 * SECOND);
        assert_eq!(world.texts(1, direct), ["hello", "stays"], "{written_before}");
    }
}

#[test]
fn a_trace_tells_the_ways_and_what_is_under_way() {
    let mut world = World::new(94, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    let name = world.chat(0).contacts().remove(0).name;
    let trace = |world: &World| world.chat(0).trace(&name).unwrap();
    world.say(0, direct, "one");
    world.run(30 * SECOND);
    let met = trace(&world);
    assert!(met.connected.is_some() && !met.has_written && met.last_via.is_some() && !met.ways.is_empty(), "{met:?}");
    assert_eq!((met.waiting, met.under_way), (0, 0));
    world.disconnect(0, 1);
    world.say(0, direct, "two");
    let away = trace(&world);
    assert_eq!((away.connected, away.under_way), (None, 1));
    assert!(!away.ways.contains(&Transport::Direct) && !away.ways.contains(&Transport::Lan), "{away:?}");
    assert_eq!(world.chat(0).trace("nobody"), Err(Refusal::Unknown("nobody".into())));
}
