use fog_base::{NetworkId, UnixMillis, relay::Role};

use super::*;
use crate::core::{
    descriptor::{Candidacy, Descriptor},
    exchange::archive::Archive,
    lottery::{self, Lottery},
    relay_set::{Config, Source},
    standing::THRESHOLD,
    testing::{facts, identity, node, sign_candidate, vrf},
};

const LENGTH: Duration = Duration::from_secs(600);
const FIRST: Epoch = Epoch(1_000_000);
const STEP: Duration = Duration::from_secs(2);

fn network(relays: u16) -> Network {
    Network {
        name: "council".into(),
        id: NetworkId([3; 32]),
        epoch_length: LENGTH,
        genesis: (0..relays).map(|n| (node(n), 10)).collect(),
        ..Network::lan()
    }
}

/// What a node keeps on its disk.
#[derive(Default, Clone)]
pub(super) struct Disk {
    record: Option<Vec<u8>>,
    bound: Option<Vec<u8>>,
    links: BTreeMap<Epoch, Vec<u8>>,
    pub(super) sets: BTreeMap<Epoch, (Vec<u8>, Vec<u8>)>,
    is_full: bool,
}

pub(super) struct Node {
    n: u16,
    pub(super) council: Council,
    live: RelaySet,
    pub(super) disk: Disk,
    is_up: bool,
    broadcasts: usize,
    pub(super) objections: Vec<Objection>,
    accused: Vec<NodeId>,
}

/// Nodes whose messages all arrive at once, and whose wishes are granted by whoever can.
pub(super) struct World {
    pub(super) network: Network,
    pub(super) now: Now,
    pub(super) nodes: Vec<Node>,
}

fn council(network: &Network, n: u16, disk: &Disk, now: Now) -> Council {
    let links = disk.links.clone();
    let restored = Restored {
        record: disk.record.clone(),
        bound: disk.bound.clone(),
        may_have_signed: false,
        links: disk.links.keys().copied().collect(),
        sets: disk.sets.clone(),
    };
    let read = Box::new(move |epoch: Epoch| links.get(&epoch).cloned());
    Council::new(network, Arc::new(identity(n)), (restored, read), now).unwrap()
}

impl World {
    pub(super) fn new(nodes: u16, genesis: u16) -> Self {
        let network = network(genesis);
        #[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
        let now = Now { mono: Instant::now(), unix: network.schedule().start(FIRST).plus(STEP) };
        let mut world = Self { network, now, nodes: Vec::new() };
        (0..nodes).for_each(|n| world.join(n));
        world
    }

    pub(super) fn join(&mut self, n: u16) {
        let staked = self.network.genesis.iter().map(|(relay, _)| *relay).collect();
        let bounds = Config { max_relays: 32, staked, ..Config::new(self.network.id, self.network.schedule()) };
        let (disk, live) = (Disk::default(), RelaySet::new(bounds, self.now));
        let council = council(&self.network, n, &disk, self.now);
        let (broadcasts, objections, accused) = (0, vec![], vec![]);
        self.nodes.push(Node { n, council, live, disk, is_up: true, broadcasts, objections, accused });
    }

    pub(super) fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.council = council(&self.network, node.n, &node.disk, self.now);
        node.is_up = true;
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.network.schedule().at(self.now.unix)
    }

    /// Each relay that is up signs its descriptor for the running epoch, and everybody gets it.
    fn publish(&mut self) {
        self.publish_of(|_| true);
    }

    /// Some of them do.
    pub(super) fn publish_of(&mut self, is_one: impl Fn(u16) -> bool) {
        let (epoch, now) = (self.epoch(), self.now);
        let mut all = Vec::new();
        for node in self.nodes.iter().filter(|node| node.is_up && is_one(node.n)) {
            let ticket = node.council.beacon(epoch.next()).map(|beacon| {
                let lottery = Lottery { network: &self.network.id, epoch: epoch.next(), beacon: &beacon };
                lottery::prove(&vrf(node.n), &super::tests::node(node.n), &lottery, &[1; 32])
            });
            let contents = Candidacy { ticket, loops: node.council.loops(epoch) };
            let mut facts = facts(node.n, epoch);
            facts.roles = facts.roles.with(Role::Directory);
            all.push(sign_candidate(node.n, (&facts, &contents), epoch, now.unix.0, now.unix));
        }
        self.spread(&all);
    }

    fn spread(&mut self, descriptors: &[Descriptor]) {
        for node in self.nodes.iter_mut().filter(|node| node.is_up) {
            for descriptor in descriptors {
                let _known = node.live.handle_descriptor(descriptor.as_bytes(), Source::Own, self.now);
            }
        }
    }

    /// Until `until`, in steps.
    pub(super) fn run(&mut self, until: UnixMillis) {
        while self.now.unix < until {
            self.now = self.now.plus(STEP);
            for at in 0..self.nodes.len() {
                let node = &mut self.nodes[at];
                if node.is_up {
                    node.live.handle_timeout(self.now);
                    node.council.handle_timeout(&node.live, self.now);
                }
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            for at in 0..self.nodes.len() {
                while let Some(output) = self.nodes[at].council.poll_output() {
                    is_quiet = false;
                    self.perform(at, output);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        let (now, node) = (self.now, &mut self.nodes[at]);
        if !node.is_up {
            return;
        }
        match output {
            Output::Record { record, set } => {
                let is_kept = !node.disk.is_full;
                if is_kept {
                    node.disk.record = Some(record);
                    node.disk.bound = set.or(node.disk.bound.take());
                }
                node.council.handle_recorded(is_kept);
            }
            Output::Broadcast(bytes) => {
                node.broadcasts += 1;
                for (to, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.is_up) {
                    if to != at {
                        let verdict = node.council.handle_gossip(&bytes, now);
                        assert_ne!(verdict, Acceptance::Reject, "an honest message");
                    }
                }
            }
            Output::KeepLink { epoch, bytes } => drop(node.disk.links.insert(epoch, bytes)),
            Output::KeepSet { epoch, set, state, forget } => {
                node.disk.sets.insert(epoch, (set, state));
                forget.map(|epoch| node.disk.sets.remove(&epoch));
                assert!(node.disk.sets.len() <= KEPT + 1 + 4, "and what two rings follow from");
            }
            Output::Wants => self.grant(at),
            Output::WantLinks { after } => {
                let helper = self.nodes.iter().enumerate().find(|(other, node)| *other != at && node.is_up);
                let Some((_, helper)) = helper else { return };
                let (from, (links, more)) = (super::tests::node(helper.n), helper.council.links(after, 128 * 1024));
                let links = links.iter().map(|link| Link::from_bytes(link).unwrap()).collect();
                self.nodes[at].council.handle_links(from, links, more, now);
            }
            Output::Changed | Output::Reconcile => {}
            Output::Objected { why, .. } => node.objections.push(why),
            Output::Misbehaved(who) | Output::SignedTwice(who) => node.accused.push(who),
        }
    }

    fn grant(&mut self, at: usize) {
        let wants = self.nodes[at].council.wants().clone();
        let others =
            || self.nodes.iter().enumerate().filter(|(other, node)| *other != at && node.is_up).map(|(_, n)| n);
        let set = wants.set.and_then(|(root, _, _)| others().find_map(|other| other.council.set(&root)));
        let state = wants.state.and_then(|hash| others().find_map(|other| other.council.state(&hash, 0, 1 << 20)));
        let council = &mut self.nodes[at].council;
        if let Some(set) = set {
            council.handle_set(set, self.now);
        }
        if let Some((length, state)) = state {
            assert_eq!(length as usize, state.len());
            council.handle_state(&state, self.now);
        }
    }

    /// One epoch: descriptors in its first half, and then the set of the next.
    pub(super) fn epoch_passes(&mut self) {
        self.publish();
        self.run(self.network.schedule().end(self.epoch()));
    }

    fn roots(&self, epoch: Epoch) -> Vec<Option<Hash>> {
        let up = self.nodes.iter().filter(|node| node.is_up);
        up.map(|node| node.council.certified(epoch).map(|certified| certified.set.root())).collect()
    }

    #[track_caller]
    pub(super) fn assert_certified(&self) {
        let (epoch, roots) = (self.epoch(), self.roots(self.epoch()));
        assert!(roots[0].is_some() && roots.iter().all(|root| *root == roots[0]), "{epoch:?}: {roots:?}");
        let up = self.nodes.iter().filter(|node| node.is_up);
        for node in up {
            let snapshot = node.council.snapshot(epoch, &node.live);
            assert!(snapshot.is_certified() && node.council.serving(epoch) == Serving::Certified);
            assert_eq!((Some(snapshot.root()), snapshot.relays().is_empty()), (roots[0], false));
        }
    }
}

#[test]
fn every_set_is_certified_before_its_epoch_and_everybody_has_it() {
    let mut world = World::new(7, 7);
    assert_eq!(world.nodes[0].council.serving(FIRST), Serving::Joining);
    world.run(world.now.unix.plus(STEP));
    assert_eq!(world.nodes[0].council.serving(FIRST), Serving::Genesis);
    let second = Epoch(FIRST.0 + 1);
    world.publish();
    while world.nodes[0].council.certified(second).is_none() && world.epoch() == FIRST {
        world.run(world.now.unix.plus(STEP));
    }
    let node = &world.nodes[0];
    assert_eq!((world.epoch(), node.council.serving(FIRST)), (FIRST, Serving::Genesis), "until the first set's epoch");
    assert_eq!(node.council.snapshot(FIRST, &node.live).relays().len(), 7);
    world.run(world.network.schedule().end(FIRST));
    world.assert_certified();
    for _ in 0..5 {
        world.epoch_passes();
        world.assert_certified();
        let certified = world.nodes[0].council.certified(world.epoch()).unwrap();
        assert_eq!((certified.set.count(), certified.tip.electorate().seats().len()), (7, 7));
        assert!(certified.signed.weight * 3 > certified.signed.total * 2 && certified.signed.signatures >= 5);
    }
    assert!(world.nodes.iter().all(|node| node.objections.is_empty() && node.accused.is_empty()));
}

#[test]
fn a_joiner_follows_the_chain_and_gets_set_and_state() {
    let mut world = World::new(7, 7);
    (0..4).for_each(|_| world.epoch_passes());
    world.join(30);
    world.run(world.now.unix.plus(STEP * 4));
    world.assert_certified();
    // A relay without stake: in the next set, and without a seat.
    world.epoch_passes();
    world.assert_certified();
    let council = &world.nodes[7].council;
    let certified = council.certified(world.epoch()).unwrap();
    assert_eq!((certified.set.count(), certified.tip.electorate().rank(node(30))), (8, None));
    assert_eq!(council.links(Epoch(0), usize::MAX).0.len(), 5, "it can pass the whole chain on");
}

#[test]
fn a_node_that_was_away_for_ten_epochs_comes_back_and_signs_again() {
    let mut world = World::new(7, 7);
    (0..2).for_each(|_| world.epoch_passes());
    world.nodes[3].is_up = false;
    (0..10).for_each(|_| world.epoch_passes());
    assert_eq!(world.nodes[0].council.certified(world.epoch()).unwrap().set.count(), 6);
    world.restart(3);
    (0..2).for_each(|_| world.epoch_passes());
    world.assert_certified();
    assert_eq!(world.nodes[0].council.certified(world.epoch()).unwrap().set.count(), 7);
    // Out of the lottery for two sets, because it had no ticket in the ones before.
    let before = world.nodes[3].broadcasts;
    (0..3).for_each(|_| world.epoch_passes());
    world.assert_certified();
    assert!(world.nodes[3].broadcasts > before);
}

#[test]
fn all_restart_at_once_and_go_on_where_they_were() {
    let mut world = World::new(5, 5);
    (0..3).for_each(|_| world.epoch_passes());
    let roots = world.roots(world.epoch());
    (0..5).for_each(|at| world.restart(at));
    assert_eq!(world.roots(world.epoch()), roots);
    let signed = |world: &World| world.nodes[0].council.certified(world.epoch()).unwrap().signed;
    assert!(signed(&world).signatures >= 4);
    (0..2).for_each(|_| world.epoch_passes());
    world.assert_certified();
    assert!(world.nodes.iter().all(|node| node.accused.is_empty()));
}

#[test]
fn a_third_of_the_seats_away_does_not_stop_it_and_more_do_for_as_long() {
    let mut world = World::new(7, 7);
    (0..2).for_each(|_| world.epoch_passes());
    (5..7).for_each(|at| world.nodes[at].is_up = false);
    world.epoch_passes();
    world.assert_certified();
    (2..5).for_each(|at| world.nodes[at].is_up = false);
    let last = world.epoch();
    for late in 1..=2 {
        world.epoch_passes();
        let node = &world.nodes[0];
        assert_eq!(node.council.serving(world.epoch()), Serving::Overtime(late));
        let snapshot = node.council.snapshot(world.epoch(), &node.live);
        assert!(!snapshot.is_certified() && !snapshot.relays().is_empty());
    }
    world.epoch_passes();
    assert_eq!(world.nodes[0].council.serving(world.epoch()), Serving::Stopped { last });
    assert!(world.nodes[0].council.snapshot(world.epoch(), &world.nodes[0].live).relays().is_empty());
    (2..7).for_each(|at| world.restart(at));
    (0..2).for_each(|_| world.epoch_passes());
    world.assert_certified();
}

#[test]
fn a_full_disk_keeps_a_seat_silent_and_the_others_go_on() {
    let mut world = World::new(7, 7);
    world.epoch_passes();
    world.nodes[2].disk.is_full = true;
    let (before, record) = (world.nodes[2].broadcasts, world.nodes[2].disk.record.clone());
    (0..2).for_each(|_| world.epoch_passes());
    assert_eq!((world.nodes[2].broadcasts, &world.nodes[2].disk.record), (before, &record));
    world.assert_certified();
    world.nodes[2].disk.is_full = false;
    (0..2).for_each(|_| world.epoch_passes());
    assert!(world.nodes[2].broadcasts > before);
}

#[test]
fn a_relay_that_the_seats_find_lossy_loses_its_seat_everywhere() {
    let mut world = World::new(7, 7);
    (0..2).for_each(|_| world.epoch_passes());
    for _ in 0..10 {
        for at in 0..7 {
            let council = &mut world.nodes[at].council;
            for n in 0..40u16 {
                council.handle_loop(&[node(n % 7), node((n + 1) % 7)], n % 7 != 4 && n % 7 != 3 || n % 3 != 0);
            }
        }
        world.epoch_passes();
    }
    world.assert_certified();
    let certified = world.nodes[0].council.certified(world.epoch()).unwrap();
    assert_eq!(certified.tip.electorate().rank(node(4)), None);
    assert!(certified.tip.electorate().rank(node(0)).is_some());
    assert!(certified.state.standings.of(&node(4)) < THRESHOLD);
}

#[test]
fn false_links_move_nothing_and_cost_the_sender() {
    let mut world = World::new(4, 4);
    (0..2).for_each(|_| world.epoch_passes());
    let links = world.nodes[0].council.links(Epoch(0), usize::MAX).0;
    let link = |at: usize| Link::from_bytes(&links[at]).unwrap();
    let mut forged = link(0);
    forged.certificate.statement.root[0] ^= 1;
    let mut wrong = link(0);
    wrong.electorate = world.nodes[0].council.genesis_electorate().unwrap();
    for (links, accused) in [(vec![forged], 1), (vec![wrong], 1), (vec![link(1)], 0)] {
        let mut joiner = council(&world.network, 9, &Disk::default(), world.now);
        joiner.handle_links(node(66), links, false, world.now);
        let outputs: Vec<_> = std::iter::from_fn(|| joiner.poll_output()).collect();
        let found = outputs.iter().filter(|output| **output == Output::Misbehaved(node(66))).count();
        assert_eq!((joiner.last_certified(), found), (Epoch(0), accused));
    }
}

#[test]
fn a_seat_is_verified_from_public_data() {
    let mut world = World::new(5, 4);
    (0..3).for_each(|_| world.epoch_passes());
    let epoch = world.epoch();
    let council = &mut world.nodes[0].council;
    let proof = council.verify_seat(&node(2), epoch).unwrap();
    assert!(proof.is_valid && proof.lot.is_some() && proof.seat.is_some());
    // The fifth has no stake, hence no seat; its ticket is as good as any.
    let proof = council.verify_seat(&node(4), epoch).unwrap();
    assert_eq!((proof.is_valid, proof.seat), (true, None));
    assert_eq!(council.verify_seat(&node(40), epoch), None);
    assert_eq!(council.verify_seat(&node(2), Epoch(5)), None);
}

#[test]
fn more_relays_without_stake_than_anybody_holds_do_not_stop_it() {
    let mut world = World::new(7, 7);
    for _ in 0..3 {
        let (epoch, now) = (world.epoch(), world.now);
        let sybils: Vec<_> = (100..150)
            .map(|n| sign_candidate(n, (&facts(n, epoch), &Candidacy::default()), epoch, now.unix.0, now.unix))
            .collect();
        // Everybody met others first, and has no room for the rest.
        for (at, node) in world.nodes.iter_mut().enumerate() {
            for sybil in sybils.iter().cycle().skip(7 * at).take(sybils.len()) {
                let _full = node.live.handle_descriptor(sybil.as_bytes(), Source::Own, now);
            }
        }
        world.epoch_passes();
        world.assert_certified();
        let certified = world.nodes[0].council.certified(world.epoch()).unwrap();
        assert_eq!((certified.set.count(), certified.tip.electorate().seats().len()), (32, 7));
    }
    assert!(world.nodes.iter().all(|node| node.objections.is_empty()), "{:?}", world.nodes[1].objections);
}

#[test]
fn links_that_lead_nowhere_make_nobody_ask_again_at_once_or_believe_that_there_are_none() {
    let mut world = World::new(4, 4);
    (0..3).for_each(|_| world.epoch_passes());
    let links = world.nodes[0].council.links(Epoch(0), usize::MAX).0;
    let later = Link::from_bytes(&links[2]).unwrap();
    let mut joiner = council(&world.network, 9, &Disk::default(), world.now);
    for _ in 0..100 {
        joiner.handle_links(node(66), vec![later.clone()], true, world.now);
    }
    let asked = std::iter::from_fn(|| joiner.poll_output()).filter(|o| matches!(o, Output::WantLinks { .. })).count();
    assert_eq!((asked, joiner.serving(world.epoch())), (1, Serving::Joining));
    joiner.handle_connected(world.now);
    joiner.handle_timeout(&world.nodes[0].live, world.now);
    assert!(
        std::iter::from_fn(|| joiner.poll_output()).any(|o| matches!(o, Output::WantLinks { .. })),
        "a new peer may know"
    );
}

#[test]
fn if_all_lose_the_last_set_they_find_it_where_they_signed_for_it() {
    let mut world = World::new(5, 5);
    (0..2).for_each(|_| world.epoch_passes());
    world.publish();
    let schedule = world.network.schedule();
    world.run(schedule.start(world.epoch()).plus(LENGTH * 34 / 48));
    let next = world.epoch().next();
    assert!(world.nodes.iter().all(|node| node.council.certified(next).is_some()));
    for at in 0..5 {
        world.nodes[at].disk.sets.remove(&next);
        world.restart(at);
    }
    // They sign anew when they start: the live set is another one.
    world.publish();
    world.run(schedule.start(next));
    world.assert_certified();
    world.epoch_passes();
    world.assert_certified();
}

#[test]
fn what_this_node_signed_is_not_shown_before_it_is_on_the_disk() {
    let mut world = World::new(4, 4);
    world.nodes[1].disk.is_full = true;
    (0..2).for_each(|_| world.epoch_passes());
    let (ours, theirs) = (&world.nodes[1].council, &world.nodes[0].council);
    assert!(ours.links(Epoch(0), usize::MAX).0.len() < theirs.links(Epoch(0), usize::MAX).0.len());
}

#[test]
fn who_hears_that_nothing_is_certified_makes_its_snapshots_anew() {
    let mut world = World::new(7, 7);
    let now = world.now;
    let council = &mut world.nodes[0].council;
    while council.poll_output().is_some() {}
    assert_eq!(council.serving(FIRST), Serving::Joining);
    for told in [1, 0] {
        council.handle_links(node(1), Vec::new(), false, now);
        let changed = std::iter::from_fn(|| council.poll_output()).filter(|output| matches!(output, Output::Changed));
        assert_eq!((changed.count(), council.serving(FIRST)), (told, Serving::Genesis));
    }
}
