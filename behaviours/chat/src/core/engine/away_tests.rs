//! Somebody is away: for an hour while hundreds of messages are written, or until they are given up.

use std::time::Duration;

use super::{
    ConversationId, Kind, MessageId, Reason, State, Transport, Via,
    direct::FRAME_MESSAGE,
    testing::{World, node_id},
};
use crate::core::secrets::{self, vault::RowKind};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn states(world: &World, n: usize, ids: &[MessageId]) -> Vec<(State, Option<Transport>)> {
    ids.iter().map(|id| world.chat(n).shown(id).map(|shown| (shown.state, shown.via)).unwrap()).collect()
}

fn gaps(world: &World, n: usize, of: ConversationId) -> Vec<String> {
    let history = world.chat(n).history(of, None).unwrap();
    let after_gap = history.into_iter().filter(|shown| shown.gap_before);
    after_gap.map(|shown| String::from_utf8(shown.body).unwrap()).collect()
}

/// Two contacts, the first of whom has the mixnet and no link to the other.
fn with_mixnet(seed: u64) -> (World, ConversationId) {
    let mut world = World::new(seed, 2);
    let direct = world.befriend(0, 1);
    world.nodes[0].is_mix_ready = true;
    world.act(0, |chat, now| chat.handle_mix_ready(true, now));
    (world, direct)
}

/// Two contacts who find each other.
fn within_reach(seed: u64) -> (World, ConversationId) {
    let mut world = World::new(seed, 2);
    let direct = world.befriend(0, 1);
    world.can_dial = true;
    (world, direct)
}

#[test]
fn five_hundred_messages_wait_in_mailboxes_and_need_their_sender_no_more() {
    let (mut world, direct) = with_mixnet(21);
    let mut ids: Vec<_> = (0..250).map(|step| world.say(0, direct, &format!("message {step}"))).collect();
    world.run(SECOND);
    // What waits for company is in memory alone: a restart gathers it anew.
    world.crash(0);
    world.reopen(0);
    ids.extend((250..500).map(|step| world.say(0, direct, &format!("message {step}"))));
    world.run(3_600 * SECOND);
    assert_eq!(states(&world, 0, &ids), vec![(State::Carried, Some(Transport::Mailbox)); 500]);
    assert_eq!(world.chat(0).counts().queued, 0);
    world.crash(0);
    world.nodes[1].is_mix_ready = true;
    world.act(1, |chat, now| chat.handle_mix_ready(true, now));
    world.fetch_mail(1);
    world.run(SECOND);
    assert_eq!(world.history(1, direct), ids);
    assert!(gaps(&world, 1, direct).is_empty());
    // And the sender hears of it.
    world.reopen(0);
    world.run(3_600 * SECOND);
    assert!(states(&world, 0, &ids).iter().all(|(state, _)| *state == State::Delivered));
}

#[test]
fn who_writes_slowly_to_somebody_away_is_carried_as_well() {
    let (mut world, direct) = with_mixnet(22);
    let mut ids = Vec::new();
    for step in 0..240 {
        ids.push(world.say(0, direct, &format!("message {step}")));
        world.run(60 * SECOND);
    }
    world.run(3_600 * SECOND);
    assert!(states(&world, 0, &ids).iter().all(|(state, _)| *state == State::Carried));
}

#[test]
fn the_end_of_a_burst_is_in_mailboxes_soon() {
    let (mut world, direct) = with_mixnet(36);
    let mut ids = Vec::new();
    for step in 0..500 {
        ids.push(world.say(0, direct, &format!("{step:200}")));
        world.run(Duration::from_millis(50));
    }
    world.run(120 * SECOND);
    assert!(states(&world, 0, &ids).iter().all(|(state, _)| *state == State::Carried));
}

#[test]
fn what_waits_goes_together_after_a_restart_as_well() {
    let (mut world, direct) = with_mixnet(37);
    let mut ids = Vec::new();
    for step in 0..60 {
        ids.push(world.say(0, direct, &format!("slowly {step}")));
        world.run(60 * SECOND);
    }
    let other = node_device(&world, 0);
    let before = world.chat(0).secrets.pending(&other).len();
    assert!((20..28).contains(&before), "{before} frames under way");
    ids.extend((0..100).map(|step| world.say(0, direct, &format!("at once {step}"))));
    world.crash(0);
    // So long that each has waited for company as long as it may.
    world.run(10_800 * SECOND);
    world.reopen(0);
    world.run(3_700 * SECOND);
    assert!(states(&world, 0, &ids).iter().all(|(state, _)| *state == State::Carried));
    let after = world.chat(0).secrets.pending(&other).len();
    assert!(after <= before + 4, "{after} of {before}");
}

#[test]
fn what_was_given_up_leaves_its_place_and_what_follows_arrives() {
    let (mut world, direct) = within_reach(23);
    world.say(0, direct, "before");
    world.run(5 * SECOND);
    world.crash(1);
    let lost: Vec<_> = (0..40).map(|step| world.say(0, direct, &format!("lost {step}"))).collect();
    world.run(8 * DAY);
    for id in &lost {
        let shown = world.chat(0).shown(id).unwrap();
        assert_eq!((shown.state, shown.reason), (State::Failed, Some(Reason::Expired)));
    }
    world.reopen(1);
    world.say(0, direct, "after");
    world.run(120 * SECOND);
    assert_eq!(world.texts(1, direct), ["before", "after"]);
    assert_eq!(gaps(&world, 1, direct), ["after"], "something is missing there, and a person sees it");
    assert!(states(&world, 0, &lost).iter().all(|(state, _)| *state == State::Failed));
    // More than the messages of one author that may wait for an absent one.
    let ids: Vec<_> = (0..300).map(|step| world.say(0, direct, &format!("more {step}"))).collect();
    world.run(120 * SECOND);
    assert!(world.history(1, direct).ends_with(&ids));
    world.crash(1);
    world.reopen(1);
    assert_eq!(gaps(&world, 1, direct), ["after"]);
    assert_eq!(world.history(1, direct).len(), 302);
}

#[test]
fn rows_that_are_lost_come_again_from_the_other_side() {
    let (mut world, direct) = within_reach(24);
    let mut ids: Vec<_> = (0..3).map(|step| world.say(0, direct, &format!("{step}"))).collect();
    world.run(5 * SECOND);
    world.crash(1);
    world.nodes[1].store.0.lock().unwrap().retain(|key, _| key[0] != RowKind::History as u8);
    world.reopen(1);
    assert!(world.history(1, direct).is_empty());
    ids.push(world.say(0, direct, "next"));
    world.run(120 * SECOND);
    assert_eq!(world.history(1, direct), ids);
    assert!(gaps(&world, 1, direct).is_empty());
}

#[test]
fn a_row_that_only_own_messages_follow_comes_again_as_well() {
    let (mut world, direct) = within_reach(28);
    let first = world.say(0, direct, "first");
    world.run(5 * SECOND);
    let answer = world.say(1, direct, "answer");
    world.run(5 * SECOND);
    let chat = world.chat(1);
    let name = chat.talks[&direct].record.vault_name();
    let key = chat.secrets.vault_ref().row_key(RowKind::History, &name, &first.0);
    world.crash(1);
    world.nodes[1].store.0.lock().unwrap().remove(key.as_slice());
    world.reopen(1);
    world.run(120 * SECOND);
    assert_eq!(world.history(1, direct), [first, answer]);
    world.say(1, direct, "and on");
}

#[test]
fn what_is_sent_once_more_keeps_to_the_way_that_was_asked_for_also_after_a_restart() {
    let mut world = World::new(29, 2);
    let direct = world.befriend(0, 1);
    for n in 0..2 {
        world.nodes[n].is_mix_ready = true;
        world.act(n, |chat, now| chat.handle_mix_ready(true, now));
    }
    let quiet = world.act(0, |chat, now| chat.send(direct, Kind::TEXT, b"quiet", Via::Mix, now)).unwrap();
    world.run(5 * SECOND);
    let other = world.chat(1).device();
    // It asks for what it was given, and the answer is under way when the process ends.
    world.nodes[1].is_mix_ready = false;
    world.crash(1);
    world.act(0, |chat, now| chat.take_lack(other, &[0, 0, 0, 1, 0, 0, 0, 1], now)).unwrap();
    world.crash(0);
    world.nodes[0].is_mix_ready = false;
    world.nodes[0].left.clear();
    world.reopen(0);
    world.reopen(1);
    world.connect(0, 1);
    world.run(60 * SECOND);
    assert!(world.nodes[0].left.iter().all(|(_, bytes)| bytes[0] != 7), "no envelope over the link");
    assert_eq!(world.chat(0).shown(&quiet).unwrap().state, State::Delivered);
}

#[test]
fn one_question_is_under_way_however_long_the_gap_stays() {
    let (mut world, direct) = within_reach(30);
    let ids: Vec<_> = (0..3).map(|step| world.say(0, direct, &format!("{step}"))).collect();
    world.run(5 * SECOND);
    world.crash(1);
    world.nodes[1].store.0.lock().unwrap().retain(|key, _| key[0] != RowKind::History as u8);
    world.reopen(1);
    world.say(0, direct, "next");
    world.run(SECOND);
    world.crash(0);
    world.run(2 * DAY);
    let other = node_device(&world, 1);
    let chat = world.chat(1);
    assert!(chat.secrets.pending(&other).len() <= 2 && chat.waiting.is_empty());
    world.reopen(0);
    world.run(7_200 * SECOND);
    assert!(world.history(1, direct).starts_with(&ids));
}

fn node_device(world: &World, n: usize) -> crate::core::id::DeviceId {
    world.chat(n).people.values().next().unwrap().card.device
}

#[test]
fn nobody_gives_a_message_a_text_after_it_was_answered() {
    let mut world = World::new(31, 2);
    let direct = world.befriend(0, 1);
    world.befriend(1, 0);
    let id = world.say(0, direct, "late");
    let from = world.chat(0).device();
    let body = |world: &World, is_bare: bool| {
        let chat = world.chat(0);
        let message = chat.load(&chat.talks[&direct], &id).unwrap().message.trusted();
        let bytes = if is_bare { message.signed_header().as_bytes().to_vec() } else { message.encode() };
        [&[FRAME_MESSAGE], &bytes[..]].concat()
    };
    let (bare, whole) = (body(&world, true), body(&world, false));
    world.act(1, |chat, now| chat.take_frame(from, secrets::Kind::Data, &bare, now));
    let answer = world.say(1, direct, "answer");
    world.act(1, |chat, now| chat.take_frame(from, secrets::Kind::Data, &whole, now));
    assert_eq!(world.history(1, direct), [answer]);
}

#[test]
fn who_asks_for_what_it_lacks_gets_own_messages_alone_and_not_too_often() {
    let (mut world, direct) = within_reach(25);
    world.say(0, direct, "one");
    world.run(5 * SECOND);
    world.say(1, direct, "two");
    world.run(5 * SECOND);
    let other = world.chat(1).device();
    let ask = |world: &mut World, range: &[u8]| {
        let outcome = world.act(0, |chat, now| chat.take_lack(other, range, now));
        (outcome, world.chat(0).waiting.get(&other).map_or(0, std::collections::VecDeque::len))
    };
    assert_eq!(ask(&mut world, &[0; 7]).0, Err(super::Reject::Malformed));
    let all = [0, 0, 0, 0, 255, 255, 255, 255];
    assert_eq!(ask(&mut world, &all).0, Ok(()));
    assert_eq!(ask(&mut world, &all).0, Err(super::Reject::RateLimited));
    world.run(60 * SECOND);
    assert_eq!(ask(&mut world, &[0, 0, 0, 9, 0, 0, 0, 1]), (Ok(()), 0), "an empty range");
    world.run(60 * SECOND);
    assert_eq!(world.texts(1, direct), ["one", "two"]);
}

/// A group of three, all of whom have the mixnet and each other's invites; nobody is connected when it returns.
fn group(world: &mut World) -> ConversationId {
    for (a, b) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        world.befriend(a, b);
    }
    for n in 0..3 {
        world.nodes[n].is_mix_ready = true;
        world.act(n, |chat, now| chat.handle_mix_ready(true, now));
    }
    world.connect_all();
    let group = world.act(0, |chat, now| chat.create_group("crew", now)).unwrap();
    for who in ["dev1", "dev2"] {
        world.act(0, |chat, now| chat.invite(group, who, now)).unwrap();
    }
    world.run(120 * SECOND);
    assert!((0..3).all(|n| world.chat(n).members(group).unwrap().len() == 3));
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.disconnect(a, b);
    }
    group
}

/// A fourth one, who is no member yet, and all three have each other's invites.
fn introduce_fourth(world: &mut World) {
    for n in 0..3 {
        world.befriend(n, 3);
        world.befriend(3, n);
    }
    world.nodes[3].is_mix_ready = true;
    world.act(3, |chat, now| chat.handle_mix_ready(true, now));
}

#[test]
fn a_member_who_was_away_finds_what_the_others_wrote_though_they_are_gone() {
    let mut world = World::new(26, 3);
    let group = group(&mut world);
    world.crash(1);
    world.crash(2);
    let mut ids: Vec<_> = (0..80).map(|step| world.say(0, group, &format!("message {step}"))).collect();
    world.run(10 * SECOND);
    // What is not sealed yet is brought after a restart as well.
    world.crash(0);
    world.reopen(0);
    ids.extend((80..150).map(|step| world.say(0, group, &format!("message {step}"))));
    world.run(1_200 * SECOND);
    let in_mailboxes = vec![(State::Carried, Some(Transport::Mailbox)); ids.len()];
    assert_eq!(states(&world, 0, &ids), in_mailboxes);
    assert_eq!(world.chat(0).counts().queued, 0);
    world.crash(0);
    world.reopen(2);
    world.fetch_mail(2);
    world.run(60 * SECOND);
    assert_eq!(world.history(2, group), ids);
    // Its author knows still, until a member shows that it has them.
    world.reopen(0);
    assert_eq!(states(&world, 0, &ids), in_mailboxes);
    world.say(2, group, "thank you");
    world.connect(0, 2);
    world.run(60 * SECOND);
    assert!(states(&world, 0, &ids).iter().all(|(state, _)| *state == State::Delivered));
    assert!(world.chat(0).talks[&group].deliveries.is_empty());
    // Each went once: a window of frames with one message each would not hold them.
    let mailed = world.nodes[0].left.iter().filter(|(via, _)| *via == Transport::Mix).count();
    assert!(mailed < 300, "{mailed} envelopes");
}

#[test]
fn long_texts_of_a_group_leave_room_for_what_is_said_to_a_member_alone() {
    let mut world = World::new(38, 3);
    let group = group(&mut world);
    let direct = world.befriend(0, 2);
    world.crash(2);
    for step in 0..40 {
        world.say(0, group, &format!("{step:8000}"));
    }
    world.run(3_600 * SECOND);
    let alone = world.say(0, direct, "you alone");
    world.run(60 * SECOND);
    assert_eq!(states(&world, 0, &[alone]), [(State::Carried, Some(Transport::Mailbox))]);
}

#[test]
fn what_was_under_way_to_a_mailbox_when_its_author_ended_is_known_to_be_there() {
    let mut world = World::new(39, 3);
    let group = group(&mut world);
    world.crash(2);
    world.crash(1);
    let id = world.say(0, group, "in the bag");
    world.nodes[0].left.clear();
    while world.nodes[0].left.iter().all(|(via, _)| *via != Transport::Mix) {
        world.run(Duration::from_millis(1));
    }
    world.crash(0);
    world.reopen(0);
    assert_eq!(states(&world, 0, &[id])[0].0, State::Queued);
    world.run(10 * SECOND);
    assert_eq!(states(&world, 0, &[id]), [(State::Carried, Some(Transport::Mailbox))]);
    // Its device says that it has it, though no message of its member shows it.
    world.reopen(2);
    world.fetch_mail(2);
    world.run(60 * SECOND);
    assert_eq!(states(&world, 0, &[id])[0].0, State::Delivered);
}

#[test]
fn who_was_removed_while_away_is_brought_nothing_that_was_written_afterwards() {
    let mut world = World::new(27, 3);
    let group = group(&mut world);
    world.crash(2);
    world.say(0, group, "before");
    world.run(120 * SECOND);
    world.act(0, |chat, now| chat.remove(group, "dev2", now)).unwrap();
    world.say(0, group, "after");
    world.run(1_200 * SECOND);
    world.crash(0);
    world.reopen(2);
    world.fetch_mail(2);
    world.run(60 * SECOND);
    assert_eq!(world.texts(2, group), ["before"]);
}

#[test]
fn slow_talk_of_hours_waits_for_a_member_and_what_it_saw_does_not() {
    let mut world = World::new(32, 3);
    let group = group(&mut world);
    world.connect_all();
    world.say(0, group, "seen together");
    world.run(120 * SECOND);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.disconnect(a, b);
    }
    world.crash(2);
    world.nodes[0].left.clear();
    world.run(120 * SECOND);
    assert!(world.nodes[0].left.iter().all(|(via, _)| *via != Transport::Mix), "nothing is lacking");
    let mut ids = Vec::new();
    for step in 0..240 {
        ids.push(world.say(0, group, &format!("message {step}")));
        world.run(60 * SECOND);
    }
    world.run(3_700 * SECOND);
    world.crash(0);
    world.crash(1);
    world.reopen(2);
    world.fetch_mail(2);
    world.run(60 * SECOND);
    assert!(world.history(2, group).ends_with(&ids));
    assert_eq!(world.history(2, group).len(), 241);
}

#[test]
fn who_calls_itself_a_device_of_a_members_node_is_brought_nothing_from_before_its_join() {
    let mut world = World::new(33, 4);
    let group = group(&mut world);
    introduce_fourth(&mut world);
    // They never meet: a link would tell that the newcomer has all there is.
    (0..3).for_each(|n| world.disconnect(n, 3));
    world.say(0, group, "before");
    world.run(60 * SECOND);
    world.act(0, |chat, now| chat.invite(group, "dev3", now)).unwrap();
    world.run(10 * SECOND);
    assert_eq!(world.chat(0).members(group).unwrap().len(), 4);
    // Its card says that it is at the node of a member since the beginning.
    let newcomer = world.chat(3).device();
    world.act(0, |chat, _| chat.people.get_mut(&newcomer).unwrap().card.node = node_id(2));
    world.crash(2);
    world.crash(3);
    world.say(0, group, "after");
    world.run(1_200 * SECOND);
    world.crash(0);
    world.crash(1);
    world.reopen(3);
    // What was sent to the other one's node comes to the mailboxes that the newcomer's card names.
    world.redirect_mail(2, 3);
    world.fetch_mail(3);
    world.run(60 * SECOND);
    assert_eq!(world.texts(3, group), ["after"]);
}

#[test]
fn texts_that_come_before_their_authors_membership_are_kept_for_it() {
    let mut world = World::new(34, 4);
    let group = group(&mut world);
    introduce_fourth(&mut world);
    world.crash(2);
    world.act(0, |chat, now| chat.invite(group, "dev3", now)).unwrap();
    world.run(120 * SECOND);
    let text = world.say(3, group, "hello, I am new");
    world.run(600 * SECOND);
    for n in [0, 1, 3] {
        world.crash(n);
    }
    // What the newcomer sent comes before what tells of it.
    world.reopen(2);
    world.fetch_mail_backwards(2);
    world.run(60 * SECOND);
    assert_eq!(world.history(2, group), [text]);
}

#[test]
fn what_a_newcomer_writes_at_once_reaches_all_though_it_lacks_their_joins() {
    for is_met in [true, false] {
        let mut world = World::new(35, 4);
        let group = group(&mut world);
        introduce_fourth(&mut world);
        (0..3).for_each(|n| world.disconnect(n, 3));
        world.act(0, |chat, now| chat.invite(group, "dev3", now)).unwrap();
        world.run(5 * SECOND);
        let hello = world.say(3, group, "hello");
        world.run(300 * SECOND);
        if is_met {
            world.connect_all();
            world.run(60 * SECOND);
        }
        for n in 0..4 {
            assert_eq!(world.history(n, group), [hello], "{n}, met: {is_met}");
        }
    }
}

#[test]
fn what_a_newcomer_wrote_is_passed_on_whole_to_members_whose_joins_it_lacks() {
    let mut world = World::new(40, 4);
    let group = group(&mut world);
    introduce_fourth(&mut world);
    (0..3).for_each(|n| world.disconnect(n, 3));
    world.act(0, |chat, now| chat.invite(group, "dev3", now)).unwrap();
    world.run(5 * SECOND);
    world.nodes[3].is_mix_ready = false;
    world.act(3, |chat, now| chat.handle_mix_ready(false, now));
    // All hear of it, and nobody from it.
    world.run(120 * SECOND);
    let hello = world.say(3, group, "hello");
    for (a, b) in [(3, 1), (1, 0), (0, 2)] {
        world.connect(a, b);
        world.run(60 * SECOND);
        world.disconnect(a, b);
        assert_eq!(world.history(b, group), [hello], "{b}");
    }
}
