//! How much is read of whom. What is cheap to refuse is bounded loosely, a signature check tightly.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use fog_base::TokenBucket;

/// Packets that are opened, a second and at once: each costs some microseconds.
const OPENED: (f64, f64) = (20_000.0, 2_000.0);
/// Signatures that are checked, a second and at once.
const CHECKED: (f64, f64) = (64.0, 256.0);
/// Of those, for one address.
const CHECKED_OF_ONE: (f64, f64) = (16.0, 64.0);
/// Addresses that are told apart; of more, the one heard longest ago starts anew.
const MAX_SOURCES: usize = 256;

#[derive(Debug)]
pub(super) struct Limits {
    opened: TokenBucket,
    checked: TokenBucket,
    sources: BTreeMap<IpAddr, (TokenBucket, Instant)>,
}

fn bucket((rate, burst): (f64, f64), now: Instant) -> TokenBucket {
    TokenBucket::new(rate, burst, now)
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Self { opened: bucket(OPENED, now), checked: bucket(CHECKED, now), sources: BTreeMap::new() }
    }

    /// Whether one more packet may be opened.
    pub(super) fn may_open(&mut self, now: Instant) -> bool {
        self.opened.try_take(now)
    }

    /// Whether one more signature may be checked for a packet from `source`.
    pub(super) fn may_check(&mut self, source: IpAddr, now: Instant) -> bool {
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            let oldest = self.sources.iter().min_by_key(|(_, (_, heard))| *heard).map(|(ip, _)| *ip);
            oldest.map(|ip| self.sources.remove(&ip));
        }
        let (of_one, heard) = self.sources.entry(source).or_insert_with(|| (bucket(CHECKED_OF_ONE, now), now));
        *heard = now;
        // The address's own first: what it may not use is left for others.
        of_one.try_take(now) && self.checked.try_take(now)
    }

    #[cfg(test)]
    pub(super) fn sources(&self) -> usize {
        self.sources.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests start their clocks somewhere")]
    fn one_address_leaves_room_for_others_and_all_together_are_bounded() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        let one = IpAddr::from([10, 0, 0, 1]);
        let granted = |limits: &mut Limits, ip: IpAddr, now| (0..1_000).filter(|_| limits.may_check(ip, now)).count();
        assert_eq!(granted(&mut limits, one, start), 64);
        assert_eq!(granted(&mut limits, IpAddr::from([10, 0, 0, 2]), start), 64);
        let all: usize = (0..10_000_u32).map(|n| granted(&mut limits, Ipv4Addr::from_bits(n).into(), start)).sum();
        assert_eq!(all, 256 - 128);
        assert_eq!(limits.sources(), MAX_SOURCES);
        assert_eq!(granted(&mut limits, one, start + Duration::from_secs(2)), 32);
    }
}
