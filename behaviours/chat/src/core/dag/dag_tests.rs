use std::time::Duration;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::core::{
    message::Message,
    testing::{ROOM, dag, device, key, node, now, outputs, sign, write},
};

/// Authors who write and read from each other at random, each at a node of its own; all they wrote.
fn talk(seed: u64, authors: u16, steps: usize) -> Vec<Verified> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut nodes: Vec<_> = (0..authors).map(|_| dag()).collect();
    let mut all: Vec<Verified> = Vec::new();
    for step in 0..steps {
        let author = rng.random_range(0..authors);
        let at = usize::from(author);
        if rng.random_bool(0.5) {
            for message in &all {
                let _known = nodes[at].handle_message(message, None, now());
            }
        }
        all.push(write(&mut nodes[at], author, &format!("{step}")));
    }
    all
}

fn naive_clocks(all: &[Verified]) -> BTreeMap<MessageId, BTreeMap<DeviceId, u32>> {
    let mut clocks: BTreeMap<MessageId, BTreeMap<DeviceId, u32>> = BTreeMap::new();
    for message in all {
        let mut clock = BTreeMap::new();
        for parent in message.header().predecessors() {
            for (author, seq) in &clocks[&parent] {
                let entry = clock.entry(*author).or_insert(0);
                *entry = (*seq).max(*entry);
            }
        }
        clock.insert(message.header().author, message.header().seq);
        clocks.insert(message.id(), clock);
    }
    clocks
}

fn sorted(all: &[Verified]) -> Vec<MessageId> {
    let order: BTreeSet<_> = all.iter().map(|message| (message.header().lamport, message.id())).collect();
    order.into_iter().map(|(_, id)| id).collect()
}

pub(super) fn history(dag: &Dag) -> Vec<MessageId> {
    dag.history().collect()
}

pub(super) fn bring(dag: &mut Dag, messages: &[Verified]) {
    for message in messages {
        let _known = dag.handle_message(message, Some(node(1)), now());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_arrival_gives_one_history_with_true_clocks(seed in 0u64..1_000_000) {
        let all = talk(seed, 5, 60);
        let clocks = naive_clocks(&all);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 1);
        let mut arrivals: Vec<_> = all.iter().chain(&all[..20]).collect();
        arrivals.shuffle(&mut rng);
        let mut dag = dag();
        for message in arrivals {
            let _known = dag.handle_message(message, Some(node(1)), now());
        }
        prop_assert_eq!(history(&dag), sorted(&all));
        prop_assert_eq!(dag.len(), (60, 0));
        prop_assert_eq!((dag.waiting_bytes(), dag.wanted().count()), (0, 0));
        for (id, clock) in clocks {
            prop_assert_eq!(dag.clock(&id), Some(clock));
        }
        // Each is shown once, and no child before a parent.
        let mut shown = BTreeSet::new();
        for output in outputs(&mut dag) {
            if let Output::Show { id, has_gap } = output {
                let message = all.iter().find(|message| message.id() == id).unwrap();
                prop_assert!(!has_gap && message.header().predecessors().all(|parent| shown.contains(&parent)));
                prop_assert!(shown.insert(id));
            }
        }
        prop_assert_eq!(shown.len(), 60);
    }

    #[test]
    fn what_is_lost_is_fetched_until_nothing_is_missing(seed in 0u64..1_000_000, loss in 0.1f64..0.9) {
        let all = talk(seed, 4, 50);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut dag, mut at) = (dag(), now());
        for message in all.iter().filter(|message| dag_end(&all).contains(&message.id()) || rng.random_bool(1.0 - loss)) {
            let _taken = dag.handle_message(message, Some(node(1)), at);
        }
        let mut rounds = 0;
        while dag.len() != (50, 0) {
            rounds += 1;
            prop_assert!(rounds < 10_000);
            let Some(output) = dag.poll_output() else {
                let due = dag.poll_timeout().unwrap();
                at = at.plus(due.saturating_duration_since(at.mono));
                dag.handle_timeout(due);
                continue;
            };
            let Output::Fetch { ids, .. } = output else { continue };
            // Half of the answers are lost as well.
            for message in all.iter().filter(|message| ids.contains(&message.id()) && rng.random_bool(0.5)) {
                let _taken = dag.handle_message(message, Some(node(2)), at);
            }
        }
        prop_assert_eq!(history(&dag), sorted(&all));
    }

    #[test]
    fn precedes_is_reachability(seed in 0u64..1_000_000, is_forked in any::<bool>()) {
        let all = talk(seed, 4, 30);
        let mut dag = dag();
        bring(&mut dag, &all);
        if is_forked {
            // Then the edges are followed, not the clocks.
            dag.dispute(device(1), 3);
            dag.dispute(device(2), 1);
        }
        let mut past: BTreeMap<MessageId, BTreeSet<MessageId>> = BTreeMap::new();
        for message in &all {
            let parents: Vec<_> = message.header().predecessors().collect();
            let mut ids: BTreeSet<_> = parents.iter().flat_map(|parent| past[parent].clone()).collect();
            ids.extend(parents);
            past.insert(message.id(), ids);
        }
        for (later, ids) in &past {
            for earlier in past.keys() {
                prop_assert_eq!(dag.precedes(earlier, later), Some(ids.contains(earlier)));
            }
        }
    }
}

/// What nobody else names: without these nobody would learn that something is missing.
fn dag_end(all: &[Verified]) -> BTreeSet<MessageId> {
    let named: BTreeSet<_> = all.iter().flat_map(|message| message.header().predecessors()).collect();
    all.iter().map(Verified::id).filter(|id| !named.contains(id)).collect()
}

#[test]
fn a_long_talk_of_one_author_among_many_keeps_its_clocks() {
    // More than a checkpoint apart, and read back from old messages.
    let mut dag = dag();
    let first = write(&mut dag, 2, "first");
    let all: Vec<_> = (0..100).map(|i| write(&mut dag, 1, &format!("{i}"))).collect();
    for (i, message) in all.iter().enumerate() {
        let expected = BTreeMap::from([(device(1), u32::try_from(i).unwrap() + 1), (device(2), 1)]);
        assert_eq!(dag.clock(&message.id()), Some(expected));
    }
    assert_eq!(dag.precedes(&first.id(), &all[99].id()), Some(true));
    assert_eq!(dag.seen_by(&first.id()), [device(1)]);
    assert!(dag.seen_by(&all[0].id()).is_empty());
}

#[test]
fn a_message_does_not_grow_with_its_room() {
    let mut dag = dag();
    let messages: Vec<_> = (0..200).map(|author| write(&mut dag, author, "hello")).collect();
    // Each has one head before it, and its own entry and all before it as changes since nothing.
    assert_eq!(messages[199].header().changed, 200);
    assert!(messages[199].len_bytes() <= 188 + 12 * 32 + 32 + 64 + 16 + 5);
    assert_eq!(write(&mut dag, 199, "again").header().changed, 1);
}

#[test]
fn a_false_clock_is_refused_and_so_is_what_builds_on_it() {
    type Lie = (&'static str, fn(&mut Header));
    let lies: [Lie; 7] = [
        ("lamport ahead", |h| h.lamport += 1),
        ("lamport far ahead", |h| h.lamport = u64::MAX),
        ("digest", |h| h.digest[0] ^= 1),
        ("a change too high", |h| h.changes[0].seq += 1),
        ("a change of another author", |h| h.changes[0].author = [0; 8]),
        ("no changes", |h| {
            h.changes.clear();
            h.changed = 0;
        }),
        ("a seq left out", |h| h.seq += 1),
    ];
    for (name, lie) in lies {
        let mut dag = dag();
        write(&mut dag, 2, "a");
        write(&mut dag, 1, "b");
        let mut draft = dag.draft(device(1)).unwrap();
        lie(&mut draft.header);
        let lie = sign(draft, 1, name);
        let outcome = dag.handle_message(&lie, Some(node(1)), now());
        assert!(matches!(outcome, Err(Reject::FalseClock | Reject::FalsePrevious)), "{name}: {outcome:?}");
        let mut child = dag.draft(device(2)).unwrap();
        child.header.parents.push(lie.id());
        child.header.parents.sort();
        let child = sign(child, 2, "child");
        assert_eq!(dag.handle_message(&child, None, now()), Err(Reject::RefusedAncestor), "{name}");
        assert_eq!((dag.len(), history(&dag).len()), ((2, 0), 2), "{name}");
    }
}

#[test]
fn a_previous_message_must_be_the_authors_own() {
    let mut dag = dag();
    write(&mut dag, 1, "a");
    let other = write(&mut dag, 2, "b");
    let mut draft = dag.draft(device(1)).unwrap();
    draft.header.previous = Some(other.id());
    draft.header.parents.clear();
    assert_eq!(dag.handle_message(&sign(draft, 1, "c"), None, now()), Err(Reject::FalsePrevious));
}

#[test]
fn a_gap_is_shown_after_30_seconds_and_filled_in_place() {
    let mut writer = dag();
    let all: Vec<_> = (0..6).map(|i| write(&mut writer, i % 2, &format!("{i}"))).collect();
    let (mut dag, start) = (dag(), now());
    bring(&mut dag, &all[..2]);
    outputs(&mut dag);
    // The third is lost.
    assert_eq!(dag.handle_message(&all[3], Some(node(5)), start), Ok(Taken::Waiting));
    assert_eq!(outputs(&mut dag), [Output::Fetch { ids: vec![all[2].id()], from: Some(node(5)) }]);
    dag.handle_timeout(start.mono + Duration::from_millis(29_999));
    assert!(outputs(&mut dag).iter().all(|output| matches!(output, Output::Fetch { from: None, .. })));
    assert_eq!(history(&dag), sorted(&all[..2]));
    dag.handle_timeout(start.mono + SHOWN_AFTER);
    assert!(outputs(&mut dag).contains(&Output::Show { id: all[3].id(), has_gap: true }));
    assert!(dag.gap_before(&all[3].id()));
    assert_eq!(dag.why(&all[3].id()).unwrap().standing, Standing::Unproved);
    // What lacks only the same message does not wait again; nobody builds on either.
    assert_eq!(dag.handle_message(&all[4], Some(node(5)), start), Ok(Taken::Waiting));
    assert_eq!(outputs(&mut dag), [Output::Show { id: all[4].id(), has_gap: true }]);
    // After those two there is no gap.
    assert_eq!(dag.handle_message(&all[5], Some(node(5)), start), Ok(Taken::Waiting));
    assert_eq!(outputs(&mut dag), [Output::Show { id: all[5].id(), has_gap: false }]);
    assert_eq!(dag.heads(), BTreeSet::from([all[1].id()]));
    let before = history(&dag);
    assert_eq!(before, [all[0].id(), all[1].id(), all[3].id(), all[4].id(), all[5].id()]);
    // Backfill.
    assert_eq!(dag.handle_message(&all[2], Some(node(6)), start), Ok(Taken::Complete));
    let filled = all[3..].iter().map(|message| Output::Fill(message.id()));
    let expected: Vec<_> = [Output::Show { id: all[2].id(), has_gap: false }].into_iter().chain(filled).collect();
    assert_eq!(outputs(&mut dag), expected);
    assert_eq!(history(&dag), sorted(&all));
    assert!(!dag.gap_before(&all[3].id()));
    assert_eq!(dag.poll_timeout().map(|at| at > start.mono), Some(true), "only the question that is over is left");
}

#[test]
fn a_lie_that_was_shown_with_a_gap_is_taken_back_when_it_comes_out() {
    let mut writer = dag();
    let parent = write(&mut writer, 1, "parent");
    let mut draft = writer.draft(device(2)).unwrap();
    draft.header.lamport = 1_000_000;
    let lie = sign(draft, 2, "lie");
    let mut draft = writer.draft(device(3)).unwrap();
    draft.header.parents = vec![lie.id()];
    draft.header.lamport = 1_000_001;
    let child = sign(draft, 3, "child");
    let (mut dag, start) = (dag(), now());
    dag.handle_message(&lie, Some(node(1)), start).unwrap();
    dag.handle_message(&child, Some(node(2)), start).unwrap();
    dag.handle_timeout(start.mono + SHOWN_AFTER);
    assert_eq!(history(&dag), [lie.id(), child.id()]);
    outputs(&mut dag);
    dag.handle_message(&parent, None, start).unwrap();
    let refused = |id, from, reason| Output::Refuse { id, from: Some(node(from)), reason };
    let expected = [
        Output::Show { id: parent.id(), has_gap: false },
        refused(lie.id(), 1, Reject::FalseClock),
        refused(child.id(), 2, Reject::RefusedAncestor),
    ];
    assert_eq!(outputs(&mut dag), expected);
    assert_eq!((history(&dag), dag.len(), dag.waiting_bytes()), (vec![parent.id()], (1, 0), 0));
    assert_eq!(dag.rejects().get(&Reject::FalseClock), Some(&1));
}

#[test]
fn missing_messages_are_asked_for_at_once_and_then_ever_more_rarely() {
    let mut writer = dag();
    write(&mut writer, 1, "lost");
    let child = write(&mut writer, 1, "child");
    let (mut dag, start) = (dag(), now());
    dag.handle_message(&child, Some(node(1)), start).unwrap();
    let mut asked = Vec::new();
    while let Some(at) = dag.poll_timeout().filter(|at| *at < start.mono + Duration::from_secs(250)) {
        dag.handle_timeout(at);
        if outputs(&mut dag).iter().any(|output| matches!(output, Output::Fetch { from: None, .. })) {
            asked.push((at - start.mono).as_secs_f64());
        }
    }
    assert_eq!(asked, [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5, 183.5, 243.5]);
}

#[test]
fn parents_that_do_not_exist_fill_a_bounded_room_and_nothing_else() {
    let mut dag = dag();
    let honest = write(&mut dag, 1_000, "honest");
    let mut outcomes: BTreeMap<Option<Reject>, usize> = BTreeMap::new();
    for author in 0..20u16 {
        for n in 0..300u32 {
            let mut draft = super::super::testing::dag().draft(device(author)).unwrap();
            draft.header.seq = n + 2;
            draft.header.lamport = u64::from(n) + 2;
            draft.header.previous = Some(MessageId([u8::try_from(author).unwrap() + 1; 32]));
            draft.header.parents = vec![MessageId(*blake3::hash(&n.to_be_bytes()).as_bytes())];
            let outcome = dag.handle_message(&sign(draft, author, "x"), Some(node(1)), now());
            *outcomes.entry(outcome.err()).or_default() += 1;
        }
    }
    assert_eq!(outcomes, BTreeMap::from([(None, MAX_WAITING), (Some(Reject::Full), 20 * 300 - MAX_WAITING)]));
    assert_eq!(dag.len(), (1, MAX_WAITING));
    assert!(dag.wanted().count() <= MAX_WAITING * 9);
    // Honest messages pass by, and the false ones never become heads.
    let next = write(&mut dag, 1_000, "still here");
    assert_eq!(dag.heads(), BTreeSet::from([next.id()]));
    assert_eq!(next.header().previous, Some(honest.id()));
}

#[test]
fn one_author_takes_its_own_places_only() {
    let mut writer = dag();
    let all: Vec<_> = (0..400).map(|i| write(&mut writer, 1, &format!("{i}"))).collect();
    let mut dag = dag();
    let taken = all.iter().rev().filter(|message| dag.handle_message(message, None, now()).is_ok()).count();
    // The first one is complete by itself; those next to it that found no room are wanted.
    assert_eq!(taken, MAX_WAITING_OF_AUTHOR + 1);
    bring(&mut dag, &all);
    assert_eq!(dag.len(), (400, 0));
}

#[test]
fn waiting_bytes_are_bounded() {
    let mut dag = dag();
    let body = "x".repeat(14_000);
    let mut refused = 0;
    for author in 0..8u16 {
        for n in 0..200u32 {
            let mut draft = super::super::testing::dag().draft(device(author)).unwrap();
            (draft.header.seq, draft.header.lamport) = (n + 2, 2);
            draft.header.previous = Some(MessageId([9; 32]));
            refused += u32::from(dag.handle_message(&sign(draft, author, &body), None, now()).is_err());
        }
    }
    assert!(dag.waiting_bytes() <= MAX_WAITING_BYTES && dag.waiting_bytes() > MAX_WAITING_BYTES - 16_000);
    assert!(refused > 0);
}

#[test]
fn messages_of_another_conversation_are_refused() {
    let mut other = Dag::new(ConversationId([8; 32]), crate::core::testing::NETWORK);
    let message = write(&mut other, 1, "elsewhere");
    assert_eq!(dag().handle_message(&message, None, now()), Err(Reject::WrongConversation));
    let parsed = Message::parse(&message.encode(), &crate::core::testing::NETWORK).unwrap();
    assert_eq!(parsed.verify(&ROOM, &mut KeyCache::default()), Err(Reject::WrongConversation));
}

#[test]
fn membership_is_read_in_causal_order() {
    let mut dag = dag();
    let author = device(1);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let draft = dag.draft(author).unwrap();
        let network = crate::core::testing::NETWORK;
        let op = Message::sign(draft, &network, &key(1), Kind::MEMBERSHIP, 0, [0; 16], b"op").unwrap();
        dag.handle_message(&op, None, now()).unwrap();
        write(&mut dag, 1, "text");
        ids.push(op.id());
    }
    assert_eq!(dag.of_kind(Kind::MEMBERSHIP).collect::<Vec<_>>(), ids);
}

#[test]
fn why_tells_the_proof_of_a_place() {
    let mut dag = dag();
    let (a, b) = (write(&mut dag, 1, "a"), write(&mut dag, 2, "b"));
    let c = write(&mut dag, 1, "c");
    let why = dag.why(&c.id()).unwrap();
    assert_eq!((why.author, why.seq, why.lamport, why.standing), (device(1), 2, 3, Standing::Complete));
    assert_eq!(why.predecessors, [(a.id(), Standing::Complete), (b.id(), Standing::Complete)]);
    assert_eq!(why.clock, BTreeMap::from([(device(1), 2), (device(2), 1)]));
    assert_eq!((why.seen_by, why.disputed_from), (vec![], None));
    assert_eq!(dag.why(&a.id()).unwrap().seen_by, [device(2)]);
    assert_eq!(dag.why(&MessageId([0; 32])), None);
}

#[test]
fn what_claims_a_place_before_a_predecessor_is_refused_as_soon_as_both_are_here() {
    let mut writer = dag();
    let _lost = write(&mut writer, 1, "never comes");
    let parent = write(&mut writer, 1, "waits");
    let mut draft = writer.draft(device(2)).unwrap();
    assert_eq!(draft.header.parents, [parent.id()]);
    draft.header.lamport = parent.header().lamport;
    let lie = sign(draft, 2, "lie");
    let start = now();
    let mut after = dag();
    after.handle_message(&parent, None, start).unwrap();
    assert_eq!(after.handle_message(&lie, None, start), Err(Reject::FalseClock));
    let mut before = dag();
    before.handle_message(&lie, None, start).unwrap();
    before.handle_timeout(start.mono + SHOWN_AFTER);
    assert_eq!(history(&before), [lie.id()]);
    before.handle_message(&parent, None, start).unwrap();
    before.handle_timeout(start.mono + 2 * SHOWN_AFTER);
    assert_eq!(history(&before), [parent.id()]);
    assert_eq!(before.len(), (0, 1));
}

#[test]
fn thousands_that_miss_the_same_message_are_each_shown_once() {
    let mut writer = dag();
    write(&mut writer, 1, "never comes");
    let children: Vec<_> = (2..2_002)
        .map(|seq| {
            let mut draft = writer.draft(device(1)).unwrap();
            draft.header.seq = seq;
            sign(draft, 1, "child")
        })
        .collect();
    let start = now();
    let mut reader = Dag::of_two(ROOM, crate::core::testing::NETWORK);
    let (early, late) = children.split_at(1_500);
    for child in early {
        reader.handle_message(child, None, start).unwrap();
    }
    assert_eq!(reader.first_waiting(&device(1)), Some(2));
    reader.handle_timeout(start.mono + SHOWN_AFTER);
    // The gap is known: who lacks nothing else is shown at once.
    for child in late {
        reader.handle_message(child, None, start).unwrap();
    }
    let shown = outputs(&mut reader).into_iter().filter(|output| matches!(output, Output::Show { .. })).count();
    assert_eq!((shown, history(&reader).len(), reader.len()), (2_000, 2_000, (0, 2_000)));
}
