use super::*;
use crate::core::{
    beacon::SetBeacon,
    certificate::{
        Statement,
        ballot::{Phase, Round},
        judgement,
    },
    descriptor::{Candidacy, Facts},
    loops::{LoopEntry, SignedLoops},
    standing::{START, THRESHOLD},
    testing::{EPOCH, NETWORK, facts, node, schedule, sign_candidate, vrf},
};

const RELAYS: u16 = 12;

fn rules() -> Rules {
    let stakes: BTreeMap<_, _> = (0..RELAYS).map(|n| (node(n), 100)).collect();
    Rules { network: NETWORK, stakes: Box::new(stakes), beacon: Box::new(SetBeacon) }
}

/// A network, certified set after certified set, whatever its relays put into their descriptors.
struct World {
    rules: Rules,
    tickets: Tickets,
    last: Option<Certified>,
}

impl World {
    fn new() -> Self {
        Self { rules: rules(), tickets: Tickets::default(), last: None }
    }

    fn next(&self) -> Epoch {
        self.last.as_ref().map_or(EPOCH, |last| last.epoch().next())
    }

    /// The descriptor of relay `n` for the next set, with the VRF key `key`.
    fn descriptor(&self, n: u16, key: u16, loops: Option<SignedLoops>) -> Arc<Descriptor> {
        let (epoch, beacon) = (self.next(), self.rules.beacon(self.next(), self.last.as_ref()));
        let lottery = Lottery { network: &NETWORK, epoch, beacon: &beacon };
        let ticket = lottery::prove(&vrf(key), &node(n), &lottery, &[1; 32]);
        let now = schedule().start(Epoch(epoch.0 - 1));
        let facts = Facts { family: None, ..facts(n, Epoch(epoch.0 - 1)) };
        let contents = Candidacy { ticket: Some(ticket), loops };
        if key == n {
            return Arc::new(sign_candidate(n, (&facts, &contents), Epoch(epoch.0 - 1), now.0, now));
        }
        let (identity, vrf) = (crate::core::testing::identity(n), vrf(key));
        let (network, place) = ((&NETWORK, &schedule()), (Epoch(epoch.0 - 1), now.0));
        Arc::new(Descriptor::sign((&identity, &vrf), network, (&facts, &contents), place, now, &[1; 32]).unwrap())
    }

    fn certify(&mut self, set: Vec<Arc<Descriptor>>) -> &Certified {
        let (epoch, set) = (self.next(), Arc::new(NamedSet::new(set)));
        let Successor { electorate, state } =
            self.rules.follow(self.last.as_ref(), epoch, &set, &mut self.tickets).unwrap();
        let previous = self.last.as_ref().map_or([0; 32], |last| last.tip.hash());
        let statement: Statement = judgement::state(
            epoch,
            previous,
            &set,
            &Successor { electorate: electorate.clone(), state: state.clone() },
        );
        let tip = Tip::from_store(&NETWORK, statement, electorate).unwrap();
        let certificate = Quorum { phase: Phase::Commit, round: Round::NEVER, statement, signatures: vec![] };
        let signed = Signed { signatures: 0, weight: 0, total: 0 };
        self.last.insert(Certified { tip, certificate, signed, set, state })
    }

    fn honest(&self, relays: impl IntoIterator<Item = u16>) -> Vec<Arc<Descriptor>> {
        relays.into_iter().map(|n| self.descriptor(n, n, None)).collect()
    }

    fn is_seated(&self, n: u16) -> bool {
        self.last.as_ref().unwrap().tip.electorate().rank(node(n)).is_some()
    }
}

#[test]
fn everybody_computes_the_same_seats_and_layers_from_a_set() {
    let (mut a, mut b) = (World::new(), World::new());
    for _ in 0..3 {
        let set = a.honest(0..RELAYS);
        let ours = a.certify(set.clone()).clone();
        let theirs = b.certify(set.into_iter().rev().collect()).clone();
        assert_eq!(ours, theirs);
        let seats = ours.seats().0;
        let in_layer = |layer| seats.values().filter(|(_, of)| *of == Some(layer)).count();
        assert_eq!([0, 1, 2].map(in_layer), [4, 4, 4]);
    }
    assert_ne!(a.rules.beacon(EPOCH, None), a.last.unwrap().state.beacon);
}

#[test]
fn relays_without_stake_are_in_the_set_and_never_seated() {
    let mut world = World::new();
    let set = world.honest(0..RELAYS + 40);
    let certified = world.certify(set);
    assert_eq!((certified.set.count(), certified.tip.electorate().seats().len()), (52, 12));
    let seats = certified.seats().seat(EPOCH, certified.set.relays());
    assert_eq!(seats.iter().filter(|seat| seat.weight == 0 && seat.layer.is_none()).count(), 40);
}

#[test]
fn a_newcomer_and_a_new_key_wait_until_they_stood_in_two_sets() {
    let mut world = World::new();
    let set = world.honest(0..11);
    world.certify(set);
    for (age, seated) in [(0, false), (1, false), (2, true)] {
        let set = world.honest(0..12);
        world.certify(set);
        assert_eq!(world.is_seated(11), seated, "in the {age}th set after its first");
    }
    // Relay 3 takes another key, as if it had seen what its old one would draw.
    for seated in [false, false, true] {
        let mut set = world.honest((0..12).filter(|n| *n != 3));
        set.push(world.descriptor(3, 103, None));
        world.certify(set);
        assert_eq!(world.is_seated(3), seated);
    }
}

#[test]
fn a_ticket_of_another_beacon_epoch_or_key_wins_nothing() {
    let mut world = World::new();
    let set = world.honest(0..RELAYS);
    world.certify(set.clone());
    let stale = set[2].clone(); // its ticket is of the set before
    let mut next = world.honest((0..RELAYS).filter(|n| *n != node_of(&stale)));
    next.push(stale.clone());
    world.certify(next);
    assert!(!world.is_seated(node_of(&stale)));
    assert_eq!(world.last.unwrap().tip.electorate().seats().len(), 11);
}

fn node_of(descriptor: &Descriptor) -> u16 {
    (0..RELAYS).find(|n| node(*n) == descriptor.relay()).unwrap()
}

#[test]
fn a_relay_that_the_seats_report_as_lossy_loses_its_seat() {
    let mut world = World::new();
    let set = world.honest(0..RELAYS);
    world.certify(set);
    let mut epochs = 0;
    while world.is_seated(4) {
        let last = world.last.as_ref().unwrap();
        let electorate = last.tip.electorate();
        let report = |reporter: u16| {
            let about = |rank: u16| electorate.seats()[usize::from(rank)].node;
            let entry = |rank: u16| {
                let lost = if about(rank) == node(4) { 10 } else { 1 };
                LoopEntry { rank, delivered: 50 - lost, lost }
            };
            let others = (0..RELAYS).filter(|rank| about(*rank) != node(reporter));
            SignedLoops::new(last.epoch(), others.map(entry).collect())
        };
        let set = (0..RELAYS).map(|n| world.descriptor(n, n, report(n))).collect();
        world.certify(set);
        epochs += 1;
        assert!(epochs < 10);
    }
    let last = world.last.unwrap();
    assert!(last.state.standings.of(&node(4)) < THRESHOLD);
    assert!((0..RELAYS).filter(|n| *n != 4).all(|n| last.state.standings.of(&node(n)) >= START));
}

#[test]
fn a_set_in_which_nobody_can_be_seated_is_an_error() {
    let mut world = World::new();
    let strangers = world.honest(20..25);
    let set = NamedSet::new(strangers);
    assert_eq!(world.rules.follow(None, EPOCH, &set, &mut world.tickets), Err(ElectorateError::Empty));
}
