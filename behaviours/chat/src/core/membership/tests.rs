use proptest::prelude::*;

use super::*;

const NETWORK: NetworkId = NetworkId([7; 32]);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn device(n: u8) -> DeviceId {
    DeviceId(key(n).verifying_key().to_bytes())
}

/// A group as one of its members sees it.
fn view(ops: &[Op]) -> Group {
    let mut group = Group::new(NETWORK, ops[0].group());
    for op in ops {
        group.insert(op.bytes()).unwrap();
    }
    group
}

/// Adds an operation to a history.
fn then(ops: &[Op], author: u8, action: Action, subject: u8) -> Vec<Op> {
    let op = view(ops).prepare(&key(author), action, device(subject)).unwrap();
    [ops, &[op]].concat()
}

/// Two histories with one beginning.
fn merge(a: &[Op], b: &[Op]) -> Vec<Op> {
    let mut all = a.to_vec();
    all.extend(b.iter().filter(|op| !a.contains(op)).cloned());
    all
}

/// A group of owner 1 with members; those in `admins` are made admins by the owner.
fn founded(members: &[u8], admins: &[u8]) -> Vec<Op> {
    let mut ops = vec![Op::create(&NETWORK, &key(1), [0; 32])];
    for member in members {
        ops = then(&ops, 1, Action::Invite, *member);
        ops = then(&ops, *member, Action::Join, *member);
    }
    for admin in admins {
        ops = then(&ops, 1, Action::MakeAdmin, *admin);
    }
    ops
}

fn levels(ops: &[Op]) -> Vec<(u8, u8)> {
    let group = view(ops);
    (1..20).filter_map(|n| group.members().get(&device(n)).map(|level| (n, level.0))).collect()
}

fn members(ops: &[Op]) -> Vec<u8> {
    levels(ops).into_iter().map(|(n, _)| n).collect()
}

#[test]
fn members_come_by_invite_and_admins_by_an_admin() {
    let ops = founded(&[2, 3], &[2]);
    assert_eq!(levels(&ops), [(1, 0), (2, 1), (3, 255)]);
    let ops = then(&ops, 2, Action::Invite, 4);
    assert_eq!(members(&ops), [1, 2, 3]);
    assert_eq!(view(&ops).invited(), [device(4)]);
    let ops = then(&ops, 4, Action::Join, 4);
    let ops = then(&ops, 2, Action::MakeAdmin, 4);
    assert_eq!(levels(&ops), [(1, 0), (2, 1), (3, 255), (4, 2)]);
    let ops = then(&ops, 2, Action::MakeMember, 4);
    let ops = then(&ops, 3, Action::Leave, 3);
    assert_eq!(levels(&ops), [(1, 0), (2, 1), (4, 255)]);
}

#[test]
fn what_nobody_is_entitled_to_is_refused_whoever_signs_it() {
    let ops = founded(&[2, 3, 4], &[2, 3]);
    let group = view(&ops);
    for (author, action, subject, refusal) in [
        (4, Action::Invite, 9, Refusal::NotEntitled),
        (4, Action::Remove, 3, Refusal::NotEntitled),
        (9, Action::Join, 9, Refusal::NotEntitled),
        (9, Action::Leave, 9, Refusal::NotEntitled),
        (9, Action::Remove, 1, Refusal::NotEntitled),
        (2, Action::Remove, 1, Refusal::NotEntitled),
        (2, Action::Remove, 3, Refusal::NotEntitled),
        (2, Action::MakeMember, 3, Refusal::NotEntitled),
        (2, Action::Invite, 4, Refusal::Pointless),
        (2, Action::Remove, 9, Refusal::Pointless),
        (1, Action::MakeAdmin, 2, Refusal::Pointless),
        (1, Action::MakeAdmin, 9, Refusal::Pointless),
        (1, Action::MakeMember, 4, Refusal::Pointless),
        (4, Action::Join, 4, Refusal::Pointless),
    ] {
        assert_eq!(
            group.prepare(&key(author), action, device(subject)).map(|_| ()),
            Err(refusal),
            "{author} {action:?}"
        );
        // And by others, should somebody sign it all the same.
        let heads = group.heads().collect();
        let forged = Op::sign(&NETWORK, &key(author), action, group.id(), device(subject), heads);
        let mut other = view(&ops);
        assert_eq!(other.insert(forged.bytes()), Err(refusal), "{author} {action:?}");
        assert_eq!(other.members(), group.members());
    }
}

#[test]
fn what_builds_on_a_refused_operation_is_refused() {
    let ops = founded(&[2], &[]);
    let mut group = view(&ops);
    let heads = group.heads().collect();
    let forged = Op::sign(&NETWORK, &key(2), Action::Invite, group.id(), device(9), heads);
    let child = Op::sign(&NETWORK, &key(9), Action::Join, group.id(), device(9), vec![forged.id]);
    assert_eq!(group.insert(child.bytes()), Ok(Inserted::Waiting(vec![forged.id])));
    assert_eq!(group.insert(forged.bytes()), Err(Refusal::NotEntitled));
    let late = Op::sign(&NETWORK, &key(9), Action::Leave, group.id(), device(9), vec![forged.id]);
    assert_eq!(group.insert(late.bytes()), Err(Refusal::BadParent));
    assert_eq!(group.members().len(), 2);
}

#[test]
fn another_groups_operation_is_refused() {
    let mut group = view(&founded(&[2], &[]));
    let other = Op::create(&NETWORK, &key(1), [1; 32]);
    assert_eq!(group.insert(other.bytes()), Err(Refusal::OtherGroup));
}

#[test]
fn a_removal_beats_the_invite_the_join_and_the_promotion_that_are_concurrent_with_it() {
    let base = founded(&[2, 3], &[2]);
    let gone = then(&base, 1, Action::Remove, 3);
    let promoted = then(&base, 2, Action::MakeAdmin, 3);
    assert_eq!(members(&merge(&promoted, &gone)), [1, 2]);
    let back = then(&then(&base, 3, Action::Leave, 3), 2, Action::Invite, 3);
    let back = then(&back, 3, Action::Join, 3);
    assert_eq!(members(&merge(&back, &gone)), [1, 2], "the invite did not know of the removal");
    let invited = then(&base, 2, Action::Invite, 4);
    let withdrawn = then(&invited, 1, Action::Remove, 4);
    let joined = then(&invited, 4, Action::Join, 4);
    assert_eq!(members(&merge(&joined, &withdrawn)), [1, 2, 3]);
    // Whoever knows of the removal may invite again.
    let again = then(&then(&gone, 2, Action::Invite, 3), 3, Action::Join, 3);
    assert_eq!(levels(&merge(&again, &promoted)), [(1, 0), (2, 1), (3, 255)], "as a member: the promotion is gone");
}

#[test]
fn what_an_admin_did_concurrently_with_its_removal_is_undone_and_what_it_did_before_stands() {
    let base = then(&founded(&[2, 3], &[2]), 2, Action::Invite, 4);
    let base = then(&base, 4, Action::Join, 4);
    let removed = then(&base, 1, Action::Remove, 2);
    let meanwhile = then(&base, 2, Action::Invite, 5);
    let meanwhile = then(&meanwhile, 5, Action::Join, 5);
    let meanwhile = then(&meanwhile, 2, Action::MakeAdmin, 5);
    let meanwhile = then(&meanwhile, 2, Action::Remove, 3);
    let meanwhile = then(&meanwhile, 5, Action::Invite, 6);
    assert_eq!(members(&meanwhile), [1, 2, 4, 5]);
    let healed = merge(&meanwhile, &removed);
    assert_eq!(members(&healed), [1, 3, 4]);
    assert!(view(&healed).invited().is_empty(), "the invite of an admin who never was");
    // The owner invites 5 itself: that stands.
    assert_eq!(members(&then(&then(&healed, 1, Action::Invite, 5), 5, Action::Join, 5)), [1, 3, 4, 5]);
}

#[test]
fn a_demotion_undoes_what_it_is_concurrent_with_and_leaves_the_member() {
    let base = founded(&[2, 3], &[2]);
    let demoted = then(&base, 1, Action::MakeMember, 2);
    let meanwhile = then(&then(&base, 2, Action::Remove, 3), 2, Action::Invite, 4);
    let healed = merge(&meanwhile, &demoted);
    assert_eq!(levels(&healed), [(1, 0), (2, 255), (3, 255)]);
    assert!(view(&healed).invited().is_empty());
}

#[test]
fn a_removed_admin_cannot_go_back_behind_its_removal() {
    let base = founded(&[2, 3], &[2, 3]);
    let removed = then(&then(&base, 1, Action::Remove, 2), 1, Action::Invite, 9);
    // Signed after the removal, on parents from before it.
    for (action, subject) in [(Action::Invite, 8), (Action::Leave, 2)] {
        let backdated = then(&base, 2, action, subject);
        assert_eq!(levels(&merge(&removed, &backdated)), levels(&removed), "{action:?}");
        assert_eq!(view(&merge(&removed, &backdated)).invited(), view(&removed).invited());
    }
}

#[test]
fn a_leave_that_pretends_to_be_old_unmakes_no_removal() {
    let base = founded(&[2, 3], &[2]);
    let removed = then(&base, 2, Action::Remove, 3);
    let left = then(&base, 2, Action::Leave, 2);
    assert_eq!(members(&merge(&removed, &left)), [1], "3 stays removed, 2 has left");
    let invited = then(&base, 2, Action::Invite, 4);
    assert!(view(&merge(&invited, &left)).invited().is_empty(), "nobody who has left lets others in");
}

/// 2 and 4 are admins of one level; on each side one of them was raised above the other, and removed it. That is the only way to a cycle.
#[test]
fn in_a_cycle_of_removals_the_higher_author_wins_and_then_the_lower_id() {
    let base = then(&founded(&[2, 3, 4, 5, 6], &[3, 5]), 3, Action::MakeAdmin, 6);
    let base = then(&then(&base, 6, Action::MakeAdmin, 2), 6, Action::MakeAdmin, 4);
    assert_eq!(levels(&base), [(1, 0), (2, 3), (3, 1), (4, 3), (5, 1), (6, 2)]);
    let raised =
        |by: u8, who: u8, other: u8| then(&then(&base, by, Action::MakeAdmin, who), who, Action::Remove, other);

    let (by_owner, by_admin) = (raised(1, 2, 4), raised(5, 4, 2));
    assert_eq!(levels(&merge(&by_owner, &by_admin)), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2)]);

    let (left, right) = (raised(3, 2, 4), raised(5, 4, 2));
    let winner = if left.last().map(|op| op.id) < right.last().map(|op| op.id) { 2 } else { 4 };
    let healed = merge(&left, &right);
    assert_eq!(members(&healed), if winner == 2 { [1, 2, 3, 5, 6] } else { [1, 3, 4, 5, 6] });
    assert_eq!(members(&merge(&right, &left)), members(&healed));
}

/// All orders of `ops`.
fn permutations(ops: &[Op]) -> Vec<Vec<Op>> {
    if ops.len() <= 1 {
        return vec![ops.to_vec()];
    }
    let mut all = Vec::new();
    for at in 0..ops.len() {
        let mut rest = ops.to_vec();
        let first = rest.remove(at);
        all.extend(permutations(&rest).into_iter().map(|rest| [vec![first.clone()], rest].concat()));
    }
    all
}

type Outcome = (Vec<(DeviceId, Level)>, Vec<DeviceId>, Vec<OpId>, [u8; 32]);

fn outcome(group: &Group) -> Outcome {
    let members = group.members().iter().map(|(who, level)| (*who, *level)).collect();
    (members, group.invited().to_vec(), group.heads().collect(), group.members_digest())
}

/// What a member does, on the view of whom, to whom.
type Move = (u8, u8, u8, u8);

fn play(base: &[Op], views: u8, moves: &[Move]) -> Vec<Op> {
    let mut histories = vec![base.to_vec(); usize::from(views)];
    for (view_of, author, action, subject) in moves {
        let at = usize::from(view_of % views);
        let actions = [
            Action::Invite,
            Action::Join,
            Action::Leave,
            Action::Remove,
            Action::MakeAdmin,
            Action::MakeMember,
            Action::Remove,
        ];
        let (author, subject) = (1 + author % 5, 1 + subject % 5);
        let action = actions[usize::from(*action) % actions.len()];
        let subject = if matches!(action, Action::Join | Action::Leave) { author } else { subject };
        if let Ok(op) = view(&histories[at]).prepare(&key(author), action, device(subject)) {
            histories[at].push(op);
        } else {
            // Nothing to do on this view: it hears from the next one.
            let other = histories[(at + 1) % histories.len()].clone();
            histories[at] = merge(&histories[at], &other);
        }
    }
    histories.iter().fold(base.to_vec(), |all, history| merge(&all, history))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_order_of_arrival_ends_in_the_same_group(
        moves in prop::collection::vec(any::<Move>(), 1..12), views in 2u8..4,
    ) {
        let base = founded(&[2, 3, 4], &[2, 3]);
        let ops = play(&base, views, &moves);
        let new: Vec<_> = ops[base.len()..].iter().take(5).cloned().collect();
        let closed = view_closed(&base, &new);
        let expected = outcome(&view(&[base.clone(), closed.clone()].concat()));
        for order in permutations(&closed) {
            let mut group = view(&base);
            for op in &order {
                group.insert(op.bytes()).unwrap();
            }
            prop_assert_eq!(&outcome(&group), &expected);
        }
    }

    #[test]
    fn a_large_history_in_any_order_with_copies_ends_in_the_same_group(
        moves in prop::collection::vec(any::<Move>(), 10..60), views in 2u8..5, seed in any::<u64>(),
    ) {
        let base = founded(&[2, 3, 4], &[2]);
        let ops = play(&base, views, &moves);
        let expected = outcome(&view(&ops));
        let mut seed = seed;
        let mut rest: Vec<_> = ops.iter().chain(ops.iter().take(5)).cloned().collect();
        let mut group = Group::new(NETWORK, ops[0].group());
        while !rest.is_empty() {
            let op = rest.swap_remove((seed >> 16) as usize % rest.len());
            group.insert(op.bytes()).unwrap();
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        }
        prop_assert_eq!(outcome(&group), expected);
    }

    /// Whoever the owner removed and nobody invited again who knew of it is out, whatever else happened anywhere.
    #[test]
    fn the_owners_removal_holds_against_everything_concurrent(
        moves in prop::collection::vec(any::<Move>(), 1..30), views in 2u8..4,
    ) {
        let base = founded(&[2, 3, 4], &[2, 3]);
        let removed = then(&base, 1, Action::Remove, 2);
        // The owner does nothing else: all that the others do is concurrent with the removal.
        let moves: Vec<_> = moves.into_iter().map(|(v, author, a, s)| (v, 1 + author % 4, a, s)).collect();
        let ops = merge(&play(&base, views, &moves), &removed);
        prop_assert!(!view(&ops).members().contains_key(&device(2)));
    }
}

/// Those of `new` whose parents are in `base` or among them.
fn view_closed(base: &[Op], new: &[Op]) -> Vec<Op> {
    let mut known: BTreeSet<_> = base.iter().map(|op| op.id).collect();
    let mut closed = Vec::new();
    for op in new {
        if op.parents.iter().all(|parent| known.contains(parent)) {
            known.insert(op.id);
            closed.push(op.clone());
        }
    }
    closed
}

#[test]
fn operations_that_wait_are_bounded() {
    let ops = founded(&[2], &[]);
    let mut group = view(&ops);
    let orphan = |n: usize| {
        let mut parent = [0; 32];
        parent[..8].copy_from_slice(&n.to_be_bytes());
        Op::sign(&NETWORK, &key(1), Action::Invite, ops[0].group(), device(9), vec![OpId(parent)])
    };
    for n in 0..MAX_WAITING {
        assert!(matches!(group.insert(orphan(n).bytes()), Ok(Inserted::Waiting(_))));
    }
    assert_eq!(group.insert(orphan(MAX_WAITING).bytes()), Err(Refusal::Full));
    assert_eq!(group.insert(orphan(0).bytes()), Ok(Inserted::Known));
}

#[test]
fn only_comings_and_goings_ask_for_new_keys() {
    let ops = founded(&[2, 3], &[]);
    let mut group = view(&ops);
    for (author, action, subject, expected) in [
        (1, Action::MakeAdmin, 2, false),
        (2, Action::Invite, 4, false),
        (4, Action::Join, 4, true),
        (2, Action::Remove, 3, true),
    ] {
        let digest = group.members_digest();
        let op = group.prepare(&key(author), action, device(subject)).unwrap();
        assert_eq!(group.insert(op.bytes()), Ok(Inserted::Taken { members_changed: expected }));
        assert_eq!(group.members_digest() != digest, expected, "{action:?}");
    }
    let known: Vec<_> = ops.last().map(|op| op.id).into_iter().collect();
    let then: Vec<_> = group.members_at(&known).unwrap().into_keys().collect();
    let mut expected = vec![device(1), device(2), device(3)];
    expected.sort_unstable();
    assert_eq!(then, expected);
    assert_eq!(group.members_at(&[OpId([0; 32])]), None);
}

/// The bytes of one operation are frozen: other implementations sign and hash the same.
#[test]
fn the_bytes_of_a_known_operation() {
    let op = Op::create(&NETWORK, &key(1), [3; 32]);
    assert_eq!(op.bytes().len(), 163);
    assert_eq!(
        data_encoding::HEXLOWER.encode(&op.id.0),
        "74627886c9838c048b7fa2b69a4818aa770e67ed99ff7fac6862e72e9e19d0dd"
    );
}
