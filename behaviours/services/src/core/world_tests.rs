use std::time::Duration;

use super::{
    address::Address,
    client::{Connect, Failure},
    descriptor::ClientSecret,
    handshake::SessionKeys,
    introduction::FirstStream,
    reject::Reject,
    service::{Config, DirectoryStatus, State},
    testing::{Fault, Flood, World, relay_id},
};

const MINUTE: Duration = Duration::from_secs(60);

fn address() -> Address {
    Address::new(*World::identity().key())
}

fn hello() -> Option<FirstStream> {
    Some(FirstStream { port: 80, early: b"GET / HTTP/1.1\r\n\r\n".to_vec() })
}

/// A world with a service that is reachable.
fn served(relays: u8, seed: u8) -> World {
    let mut world = World::new(relays, seed);
    world.start(Config::default());
    assert!(world.reachable(MINUTE), "{:?}", world.status());
    world
}

/// The connection's other end is the service's, and it was given the same keys once.
fn assert_met(world: &World, keys: &SessionKeys) {
    let same = world.accepted.iter().filter(|met| met.keys.seed == keys.seed && met.keys.transcript == keys.transcript);
    assert_eq!(same.count(), 1);
}

#[test]
fn a_client_meets_a_service_and_the_request_is_there_already() {
    let mut world = served(20, 1);
    let keys = world.connect(Connect::to(address(), hello())).unwrap();
    assert_met(&world, &keys);
    assert_eq!(world.accepted.last().unwrap().stream, hello());
    world.run(Duration::from_secs(12));
    let status = world.status();
    assert_eq!(status.state, State::Reachable, "{status:?}");
    assert_eq!((status.points.len(), status.directories.len()), (3, 8));
}

#[test]
fn both_ends_have_the_same_keys_and_no_two_connections_do() {
    let mut world = served(20, 2);
    let first = world.connect(Connect::to(address(), None)).unwrap();
    let second = world.connect(Connect::to(address(), None)).unwrap();
    assert_met(&world, &first);
    assert_met(&world, &second);
    assert_ne!(first.seed, second.seed);
}

#[test]
fn a_lookup_finds_the_descriptor_and_builds_nothing_else() {
    let mut world = served(20, 3);
    let before = world.seen.len();
    let id = world.client.connect(Connect { lookup: true, fresh: true, ..Connect::to(address(), None) }, world.now);
    assert!(world.run_until(MINUTE, |world| world.found.contains(&id)));
    let commands: std::collections::BTreeSet<_> = world.seen[before..].iter().map(|(_, command, _)| *command).collect();
    assert_eq!(commands, [crate::wire::command::FETCH].into());
}

#[test]
fn a_service_that_does_not_exist_is_not_found() {
    let mut world = World::new(20, 4);
    assert_eq!(world.connect(Connect::to(address(), None)), Err(Failure::NotFound));
    assert_eq!(Failure::NotFound.socks_reply(), 0xf0);
}

#[test]
fn a_service_that_ended_is_known_to_be_away() {
    let mut world = served(20, 5);
    world.kill_service();
    world.run(Duration::from_secs(1));
    let result = world.connect(Connect::to(address(), None));
    assert_eq!(result, Err(Failure::Introduction));
    assert_eq!(Failure::Introduction.socks_reply(), 0xf2);
}

#[test]
fn a_restarted_service_takes_up_its_points_and_cached_descriptors_stay_true() {
    let mut world = served(20, 6);
    world.connect(Connect::to(address(), None)).unwrap();
    let before: Vec<_> = world.status().points.iter().map(|(relay, _)| *relay).collect();
    world.kill_service();
    world.run(Duration::from_secs(5));
    world.start(Config::default());
    world.run(Duration::from_secs(1));
    let after: Vec<_> = world.status().points.iter().map(|(relay, _)| *relay).collect();
    assert_eq!(before, after);
    // The descriptor is the one of before the restart.
    let keys = world.connect(Connect::to(address(), None)).unwrap();
    assert_met(&world, &keys);
}

#[test]
fn relays_that_end_are_replaced_and_the_service_is_reachable_within_15_seconds() {
    let mut world = served(30, 7);
    for _ in 0..6 {
        let (relay, _) = world.status().points[0];
        world.kill_relay(relay);
        assert!(world.reachable(Duration::from_secs(120)));
        let started = world.now;
        let id = world.client.connect(Connect::to(address(), None), world.now);
        assert!(world.run_until(MINUTE, |world| world.ended.contains_key(&id)));
        assert!(world.ended[&id].is_ok());
        assert!(world.now.mono - started.mono < Duration::from_secs(15));
    }
}

/// How long a connection takes.
fn time(world: &mut World) -> Duration {
    let started = world.now;
    let id = world.client.connect(Connect::to(address(), hello()), world.now);
    assert!(world.run_until(MINUTE, |world| world.ended.contains_key(&id)));
    assert!(world.ended[&id].is_ok(), "{:?}", world.ended[&id]);
    world.now.mono - started.mono
}

#[test]
fn points_and_relays_that_hang_cost_seconds_and_are_tried_last_by_the_next_connection() {
    let (mut slowest, mut beside) = (Duration::ZERO, 0);
    for seed in 50..90 {
        let mut world = served(16, seed);
        let answered = world.accepted.len();
        let points: Vec<_> = world.status().points.into_iter().map(|(relay, _)| relay).collect();
        // Circuits to two of the three points, and to a third of all others, hang.
        let spared = points[seed as usize % 3];
        let others: Vec<_> = world.relays.keys().copied().filter(|relay| !points.contains(relay)).collect();
        let hang = points.iter().filter(|relay| **relay != spared).chain(others.iter().step_by(3)).copied();
        hang.for_each(|relay| _ = world.faults.insert(relay, Fault::Hangs));
        let (first, second) = (time(&mut world), time(&mut world));
        assert_eq!(world.accepted.len(), answered + 2, "the service was introduced to once by each");
        slowest = slowest.max(first).max(second);
        beside += usize::from(second < Duration::from_secs(2));
    }
    // Without another one beside them a rendezvous and two points would be 30 s.
    assert!(slowest < Duration::from_secs(25), "{slowest:?}");
    assert!(beside >= 18, "{beside} of 40 second connections met nothing that hangs");
}

/// The relays of the points, and the keys on disk.
fn points(world: &World) -> (Vec<fog_base::NodeId>, Vec<Vec<u8>>) {
    let keys = world.disk.keys().filter(|key| key[0] == b'p').cloned().collect();
    (world.status().points.iter().map(|(relay, _)| *relay).collect(), keys)
}

#[test]
fn an_outage_of_its_own_link_costs_a_service_no_point() {
    for minutes in [1, 60] {
        let mut world = served(20, 30);
        let before = points(&world);
        world.set_outage(true);
        world.run(minutes * MINUTE);
        assert!(world.status().points.iter().all(|(_, is_there)| !is_there));
        assert_eq!(points(&world), before, "after {minutes} minutes");
        world.set_outage(false);
        let all = |world: &World| world.status().points.iter().all(|(_, is_there)| *is_there);
        assert!(world.run_until(Duration::from_secs(15), all), "{:?}", world.status());
        assert_eq!(points(&world), before);
        // The descriptor of before the outage is true still.
        let keys = world.connect(Connect::to(address(), None)).unwrap();
        assert_met(&world, &keys);
    }
}

#[test]
fn points_whose_relays_all_end_at_once_are_replaced() {
    // Nothing else of the service shows that its link works: it looks.
    let mut world = served(20, 31);
    let (before, _) = points(&world);
    before.iter().for_each(|relay| world.kill_relay(*relay));
    world.run(MINUTE);
    let (after, _) = points(&world);
    assert!(after.iter().all(|relay| !before.contains(relay)), "{before:?} {after:?}");
    assert!(world.status().points.iter().all(|(_, is_there)| *is_there));
}

#[test]
fn periods_turn_and_the_service_stays_reachable() {
    let mut world = served(20, 8);
    // From 10:00 on through midnight, and the next day.
    for hour in 0..30 {
        world.run(Duration::from_secs(3600));
        let result = world.connect(Connect::to(address(), None));
        assert!(result.is_ok(), "hour {hour}: {result:?}");
    }
    assert!(world.disk.keys().filter(|key| key[0] == b'v').count() <= 2);
    // Points were replaced after 18 to 24 hours: keys and logs of the old ones are gone.
    assert_eq!(world.disk.keys().filter(|key| key[0] == b'p').count(), 3);
}

#[test]
fn clients_behind_hostile_directories_find_the_service_still() {
    for fault in [Fault::Refuses, Fault::Silent, Fault::Forgets, Fault::Garbage, Fault::Stale] {
        let mut world = served(20, 9);
        let key = super::blinding::BlindedKey::derive::<super::blinding::Fog>(
            address().key(),
            &super::testing::calendar().context(world.ring().period()),
        );
        let directories = world.ring().directories(&key);
        for relay in directories.iter().take(5) {
            world.faults.insert(*relay, fault);
        }
        let result = world.connect(Connect { fresh: true, ..Connect::to(address(), None) });
        assert!(result.is_ok(), "{fault:?}: {result:?}");
    }
}

#[test]
fn a_directory_that_forgets_what_it_stored_is_noticed() {
    let mut world = World::new(20, 10);
    for n in 1..=20 {
        world.faults.insert(relay_id(n), Fault::Forgets);
    }
    world.start(Config::default());
    world.run(Duration::from_secs(40));
    let status = world.status();
    assert!(status.directories.iter().all(|directory| directory.lies > 0 && directory.shown.is_none()), "{status:?}");
    assert!(status.state < State::Degraded, "it must not claim to be reachable: {status:?}");
}

#[test]
fn a_directory_that_rolls_back_is_noticed() {
    let mut world = World::new(20, 11);
    for n in 1..=10 {
        world.faults.insert(relay_id(n), Fault::Stale);
    }
    world.start(Config::default());
    world.run(Duration::from_secs(3 * 3600));
    let status = world.status();
    type Statuses<'a> = Vec<&'a DirectoryStatus>;
    let (stale, honest): (Statuses<'_>, Statuses<'_>) =
        status.directories.iter().partition(|directory| directory.relay.0[0] <= 10);
    assert!(stale.iter().all(|directory| directory.lies > 0), "{stale:?}");
    assert!(honest.iter().all(|directory| directory.lies == 0 && directory.shown.is_some()), "{honest:?}");
    // A client that knows the newer revision does not take the older one.
    let client = world.client.rejects().get(Reject::RolledBack);
    for _ in 0..10 {
        assert!(world.connect(Connect { fresh: true, ..Connect::to(address(), None) }).is_ok());
    }
    assert!(world.client.rejects().get(Reject::RolledBack) + world.client.rejects().get(Reject::WrongTime) > client);
}

#[test]
fn a_replayed_introduction_is_answered_once() {
    let mut world = World::new(20, 12);
    for n in 1..=20 {
        world.faults.insert(relay_id(n), Fault::Replays);
    }
    world.start(Config::default());
    assert!(world.reachable(MINUTE));
    let (accepted, replayed) = (world.accepted.len(), world.service.as_ref().unwrap().rejects().get(Reject::Replayed));
    let keys = world.connect(Connect::to(address(), hello())).unwrap();
    world.run(Duration::from_secs(5));
    assert_met(&world, &keys);
    assert_eq!(world.accepted.len(), accepted + 1);
    assert_eq!(world.service.as_ref().unwrap().rejects().get(Reject::Replayed), replayed + 4);
}

#[test]
fn an_introduction_replayed_after_a_crash_is_refused() {
    let mut world = served(20, 13);
    world.connect(Connect::to(address(), hello())).unwrap();
    world.run(Duration::from_secs(1));
    let introductions = world.seen.iter().filter(|(_, command, _)| *command == crate::wire::command::INTRODUCE1);
    let recorded: Vec<_> = introductions.cloned().collect();
    // Killed: nothing but the disk is left.
    world.kill_service();
    world.start(Config::default());
    world.run(Duration::from_secs(2));
    let accepted = world.accepted.len();
    let mut refused = 0;
    for (relay, _, body) in recorded {
        let before = world.service.as_ref().unwrap().rejects().get(Reject::Replayed);
        world.inject_introduction(relay, &body);
        world.run(Duration::from_secs(1));
        refused += world.service.as_ref().unwrap().rejects().get(Reject::Replayed) - before;
    }
    assert!(refused > 0);
    assert_eq!(world.accepted.len(), accepted);
}

#[test]
fn the_row_of_an_introduction_is_on_disk_before_its_rendezvous_is_built() {
    let mut world = served(20, 14);
    for _ in 0..5 {
        world.connect(Connect::to(address(), None)).unwrap();
    }
    // Each circuit was asked for when at least as many rows were written as introductions answered, itself included.
    for (n, rows) in world.rows_at_rendezvous.iter().enumerate() {
        assert!(*rows > n, "circuit {n}: {rows} rows");
    }
    assert!(world.rows_at_rendezvous.len() >= 6);
}

#[test]
fn points_and_rendezvous_that_flip_bits_do_not_stop_a_client() {
    let mut world = served(20, 15);
    let (hostile, _) = world.status().points[0];
    world.faults.insert(hostile, Fault::Flips);
    for n in 1..=5 {
        world.faults.insert(relay_id(n), Fault::Flips);
    }
    for _ in 0..5 {
        let keys = world.connect(Connect::to(address(), None)).unwrap();
        assert_met(&world, &keys);
    }
}

#[test]
fn lost_messages_delay_and_do_not_break() {
    let mut world = served(20, 16);
    world.loss = 50;
    let results: Vec<_> = (0..20).map(|_| world.connect(Connect::to(address(), None))).collect();
    let met = results.iter().flatten().inspect(|keys| assert_met(&world, keys)).count();
    assert!(met >= 19, "{met} of 20");
}

#[test]
fn a_client_that_is_not_admitted_is_told_so() {
    let secret = |n| ClientSecret::from_bytes([n; 32]);
    let mut world = World::new(20, 17);
    world.start(Config { clients: Some(vec![secret(1).public(), secret(2).public()]), ..Config::default() });
    world.run(MINUTE);
    let connect = |client| Connect { client, fresh: true, ..Connect::to(address(), None) };
    assert_eq!(world.connect(connect(None)), Err(Failure::ClientKeyMissing));
    assert_eq!(world.connect(connect(Some(secret(3)))), Err(Failure::ClientKeyWrong));
    assert!(world.connect(connect(Some(secret(1)))).is_ok());
    assert!(world.connect(connect(Some(secret(2)))).is_ok());
    // Removed: its points are gone too.
    let now = world.now;
    world.service.as_mut().unwrap().set_clients(Some(vec![secret(2).public()]), now);
    world.run(MINUTE);
    assert_eq!(world.connect(connect(Some(secret(1)))), Err(Failure::ClientKeyWrong));
    let cached = Connect { client: Some(secret(1)), ..Connect::to(address(), None) };
    assert_eq!(world.connect(cached), Err(Failure::ClientKeyWrong));
    assert!(world.connect(connect(Some(secret(2)))).is_ok());
}

/// 1,000 introductions a second, well formed and worthless, and a client each second.
fn flooded(config: Config, seconds: u32) -> (World, Flood) {
    let mut world = World::new(20, 18);
    world.start(config);
    assert!(world.reachable(MINUTE));
    let flood = world.flood(seconds, 1000, |world| world.client.connect(Connect::to(address(), None), world.now));
    (world, flood)
}

#[test]
fn under_a_flood_clients_that_pay_are_served() {
    let (world, flood) = flooded(Config::default(), 20);
    assert!(flood.legitimate >= 12, "{flood:?}");
    assert!(flood.within_5s * 100 >= flood.legitimate * 95, "{flood:?}");
    assert!(world.status().effort > 0, "{:?}", world.status());
}

#[test]
fn under_a_flood_without_a_puzzle_they_are_not() {
    // The test above can fail.
    let (_, flood) = flooded(Config { puzzle: None, ..Config::default() }, 16);
    assert!(flood.within_5s * 100 < flood.legitimate * 95, "{flood:?}");
}

#[test]
fn no_relay_sees_a_name_with_a_place() {
    let mut world = served(20, 19);
    world.connect(Connect::to(address(), hello())).unwrap();
    let name = *address().key().as_bytes();
    let blinded: Vec<_> = (0..3)
        .map(|n| {
            let period = super::period::Period(world.ring().period().0 - 1 + n);
            let context = super::testing::calendar();
            *super::blinding::BlindedKey::derive::<super::blinding::Fog>(address().key(), &context.context(period))
                .as_bytes()
        })
        .collect();
    let holds = |body: &[u8], what: &[u8]| body.windows(what.len()).any(|window| window == what);
    for (relay, command, body) in &world.seen {
        assert!(!holds(body, &name), "{relay} {command}");
        let directory = (80..96).contains(command);
        assert!(directory || !blinded.iter().any(|key| holds(body, key)), "{relay} {command}");
        assert!(!holds(body, b"GET / HTTP"), "{relay} {command}");
    }
}
