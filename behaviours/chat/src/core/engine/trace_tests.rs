use std::time::Duration;

use super::{Refusal, Transport, testing::World};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_trace_tells_the_ways_and_what_is_under_way() {
    let mut world = World::new(94, 2);
    world.connect(0, 1);
    let direct = world.befriend(0, 1);
    let name = world.chat(0).contacts().remove(0).name;
    let trace = |world: &World| world.chat(0).trace(&name).unwrap();
    world.say(0, direct, "one");
    world.run(30 * SECOND);
    let met = trace(&world);
    assert!(met.connected.is_some() && !met.has_written && met.last_via.is_some() && !met.ways.is_empty(), "{met:?}");
    assert_eq!((met.waiting, met.under_way), (0, 0));
    world.disconnect(0, 1);
    world.say(0, direct, "two");
    let away = trace(&world);
    assert_eq!((away.connected, away.under_way), (None, 1));
    assert!(!away.ways.contains(&Transport::Direct) && !away.ways.contains(&Transport::Lan), "{away:?}");
    assert_eq!(world.chat(0).trace("nobody"), Err(Refusal::Unknown("nobody".into())));
}
