use std::time::Duration;

use super::{ConversationId, testing::World};

const SECOND: Duration = Duration::from_secs(1);

/// Two contacts who have written to each other.
fn contacts() -> (World, ConversationId) {
    let mut world = World::new(81, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    world.befriend(1, 0);
    for (n, text) in [(0, "one"), (1, "two"), (0, "three"), (1, "four")] {
        world.say(n, direct, text);
        world.run(10 * SECOND);
    }
    (world, direct)
}

/// The number of the one-time key that `n` holds of the other.
fn key_of_other(world: &World, n: usize) -> Option<u64> {
    world.chat(n).secrets.one_time_seq(&world.chat(1 - n).device())
}

#[test]
fn a_session_that_heals_begins_with_a_one_time_key_and_the_next_one_is_given() {
    let (mut world, direct) = contacts();
    let before = [0, 1].map(|n| key_of_other(&world, n).expect("each gave the other one"));
    world.crash(1);
    world.nodes[1].store.0.lock().unwrap().retain(|key, _| key[0] != 3);
    world.reopen(1);
    world.say(0, direct, "five");
    world.run(600 * SECOND);
    assert_eq!(world.texts(1, direct), ["one", "two", "three", "four", "five"]);
    world.say(1, direct, "six");
    world.run(60 * SECOND);
    assert!(key_of_other(&world, 1).is_some_and(|after| after > before[1]), "used, and there is another");
    assert_eq!(world.texts(0, direct).len(), 6);
}

#[test]
fn nobody_hands_out_keys_of_another_and_strangers_get_none() {
    let (mut world, _) = contacts();
    let foreign = World::new(82, 1).act(0, |chat, _| chat.secrets.one_time_bundles(1).unwrap().remove(0));
    let from = world.chat(1).device();
    let held = key_of_other(&world, 0);
    world.act(0, |chat, now| assert!(chat.take_key(from, &foreign, now).is_err()));
    assert_eq!(key_of_other(&world, 0), held);

    let mut world = World::new(83, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    for text in ["hello, stranger", "are you there"] {
        world.say(0, direct, text);
        world.run(60 * SECOND);
    }
    assert_eq!(world.texts(1, direct).len(), 2);
    assert_eq!(key_of_other(&world, 0), None);
}
