use std::time::Duration;

use super::{
    testing::{World, node_id},
    *,
};

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
fn a_direct_message_arrives_and_says_so() {
    let mut world = World::new(3, 2);
    let direct = world.befriend(0, 1);
    world.can_dial = true;
    let id = world.say(0, direct, "hello");
    world.run(5 * SECOND);
    assert_eq!(world.texts(1, direct), ["hello"]);
    let shown = world.chat(0).shown(&id).unwrap();
    assert_eq!((shown.state, shown.via), (State::Delivered, Some(Transport::Direct)));
    // Answered by whoever did not have an invite.
    let answer = world.say(1, direct, "hello you");
    world.run(5 * SECOND);
    assert_eq!(world.texts(0, direct), ["hello", "hello you"]);
    assert_eq!(world.chat(1).shown(&answer).unwrap().state, State::Delivered);
    world.act(0, |chat, now| chat.mark_read(direct, now));
    world.run(5 * SECOND);
    assert_eq!(world.chat(1).shown(&answer).unwrap().state, State::Read);
    let _ = node_id(0);
}
