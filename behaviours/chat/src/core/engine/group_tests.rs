use std::time::Duration;

use super::{testing::World, *};

const SECOND: Duration = Duration::from_secs(1);

/// A group of `count` devices that know each other by the invites of the first; all connected.
pub(super) fn group(seed: u64, count: usize) -> (World, ConversationId) {
    let mut world = World::new(seed, count);
    world.can_dial = true;
    let id = world.act(0, |chat, now| chat.create_group("crew", now)).unwrap();
    for n in 1..count {
        world.befriend(0, n);
        world.befriend(n, 0);
    }
    world.connect_all();
    for n in 1..count {
        world.act(0, |chat, now| chat.invite(id, &format!("dev{n}"), now)).unwrap();
        world.run(5 * SECOND);
    }
    world.run(60 * SECOND);
    (world, id)
}

fn roles(world: &World, n: usize, of: ConversationId) -> Vec<(DeviceId, Role)> {
    world.chat(n).members(of).unwrap().into_iter().map(|member| (member.device, member.role)).collect()
}

#[test]
fn invited_contacts_join_and_all_members_agree_and_talk() {
    let (mut world, id) = group(1, 4);
    for n in 0..4 {
        assert_eq!(world.chat(n).resolve("&crew"), Ok(id));
        assert_eq!(roles(&world, n, id), roles(&world, 0, id));
        assert!(roles(&world, n, id).iter().all(|(_, role)| *role != Role::Invited));
    }
    for n in 0..4 {
        world.say(n, id, &format!("from {n}"));
        world.run(5 * SECOND);
    }
    world.run(60 * SECOND);
    for n in 0..4 {
        assert_eq!(world.texts(n, id), ["from 0", "from 1", "from 2", "from 3"]);
        assert_eq!(world.nodes[n].blamed, 0);
    }
    // And after all of them began anew.
    for n in 0..4 {
        world.crash(n);
    }
    for n in 0..4 {
        world.reopen(n);
    }
    world.say(2, id, "again");
    world.run(60 * SECOND);
    for n in 0..4 {
        assert_eq!(world.texts(n, id).last().unwrap(), "again");
        assert_eq!(roles(&world, n, id), roles(&world, 0, id));
    }
}

#[test]
fn a_removed_member_reads_nothing_whose_author_knew() {
    let (mut world, id) = group(2, 4);
    world.say(1, id, "with all");
    world.run(30 * SECOND);
    let refused = world.act(1, |chat, now| chat.remove(id, "dev3", now));
    assert!(refused.is_err(), "no admin");
    world.act(0, |chat, now| chat.remove(id, "dev3", now)).unwrap();
    world.run(60 * SECOND);
    let mut later = Vec::new();
    for n in 0..3 {
        later.push(world.say(n, id, &format!("without, from {n}")));
        world.run(5 * SECOND);
    }
    world.run(120 * SECOND);
    assert_eq!(world.texts(3, id), ["with all"]);
    // Not even that somebody wrote.
    assert!(later.iter().all(|message| !world.chat(3).talks[&id].dag.contains(message)));
    for n in 0..3 {
        assert_eq!(world.texts(n, id).len(), 4, "{n}");
        assert_eq!(world.chat(n).members(id).unwrap().len(), 3);
    }
    // Nothing that leaves holds what it could open: not even after it began anew with all its rows.
    world.crash(3);
    world.reopen(3);
    world.run(120 * SECOND);
    assert_eq!(world.texts(3, id), ["with all"]);
    assert_eq!(world.act(3, |chat, now| chat.send(id, Kind::TEXT, b"x", Via::Auto, now)), Err(Refusal::NotEntitled));
}

#[test]
fn a_stranger_invitation_is_shown_and_not_taken_up() {
    let mut world = World::new(3, 2);
    world.can_dial = true;
    let id = world.act(0, |chat, now| chat.create_group("crew", now)).unwrap();
    world.befriend(0, 1);
    world.act(0, |chat, now| chat.invite(id, "dev1", now)).unwrap();
    world.run(60 * SECOND);
    let by = world.chat(0).device();
    assert!(world.nodes[1].events.contains(&Event::Invited { group: id, by }));
    assert_eq!(world.chat(0).members(id).unwrap().iter().filter(|member| member.role == Role::Invited).count(), 1);
    world.act(1, |chat, now| chat.accept(id, now)).unwrap();
    world.run(30 * SECOND);
    assert!(world.chat(0).members(id).unwrap().iter().all(|member| member.role != Role::Invited));
}

#[test]
fn admins_come_and_go_and_leaving_is_told() {
    let (mut world, id) = group(4, 3);
    world.act(0, |chat, now| chat.set_role(id, "dev1", true, now)).unwrap();
    world.run(30 * SECOND);
    world.act(1, |chat, now| chat.remove(id, "dev2", now)).unwrap();
    world.run(30 * SECOND);
    assert_eq!(world.chat(0).members(id).unwrap().len(), 2);
    world.act(1, |chat, now| chat.leave(id, now)).unwrap();
    world.run(30 * SECOND);
    assert_eq!(world.chat(0).members(id).unwrap().len(), 1);
    assert!(world.chat(1).resolve("&crew").is_err());
}

#[test]
fn who_joins_late_reads_nothing_older_and_has_the_same_order() {
    let (mut world, id) = group(5, 3);
    for step in 0..6 {
        world.say(step % 3, id, &format!("old {step}"));
        world.run(5 * SECOND);
    }
    world.act(0, |chat, now| chat.remove(id, "dev2", now)).unwrap();
    world.run(30 * SECOND);
    world.say(0, id, "while away");
    world.run(30 * SECOND);
    world.act(0, |chat, now| chat.invite(id, "dev2", now)).unwrap();
    world.run(120 * SECOND);
    for n in 0..3 {
        world.say(n, id, &format!("new {n}"));
        world.run(30 * SECOND);
    }
    let mut all: Vec<_> = (0..6).map(|step| format!("old {step}")).collect();
    all.push("while away".to_owned());
    all.extend((0..3).map(|n| format!("new {n}")));
    assert_eq!(world.texts(0, id), all);
    assert_eq!(world.texts(1, id), all);
    all.remove(6);
    assert_eq!(world.texts(2, id), all);
    let bare = world.chat(2).talks[&id].dag.len();
    assert_eq!(bare, world.chat(0).talks[&id].dag.len());
    assert!(world.nodes.iter().all(|node| node.blamed == 0));
    // It passes nothing on that it does not have.
    world.crash(2);
    world.reopen(2);
    world.run(60 * SECOND);
    assert_eq!(world.texts(2, id), all);
}

#[test]
fn an_invitation_is_still_there_after_a_restart() {
    let mut world = World::new(6, 2);
    world.can_dial = true;
    let id = world.act(0, |chat, now| chat.create_group("crew", now)).unwrap();
    world.befriend(0, 1);
    world.act(0, |chat, now| chat.invite(id, "dev1", now)).unwrap();
    world.run(60 * SECOND);
    world.crash(1);
    world.reopen(1);
    world.act(1, |chat, now| chat.accept(id, now)).unwrap();
    world.run(30 * SECOND);
    assert_eq!(roles(&world, 1, id).len(), 2);
    assert_eq!(roles(&world, 1, id), roles(&world, 0, id));
}

#[test]
fn who_restarts_between_joining_and_the_first_meeting_is_still_a_member() {
    let mut world = World::new(7, 2);
    let id = world.act(0, |chat, now| chat.create_group("crew", now)).unwrap();
    world.befriend(0, 1);
    world.befriend(1, 0);
    // The invite comes through the mixnet: no link, no messages of the group.
    for n in 0..2 {
        world.nodes[n].is_mix_ready = true;
        world.act(n, |chat, now| chat.handle_mix_ready(true, now));
    }
    world.act(0, |chat, now| chat.invite(id, "dev1", now)).unwrap();
    world.run(60 * SECOND);
    world.crash(1);
    world.reopen(1);
    assert_eq!(roles(&world, 1, id).len(), 2);
    world.connect_all();
    world.say(1, id, "here");
    world.run(120 * SECOND);
    world.say(0, id, "welcome");
    world.run(60 * SECOND);
    for n in 0..2 {
        assert_eq!(world.texts(n, id), ["here", "welcome"], "{n}");
        assert_eq!(roles(&world, n, id).len(), 2, "{n}");
    }
}

#[test]
fn a_join_and_a_leave_that_gossip_lost_are_known_all_the_same() {
    let mut world = World::new(8, 2);
    let id = world.act(0, |chat, now| chat.create_group("crew", now)).unwrap();
    world.befriend(0, 1);
    world.befriend(1, 0);
    for n in 0..2 {
        world.nodes[n].is_mix_ready = true;
        world.act(n, |chat, now| chat.handle_mix_ready(true, now));
    }
    // Gossip takes what nobody hears.
    world.is_gossip_content = true;
    world.act(0, |chat, now| chat.invite(id, "dev1", now)).unwrap();
    world.run(60 * SECOND);
    assert_eq!(roles(&world, 0, id), roles(&world, 1, id));
    assert!(roles(&world, 0, id).iter().all(|(_, role)| *role != Role::Invited));
    world.connect_all();
    world.is_gossip_content = false;
    for n in 0..2 {
        world.say(n, id, &format!("from {n}"));
        world.run(60 * SECOND);
    }
    for n in 0..2 {
        assert_eq!(world.texts(n, id), ["from 0", "from 1"], "{n}");
    }
    assert_eq!(world.history(0, id), world.history(1, id));
    world.disconnect(0, 1);
    world.is_gossip_content = true;
    world.act(1, |chat, now| chat.leave(id, now)).unwrap();
    world.run(60 * SECOND);
    assert_eq!(world.chat(0).members(id).unwrap().len(), 1);
}
