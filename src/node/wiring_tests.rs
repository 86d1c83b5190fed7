use fog_base::{UnixMillis, relay::Role};

use super::*;
use crate::node::clock;

const NETWORK: &str = "/fog/0000000000000000/id/1";
const KAD: &str = "/fog/0000000000000000/kad/1";

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(60))
}

fn start() -> Now {
    Now { unix: UnixMillis(1_800_000_000_000), ..clock::now() }
}

fn wiring(roles: Roles) -> Wiring {
    let identity = Identity {
        me: PeerId::random(),
        network_id: fog_base::NetworkId([4; 32]),
        network: NETWORK.into(),
        kad: KAD.into(),
        schedule: schedule(),
        roles,
        seal_key: [1; 32],
        circuit_key: [2; 32],
        exit_policy: None,
        capacity: 100,
        max_connections: 16,
    };
    Wiring::new(identity, &[], start())
}

fn mix() -> Roles {
    Roles::NONE.with(Role::Mix)
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn listen(wiring: &mut Wiring, text: &str) {
    wiring.handle(Event::Listening(address(text)), start());
}

fn inbound(wiring: &mut Wiring, n: usize, now: Now) -> (PeerId, Vec<Action>) {
    let peer = PeerId::random();
    let event = Event::Connected {
        peer,
        connection: ConnectionId::new_unchecked(n),
        remote: address("/ip4/127.0.0.1/tcp/5"),
        inbound_at: Some(address("/ip4/127.0.0.1/tcp/1")),
    };
    let actions = wiring.handle(event, now);
    (peer, actions)
}

fn identified(peer: PeerId, network: &str, protocols: &[&str]) -> Event {
    Event::Identified {
        peer,
        network: network.into(),
        agent: "fog/1".into(),
        addresses: vec![address("/ip4/127.0.0.1/tcp/9"), address("/ip6/fe80::1/tcp/9")],
        protocols: protocols.iter().map(ToString::to_string).collect(),
    }
}

fn keys(epoch: Epoch) -> Vec<(Epoch, [u8; 32])> {
    vec![(epoch, [7; 32]), (epoch.next(), [8; 32])]
}

fn described(actions: &[Action]) -> Option<&Option<(Epoch, Facts)>> {
    actions.iter().find_map(|action| if let Action::Describe(facts) = action { Some(facts) } else { None })
}

#[test]
fn a_node_describes_itself_once_it_is_reachable_and_has_mix_keys() {
    let (mut wiring, epoch) = (wiring(mix()), schedule().at(start().unix));
    listen(&mut wiring, "/ip4/127.0.0.1/tcp/1");
    assert!(described(&wiring.set_mix_keys(keys(epoch), start())).is_none(), "nobody has dialled it yet");
    let (_, actions) = inbound(&mut wiring, 1, start());
    let facts = &described(&actions).unwrap().as_ref().unwrap().1;
    assert_eq!((facts.mix_keys, facts.addresses.len(), facts.roles), ([[7; 32], [8; 32]], 1, mix()));
    assert!(actions.iter().any(|action| matches!(action, Action::Serve(true))));
    assert!(actions.iter().any(|action| matches!(action, Action::Tell(_))));
    let later = start().plus(Duration::from_secs(60));
    assert_eq!(described(&wiring.tick(later)), Some(&None), "without keys of the next epoch it is silent");
    let actions = wiring.set_mix_keys(keys(epoch.next()), later);
    assert_eq!(described(&actions).unwrap().as_ref().unwrap().0, epoch.next());
}

#[test]
fn a_client_tells_where_it_is_and_serves_nothing() {
    let mut wiring = wiring(Roles::NONE);
    listen(&mut wiring, "/ip4/127.0.0.1/tcp/1");
    wiring.set_mix_keys(keys(schedule().at(start().unix)), start());
    let (_, actions) = inbound(&mut wiring, 1, start());
    assert!(matches!(actions.as_slice(), [Action::Tell(_)]), "{actions:?}");
    assert!(!wiring.is_serving());
}

#[test]
fn a_peer_of_another_network_is_disconnected_and_not_counted() {
    let mut wiring = wiring(mix());
    let (stranger, _) = inbound(&mut wiring, 1, start());
    let actions = wiring.handle(identified(stranger, "/ipfs/1", &[KAD]), start());
    assert!(matches!(actions.as_slice(), [Action::Disconnect(peer)] if *peer == stranger), "{actions:?}");
    assert_eq!((wiring.peers.count(), wiring.counts.other_network), (0, 1));
}

#[test]
fn only_a_peer_that_serves_kademlia_is_routed_to_and_only_where_it_can_be_dialled() {
    let mut wiring = wiring(mix());
    let (peer, _) = inbound(&mut wiring, 1, start());
    let actions = wiring.handle(identified(peer, NETWORK, &[]), start());
    assert!(matches!(actions.as_slice(), [Action::Meet { .. }, Action::Unroute(_)]), "{actions:?}");
    let actions = wiring.handle(identified(peer, NETWORK, &[KAD]), start());
    let [Action::Meet { is_lan: true, .. }, Action::Route { addresses, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(addresses, &[address("/ip4/127.0.0.1/tcp/9")]);
    assert_eq!(wiring.peers.count(), 1);
}

#[test]
fn a_peer_on_the_internet_cannot_have_us_dial_into_our_lan() {
    let mut wiring = wiring(mix());
    let connect = |wiring: &mut Wiring, remote: &str| {
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        wiring.handle(Event::Connected { peer, connection, remote: address(remote), inbound_at: None }, start());
        wiring.handle(identified(peer, NETWORK, &[KAD]), start())
    };
    let actions = connect(&mut wiring, "/ip4/8.8.8.8/tcp/1");
    assert!(matches!(actions.as_slice(), [Action::Meet { .. }, Action::Unroute(_)]), "{actions:?}");
    let far = fog_directory::Address::from_bytes(&address("/ip4/9.9.9.9/tcp/1").to_vec()).unwrap();
    let near = fog_directory::Address::from_bytes(&address("/ip4/10.0.0.1/tcp/1").to_vec()).unwrap();
    let relays = [(NodeId([1; 32]), vec![near]), (NodeId([2; 32]), vec![near, far])];
    wiring.set_relays(relays.into_iter(), start());
    let actions = wiring.tick(start().plus(Duration::from_secs(2)));
    let dials: Vec<_> =
        actions.iter().filter_map(|a| if let Action::Dial(dial) = a { Some(dial) } else { None }).collect();
    assert!(dials.iter().all(|dial| dial.addresses == [address("/ip4/9.9.9.9/tcp/1")]), "{dials:?}");
}

#[test]
fn descriptors_are_stored_published_and_forgotten() {
    let mut wiring = wiring(mix());
    let relay = NodeId([4; 32]);
    let mut tell = |event| wiring.handle(Event::Directory(event), start());
    let actions = tell(fog_directory::Event::Persist { relay, bytes: vec![1, 2] });
    let [Action::Store(batch), Action::Keep(kept)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!((batch.changes().len(), *kept), (1, relay));
    let published = tell(fog_directory::Event::Publish(vec![1]));
    assert!(matches!(published.as_slice(), [Action::Publish { topic: Topic::Descriptors, .. }]));
    assert!(matches!(tell(fog_directory::Event::Changed).as_slice(), [Action::Snapshots]));
    assert!(matches!(tell(fog_directory::Event::Forget { relay }).as_slice(), [Action::Store(_), Action::Keep(_)]));
}

#[test]
fn what_nobody_heard_is_published_again_when_there_is_a_peer() {
    let mut wiring = wiring(mix());
    for n in 0..=MAX_UNPUBLISHED {
        wiring.keep_unpublished(Topic::Reputation, vec![n as u8]);
    }
    assert_eq!(wiring.drops.get(DropReason::QueueFull), 1);
    let of_topic = |action: &&Action| matches!(action, Action::Publish { topic: Topic::Reputation, .. });
    let published = |actions: Vec<Action>| actions.iter().filter(of_topic).count();
    assert_eq!(published(wiring.tick(start())), 0);
    let (peer, _) = inbound(&mut wiring, 1, start());
    wiring.handle(identified(peer, NETWORK, &[]), start());
    assert_eq!(published(wiring.tick(start())), MAX_UNPUBLISHED);
    assert_eq!(wiring.unpublished().0, 0);
}

#[test]
fn a_confirmed_loopback_address_is_withheld_by_a_node_on_a_lan() {
    let mut wiring = wiring(mix());
    listen(&mut wiring, "/ip4/127.0.0.1/tcp/1");
    listen(&mut wiring, "/ip4/192.168.1.5/tcp/1");
    let actions = wiring.handle(Event::Confirmed(address("/ip4/127.0.0.1/tcp/1")), start());
    assert!(matches!(actions.as_slice(), [Action::Withhold(_)]), "{actions:?}");
    let actions = wiring.handle(Event::Confirmed(address("/ip4/192.168.1.5/tcp/1")), start());
    assert!(actions.iter().any(|action| matches!(action, Action::Tell(_))), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Withhold(_))), "{actions:?}");
}

#[test]
fn a_crowded_node_lets_old_peers_without_a_role_go() {
    let mut wiring = wiring(mix());
    for n in 0..15 {
        inbound(&mut wiring, n, start());
    }
    let closed = |actions: Vec<Action>| actions.iter().filter(|a| matches!(a, Action::Disconnect(_))).count();
    assert_eq!(closed(wiring.tick(start())), 0, "new peers get their grace");
    assert_eq!(closed(wiring.tick(start().plus(GRACE))), 1, "fourteen of sixteen may stay");
}

#[test]
fn neighbours_are_dialled_when_they_are_found() {
    let mut wiring = wiring(mix());
    let found = (0..4).map(|_| (PeerId::random(), address("/ip4/192.168.1.9/tcp/1"))).collect();
    let dials = |actions: Vec<Action>| actions.iter().filter(|a| matches!(a, Action::Dial(_))).count();
    let at_once = dials(wiring.handle(Event::Found(Finder::MdnsV4, found), start()));
    let later = dials(wiring.tick(start().plus(Duration::from_millis(1600))));
    assert!(at_once + later >= 4, "{at_once} at once, {later} later");
}

#[test]
fn behind_nat_a_node_asks_a_relay_on_the_internet() {
    let mut wiring = wiring(mix());
    listen(&mut wiring, "/ip4/192.168.1.5/tcp/1");
    let peer = PeerId::random();
    let connected = Event::Connected {
        peer,
        connection: ConnectionId::new_unchecked(1),
        remote: address("/ip4/203.0.113.7/tcp/1"),
        inbound_at: None,
    };
    wiring.handle(connected, start());
    let Event::Identified { network, agent, protocols, .. } = identified(peer, NETWORK, &[HOP_PROTOCOL]) else {
        unreachable!()
    };
    let addresses = vec![address("/ip4/203.0.113.7/tcp/1")];
    wiring.handle(Event::Identified { peer, network, agent, addresses, protocols }, start());
    let reserved = |actions: &[Action]| actions.iter().filter(|a| matches!(a, Action::Reserve(_))).count();
    assert_eq!(reserved(&wiring.tick(start())), 0);
    let later = start().plus(RESERVE_AFTER);
    let actions = wiring.tick(later);
    let Some(Action::Reserve(at)) = actions.iter().find(|a| matches!(a, Action::Reserve(_))) else {
        panic!("{actions:?}")
    };
    assert_eq!(at.to_string(), format!("/ip4/203.0.113.7/tcp/1/p2p/{peer}/p2p-circuit"));
    assert_eq!(reserved(&wiring.tick(later)), 0, "once");
}
