//! Direct messages and groups in worlds that lose, part and crash. `FOG_CHAT_SEEDS` sets how many.

use std::{collections::BTreeSet, time::Duration};

use rand::RngExt;

use super::{group_tests::group, testing::World, world_tests::seeds, *};

const SECOND: Duration = Duration::from_secs(1);

/// Something goes wrong, or right again, at one of the devices.
fn disturb(world: &mut World, count: usize) {
    let (n, other) = (world.rng.random_range(0..count), world.rng.random_range(0..count));
    match world.rng.random_range(0..10) {
        0 => world.disconnect(n, other),
        1 => world.connect(n, other),
        2 if world.nodes[n].chat.is_some() => world.crash(n),
        3 | 4 if world.nodes[n].chat.is_none() => world.reopen(n),
        5 if world.nodes[n].chat.is_some() => {
            let is_ready = world.rng.random_bool(0.5);
            world.nodes[n].is_mix_ready = is_ready;
            world.act(n, |chat, now| chat.handle_mix_ready(is_ready, now));
            if is_ready {
                world.fetch_mail(n);
            }
        }
        _ => {}
    }
}

fn calm(world: &mut World, count: usize) {
    world.loss = 0.0;
    for n in 0..count {
        if world.nodes[n].chat.is_none() {
            world.reopen(n);
        }
    }
    world.connect_all();
    world.run(3_600 * SECOND);
}

fn rough_direct(seed: u64) {
    let mut world = World::new(seed, 3);
    world.loss = world.rng.random_range(0.0..0.4);
    world.jitter = Duration::from_millis(world.rng.random_range(1..3_000));
    for n in 0..3 {
        world.nodes[n].skew = world.rng.random_range(-3_600_000..3_600_000);
    }
    let direct = world.befriend(0, 1);
    for (a, b) in [(1, 0), (0, 2), (1, 2), (2, 0), (2, 1)] {
        world.befriend(a, b);
    }
    let mut written = BTreeSet::new();
    for step in 0..60 {
        let n = step % 2;
        if world.nodes[n].chat.is_some() {
            written.insert(world.say(n, direct, &format!("{step}")));
        }
        disturb(&mut world, 3);
        let wait = world.rng.random_range(0..5_000);
        world.run(Duration::from_millis(wait));
    }
    calm(&mut world, 3);
    assert_eq!(world.history(0, direct), world.history(1, direct), "seed {seed}");
    assert_eq!(world.history(0, direct).into_iter().collect::<BTreeSet<_>>(), written, "seed {seed}");
    for n in 0..2 {
        for shown in world.chat(n).history(direct, None).unwrap() {
            assert_eq!(shown.state, State::Delivered, "seed {seed}");
        }
        assert_eq!(world.nodes[n].blamed, 0, "seed {seed}");
    }
}

fn rough_group(seed: u64) {
    let (mut world, id) = group(seed, 4);
    world.loss = world.rng.random_range(0.0..0.3);
    world.jitter = Duration::from_millis(world.rng.random_range(1..1_000));
    for n in 0..4 {
        world.nodes[n].skew = world.rng.random_range(-1_800_000..1_800_000);
    }
    let mut written = BTreeSet::new();
    for step in 0..40 {
        let n = world.rng.random_range(0..4);
        if world.nodes[n].chat.is_some() {
            written.insert(world.say(n, id, &format!("{step}")));
        }
        disturb(&mut world, 4);
        let wait = world.rng.random_range(0..5_000);
        world.run(Duration::from_millis(wait));
    }
    calm(&mut world, 4);
    for n in 0..4 {
        assert_eq!(world.history(n, id), world.history(0, id), "seed {seed}");
        assert_eq!(world.nodes[n].blamed, 0, "seed {seed}");
    }
    assert_eq!(world.history(0, id).into_iter().collect::<BTreeSet<_>>(), written, "seed {seed}");
}

#[test]
fn direct_messages_all_arrive_once_and_in_one_order() {
    for seed in seeds(40) {
        rough_direct(seed);
    }
}

#[test]
fn members_of_a_group_have_one_history_with_everything_once() {
    for seed in seeds(20) {
        rough_group(seed);
    }
}
