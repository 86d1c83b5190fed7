//! The services that are introduced here.

use std::{collections::BTreeMap, time::Instant};

use fog_base::TokenBucket;

use crate::{
    core::{circuit::Circuit, reject::Reject},
    wire::EstablishIntro,
};

/// Services at one relay.
pub const MAX_POINTS: usize = 4096;
/// Introductions a second that a service may ask for at most.
pub const LIMIT_RATE: u16 = 500;
/// And at once.
pub const LIMIT_BURST: u16 = 1000;

/// What a service gets that does not say.
const DEFAULT: (u16, u16) = (200, 400);

#[derive(Debug)]
struct Point {
    circuit: Circuit,
    bucket: TokenBucket,
}

#[derive(Debug, Default)]
pub(super) struct IntroductionPoints {
    by_key: BTreeMap<[u8; 32], Point>,
    by_circuit: BTreeMap<Circuit, [u8; 32]>,
}

impl IntroductionPoints {
    /// The signature was checked. Gives the circuit that had this key before.
    pub(super) fn establish(
        &mut self,
        circuit: Circuit,
        establish: &EstablishIntro,
        now: Instant,
    ) -> Result<Option<Circuit>, Reject> {
        let key = establish.auth_key;
        if self.by_circuit.get(&circuit).is_some_and(|known| *known != key) {
            return Err(Reject::Unexpected);
        }
        if self.by_key.len() >= MAX_POINTS && !self.by_key.contains_key(&key) {
            return Err(Reject::Full);
        }
        let limit =
            |wanted: u16, default: u16, most: u16| f64::from(if wanted == 0 { default } else { wanted.min(most) });
        let rate = limit(establish.rate, DEFAULT.0, LIMIT_RATE);
        let burst = limit(establish.burst, DEFAULT.1, LIMIT_BURST);
        let point = Point { circuit, bucket: TokenBucket::new(rate, burst, now) };
        let before = self.by_key.insert(key, point).map(|before| before.circuit).filter(|before| *before != circuit);
        before.map(|before| self.by_circuit.remove(&before));
        self.by_circuit.insert(circuit, key);
        Ok(before)
    }

    /// To whom an introduction goes.
    pub(super) fn introduce(&mut self, key: &[u8; 32], now: Instant) -> Result<Circuit, Reject> {
        let point = self.by_key.get_mut(key).ok_or(Reject::Unknown)?;
        if point.bucket.try_take(now) { Ok(point.circuit) } else { Err(Reject::RateLimited) }
    }

    pub(super) fn closed(&mut self, circuit: Circuit) {
        if let Some(key) = self.by_circuit.remove(&circuit) {
            self.by_key.remove(&key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
