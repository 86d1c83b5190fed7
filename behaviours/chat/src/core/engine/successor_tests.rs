use std::time::Duration;

use super::{
    Event, Policy,
    testing::{Store, World, node_id},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Two who wrote to each other; then the first one's node has another device.
fn replaced(choose: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(91, 2);
    world.connect(0, 1);
    let direct = world.befriend(1, 0);
    world.befriend(0, 1);
    world.say(1, direct, "one");
    world.run(MINUTE);
    choose(&mut world);
    world.crash(0);
    world.nodes[0].store = Store::default();
    world.reopen(0);
    world.disconnect(0, 1);
    world.connect(0, 1);
    world.befriend(0, 1);
    world.run(MINUTE);
    world
}

#[test]
fn a_person_hears_of_a_contacts_new_device_and_reaches_it_by_its_node() {
    let mut old = None;
    let mut world = replaced(|world| old = Some(world.chat(0).device()));
    let (old, new) = (old.unwrap(), world.chat(0).device());
    let told = |event: &&Event| **event == Event::NewDevice { device: new, of: old };
    assert_eq!(world.nodes[1].events.iter().filter(told).count(), 1);
    assert_eq!(world.chat(1).find_person(&node_id(0).to_string()), Ok(new));
    assert_eq!(world.chat(1).find_person("dev0"), Ok(old), "a name does not move by itself");
    // With a new invite it does.
    let card = world.act(0, |chat, now| chat.card(now));
    let contact = world.act(1, |chat, now| chat.add_contact(card, Some("dev0"), now).unwrap());
    assert_eq!((contact.device, contact.verified), (new, false));
    assert_eq!(world.chat(1).find_person("dev0"), Ok(new));
}

#[test]
fn a_block_and_a_policy_hold_for_the_next_device_and_compared_words_do_not() {
    let choose = |world: &mut World| {
        world.act(1, |chat, now| chat.set_verified("dev0", true, now).unwrap());
        world.act(1, |chat, now| chat.set_blocked("dev0", true, now).unwrap());
    };
    let mut world = replaced(choose);
    let (new, card) = (world.chat(0).device(), world.act(0, |chat, now| chat.card(now)));
    // It has no other way than to be heard of as blocked.
    world.act(1, |chat, now| chat.take_card(&card, true, now).unwrap());
    assert_eq!((world.chat(1).terms(new).1, world.chat(1).contact(new).unwrap().verified), (true, false));
    assert!(!world.nodes[1].events.iter().any(|event| matches!(event, Event::NewDevice { .. })));
    world.act(1, |chat, now| chat.set_blocked("dev0", false, now).unwrap());
    assert!(!world.chat(1).terms(new).1, "what was chosen is taken back for both");

    // Also one that comes through the mixnet, where no node stands for it.
    let mixed = |world: &mut World| world.act(1, |chat, now| chat.set_policy("dev0", Policy::Mix, now).unwrap());
    let mut world = replaced(mixed);
    let (new, card) = (world.chat(0).device(), world.act(0, |chat, now| chat.card(now)));
    world.act(1, |chat, now| chat.take_card(&card, false, now).unwrap());
    assert_eq!(world.chat(1).terms(new).0, Policy::Mix);
    world.act(1, |chat, now| chat.set_policy("dev0", Policy::Auto, now).unwrap());
    assert_eq!(world.chat(1).terms(new).0, Policy::Auto);
}
