//! Candidates and demands for tests.

use std::sync::Arc;

use fog_base::NodeId;
use proptest::prelude::*;

use super::{Candidate, Class, Demand};
use crate::core::work::Content;

pub(super) fn node(number: u64) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    NodeId(bytes)
}

pub(super) fn candidate(number: u64) -> Candidate {
    Candidate {
        node: node(number),
        slots: 2,
        room: 4,
        speed: 1e9,
        queue_ms: 0.0,
        in_flight: 0,
        price: 100,
        joules: 10.0,
        reliability: 0.95,
        rtt_ms: 20.0,
        bandwidth: 1e7,
        cached: Arc::new([]),
        is_private: false,
        family: None,
        network: None,
    }
}

pub(super) fn content(number: u8, size: u64) -> Content {
    Content { hash: [number; 32], size }
}

pub(super) fn demand() -> Demand {
    Demand { fuel: 2_000_000_000, contents: vec![content(1, 1_000_000)], ..Demand::default() }
}

/// Numbers as offers may have them: plausible ones mostly, else any.
fn number(most: f64) -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.001..most, 1 => prop::num::f64::ANY, 1 => Just(0.0)]
}

prop_compose! {
    /// Any offer, except for its id.
    fn offer()(
        (slots, room, in_flight) in (0u32..4, 0u32..5, 0u32..4),
        speed in number(1e10),
        queue_ms in number(5e3),
        price in prop_oneof![9 => 0u64..1000, 1 => any::<u64>()],
        joules in number(50.0),
        reliability in number(1.0),
        rtt_ms in number(300.0),
        bandwidth in number(1e8),
        cached in prop::collection::btree_set(0u8..6, 0..4),
        is_private in any::<bool>(),
        family in prop::option::of(0u64..6),
        network in prop::option::of(0u64..6),
    ) -> Candidate {
        let cached = cached.into_iter().map(|number| [number; 32]).collect();
        Candidate {
            slots, room, in_flight, speed, queue_ms, price, joules, reliability, rtt_ms, bandwidth, cached, is_private, family, network,
            ..candidate(0)
        }
    }
}

/// Up to `most` candidates with ids of their own.
pub(super) fn candidates(most: usize) -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(offer(), 0..most).prop_map(|mut all| {
        all.iter_mut().enumerate().for_each(|(number, candidate)| candidate.node = node(number as u64));
        all
    })
}

prop_compose! {
    pub(super) fn any_demand()(
        fuel in prop_oneof![9 => 0u64..20_000_000_000, 1 => any::<u64>()],
        contents in prop::collection::vec((0u8..6, prop_oneof![9 => 0u64..10_000_000, 1 => any::<u64>()]), 0..4),
        deadline_ms in prop::option::of(0u64..60_000),
        class in prop_oneof![Just(Class::BestEffort), Just(Class::Standard), Just(Class::Urgent)],
        max_price in prop::option::of(0u64..10_000),
        is_private in any::<bool>(),
    ) -> Demand {
        let contents = contents.into_iter().map(|(number, size)| content(number, size)).collect();
        Demand { fuel, contents, deadline_ms, class, max_price, is_private }
    }
}
