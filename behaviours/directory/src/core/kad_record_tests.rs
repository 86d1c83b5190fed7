use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::testing::{EPOCH, NETWORK, facts, node, relay, relay_at, schedule, sign, start};

const RULES: fn() -> Rules = || Rules { network: NETWORK, schedule: schedule() };

fn unknown(_: NodeId) -> Option<u64> {
    None
}

fn check(key: &[u8], value: &[u8]) -> Result<Descriptor, Reject> {
    verify(key, value, unknown, &RULES(), start().unix)
}

fn own_key(descriptor: &Descriptor) -> Key {
    key(&NETWORK, descriptor.relay(), descriptor.epoch())
}

#[test]
fn the_key_is_that_of_the_readme() {
    let bytes = [&NETWORK.0[..], &node(1).0, &EPOCH.0.to_be_bytes()].concat();
    assert_eq!(key(&NETWORK, node(1), EPOCH), blake3::derive_key("fog kad descriptor v1", &bytes));
}

#[test]
fn a_record_under_its_key_is_the_descriptor() {
    let descriptor = relay(1);
    assert_eq!(check(&own_key(&descriptor), descriptor.as_bytes()), Ok(descriptor));
}

#[test]
fn a_record_under_another_relays_or_epochs_key_is_refused() {
    let (one, two) = (relay(1), relay(2));
    assert_eq!(check(&own_key(&two), one.as_bytes()), Err(Reject::WrongKey));
    for epoch in [Epoch(EPOCH.0 - 1), EPOCH.next(), Epoch(0)] {
        assert_eq!(check(&key(&NETWORK, one.relay(), epoch), one.as_bytes()), Err(Reject::WrongKey), "{epoch:?}");
    }
    let foreign = key(&NetworkId([4; 32]), one.relay(), EPOCH);
    assert_eq!(check(&foreign, one.as_bytes()), Err(Reject::WrongKey));
    assert_eq!(check(&[], one.as_bytes()), Err(Reject::WrongKey));
    assert!(Reject::WrongKey.is_misbehaviour());
}

#[test]
fn oversized_records_are_refused_before_they_are_read() {
    let descriptor = relay(1);
    let long = [descriptor.as_bytes(), &vec![0; MAX_LEN]].concat();
    assert_eq!(check(&own_key(&descriptor), &long), Err(Reject::TooLarge));
}

#[test]
fn a_rollback_is_refused_and_the_same_number_is_left_to_the_set() {
    let now = start().unix;
    let descriptor = sign(1, &facts(1, EPOCH), EPOCH, now.0, now);
    let with =
        |newest| verify(&own_key(&descriptor), descriptor.as_bytes(), |_| Some(newest), &RULES(), now).map(|d| d.seq());
    assert_eq!(with(now.0 + 1), Err(descriptor::Reject::Rollback.into()));
    assert_eq!(with(now.0), Ok(now.0), "two descriptors with one number are evidence, not a rollback");
    assert_eq!(with(now.0 - 1), Ok(now.0));
}

#[test]
fn the_dead_and_the_unborn_are_refused_without_blame() {
    let old = relay_at(1, EPOCH);
    let later = schedule().end(EPOCH.next()).plus(Duration::from_secs(1));
    for (descriptor, now) in [(&old, later), (&old, later.plus(Duration::from_secs(86_400)))] {
        let refused = verify(&own_key(descriptor), descriptor.as_bytes(), unknown, &RULES(), now).unwrap_err();
        assert_eq!(refused, descriptor::Reject::Expired.into());
        assert!(!refused.is_misbehaviour());
    }
    let before = schedule().start(EPOCH).minus(Duration::from_secs(120));
    let refused = verify(&own_key(&old), old.as_bytes(), unknown, &RULES(), before).unwrap_err();
    assert_eq!(refused, descriptor::Reject::TooEarly.into());
    for epochs in [2, 100] {
        let before = schedule().start(EPOCH).minus(schedule().length() * epochs);
        let refused = verify(&own_key(&old), old.as_bytes(), unknown, &RULES(), before).unwrap_err();
        assert_eq!(refused, descriptor::Reject::TooEarly.into(), "{epochs} epochs ahead");
        assert!(!refused.is_misbehaviour());
    }
}

#[test]
fn a_relay_has_at_most_two_live_keys() {
    let now = start().unix;
    let valid = (EPOCH.0 - 3..=EPOCH.0 + 3).map(Epoch).filter(|epoch| {
        // Signed when its epoch had just begun.
        let then = schedule().start(*epoch).plus(Duration::from_secs(1));
        let descriptor = sign(1, &facts(1, *epoch), *epoch, then.0, then);
        verify(&own_key(&descriptor), descriptor.as_bytes(), unknown, &RULES(), now).is_ok()
    });
    assert_eq!(valid.collect::<Vec<_>>(), [Epoch(EPOCH.0 - 1), EPOCH]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..=255) {
        let descriptor = relay(1);
        let mut bytes = descriptor.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(check(&own_key(&descriptor), &bytes).is_err());
    }

    #[test]
    fn whatever_comes_is_refused_or_stands_under_its_own_key(
        key in prop::collection::vec(any::<u8>(), 0..40),
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(check(&key, &value).is_err());
        prop_assert!(check(&key, relay(1).as_bytes()).is_err());
    }
}
