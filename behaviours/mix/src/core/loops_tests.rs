use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::core::delay::{exponential, uniform};

const KNOWN: Duration = Duration::from_millis(150);

fn node(n: u16) -> NodeId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&n.to_be_bytes());
    NodeId(id)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Loops that leave every second; the test says what becomes of them.
struct Loops {
    monitor: LoopMonitor,
    now: Instant,
    sent: u64,
    ends: Vec<LoopEnd>,
}

impl Loops {
    fn new() -> Self {
        Self { monitor: LoopMonitor::default(), now: Instant::now(), sent: 0, ends: Vec::new() }
    }

    fn leave(&mut self, hops: &[u16]) -> [u8; 16] {
        self.sent += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.sent.to_be_bytes());
        let hops = hops.iter().map(|n| node(*n)).collect();
        let departure = Departure { id, epoch: Epoch(1), hops, known: KNOWN, expires: self.now + ms(5500) };
        self.monitor.sent(departure, self.now);
        id
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.monitor.handle_timeout(self.now);
        self.ends.extend(std::iter::from_fn(|| self.monitor.poll_end()));
    }

    /// One loop; it is back after its delays and `extra`, or never.
    fn one(&mut self, hops: &[u16], extra: Option<Duration>) {
        let id = self.leave(hops);
        match extra {
            Some(extra) => {
                self.wait(KNOWN + extra);
                assert!(self.monitor.returned(&id, self.now));
                self.wait(ms(1000).saturating_sub(KNOWN + extra));
            }
            None => self.wait(ms(1000)),
        }
    }

    fn good(&mut self, loops: usize) {
        (0..loops).for_each(|_| self.one(&[1, 2, 3], Some(ms(2))));
    }

    fn lost(&self) -> Vec<&LoopEnd> {
        self.ends.iter().filter(|end| !end.returned).collect()
    }
}

#[test]
fn healthy_loss_stays_quiet_and_an_n_minus_1_attack_raises_the_alarm_within_ten_loops() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let run = |loss: f64, loops: usize, seed: u64| {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut monitor = LoopMonitor::default();
        (0..loops).position(|n| {
            let id = [n as u8; 16];
            monitor.sent(Departure { id, epoch: Epoch(1), hops: Vec::new(), known: KNOWN, expires: later }, now);
            if !rng.random_bool(loss) {
                monitor.returned(&id, now + KNOWN);
            }
            monitor.handle_timeout(later);
            monitor.alarm()
        })
    };
    let false_alarms = (0..200).filter(|seed| run(0.02, 200, *seed).is_some()).count();
    assert!(false_alarms < 20, "{false_alarms} of 200 runs of 200 loops");
    assert!((0..100).all(|seed| run(1.0, 10, seed).is_some()));
    let median_at_half = (0..100).filter(|seed| run(0.5, 20, *seed).is_some()).count();
    assert!(median_at_half >= 90, "{median_at_half}");
}

#[test]
fn an_unknown_loop_is_no_evidence() {
    let mut monitor = LoopMonitor::default();
    assert!(!monitor.returned(&[1; 16], Instant::now()));
    assert_eq!((monitor.returned_total(), monitor.poll_end()), (0, None));
}

#[test]
fn a_lost_loop_names_its_relays_and_a_late_or_early_one_is_lost() {
    let mut loops = Loops::new();
    loops.good(20);
    loops.one(&[4, 5, 6], None);
    loops.one(&[7, 8, 9], Some(ms(300)));
    let early = loops.leave(&[10, 11, 12]);
    loops.wait(KNOWN - ms(60));
    assert!(loops.monitor.returned(&early, loops.now));
    loops.good(20);
    let named: Vec<_> = loops.lost().iter().map(|end| end.hops.clone()).collect();
    let expected = [[4, 5, 6], [7, 8, 9], [10, 11, 12]].map(|hops| hops.map(node).to_vec());
    assert_eq!((named, loops.ends.len()), (expected.to_vec(), 43));
    assert_eq!((loops.monitor.returned_total(), loops.monitor.lost_total()), (42, 1), "the alarm counts what came");
    assert!(!format!("{:?}", loops.ends[20]).contains("hops"));
}

/// What `jitter` says is honest: the share of loops that count as lost, after the first hundred.
fn falsely_lost(mut jitter: impl FnMut(&mut ChaCha20Rng) -> Duration) -> f64 {
    let (mut loops, mut rng) = (Loops::new(), ChaCha20Rng::seed_from_u64(11));
    (0..40_000).for_each(|_| loops.one(&[1, 2, 3], Some(jitter(&mut rng))));
    loops.lost().len() as f64 / loops.ends.len() as f64
}

#[test]
fn honest_loops_are_not_lost_whatever_the_line_is_like() {
    let exp = |mean: u64, rng: &mut ChaCha20Rng| exponential(ms(mean), uniform(rng.random()));
    let lines: [(&str, f64); 6] = [
        ("loopback", falsely_lost(|rng| exp(2, rng))),
        ("one jittery link", falsely_lost(|rng| ms(80) + exp(40, rng))),
        ("four jittery links", falsely_lost(|rng| ms(200) + (0..4).map(|_| exp(20, rng)).sum::<Duration>())),
        ("paths of all lengths", falsely_lost(|rng| ms(rng.random_range(40..500)))),
        ("near and far relays", falsely_lost(|rng| if rng.random_bool(0.4) { ms(280) } else { ms(60) } + exp(5, rng))),
        ("a slow line", falsely_lost(|rng| ms(700) + exp(15, rng))),
    ];
    for (line, rate) in lines {
        assert!(rate < 0.001, "{line}: {rate}");
    }
}

#[test]
fn a_relay_that_holds_packets_longer_than_it_claims_loses_nearly_all_loops_and_the_others_lose_few() {
    // Thirty relays in three layers, of which 0 (or 0, 1 and 2) add 300 ms; relays of layer l are l, l + 3, l + 6 …
    for slow in [1u16, 3] {
        let (mut loops, mut rng) = (Loops::new(), ChaCha20Rng::seed_from_u64(4));
        for _ in 0..20_000 {
            let hops = [0, 1, 2].map(|layer| layer + 3 * rng.random_range(0..10));
            let held: Duration = hops.iter().filter(|hop| **hop < slow).map(|_| ms(300)).sum();
            let jitter: Duration = (0..4).map(|_| exponential(ms(3), uniform(rng.random()))).sum();
            loops.one(&hops, Some(held + jitter));
        }
        let through = |relay: u16| loops.ends.iter().filter(move |end| end.hops.contains(&node(relay)));
        let rate =
            |relay: u16| through(relay).filter(|end| end.returned).count() as f64 / through(relay).count() as f64;
        assert!((0..slow).all(|relay| rate(relay) < 0.02), "{slow} slow: {}", rate(0));
        let clean = loops.ends.iter().filter(|end| end.hops.iter().all(|hop| (slow..30).any(|n| node(n) == *hop)));
        let (clean, lost) = clean.fold((0, 0), |(all, lost), end| (all + 1, lost + u32::from(!end.returned)));
        assert!(f64::from(lost) < 0.001 * f64::from(clean), "{slow} slow: {lost} of {clean}");
    }
}

#[test]
fn relays_that_let_loops_go_early_do_not_make_honest_ones_late() {
    let mut loops = Loops::new();
    for _ in 0..200 {
        let early = loops.leave(&[9, 2, 3]);
        loops.wait(ms(40));
        loops.monitor.returned(&early, loops.now);
        loops.one(&[1, 2, 3], Some(ms(200)));
    }
    let (early, honest): (Vec<_>, Vec<_>) = loops.ends.iter().partition(|end| end.hops[0] == node(9));
    assert!(early.iter().all(|end| !end.returned) && honest.iter().all(|end| end.returned));
}

#[test]
fn an_outage_of_this_node_blames_nobody() {
    let mut loops = Loops::new();
    loops.good(20);
    (0..60).for_each(|_| loops.one(&[1, 2, 3], None));
    loops.good(20);
    assert!(loops.lost().is_empty() && loops.monitor.lost_total() == 60 && loops.monitor.alarm());
    assert_eq!(loops.ends.len(), 40);
    // A node that has never been connected does not know.
    let mut loops = Loops::new();
    (0..30).for_each(|_| loops.one(&[1, 2, 3], None));
    loops.good(20);
    assert_eq!((loops.lost().len(), loops.ends.len()), (0, 20));
}

#[test]
fn a_line_that_becomes_slower_blames_nobody() {
    let mut loops = Loops::new();
    loops.good(200);
    (0..400).for_each(|_| loops.one(&[1, 2, 3], Some(ms(250))));
    let (lost, counted) = (loops.lost().len(), loops.ends.len());
    assert!(lost == 0 && counted > 500, "{lost} of {counted}");
}

#[test]
fn half_of_all_loops_lost_is_no_outage() {
    let (mut loops, mut rng) = (Loops::new(), ChaCha20Rng::seed_from_u64(2));
    loops.good(20);
    for _ in 0..2_000 {
        let back = rng.random_bool(0.5).then_some(ms(2));
        loops.one(&[1, 2, 3], back);
    }
    loops.good(20);
    let lost = loops.lost().len();
    assert!(lost > 800, "{lost}");
}

#[test]
fn a_first_hop_that_cannot_be_reached_and_a_sleep_blame_nobody() {
    let mut loops = Loops::new();
    loops.good(20);
    loops.one(&[7, 2, 3], None);
    loops.good(10);
    // It is known ten seconds later.
    loops.monitor.unreachable(&node(7));
    loops.good(20);
    assert_eq!((loops.lost().len(), loops.ends.len()), (0, 50));
    loops.one(&[1, 2, 3], None);
    loops.monitor.slept();
    loops.good(20);
    assert_eq!((loops.lost().len(), loops.ends.len()), (0, 70));
}

#[test]
fn a_first_hop_that_ends_its_link_answers_for_what_it_had_and_for_nothing_later() {
    let mut loops = Loops::new();
    loops.good(20);
    loops.one(&[7, 2, 3], None);
    loops.good(2);
    loops.monitor.disconnected(node(7), loops.now);
    loops.wait(ms(500));
    loops.one(&[7, 5, 6], None);
    loops.monitor.dialling(&node(7));
    loops.good(20);
    let lost: Vec<_> = loops.lost().iter().map(|end| end.hops.clone()).collect();
    assert_eq!((lost, loops.ends.len()), (vec![[7, 2, 3].map(node).to_vec()], 43));
    // One that was never connected has had nothing.
    loops.one(&[8, 2, 3], None);
    loops.monitor.dialling(&node(8));
    loops.good(20);
    assert_eq!((loops.lost().len(), loops.ends.len()), (1, 63));
    (0..9).for_each(|n| loops.monitor.disconnected(node(100 + n), loops.now));
    assert!(loops.monitor.down.is_empty(), "nothing flies to those");
}

#[test]
fn memory_is_bounded_and_each_loop_is_told_once() {
    let mut loops = Loops::new();
    let ids: Vec<_> = (0..MAX_FLIGHTS + 100).map(|_| loops.leave(&[1, 2, 3])).collect();
    assert_eq!(loops.monitor.flights.len(), MAX_FLIGHTS);
    loops.wait(KNOWN);
    let known = ids.iter().filter(|id| loops.monitor.returned(id, loops.now)).count();
    assert_eq!(known, MAX_FLIGHTS);
    assert!(ids.iter().all(|id| !loops.monitor.returned(id, loops.now)));
    loops.wait(ms(1));
    assert_eq!(loops.ends.len(), MAX_FLIGHTS);
    assert!(loops.monitor.flying.is_empty() && loops.monitor.due.is_empty() && loops.monitor.flights.is_empty());
}

#[test]
fn the_rate_gives_each_relay_its_loops_in_nearly_every_epoch() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    for (relays, seconds) in [(5, 60), (80, 1800)] {
        let rate = measuring_rate(relays, 16, Duration::from_secs(seconds));
        let mut short = 0;
        for _ in 0..2_000 {
            let (mut at, mut ticks) = (0.0, 0usize);
            loop {
                at += exponential(Duration::from_secs_f64(1.0 / rate), uniform(rng.random())).as_secs_f64();
                if at > seconds as f64 {
                    break;
                }
                ticks += 1;
            }
            short += usize::from(ticks < relays * 16);
        }
        assert!(short <= 4, "{short} of 2,000 epochs with {relays} relays");
    }
}
