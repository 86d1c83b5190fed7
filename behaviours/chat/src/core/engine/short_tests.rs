use std::time::Duration;

use super::{Kind, Reason, Refusal, State, Via, testing::World};

const SECOND: Duration = Duration::from_secs(1);

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
