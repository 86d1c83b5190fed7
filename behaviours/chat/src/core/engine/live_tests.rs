use std::time::Duration;

use super::{
    ConversationId, MessageId, Validation,
    testing::{World, node_id},
};
use crate::core::envelope::{Envelope, Priority};

const SECOND: Duration = Duration::from_secs(1);

fn bytes_of(world: &World, n: usize, room: ConversationId, id: &MessageId) -> Vec<u8> {
    let chat = world.chat(n);
    chat.load(&chat.talks[&room], id).unwrap().message.trusted().encode()
}

/// An envelope that a member made, whatever is in it.
fn envelope(world: &World, n: usize, room: ConversationId, message: &[u8], nonce: u8) -> Vec<u8> {
    let talk = &world.chat(n).talks[&room];
    let (body, day) = ([&[0], message].concat(), SECOND * 86_400);
    let packed = super::gossip::pack(&talk.seal, &talk.tag_key, &body, Priority::Message, day, [nonce; 24], world.now);
    Envelope::encode(&packed.unwrap())
}

#[test]
fn of_many_envelopes_at_once_each_is_judged_by_itself() {
    let mut world = World::new(21, 2);
    let room = world.join_all("#lobby");
    let ids: Vec<_> = (0..40).map(|n| world.say(0, room, &n.to_string())).collect();
    let good: Vec<_> = ids.iter().map(|id| bytes_of(&world, 0, room, id)).collect();
    // One with a false signature: of the last 16 bytes of it, before salt and body, none may change.
    let mut forged = good[20].clone();
    let at = forged.len() - 2 - 16 - 5;
    forged[at] ^= 1;
    let mut envelopes: Vec<_> = (0..20).map(|n| envelope(&world, 0, room, &good[n], 1)).collect();
    envelopes.push(envelope(&world, 0, room, &forged, 2));
    envelopes.push(vec![1; 512]);
    envelopes.push(envelopes[3].clone());
    envelopes.extend((20..40).map(|n| envelope(&world, 0, room, &good[n], 1)));
    let came: Vec<_> = envelopes.iter().map(|bytes| (node_id(0), &bytes[..])).collect();
    let verdicts = world.act(1, |chat, now| chat.handle_gossips(&came, now));
    let expected: Vec<_> = (0..43)
        .map(|n| match n {
            20 | 22 => Validation::Ignore,
            21 => Validation::Reject,
            _ => Validation::Accept,
        })
        .collect();
    assert_eq!(verdicts, expected);
    assert_eq!(world.history(1, room), ids);
}

#[test]
fn messages_that_overtake_each_other_cost_few_questions() {
    let mut world = World::new(22, 2);
    let room = world.join_all("#lobby");
    world.connect_all();
    world.run(60 * SECOND);
    world.nodes[0].answered.clear();
    world.jitter = SECOND / 2;
    let ids: Vec<_> = (0..200).map(|n| world.say(0, room, &n.to_string())).collect();
    world.run(2 * SECOND);
    assert_eq!(world.history(1, room), ids);
    let answers = world.nodes[0].answered.iter().filter(|bytes| bytes.first() == Some(&4)).count();
    assert!((1..=20).contains(&answers), "{answers} questions within two seconds");
}

#[test]
fn who_lacks_much_gets_it_from_one_peer_and_not_from_all_at_once() {
    let mut world = World::new(23, 5);
    let room = world.join_all("#lobby");
    (0..4).for_each(|n| (0..n).for_each(|other| world.connect(n, other)));
    let ids: Vec<_> = (0..300)
        .map(|n| {
            world.run(SECOND / 10);
            world.say(n % 4, room, &format!("{n:0>1000}"))
        })
        .collect();
    world.run(120 * SECOND);
    let whole: usize = ids.iter().map(|id| bytes_of(&world, 0, room, id).len()).sum();
    (0..4).for_each(|n| world.nodes[n].answered.clear());
    (0..4).for_each(|n| world.connect(4, n));
    world.run(10 * SECOND);
    assert_eq!(world.history(4, room).len(), ids.len());
    let brought: usize = (0..4).flat_map(|n| &world.nodes[n].answered).map(Vec::len).sum();
    assert!(brought < 2 * whole, "{brought} bytes for {whole}");
}

#[test]
fn the_first_words_after_joining_come_soon_though_gossip_loses_them() {
    let mut world = World::new(24, 2);
    world.connect_all();
    world.run(60 * SECOND);
    let room = world.join_all("#lobby");
    world.run(SECOND / 10);
    (world.loss, world.is_gossip_content) = (1.0, true);
    let first = world.say(0, room, "first");
    world.run(SECOND / 10);
    assert!(world.history(1, room).is_empty());
    world.loss = 0.0;
    world.run(4 * SECOND);
    assert_eq!(world.history(1, room), [first]);
}
