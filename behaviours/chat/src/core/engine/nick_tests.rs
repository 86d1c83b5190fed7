use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    Event, Refusal, kept,
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
