use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::{
    card::{Card, Claims},
    people::MAX_PEOPLE,
    strangers::MAX_OF_NODE,
    testing::{NETWORK, World, node_id},
};
use crate::core::secrets::{Device, SecretKey};

/// The card of the `n`th device of somebody at this node.
fn card(world: &World, n: u16, node: usize) -> Card {
    let mut seed = [77; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    let bundle = Device::new(NETWORK, seed, SecretKey::new(seed), seed, world.now).bundle();
    let claims = Claims { bundle: &bundle, node: node_id(node), name: "crowd", seal_key: [1; 32], mailboxes: &[] };
    Card::sign(&NETWORK, &SigningKey::from_bytes(&seed), &claims, world.now.unix).unwrap()
}

#[test]
fn a_node_that_calls_itself_many_devices_is_known_as_a_few() {
    let mut world = World::new(71, 2);
    world.connect(0, 1);
    let friend = world.befriend(0, 1);
    for n in 0..100 {
        let card = card(&world, n, 1);
        let _full = world.act(0, |chat, now| chat.take_card(&card, true, now));
    }
    let of_node = world.chat(0).people.values().filter(|person| person.card.node == node_id(1)).count();
    assert_eq!(of_node, MAX_OF_NODE + 1);
    assert_eq!(world.chat(0).resolve("@dev1"), Ok(friend), "whom a person added stays");
    assert_eq!(world.chat(0).talks.len(), MAX_OF_NODE + 1);
    // Nor if that one is blocked, and its next devices with it.
    world.act(0, |chat, now| chat.set_blocked("dev1", true, now).unwrap());
    for n in 100..200 {
        let card = card(&world, n, 1);
        let _full = world.act(0, |chat, now| chat.take_card(&card, true, now));
    }
    let of_node = world.chat(0).people.values().filter(|person| person.card.node == node_id(1)).count();
    assert_eq!(of_node, MAX_OF_NODE + 1);
}

#[test]
fn strangers_make_room_for_others_and_never_for_what_a_person_chose() {
    let mut world = World::new(72, 2);
    world.befriend(0, 1);
    for n in 0..MAX_PEOPLE as u16 + 100 {
        let card = card(&world, n, 9);
        world.act(0, |chat, now| chat.take_card(&card, false, now)).unwrap();
    }
    assert_eq!(world.chat(0).people.len(), MAX_PEOPLE);
    assert!(world.chat(0).resolve("@dev1").is_ok());
    world.act(0, |chat, now| chat.join_room("#harbour", None, now)).unwrap();
    // Nothing of who was forgotten is on the disk.
    world.run(Duration::from_secs(1));
    let of = |kind: u8| world.nodes[0].store.0.lock().unwrap().keys().filter(|key| key[0] == kind).count();
    let rows = [2, 12].map(of);
    assert_eq!(rows, [MAX_PEOPLE; 2]);
    world.crash(0);
    world.reopen(0);
    assert_eq!((world.chat(0).people.len(), world.chat(0).counts().drops.len()), (MAX_PEOPLE, 0));
}
