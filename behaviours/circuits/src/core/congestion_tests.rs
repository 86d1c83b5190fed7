use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// Senders that share one queue of a given rate, on paths of given lengths.
struct Bottleneck {
    senders: Vec<(Congestion, Duration)>,
    cell_time: Duration,
}

impl Bottleneck {
    /// Runs for `time`; says how many cells of each sender arrived in its second half, and the longest queue there.
    fn run(&mut self, time: Duration) -> (Vec<u64>, Duration) {
        let start = Instant::now();
        let mut free = start;
        // When which sender's cell arrives, in order.
        let mut acks = BinaryHeap::new();
        let mut arrived = vec![0; self.senders.len()];
        let mut counts = vec![0u32; self.senders.len()];
        let mut longest = Duration::ZERO;
        let mut now = start;
        let mut next = 0;
        while now < start + time {
            // Round robin, as relays do.
            for _ in 0..self.senders.len() {
                let at = next % self.senders.len();
                next += 1;
                let (congestion, path) = &mut self.senders[at];
                if !congestion.may_send() {
                    continue;
                }
                congestion.handle_sent([at as u8; 16], now);
                free = free.max(now) + self.cell_time;
                if now > start + time / 2 {
                    arrived[at] += 1;
                    longest = longest.max(free - now);
                }
                counts[at] += 1;
                if counts[at].is_multiple_of(SENDME_EVERY) {
                    acks.push(Reverse((free + *path, at)));
                }
            }
            if !self.senders.iter().any(|(congestion, _)| congestion.may_send()) {
                let Reverse((when, at)) = acks.pop().unwrap();
                now = now.max(when);
                self.senders[at].0.handle_sendme(&[at as u8; 16], now).unwrap();
            }
        }
        (arrived, longest)
    }
}

fn bottleneck(paths: &[u64], cells_per_second: u32) -> Bottleneck {
    let senders = paths.iter().map(|ms| (Congestion::default(), Duration::from_millis(*ms))).collect();
    Bottleneck { senders, cell_time: Duration::from_secs(1) / cells_per_second }
}

#[test]
fn a_long_fat_path_is_filled() {
    // 20,000 cells a second (41 MB/s) at 200 ms: 4,000 cells are under way.
    let (arrived, longest) = bottleneck(&[200], 20_000).run(Duration::from_secs(40));
    assert!(arrived[0] > 20_000 * 20 * 9 / 10, "{arrived:?}");
    assert!(longest < Duration::from_millis(30), "{longest:?}");
}

#[test]
fn a_short_path_is_filled_and_its_queue_stays_short() {
    let (arrived, longest) = bottleneck(&[1], 50_000).run(Duration::from_secs(4));
    assert!(arrived[0] > 50_000 * 2 * 9 / 10, "{arrived:?}");
    assert!(longest < Duration::from_millis(15), "{longest:?}");
}

#[test]
fn circuits_that_share_a_relay_get_like_parts() {
    for paths in [[50, 50, 50], [20, 50, 100]] {
        let (arrived, _) = bottleneck(&paths, 20_000).run(Duration::from_secs(60));
        let (least, most) = (arrived.iter().min().unwrap(), arrived.iter().max().unwrap());
        assert!(arrived.iter().sum::<u64>() > 20_000 * 30 * 9 / 10, "{paths:?} {arrived:?}");
        assert!(most < &(least * 2), "{paths:?} {arrived:?}");
    }
}

#[test]
fn no_more_than_the_window_is_ever_under_way_without_acknowledgements() {
    let mut congestion = Congestion::default();
    let now = Instant::now();
    let sent = std::iter::repeat_with(|| {
        let may = congestion.may_send();
        congestion.handle_sent([0; 16], now);
        may
    });
    assert_eq!(sent.take(1000).take_while(|may| *may).count(), INITIAL as usize);
}

#[test]
fn an_acknowledgement_must_name_the_cell_and_come_once() {
    let now = Instant::now();
    let mut congestion = Congestion::default();
    assert_eq!(congestion.handle_sendme(&[0; 16], now), Err(BadSendme));
    (0..SENDME_EVERY).for_each(|_| congestion.handle_sent([7; 16], now));
    let mut other = Congestion::default();
    (0..SENDME_EVERY).for_each(|_| other.handle_sent([7; 16], now));
    assert_eq!(other.handle_sendme(&[6; 16], now), Err(BadSendme));
    assert_eq!(congestion.handle_sendme(&[7; 16], now), Ok(()));
    assert_eq!(congestion.handle_sendme(&[7; 16], now), Err(BadSendme));
}
