//! A password room under load: 200 messages of 1 kB a second, and members who leave for good and are replaced. `FOG_CHAT_SECONDS` says how
//! long is written (6 unless told), a member is replaced every ten seconds of that (at least twice in all).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fog_testnet::{ChatLine, Client, NodePlan, Plan, Testnet, until};
use serde_json::Value;

use super::support::{PATIENCE, fog, metric, ok, one_network_at_a_time};

const ROOM: &str = "#busy";
const PASSWORD: Option<&str> = Some("correct horse");
const PER_SECOND: u32 = 200;
const BYTES: usize = 1000;
const REPLACED_EVERY: Duration = Duration::from_secs(10);
/// What was written before its author left has gone out by then.
const LEAVES_AFTER: Duration = Duration::from_secs(1);
/// Copies of a message that gossip brings to a member (the figure).
const COPIES: f64 = 12.0;

fn seconds() -> u64 {
    std::env::var("FOG_CHAT_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// What the writers did and the readers saw.
#[derive(Default)]
struct Seen {
    /// When each message was about to be sent.
    sent: Mutex<BTreeMap<String, Instant>>,
    /// Messages that a node answered for.
    accepted: Mutex<BTreeSet<String>>,
    /// From the request to the event at another member.
    latencies: Mutex<Vec<(Instant, Duration)>>,
    refused: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first word of a text names it.
fn name(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Whoever writes in a place now; nobody while a member is replaced.
type Place = Mutex<Option<Client>>;

fn write(seen: &Seen, place: &Place, index: usize, pace: Duration, is_over: &AtomicBool) {
    let began = Instant::now();
    for n in 0.. {
        thread::sleep((pace * n).saturating_sub(began.elapsed()));
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        // Held until the answer: who takes the place away knows that nothing is under way.
        let writer = locked(place);
        let Some(client) = writer.as_ref() else { continue };
        let name = format!("{index}-{n}");
        let text = format!("{name} {}", "x".repeat(BYTES - name.len() - 1));
        locked(&seen.sent).insert(name.clone(), Instant::now());
        match client.chat_send(ROOM, &text, "auto", None) {
            Ok(_) => drop(locked(&seen.accepted).insert(name)),
            Err(error) => locked(&seen.refused).push(error.to_string()),
        }
    }
}

fn listen(seen: &Seen, client: &Client, index: usize) {
    let own = format!("{index}-");
    let mut once = BTreeSet::new();
    let ended = client.chat_events(Duration::from_secs(3600), &mut |event| {
        let came = Instant::now();
        let Some(text) = event.get("text").and_then(Value::as_str).filter(|_| event["event"] == "message") else {
            return;
        };
        let name = name(text);
        if !name.starts_with(&own) && once.insert(name.to_owned()) {
            let sent = locked(&seen.sent).get(name).copied();
            locked(&seen.latencies).extend(sent.map(|sent| (came, came.duration_since(sent))));
        }
    });
    if let Err(error) = ended {
        eprintln!("events of node {index}: {error}");
    }
}

/// That no line comes before one that its author knew, by the clocks alone.
fn causal(lines: &[ChatLine]) -> Result<(), String> {
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    for line in lines {
        let known = |author: &str| newest.get(author).copied().unwrap_or_default();
        let is_next = known(&line.author) + 1 == line.seq && line.clock.get(&line.author) == Some(&line.seq);
        let others = line.clock.iter().filter(|(author, _)| **author != line.author);
        if !is_next || line.gap_before || others.into_iter().any(|(author, seq)| known(author) < *seq) {
            return Err(format!("{line:?} after {newest:?}"));
        }
        newest.insert(&line.author, line.seq);
    }
    Ok(())
}

/// Tells the slowest percent of each ten seconds.
fn timeline(latencies: &mut [(Instant, Duration)]) {
    latencies.sort_unstable();
    let Some((began, _)) = latencies.first().copied() else { return };
    let of_part = |(came, _): &(Instant, Duration)| came.duration_since(began).as_secs() / 10;
    let slowest = latencies.chunk_by(|a, b| of_part(a) == of_part(b)).map(|part| {
        let mut part: Vec<_> = part.iter().map(|(_, latency)| latency.as_millis()).collect();
        part.sort_unstable();
        part.get(part.len() * 99 / 100).copied().unwrap_or_default()
    });
    eprintln!("chat under load: p99 of each ten seconds, in ms: {:?}", slowest.collect::<Vec<_>>());
}

struct Load {
    net: Testnet,
    seen: Arc<Seen>,
    /// Of the members that stay: index, copies that gossip had brought.
    copies: Vec<(usize, f64)>,
    listeners: Vec<thread::JoinHandle<()>>,
}

fn copies(net: &Testnet, index: usize) -> f64 {
    metric(&net.nodes[index].data_dir, "fog_gossip_copies_total")
}

impl Load {
    /// `members` in the room, of whom `staying` are not replaced.
    fn new(dir: &Path, members: usize, staying: usize, spares: usize) -> Self {
        let mut plan = Plan::new(fog(), dir, members);
        plan.spares = spares;
        plan.ready_within = PATIENCE * 2;
        let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
        let clients: Vec<_> = net.nodes.iter().map(|node| ok(node.client())).collect();
        for client in &clients {
            ok(client.chat_join(ROOM, PASSWORD));
        }
        // Everybody has heard everybody once: the room's paths are there.
        for (index, client) in clients.iter().enumerate() {
            ok(client.chat_send(ROOM, &format!("hello-{index} x"), "auto", None));
        }
        for client in &clients {
            let heard = until("the others in the room", PATIENCE, || {
                let count = client.chat_history(ROOM).map_err(|e| e.to_string())?.len();
                if count == members { Ok(()) } else { Err(format!("{count} of {members}")) }
            });
            ok(heard);
        }
        let seen = Arc::new(Seen::default());
        let listener = |(index, client): (usize, &Client)| {
            let (seen, client) = (Arc::clone(&seen), client.clone());
            thread::spawn(move || listen(&seen, &client, index))
        };
        let listeners = clients.iter().enumerate().take(staying).map(listener).collect();
        let copies = (0..staying).map(|index| (index, copies(&net, index))).collect();
        Self { net, seen, copies, listeners }
    }

    /// Writes for so long, and replaces members that do not stay, one every `replaced`.
    fn run(&mut self, duration: Duration, replaced: Option<Duration>) {
        let places: Vec<Place> = self.net.nodes.iter().map(|node| Mutex::new(node.client().ok())).collect();
        let pace = Duration::from_secs(1) * u32::try_from(places.len()).expect("few") / PER_SECOND;
        let (is_over, began) = (AtomicBool::new(false), Instant::now());
        let staying = self.copies.len();
        thread::scope(|scope| {
            for (index, place) in places.iter().enumerate() {
                let (seen, is_over) = (&self.seen, &is_over);
                scope.spawn(move || write(seen, place, index, pace, is_over));
            }
            let mut members: Vec<_> = (0..places.len()).collect();
            let turns = replaced.into_iter().flat_map(|each| (1..).map(move |n| each * n));
            for (turn, at) in turns.take_while(|at| *at < duration).enumerate() {
                thread::sleep(at.saturating_sub(began.elapsed()));
                // A machine that is too slow replaces fewer.
                if began.elapsed() >= duration {
                    break;
                }
                let place = staying + turn % (places.len() - staying);
                *locked(&places[place]) = None;
                thread::sleep(LEAVES_AFTER);
                self.net.nodes[members[place]].kill();
                members[place] = ok(self.net.join(NodePlan::relay()));
                let client = ok(self.net.nodes[members[place]].client());
                ok(client.chat_join(ROOM, PASSWORD));
                *locked(&places[place]) = Some(client);
            }
            thread::sleep(duration.saturating_sub(began.elapsed()));
            is_over.store(true, Ordering::Relaxed);
        });
    }

    /// All messages at all members that run, once, in one causal order; the figures on standard error.
    fn judge(mut self, what: &str) {
        let accepted = std::mem::take(&mut *locked(&self.seen.accepted));
        assert_eq!(*locked(&self.seen.refused), Vec::<String>::new());
        let began = Instant::now();
        let mut first: Option<Vec<ChatLine>> = None;
        let running: Vec<_> =
            self.net.nodes.iter_mut().filter_map(|node| node.is_running().then_some(node.index)).collect();
        for &index in &running {
            let client = ok(self.net.nodes[index].client());
            let whole = until("every message at every member", PATIENCE * 2, || {
                let lines = client.chat_history(ROOM).map_err(|e| e.to_string())?;
                let have: BTreeSet<_> = lines.iter().map(|line| name(&line.text)).collect();
                let missing: Vec<_> = accepted.iter().filter(|name| !have.contains(name.as_str())).collect();
                if missing.is_empty() {
                    return Ok(lines);
                }
                thread::sleep(Duration::from_secs(1));
                Err(format!("node {index} lacks {} of {}: {:?}", missing.len(), accepted.len(), missing.first()))
            });
            let lines = ok(whole);
            let names: BTreeSet<_> = lines.iter().map(|line| name(&line.text)).collect();
            assert_eq!(names.len(), lines.len(), "node {index} shows something twice");
            causal(&lines).unwrap_or_else(|why| panic!("node {index}: {why}"));
            let ids = |lines: &[ChatLine]| lines.iter().map(|line| line.id.clone()).collect::<Vec<_>>();
            match &first {
                Some(first) => assert!(ids(first) == ids(&lines), "node {index} has another order"),
                None => first = Some(lines),
            }
        }
        let settled = began.elapsed();
        let factor = |(index, before): &(usize, f64)| (copies(&self.net, *index) - before) / accepted.len() as f64;
        let factor = self.copies.iter().map(factor).fold(0.0, f64::max);
        ok(self.net.down());
        self.listeners.drain(..).for_each(|listener| listener.join().expect("a listener"));
        let mut latencies = std::mem::take(&mut *locked(&self.seen.latencies));
        timeline(&mut latencies);
        let mut latencies: Vec<_> = latencies.into_iter().map(|(_, latency)| latency).collect();
        latencies.sort_unstable();
        let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or_default();
        eprintln!(
            "chat under load, {what}: {} messages ({:.0} a second) at {} members, all there {:.1} s after the last; {} arrivals, p50 {:?}, p99 {:?}, \
             p99.9 {:?}; at most {factor:.2} copies of each",
            accepted.len(),
            accepted.len() as f64 / seconds() as f64,
            running.len(),
            settled.as_secs_f64(),
            latencies.len(),
            at(0.5),
            at(0.99),
            at(0.999),
        );
        assert!(factor <= COPIES, "{factor} copies of each message");
        assert!(!latencies.is_empty(), "nobody heard anything");
    }
}

#[test]
fn a_room_under_load_whose_members_are_replaced_shows_everything_once_in_causal_order() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let duration = Duration::from_secs(seconds());
    let replaced = REPLACED_EVERY.min(duration / 3);
    let turns = usize::try_from(duration.as_millis() / replaced.as_millis()).expect("few");
    let mut load = Load::new(&scratch.path().join("net"), 16, 8, turns);
    load.run(duration, Some(replaced));
    load.judge("16 members, of whom some are replaced");
}

#[test]
#[ignore = "its figure is what it is for: eight members that stay, alone on the machine"]
fn a_room_under_load_of_eight_members_that_stay() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut load = Load::new(&scratch.path().join("net"), 8, 8, 0);
    load.run(Duration::from_secs(seconds()), None);
    load.judge("8 members");
}
