//! Loops: packets that a node sends to itself. They are cover, and they show what relays do.
//!
//! An n−1 attack or a dead relay shows as loops that do not return (Danezis and Sassaman 2003): a CUSUM test raises the alarm.
//! For the relays' standing each loop is judged: it went well if it came back in the time that its delays, which the sender
//! knows, and the network take. What the network takes is estimated from all loops, so that a relay that holds packets longer than
//! it claims loses them, in its standing, and a slow line loses none. Nobody is blamed for what this node did not see: its own
//! outages, its sleep, first hops that it could not reach.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use fog_base::{Epoch, NodeId};

/// Expected loss of a healthy network, and the loss that must raise the alarm.
const HEALTHY_LOSS: f64 = 0.02;
const ALARMING_LOSS: f64 = 0.30;
/// ln of the odds at which the alarm is raised: with healthy loss, one false alarm in more than a thousand loops.
const ALARM_AT: f64 = 6.9;
/// Loops that are remembered at one time; beyond, the oldest is not judged.
const MAX_FLIGHTS: usize = 4096;
/// A lost loop counts only if one of so many before it, and one of so many after it, came back in time.
const NEIGHBOURS: usize = 4;
/// A lost loop is not judged earlier: until then it may turn out that its first hop cannot be reached.
const HOLD: Duration = Duration::from_secs(15);
/// Back earlier than the delays allow by more than this, a loop was let go early. Clocks are read once in a turn of the engine.
const EARLY: Duration = Duration::from_millis(20);

/// Residuals that are remembered, and how many are needed before they are believed.
const WINDOW: usize = 128;
const ENOUGH: usize = 16;
/// The time allowed on top of the delays before there are enough.
const INITIAL: Duration = Duration::from_secs(2);
/// The time allowed beyond the median is the greatest of these: so many median deviations, which of exponential jitter one in
/// 4,000 exceeds; so many medians, as some relays stand farther away than others; and a pause of a busy machine.
const DEVIATIONS: u32 = 16;
const MEDIANS: u32 = 4;
const MARGIN: Duration = Duration::from_millis(50);
/// The longest time allowed.
const MAX: Duration = Duration::from_secs(5);

/// How a loop ended.
#[derive(Clone, PartialEq, Eq)]
pub struct LoopEnd {
    /// The epoch whose keys it used.
    pub epoch: Epoch,
    /// The relays that it went through, in order, without this node.
    pub hops: Vec<NodeId>,
    /// Whether it came back in time.
    pub returned: bool,
}

impl fmt::Debug for LoopEnd {
    /// Without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopEnd").field("returned", &self.returned).finish_non_exhaustive()
    }
}

/// A loop that leaves.
#[derive(Debug)]
pub struct Departure {
    /// Its id.
    pub id: [u8; 16],
    /// The epoch whose keys it uses.
    pub epoch: Epoch,
    /// The relays that it goes through, without this node.
    pub hops: Vec<NodeId>,
    /// The sum of its delays.
    pub known: Duration,
    /// For the alarm it is lost if it is not back by then.
    pub expires: Instant,
}

/// How much later than its delays say a loop may come back: the median of what the last loops took besides, and a margin. Medians, as a few relays that hold packets back must not set what is allowed.
#[derive(Debug, Default)]
struct NetworkTime {
    residuals: VecDeque<Duration>,
    allowance: Option<Duration>,
}

impl NetworkTime {
    fn sample(&mut self, residual: Duration) {
        self.residuals.push_back(residual);
        if self.residuals.len() > WINDOW {
            self.residuals.pop_front();
        }
        if self.residuals.len() >= ENOUGH {
            let middle = median(self.residuals.iter().copied());
            let deviation = median(self.residuals.iter().map(|residual| residual.abs_diff(middle)));
            let margin = (deviation * DEVIATIONS).max(middle * MEDIANS).max(MARGIN);
            self.allowance = Some((middle + margin).min(MAX));
        }
    }

    fn allowance(&self) -> Duration {
        self.allowance.unwrap_or(INITIAL)
    }
}

fn median(values: impl Iterator<Item = Duration>) -> Duration {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Flying,
    InTime,
    Lost,
}

#[derive(Debug)]
struct Flight {
    epoch: Epoch,
    hops: Vec<NodeId>,
    left: Instant,
    known: Duration,
    fate: Fate,
}

/// Loops that are on their way or not judged yet.
#[derive(Debug, Default)]
pub struct LoopMonitor {
    /// In the order in which they left; those that are not to be judged are taken out.
    flights: BTreeMap<u64, Flight>,
    next: u64,
    /// Those on their way: their place in the order, and when they expire.
    flying: BTreeMap<[u8; 16], (u64, Instant)>,
    due: BTreeSet<(Instant, [u8; 16])>,
    /// Whether the last ones that were judged came back in time.
    before: VecDeque<bool>,
    /// When the link to a first hop of flights went down last.
    down: BTreeMap<NodeId, Instant>,
    network_time: NetworkTime,
    ends: VecDeque<LoopEnd>,
    evidence: f64,
    returned: u64,
    lost: u64,
}

impl LoopMonitor {
    /// A loop has left.
    pub fn sent(&mut self, departure: Departure, now: Instant) {
        let Departure { id, epoch, hops, known, expires } = departure;
        let flight = Flight { epoch, hops, left: now, known, fate: Fate::Flying };
        self.flights.insert(self.next, flight);
        self.flying.insert(id, (self.next, expires));
        self.due.insert((expires, id));
        self.next += 1;
        if self.flights.len() > MAX_FLIGHTS {
            self.flights.pop_first();
        }
        if self.flying.len() > MAX_FLIGHTS
            && let Some((_, oldest)) = self.due.pop_first()
        {
            self.flying.remove(&oldest);
        }
    }

    /// A loop came back. False if no such loop is on its way.
    pub fn returned(&mut self, id: &[u8; 16], now: Instant) -> bool {
        let Some((number, expires)) = self.flying.remove(id) else { return false };
        self.due.remove(&(expires, *id));
        self.returned += 1;
        self.weigh(((1.0 - ALARMING_LOSS) / (1.0 - HEALTHY_LOSS)).ln());
        if let Some(flight) = self.flights.get_mut(&number) {
            let took = now.saturating_duration_since(flight.left);
            flight.fate = Fate::Lost;
            if took + EARLY >= flight.known {
                let residual = took.saturating_sub(flight.known);
                if residual <= self.network_time.allowance() {
                    flight.fate = Fate::InTime;
                }
                self.network_time.sample(residual);
            }
        }
        self.judge(now);
        true
    }

    /// Counts the loops whose time has run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.due.first().copied().filter(|(expires, _)| *expires <= now) {
            self.due.pop_first();
            self.lost += 1;
            self.weigh((ALARMING_LOSS / HEALTHY_LOSS).ln());
            let number = self.flying.remove(&id).map(|(number, _)| number);
            if let Some(flight) = number.and_then(|number| self.flights.get_mut(&number)) {
                flight.fate = Fate::Lost;
            }
        }
        self.judge(now);
    }

    /// The link to `peer` has gone down.
    pub fn disconnected(&mut self, peer: NodeId, now: Instant) {
        // Where nothing flies, whatever leaves later leaves since; so there are never more of these than flights.
        let flights = &self.flights;
        let flies = |hop: &NodeId| flights.values().any(|flight| flight.hops.first() == Some(hop));
        self.down.retain(|hop, _| flies(hop));
        if flies(&peer) {
            self.down.insert(peer, now);
        }
    }

    /// `first` is not connected: what has left to it since its link went down waits, and no relay has it. What left before was with a
    /// relay, which does not escape judgement by ending the connection.
    pub fn dialling(&mut self, first: &NodeId) {
        let down = self.down.get(first).copied();
        let waits = |flight: &Flight| {
            let is_to = flight.hops.first() == Some(first) && flight.fate != Fate::InTime;
            is_to && down.is_none_or(|down| flight.left >= down)
        };
        self.flights.retain(|_, flight| !waits(flight));
    }

    /// `first` cannot be reached: what left to it is lost before any relay has it.
    pub fn unreachable(&mut self, first: &NodeId) {
        self.flights.retain(|_, flight| flight.fate == Fate::InTime || flight.hops.first() != Some(first));
    }

    /// The machine has slept: what came meanwhile came to nobody.
    pub fn slept(&mut self) {
        self.flights.retain(|_, flight| flight.fate == Fate::InTime);
    }

    /// Judges the loops in the order in which they left, as far as their ends are known.
    fn judge(&mut self, now: Instant) {
        while let Some((number, flight)) = self.flights.first_key_value() {
            let returned = match flight.fate {
                Fate::Flying => return,
                Fate::InTime => Some(true),
                Fate::Lost if now < flight.left + HOLD => return,
                Fate::Lost => match self.was_connected_after(*number) {
                    None => return,
                    Some(after) => (after && self.before.contains(&true)).then_some(false),
                },
            };
            let Some((_, Flight { epoch, hops, fate, .. })) = self.flights.pop_first() else { return };
            self.before.push_back(fate == Fate::InTime);
            if self.before.len() > NEIGHBOURS {
                self.before.pop_front();
            }
            self.ends.extend(returned.map(|returned| LoopEnd { epoch, hops, returned }));
        }
    }

    /// Whether one of the next loops after this one came back in time; `None` if that is not known yet.
    fn was_connected_after(&self, number: u64) -> Option<bool> {
        let later = self.flights.range(number + 1..).take(NEIGHBOURS).map(|(_, flight)| flight.fate);
        let fates: Vec<_> = later.collect();
        if fates.contains(&Fate::InTime) {
            return Some(true);
        }
        (fates.len() == NEIGHBOURS && !fates.contains(&Fate::Flying)).then_some(false)
    }

    /// The next loop that was judged; to be called until it returns `None` after every other call.
    pub fn poll_end(&mut self) -> Option<LoopEnd> {
        self.ends.pop_front()
    }

    fn weigh(&mut self, log_odds: f64) {
        // Capped, so that an alarm ends soon after the cause does.
        self.evidence = (self.evidence + log_odds).clamp(0.0, 2.0 * ALARM_AT);
    }

    /// Whether so many loops are lost that something holds packets back.
    pub fn alarm(&self) -> bool {
        self.evidence >= ALARM_AT
    }

    /// How many came back, in time or not.
    pub fn returned_total(&self) -> u64 {
        self.returned
    }

    /// How many did not.
    pub fn lost_total(&self) -> u64 {
        self.lost
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let judgement = self.flights.first_key_value().filter(|(_, flight)| flight.fate == Fate::Lost);
        let judgement = judgement.map(|(_, flight)| flight.left + HOLD).filter(|at| *at > now);
        self.due.first().map(|(expires, _)| *expires).into_iter().chain(judgement).min()
    }
}

/// How many loops a second give each relay at least `per_relay` of them in an epoch, if each loop goes through one of the
/// `relays` of the fullest layer, those with the fewest first. The clock is a Poisson process: four standard deviations more.
pub fn measuring_rate(relays: usize, per_relay: u32, epoch: Duration) -> f64 {
    let needed = relays as f64 * f64::from(per_relay);
    (needed + 4.0 * needed.sqrt()) / epoch.as_secs_f64().max(1.0)
}

#[cfg(test)]
#[path = "loops_tests.rs"]
mod tests;
