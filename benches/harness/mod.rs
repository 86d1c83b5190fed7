//! A small bench harness for comparisons: ours and the rival take turns on one thread and only their time on a core counts, so that
//! a busy machine slows both, and medians are reported. Results are merged by name into `bench-results.json`.
//!
//! `FOG_BENCH=name` runs one. `FOG_BENCH_RESULTS=path` writes elsewhere.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::disallowed_methods)]

use std::{
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Turns that each side takes.
const RUNS: usize = 15;
/// How long one turn lasts, about.
const TURN: Duration = Duration::from_millis(40);

/// For how long this thread had a core: others may use the same one. Linux; elsewhere the clock.
pub fn on_core() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // The count is brought up to date when the thread leaves its core.
    std::thread::sleep(Duration::from_micros(1));
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = stat.and_then(|stat| stat.split(' ').next()?.parse().ok().map(Duration::from_nanos));
    spent.unwrap_or_else(|| BEGUN.elapsed())
}

/// One side of a comparison: a closure that performs `operations` operations per call.
pub struct Side<'a> {
    operations: u32,
    run: Box<dyn FnMut() + 'a>,
    calls: u32,
    turns: Vec<f64>,
}

impl<'a> Side<'a> {
    pub fn new(operations: u32, run: impl FnMut() + 'a) -> Self {
        Self { operations, run: Box::new(run), calls: 1, turns: Vec::new() }
    }

    fn time(&mut self, calls: u32) -> Duration {
        let start = on_core();
        for _ in 0..calls {
            (self.run)();
        }
        on_core().saturating_sub(start)
    }

    fn calibrate(&mut self) {
        self.time(1);
        while self.time(self.calls) < TURN / 4 {
            self.calls *= 2;
        }
        self.calls *= 4;
    }

    /// Seconds per operation, one more sample.
    fn turn(&mut self) {
        let elapsed = self.time(self.calls);
        self.turns.push(elapsed.as_secs_f64() / (f64::from(self.calls) * f64::from(self.operations)));
    }

    fn median(&mut self) -> f64 {
        self.turns.sort_by(f64::total_cmp);
        self.turns[self.turns.len() / 2]
    }
}

/// What a ratio, or a figure without a rival, must be.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn verdict(self, value: f64) -> String {
        let (met, bound) = match self {
            Self::AtMost(bound) => (value <= bound, bound),
            Self::AtLeast(bound) => (value >= bound, bound),
        };
        format!("{} {bound}", if met { "meets" } else { "MISSES" })
    }
}

/// Collects the comparisons of one bench binary.
pub struct Harness {
    only: Option<String>,
    results: Vec<Value>,
}

impl Harness {
    pub fn from_env() -> Self {
        Self { only: std::env::var("FOG_BENCH").ok().filter(|name| !name.is_empty()), results: Vec::new() }
    }

    /// Whether this comparison was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }

    /// Time per operation in microseconds, less is better, with the target that the ratio (or, without a rival, the
    /// time) must meet.
    pub fn compare_us(&mut self, name: &str, mut ours: Side<'_>, rival: Option<(&str, Side<'_>)>, target: Option<f64>) {
        let (rival_name, mut rival) = rival.unzip();
        ours.calibrate();
        rival.iter_mut().for_each(Side::calibrate);
        for _ in 0..RUNS {
            ours.turn();
            rival.iter_mut().for_each(Side::turn);
        }
        let ours = ours.median() * 1e6;
        let rival = rival.as_mut().map(|side| side.median() * 1e6);
        self.record(name, ours, rival, rival_name, "us", target);
    }

    /// The medians of runs that were measured elsewhere, and whether they meet the target.
    pub fn medians(
        &mut self,
        name: &str,
        ours: &mut [f64],
        rival: Option<(&str, f64)>,
        unit: &str,
        target: Option<Target>,
    ) {
        ours.sort_by(f64::total_cmp);
        let median = ours[ours.len() / 2];
        let (rival_name, rival) = rival.unzip();
        self.print(name, median, rival, rival_name, unit, target, ours.len());
    }

    fn record(
        &mut self,
        name: &str,
        ours: f64,
        rival: Option<f64>,
        rival_name: Option<&str>,
        unit: &str,
        target: Option<f64>,
    ) {
        self.print(name, ours, rival, rival_name, unit, target.map(Target::AtMost), RUNS);
    }

    #[expect(clippy::too_many_arguments, reason = "one row of the table")]
    fn print(
        &mut self,
        name: &str,
        ours: f64,
        rival: Option<f64>,
        rival_name: Option<&str>,
        unit: &str,
        target: Option<Target>,
        runs: usize,
    ) {
        let ratio = rival.map(|rival| ours / rival);
        let verdict = target.map_or(String::new(), |target| target.verdict(ratio.unwrap_or(ours)));
        let shown = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        println!(
            "{name:30} {ours:10.2} {unit:9} {:>10} {:>7}  {verdict:12} {}",
            shown(rival, 2),
            shown(ratio, 3),
            rival_name.unwrap_or("(no rival)"),
        );
        self.results.push(json!({
            "name": name,
            "ours": ours,
            "rival": rival,
            "rival_name": rival_name,
            "ratio": ratio,
            "unit": unit,
            "runs": runs,
        }));
    }

    /// Merges what was measured into the results of other bench binaries.
    pub fn finish(self) {
        let path =
            std::env::var_os("FOG_BENCH_RESULTS").map_or_else(|| PathBuf::from("bench-results.json"), PathBuf::from);
        let mut all: Vec<Value> =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        all.retain(|old| self.results.iter().all(|new| new["name"] != old["name"]));
        all.extend(self.results);
        all.sort_by_key(|result| result["name"].to_string());
        let written = serde_json::to_string_pretty(&all).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|text| std::fs::write(&path, text + "\n")) {
            eprintln!("error: cannot write {}: {error}", path.display());
        }
    }
}
