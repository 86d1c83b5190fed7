//! What loops say of the relays that they go through.

use std::{collections::BTreeMap, time::Duration};

use fog_base::NodeId;
use fog_mix::core::{cover::Cover, loops::measuring_rate};

use crate::net::{Net, id};

/// Loops in time, and all, by relay, as `reporter` is told.
fn counts(net: &Net, reporter: u8) -> BTreeMap<NodeId, (u32, u32)> {
    let mut counts = BTreeMap::<_, (u32, u32)>::new();
    for end in &net.nodes[&id(reporter)].loops {
        for hop in &end.hops {
            let (returned, all) = counts.entry(*hop).or_default();
            *returned += u32::from(end.returned);
            *all += 1;
        }
    }
    counts
}

#[test]
fn relays_that_hold_or_drop_packets_are_seen_and_honest_ones_are_not_blamed() {
    let mut net = Net::new(12, 0, Cover::Loops);
    net.node(12).holds = Duration::from_millis(300);
    net.node(11).loses = 0.5;
    let now = net.now;
    for n in 1..=5 {
        net.node(n).endpoint.set_loops(Some(2.0), now);
    }
    net.run(Duration::from_secs(600), |_| false);
    for reporter in 1..=5 {
        let counts = counts(&net, reporter);
        let rate = |n: u8| f64::from(counts[&id(n)].0) / f64::from(counts[&id(n)].1);
        assert!(rate(12) < 0.05 && (0.25..0.75).contains(&rate(11)), "{} {}", rate(12), rate(11));
        // Each of its loops goes through two of the other ten relays: one in ten meets 12, and half of another tenth is lost by 11.
        let honest: Vec<_> = (1..=10).filter(|n| *n != reporter).map(rate).collect();
        assert!(honest.iter().all(|rate| *rate > 0.6), "{honest:?}");
        let end = net.nodes[&id(reporter)].loops.iter();
        let clean = end.filter(|end| !end.hops.contains(&id(11)) && !end.hops.contains(&id(12)));
        let (all, lost) = clean.fold((0, 0), |(all, lost), end| (all + 1, lost + u32::from(!end.returned)));
        assert!(all > 400 && lost == 0, "{lost} of {all}");
        assert!(!counts.contains_key(&id(reporter)));
    }
}

#[test]
fn measuring_loops_give_every_relay_its_number_in_every_epoch_whatever_the_cover() {
    for cover in [Cover::None, Cover::Loops] {
        let mut net = Net::with_epochs(10, 0, cover, (Duration::from_secs(60), 8));
        let now = net.now;
        // Nine others, three on each loop.
        net.node(1).endpoint.set_loops(Some(measuring_rate(3, 16, Duration::from_secs(60))), now);
        net.run(Duration::from_secs(240), |_| false);
        let mut by_epoch = BTreeMap::<_, BTreeMap<NodeId, u32>>::new();
        for end in &net.nodes[&id(1)].loops {
            assert!(end.returned && end.hops.len() == 3);
            let counts = by_epoch.entry(end.epoch).or_default();
            end.hops.iter().for_each(|hop| *counts.entry(*hop).or_default() += 1);
        }
        let whole: Vec<_> = by_epoch.values().skip(1).take(2).collect();
        assert_eq!(whole.len(), 2);
        for counts in whole {
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            assert!(counts.len() == 9 && *least >= 16 && most - least <= 1, "{counts:?}");
        }
    }
}

#[test]
fn a_node_that_is_offline_or_asleep_for_a_while_blames_nobody() {
    let mut net = Net::new(8, 0, Cover::Loops);
    let now = net.now;
    net.node(1).endpoint.set_loops(Some(2.0), now);
    net.run(Duration::from_secs(60), |_| false);
    // Its links lose everything.
    net.loss = 1.0;
    net.run(Duration::from_secs(60), |_| false);
    net.loss = 0.0;
    net.run(Duration::from_secs(60), |_| false);
    let loops = &net.nodes[&id(1)].loops;
    let lost = loops.iter().filter(|end| !end.returned).count();
    assert!(loops.len() > 200 && lost == 0, "{lost} of {}", loops.len());
    assert!(net.nodes[&id(1)].endpoint.loops().2 > 100);
    // The wall clock goes on alone for an hour, and what was on its way is gone.
    net.loss = 1.0;
    net.run(Duration::from_secs(1), |_| false);
    net.loss = 0.0;
    net.start.unix = net.start.unix.plus(Duration::from_secs(600));
    net.run(Duration::from_secs(60), |_| false);
    assert!(net.nodes[&id(1)].loops.iter().all(|end| end.returned));
}
