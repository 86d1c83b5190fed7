//! What a thief of a device finds: pairs talk, their frames are kept, and later states are to open none of them.

use std::time::Duration;

use fog_base::Now;
use fog_chat::core::engine::{Chat, ConversationId, Output};

use super::{
    cast::Sort,
    invariants::{Findings, Invariant},
    node::{Disk, Store},
    plan::Fault,
    world::{World, node_id},
};

/// Pairs that are looked at.
const PAIRS: usize = 4;
/// In this time a message is there and acknowledged.
const SETTLED: Duration = Duration::from_secs(20);
/// Kinds of rows (SECRETS.md): a session; what came in the clear, and that it came.
const SESSION: u8 = 3;
const IN_THE_CLEAR: [u8; 3] = [5, 6, 9];

pub(super) fn forward_secrecy(world: &mut World, findings: &mut Findings) {
    let is_pair = |number: &usize| world.talks[*number].sort == Sort::Direct;
    let pairs: Vec<_> = (0..world.talks.len()).filter(is_pair).take(PAIRS).collect();
    for number in pairs {
        let (Some(id), &[a, b]) = (world.talks[number].id, world.talks[number].members.as_slice()) else { continue };
        world.connect(a, b);
        let say = |world: &mut World, who: usize| {
            world.say(who, number);
            world.run_until(world.at + SETTLED);
        };
        // Both have answered: the session does not begin with the fallback key any more, which is kept for weeks.
        [a, b, a, b].into_iter().for_each(|who| say(world, who));
        let before = world.nodes[b].store.copy();
        world.tapped.insert(b, Vec::new());
        [a, a, a, b, a, b, a].into_iter().for_each(|who| say(world, who));
        let frames = world.tapped.remove(&b).unwrap_or_default();
        let after = world.nodes[b].store.copy();
        // So these frames would open, if old keys were kept.
        let opened = opens(world, (a, b, id), before.clone(), &frames);
        findings.look(Invariant::ForwardSecrecy, opened > 0, || {
            format!("pair {a} {b}: not even the keys of that time open its {} frames", frames.len())
        });
        let mut stolen: Disk = after.into_iter().filter(|(key, _)| !IN_THE_CLEAR.contains(&key[0])).collect();
        if world.plan.fault == Some(Fault::KeptKeys) {
            stolen.retain(|key, _| key[0] != SESSION);
            stolen.extend(before.into_iter().filter(|(key, _)| key[0] == SESSION));
        }
        let opened = opens(world, (a, b, id), stolen, &frames);
        findings.look(Invariant::ForwardSecrecy, opened == 0, || format!("pair {a} {b}: {opened} messages open"));
    }
}

/// How many messages more a device shows that has this disk and gets these frames.
fn opens(world: &World, (a, b, id): (usize, usize, ConversationId), disk: Disk, frames: &[Vec<u8>]) -> usize {
    let (config, master) = World::config(b, world.nodes[b].identity);
    let (store, now) = (Store::of(disk), world.now(b));
    let Ok(mut chat) = Chat::open(config, master, Box::new(store.clone()), [1; 32], now) else { return 0 };
    let shown = |chat: &Chat| chat.history(id, None).map_or(0, |history| history.len());
    let before = shown(&chat);
    let settle = |chat: &mut Chat| {
        while let Some(output) = chat.poll_output() {
            if let Output::Persist { number, rows, .. } = output {
                store.write(rows);
                chat.handle_persisted(number, true, now);
            }
        }
    };
    for frame in frames {
        let _refused = chat.handle_request(node_id(a), &[&[7], &frame[..]].concat(), now);
        settle(&mut chat);
    }
    // What opened and lacks a predecessor, whose row is gone, is shown with a gap in half a minute.
    chat.handle_timeout(Now { mono: now.mono + SETTLED * 2, unix: now.unix.plus(SETTLED * 2) });
    settle(&mut chat);
    shown(&chat) - before
}
