//! Relays that drop or delay, found by the loop reports of the seats, a third of which lie.
//!
//! Each run is a network in which everybody has a seat. Eight honest epochs come first, so that counts and standings are
//! full; then, for ten epochs, some relays misbehave and the liars (the first third, the bad relays among them) say what
//! helps them. Reporters send sixteen loops through each mix in an epoch, over four links.

use fog_base::NodeId;
use fog_directory::core::{
    lottery::{LAYERS, Seated},
    standing::{LoopCount, LoopReport, Seat, Standings, THRESHOLD},
};
use rand::{Rng, RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{
    Run, chance, parallel,
    relays::{Network, Relay},
    stats::{Part, digits, spread},
};
use crate::Check;

/// Loops of a reporter through each mix in an epoch.
const LOOPS: usize = 16;
const LINKS: u32 = 4;
/// The chance that a link loses a packet.
const LOSS: f64 = 0.02;
const HONEST_EPOCHS: u32 = 8;
const EPOCHS: u32 = 10;

/// What a third of the reporters say.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    /// Bad relays are perfect and all honest ones dead.
    Everybody,
    /// Bad relays are perfect and half of the honest ones dead, so that the typical rate does not sink with them.
    Half,
    /// Bad relays and half of the honest ones are perfect, the others dead: the typical rate rises.
    Contrast,
    /// Nothing of bad relays, and all honest ones are dead.
    Silence,
    /// Bad relays are perfect, and of the others the truth.
    Praise,
    /// All but one honest relay are perfect, and that one is dead.
    One,
    /// Of honest relays a little less than the truth.
    Slight,
}

const LIES: [(Lie, &str); 7] = [
    (Lie::Everybody, "all honest are dead"),
    (Lie::Half, "half of the honest are dead"),
    (Lie::Contrast, "half of the honest are perfect, half dead"),
    (Lie::Silence, "silence about the bad, all honest are dead"),
    (Lie::Praise, "the bad are perfect"),
    (Lie::One, "one honest is dead, all others perfect"),
    (Lie::Slight, "the honest lose a tenth"),
];

/// What a bad relay does to packets.
#[derive(Debug, Clone, Copy, Default)]
struct Conduct {
    /// The chance that it drops one.
    drop: f64,
    /// The chance that it delays one beyond its claim, and by how many milliseconds.
    delay: (f64, f64),
}

/// Latencies of the links between relays, and what each reporter allows for them. The rule is that of fog-mix: the median of
/// the last 128 surpluses over the known delays, and the greatest of 16 median deviations, four medians and 50 ms; at
/// most 5 s.
struct Latency {
    /// One way, in milliseconds; of the pair (a, b) at a · count + b.
    base: Vec<f64>,
    /// Of each reporter: its last surpluses, how many it has seen, and what it allows.
    seen: Vec<(Vec<f64>, usize, f64)>,
}

const WINDOW: usize = 128;
/// The median is taken anew after so many loops; fog-mix takes it after each.
const RENEWED: usize = 16;

impl Latency {
    fn new(count: usize, rng: &mut impl Rng) -> Self {
        let base = (0..count * count).map(|_| chance::log_normal(40.0, 0.5, rng).min(300.0)).collect();
        Self { base, seen: vec![(Vec::new(), 0, 2_000.0); count] }
    }

    /// Whether a loop that came back was in time; the reporter learns from it.
    fn is_in_time(&mut self, count: usize, path: &[usize], added: f64, rng: &mut impl Rng) -> bool {
        let reporter = path[0];
        let links = path.iter().zip(path.iter().skip(1).chain([&reporter]));
        // A pair has one latency in both directions.
        let link = |(a, b): (&usize, &usize)| self.base[a.min(b) * count + a.max(b)] + chance::exponential(3.0, rng);
        let took = links.map(link).sum::<f64>() + added;
        let (last, seen, allowed) = &mut self.seen[reporter];
        let in_time = took <= *allowed;
        if last.len() < WINDOW {
            last.push(took)
        } else {
            last[*seen % WINDOW] = took
        }
        *seen += 1;
        if *seen % RENEWED == 0 {
            let middle = median(last.clone());
            let deviation = median(last.iter().map(|took| (took - middle).abs()).collect());
            *allowed = (middle + (16.0 * deviation).max(4.0 * middle).max(50.0)).min(5_000.0);
        }
        in_time
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A network of seats.
struct World<'a> {
    relays: &'a [Relay],
    counts: Vec<LoopCount>,
    standings: Standings,
    /// Of each relay: what it does now.
    conduct: Vec<Conduct>,
    liars: usize,
    is_bad: Vec<bool>,
    /// `None` where nothing is ever late.
    latency: Option<Latency>,
    /// The share of each relay in an epoch's traffic, from its seat's weight.
    traffic: Vec<f64>,
}

impl<'a> World<'a> {
    /// Of the liars, which are the first third, the first `bad` will misbehave.
    fn new(relays: &'a [Relay], bad: usize, latency: Option<Latency>) -> Self {
        let count = relays.len();
        Self {
            relays,
            counts: vec![LoopCount::default(); count * count],
            standings: Standings::default(),
            conduct: vec![Conduct::default(); count],
            liars: count / 3,
            is_bad: (0..count).map(|n| n < bad).collect(),
            latency,
            traffic: vec![0.0; count],
        }
    }

    fn is_fallen(&self, at: usize) -> bool {
        self.standings.of(&self.relays[at].id) < THRESHOLD
    }

    fn epoch(&mut self, lie: Option<Lie>, rng: &mut ChaCha8Rng) {
        let network = Network::with(self.relays.to_vec(), &self.standings);
        let seats = network.seats(rng);
        let place = |id: NodeId| self.relays.iter().position(|relay| relay.id == id).unwrap_or(0);
        let seated: Vec<_> = seats.iter().map(|seat| (place(seat.relay), *seat)).collect();
        self.share_traffic(&seated);
        let layers: Vec<Vec<usize>> = (0..LAYERS)
            .map(|layer| seated.iter().filter(|(_, seat)| seat.layer == Some(layer)).map(|(at, _)| *at).collect())
            .collect();
        for (reporter, _) in &seated {
            self.send_loops(*reporter, &layers, rng);
        }
        let mut reports = Vec::new();
        for (reporter, _) in &seated {
            for (about, _) in seated.iter().filter(|(about, _)| about != reporter) {
                reports.extend(self.report(*reporter, *about, lie));
            }
        }
        let seats: Vec<_> =
            seated.iter().map(|(_, seat)| Seat { relay: seat.relay, weight: seat.weight, family: None }).collect();
        self.standings = self.standings.after(&seats, &reports, |_| true);
        let count = self.relays.len();
        for about in (0..count).filter(|about| self.is_fallen(*about)).collect::<Vec<_>>() {
            (0..count).for_each(|reporter| self.counts[reporter * count + about] = LoopCount::default());
        }
    }

    fn share_traffic(&mut self, seated: &[(usize, Seated)]) {
        let all: f64 = seated.iter().map(|(_, seat)| seat.weight as f64).sum();
        self.traffic.iter_mut().for_each(|share| *share = 0.0);
        seated.iter().for_each(|(at, seat)| self.traffic[*at] = seat.weight as f64 / all);
    }

    /// Through each mix at least [`LOOPS`]: each layer is gone through in random orders, so that all of its mixes get
    /// the same number.
    fn send_loops(&mut self, reporter: usize, layers: &[Vec<usize>], rng: &mut ChaCha8Rng) {
        let count = self.relays.len();
        let mut orders: Vec<Vec<usize>> =
            layers.iter().map(|layer| layer.iter().copied().filter(|mix| *mix != reporter).collect()).collect();
        let largest = orders.iter().map(Vec::len).max().unwrap_or(0);
        if orders.iter().any(Vec::is_empty) {
            return;
        }
        for sent in 0..largest * LOOPS {
            let mut path = [reporter; 1 + LAYERS as usize];
            for (order, hop) in orders.iter_mut().zip(&mut path[1..]) {
                if sent % order.len() == 0 {
                    order.shuffle(rng);
                }
                *hop = order[sent % order.len()];
            }
            let arrives = self.arrives(&path, rng);
            path[1..].iter().for_each(|hop| self.counts[reporter * count + hop].record(arrives));
        }
    }

    fn arrives(&mut self, path: &[usize], rng: &mut ChaCha8Rng) -> bool {
        let (mut survives, mut added) = (libm::pow(1.0 - LOSS, f64::from(LINKS)), 0.0);
        for hop in &path[1..] {
            let Conduct { drop, delay: (part, by) } = self.conduct[*hop];
            survives *= 1.0 - drop;
            added += if part > 0.0 && rng.random_bool(part) { by } else { 0.0 };
        }
        let survives = rng.random_bool(survives);
        let count = self.relays.len();
        survives && self.latency.as_mut().is_none_or(|latency| latency.is_in_time(count, path, added, rng))
    }

    fn report(&self, reporter: usize, about: usize, lie: Option<Lie>) -> Option<LoopReport> {
        let count = &self.counts[reporter * self.relays.len() + about];
        let truth = count.report(self.relays[reporter].id, self.relays[about].id);
        let says = |delivered, lost| Some(LoopReport { delivered, lost, ..truth });
        let Some(lie) = lie.filter(|_| reporter < self.liars) else { return Some(truth) };
        let (perfect, dead) = (says(63, 0), says(0, 63));
        let is_odd = about % 2 == 1;
        match lie {
            Lie::Silence if about < self.liars => None,
            Lie::One if about == self.liars => dead,
            Lie::One => perfect,
            _ if about < self.liars => perfect,
            Lie::Praise => Some(truth),
            Lie::Half if is_odd => Some(truth),
            Lie::Contrast if is_odd => perfect,
            Lie::Slight => says(truth.delivered - truth.delivered / 10, truth.lost + truth.delivered / 10),
            Lie::Everybody | Lie::Half | Lie::Contrast | Lie::Silence => dead,
        }
    }
}

/// What became of the relays of one run or of many.
#[derive(Debug, Clone, Default)]
struct Fate {
    bad: u64,
    /// In which epoch each bad relay fell that did.
    fell: Vec<u32>,
    honest: u64,
    /// Honest relays that ever fell.
    wronged: u64,
}

impl Fate {
    fn add(mut self, other: Self) -> Self {
        self.bad += other.bad;
        self.honest += other.honest;
        self.wronged += other.wronged;
        self.fell.extend(other.fell);
        self
    }
}

fn one_run(relays: &[Relay], bad: usize, conduct: Conduct, lie: Lie, mut rng: ChaCha8Rng) -> Fate {
    let latency = (conduct.delay.0 > 0.0).then(|| Latency::new(relays.len(), &mut rng));
    let mut world = World::new(relays, bad, latency);
    (0..HONEST_EPOCHS).for_each(|_| world.epoch(None, &mut rng));
    (0..bad).for_each(|at| world.conduct[at] = conduct);
    let mut fell = vec![None; relays.len()];
    for epoch in 1..=EPOCHS {
        world.epoch(Some(lie), &mut rng);
        for (at, fell) in fell.iter_mut().enumerate().filter(|(_, fell)| fell.is_none()) {
            *fell = world.is_fallen(at).then_some(epoch);
        }
    }
    let honest = relays.len() - world.liars;
    let wronged = fell.iter().skip(world.liars).flatten().count() as u64;
    let fell = fell.into_iter().zip(&world.is_bad).filter_map(|(fell, is_bad)| fell.filter(|_| *is_bad)).collect();
    Fate { bad: bad as u64, fell, honest: honest as u64, wronged }
}

/// Seats of the smaller networks, in which there are fewer reports and the medians vary more.
const SMALL: usize = 60;
/// All seats of a large network.
const LARGE: usize = 240;

/// A twentieth, a sixth or a third of the seats: then all liars are bad.
const BAD: [usize; 3] = [20, 6, 3];

/// A set of runs: every lie, and each of these parts of the seats bad.
fn many(run: &Run<'_>, part: u64, (seats, runs, bad): (usize, u64, &[usize]), conduct: Conduct) -> Vec<(Lie, Fate)> {
    let relays: Vec<_> = (0..seats).map(|n| Relay::new(n, 1_000, false)).collect();
    let cases: Vec<_> = LIES
        .iter()
        .flat_map(|(lie, _)| bad.iter().map(move |part| (*lie, seats / part)))
        .flat_map(|case| (0..run.some(runs)).map(move |_| case))
        .collect();
    let fates = parallel(cases.len(), |at| {
        let (lie, bad) = cases[at];
        (lie, one_run(&relays, bad, conduct, lie, run.rng(part << 32 | at as u64)))
    });
    LIES.iter().map(|(lie, _)| (*lie, sum(fates.iter().filter(|(of, _)| of == lie).map(|(_, fate)| fate)))).collect()
}

fn sum<'a>(fates: impl Iterator<Item = &'a Fate>) -> Fate {
    fates.cloned().fold(Fate::default(), Fate::add)
}

/// Judges what became of bad relays, all of which are to fall, and of honest ones, of which fewer than 0.1 % may.
fn judge(run: &Run<'_>, part: &str, fates: &[(Lie, Fate)]) -> Check {
    let all = sum(fates.iter().map(|(_, fate)| fate));
    let (fell, wronged) = (Part::new(all.fell.len() as u64, all.bad), Part::new(all.wronged, all.honest));
    let mut wrong = Vec::new();
    if fell.hits < fell.of {
        wrong.push(format!("{} of {} bad relays did not fall within ten epochs", fell.of - fell.hits, fell.of));
    }
    if wronged.interval(0.02)[0] >= 0.001 || wronged.rate() >= 0.001 {
        wrong.push(format!("{} of {} honest relays fell", wronged.hits, wronged.of));
    }
    let detail = format!(
        "all {} bad relays fell within {} epochs, {} of {} honest ones fell (99 % confidence: below {})",
        fell.of,
        all.fell.iter().max().copied().unwrap_or(0),
        wronged.hits,
        wronged.of,
        digits(wronged.at_most())
    );
    let strategies: Vec<_> = LIES
        .iter()
        .zip(fates)
        .map(|((_, name), (_, fate))| {
            json!({
                "liars_say": name,
                "bad_fell": Part::new(fate.fell.len() as u64, fate.bad).json(),
                "epochs_to_fall": spread(fate.fell.iter().map(|epoch| f64::from(*epoch))),
                "honest_fell": Part::new(fate.wronged, fate.honest).json(),
            })
        })
        .collect();
    Check::judged(&run.name(part), &wrong, detail)
        .with("bad_fell", fell.json())
        .with("epochs_to_fall", spread(all.fell.iter().map(|epoch| f64::from(*epoch))))
        .with("honest_fell", wronged.json())
        .with("honest_fell_at_most_99", digits(wronged.at_most()))
        .with("strategies", strategies)
}

/// Relays that drop a fifth of their packets.
pub(super) fn droppers(run: &Run<'_>) -> Vec<Check> {
    let conduct = Conduct { drop: 0.2, ..Conduct::default() };
    let mut checks = vec![judge(run, "60 seats", &many(run, 0, (SMALL, 10, &BAD), conduct))];
    if !run.options.quick {
        checks.push(judge(run, "240 seats", &many(run, 1, (LARGE, 1, &BAD), conduct)));
    }
    checks
}

/// How relays hold packets longer than their delays allow: a name, the part of the packets, by how many milliseconds, and
/// of which parts of the seats it is shown that they fall.
const DELAYS: [(&str, (f64, f64), &[usize]); 2] =
    [("all packets 1 s later", (1.0, 1_000.0), &[20, 6]), ("a fifth of the packets 2 s later", (0.2, 2_000.0), &BAD)];

/// Relays that delay. Where a third of the relays delay all packets, most loops meet one of them: then the median, by which
/// loops are judged, is theirs. What becomes of them is a figure without a bound.
pub(super) fn delayers(run: &Run<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (part, (name, delay, bad)) in (0..).zip(DELAYS) {
        let conduct = Conduct { delay, ..Conduct::default() };
        checks.push(judge(run, name, &many(run, part, (SMALL, 4, bad), conduct)));
    }
    let third = Conduct { delay: (1.0, 1_000.0), ..Conduct::default() };
    let fates = many(run, 2, (SMALL, 2, &[3]), third);
    let all = sum(fates.iter().map(|(_, fate)| fate));
    let (fell, honest) = (Part::new(all.fell.len() as u64, all.bad), Part::new(all.wronged, all.honest));
    if let Some(first) = checks.first_mut() {
        first.figures.insert(
            "without_bound_a_third_of_all_relays".into(),
            json!({
                "bad_fell": fell.json(),
                "honest_fell": honest.json(),
            }),
        );
    }
    checks
}

/// How much an attacker that never lets itself be caught for long can drop: it drops this much for so many epochs, and
/// none for so many, again and again.
const TURNS: [(f64, u32, u32); 8] =
    [(0.02, 1, 0), (0.04, 1, 0), (0.06, 1, 0), (0.08, 1, 0), (0.10, 1, 0), (0.20, 5, 5), (0.20, 1, 3), (1.00, 1, 60)];
const TURN_EPOCHS: u32 = 122;
/// On average such an attacker drops less of what an honest relay in its place would carry.
const MOST_DAMAGE: f64 = 0.08;

/// Relays that misbehave in turns, or just a little; the liars praise them.
pub(super) fn on_off(run: &Run<'_>) -> Vec<Check> {
    let relays: Vec<_> = (0..SMALL).map(|n| Relay::new(n, 1_000, false)).collect();
    let bad = SMALL / 6;
    let epochs = if run.options.quick { TURN_EPOCHS / 2 } else { TURN_EPOCHS };
    let shown = parallel(TURNS.len(), |turn| {
        let (drop, on, off) = TURNS[turn];
        let mut rng = run.rng(turn as u64);
        let mut world = World::new(&relays, bad, None);
        (0..HONEST_EPOCHS).for_each(|_| world.epoch(None, &mut rng));
        let (mut damage, mut seated) = (0.0, 0u32);
        for epoch in 0..epochs {
            let now = if epoch % (on + off) < on { drop } else { 0.0 };
            (0..bad).for_each(|at| world.conduct[at].drop = now);
            world.epoch(Some(Lie::Praise), &mut rng);
            let fair = 1.0 / SMALL as f64;
            damage += now * world.traffic.iter().take(bad).sum::<f64>() / (fair * bad as f64 * f64::from(epochs));
            seated += world.traffic.iter().take(bad).filter(|share| **share > 0.0).count() as u32;
        }
        (damage, f64::from(seated) / f64::from(epochs * bad as u32))
    });
    let check = |((drop, on, off), (damage, seated)): (&(f64, u32, u32), (f64, f64))| {
        let turns = if *off == 0 { "always".to_owned() } else { format!("{on} epochs of {}", on + off) };
        let wrong = if damage > MOST_DAMAGE {
            vec![format!("it drops {} of an honest relay's traffic", digits(damage))]
        } else {
            Vec::new()
        };
        let detail = format!(
            "it has a seat in {} of the epochs and drops {} of what an honest relay would carry",
            digits(seated),
            digits(damage)
        );
        Check::judged(&run.name(format!("drops {drop} {turns}")), &wrong, detail)
            .with("epochs", epochs)
            .with("dropped_of_an_honest_share", digits(damage))
            .with("seated", digits(seated))
    };
    TURNS.iter().zip(shown).map(check).collect()
}
