use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    RoomKey, kept,
    testing::{NETWORK, Store, World},
};

const MASTER: [u8; 32] = [100; 32];

/// Its store is lost, and a backup of it is not: what the new device was given.
fn restore(world: &mut World, n: usize) -> Vec<Zeroizing<Vec<u8>>> {
    let kept = kept(Zeroizing::new(MASTER), &world.nodes[n].store).unwrap();
    world.crash(n);
    world.nodes[n].store = Store::default();
    world.reopen(n);
    for one in &kept {
        assert!(world.act(n, |chat, now| chat.adopt(one, now)));
    }
    kept
}

#[test]
fn a_restored_device_is_new_and_knows_whom_and_what_rooms_the_one_before_knew() {
    let mut world = World::new(61, 4);
    world.connect_all();
    let lobby = world.join_all("#lobby");
    world.run(Duration::from_secs(60));
    let secret = RoomKey::derive(&NETWORK, "secret", "horse").unwrap();
    let rooms = [0, 1].map(|n| world.act(n, |chat, now| chat.join_room("secret", Some(secret.clone()), now).unwrap()));
    let gone = world.act(0, |chat, now| chat.join_room("gone", None, now).unwrap());
    world.act(0, |chat, now| chat.leave(gone, now).unwrap());
    world.act(0, |chat, now| chat.create_group("crew", now).unwrap());
    world.befriend(0, 1);
    let card = world.act(1, |chat, now| chat.card(now));
    world.act(0, |chat, now| chat.add_contact(card, Some("ana"), now).unwrap());
    world.act(0, |chat, now| chat.set_verified("ana", true, now).unwrap());
    world.act(0, |chat, now| chat.set_blocked("dev2", true, now).unwrap());
    world.say(0, lobby, "before");
    world.run(Duration::from_secs(60));
    let (device, contacts) = (world.chat(0).device(), world.chat(0).contacts());
    assert_eq!(contacts.len(), 2, "{contacts:?}");

    let given = restore(&mut world, 0);
    assert_ne!(world.chat(0).device(), device);
    assert_eq!(world.chat(0).contacts(), contacts);
    let listed: Vec<_> = world.chat(0).conversations().into_iter().map(|one| one.to).collect();
    assert!(["#lobby", "#secret", "@ana"].iter().all(|name| listed.contains(&(*name).to_owned())), "{listed:?}");
    assert!(!listed.iter().any(|name| name == "#gone" || name == "&crew"), "{listed:?}");
    // Who was blocked has its keys.
    world.act(0, |chat, now| chat.set_blocked("dev2", false, now).unwrap());
    assert!(world.chat(0).safety_words("dev2").is_ok());
    world.act(0, |chat, now| chat.set_blocked("dev2", true, now).unwrap());
    // Once more changes nothing.
    for one in &given {
        assert!(world.act(0, |chat, now| chat.adopt(one, now)));
    }
    assert_eq!(world.chat(0).contacts(), contacts);

    let direct = world.chat(0).resolve("@ana").unwrap();
    world.say(0, direct, "it is me");
    world.say(0, rooms[0], "among us");
    world.run(Duration::from_secs(60));
    assert!(world.texts(1, direct).contains(&"it is me".to_owned()));
    assert!(world.texts(1, rooms[1]).contains(&"among us".to_owned()));
    assert!(world.texts(0, lobby).contains(&"before".to_owned()), "others have it");
}

#[test]
fn the_name_of_somebody_kept_is_not_a_strangers_who_came_first() {
    let mut world = World::new(62, 3);
    let card = world.act(1, |chat, now| chat.card(now));
    let contact = world.act(0, |chat, now| chat.add_contact(card, Some("dev2"), now).unwrap());
    let kept = kept(Zeroizing::new(MASTER), &world.nodes[0].store).unwrap();
    world.crash(0);
    world.nodes[0].store = Store::default();
    world.reopen(0);
    let card = world.act(2, |chat, now| chat.card(now));
    world.act(0, |chat, now| chat.take_card(&card, true, now).unwrap());
    assert_eq!(world.chat(0).find_person("dev2"), Ok(card.device));
    kept.iter().for_each(|one| assert!(world.act(0, |chat, now| chat.adopt(one, now))));
    assert_eq!(world.chat(0).find_person("dev2"), Ok(contact.device));
    assert_eq!(world.chat(0).name_of(card.device).split_once('-').map(|(base, _)| base), Some("dev2"));
}

#[test]
fn what_is_no_such_row_is_refused_and_another_key_opens_nothing() {
    let mut world = World::new(63, 1);
    for text in [&b""[..], &[12], b"\x0c{}", b"\x0b{}", b"\x09hello"] {
        assert!(!world.act(0, |chat, now| chat.adopt(text, now)), "{text:?}");
    }
    assert!(kept(Zeroizing::new([1; 32]), &world.nodes[0].store).is_err());
}
