//! A file between two processes over TCP, Noise and yamux on loopback, beside a plain stream in the same run. Prints; asserts no
//! speed.
//!
//! `cargo test --release -p fog-blobs --test loopback -- --ignored --nocapture --test-threads 1`, with `FOG_BLOBS_MIB=1024` and
//! `FOG_BLOBS_RUNS=3` by default.
#![expect(clippy::disallowed_methods, reason = "this measures")]

#[path = "common/raw.rs"]
mod raw;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use fog_base::NetworkId;
use fog_blobs::{Behaviour, Config, Event};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([6; 32]);
/// What the plain stream copies at once.
const COPY_BYTES: usize = 64 * 1024;
const ROLE: &str = "FOG_BLOBS_ROLE";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn size() -> u64 {
    number("FOG_BLOBS_MIB", 1024) << 20
}

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let built = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap();
    built.with_behaviour(|_| Ok(behaviour)).unwrap().build()
}

/// The most memory that this process had, in bytes, and the processor time that it took, in seconds.
fn usage() -> (u64, f64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: utime and stime are the 12th and 13th, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    (peak.unwrap_or(0u64) * 1024, ticks as f64 / 100.0)
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nFOG {text}").unwrap();
    out.flush().unwrap();
}

fn say_usage(seconds: f64) {
    let (peak, cpu) = usage();
    say(&format!("{seconds} {peak} {cpu}"));
}

/// Until the parent closes the standard input.
async fn until_told() {
    let wait = || std::io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    }
}

fn files(dir: &Path) -> Swarm<Behaviour> {
    swarm(Behaviour::new(Config::new(NETWORK, &dir.join("blobs"), Zeroizing::new([1; 32]))).unwrap())
}

async fn source(file: &Path, dir: &Path) {
    let mut swarm = files(dir);
    let address = listen(&mut swarm).await;
    swarm.behaviour_mut().share(file);
    let manifest = loop {
        if let SwarmEvent::Behaviour(Event::Shared { manifest, .. }) = swarm.select_next_some().await {
            break manifest;
        }
    };
    let manifest: String = manifest.iter().map(|byte| format!("{byte:02x}")).collect();
    say(&format!("{address} {manifest}"));
    tokio::select! {
        () = async { loop { swarm.select_next_some().await; } } => {}
        () = until_told() => say_usage(0.0),
    }
}

fn peer_of(address: &Multiaddr) -> PeerId {
    address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).unwrap()
}

async fn connected<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &Multiaddr) {
    swarm.dial(address.clone()).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
}

async fn fetch(address: Multiaddr, manifest: &str, dir: &Path) {
    let bytes = |at| u8::from_str_radix(&manifest[at..at + 2], 16).unwrap();
    let manifest: Vec<u8> = (0..manifest.len()).step_by(2).map(bytes).collect();
    let mut swarm = files(dir);
    connected(&mut swarm, &address).await;
    let begun = Instant::now();
    swarm.behaviour_mut().fetch(&manifest, dir.to_owned(), vec![peer_of(&address)]);
    let path = loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(Event::Done { path, .. }) => break path,
            SwarmEvent::Behaviour(Event::Failed { reason, .. }) => panic!("{reason}"),
            _ => {}
        }
    };
    say_usage(begun.elapsed().as_secs_f64());
    fs::remove_file(path).unwrap();
}

async fn plain_source() {
    let mut swarm = swarm(raw::Raw::new("/plain/1".into()));
    let address = listen(&mut swarm).await;
    say(&format!("{address} -"));
    let serve = async {
        loop {
            if let SwarmEvent::Behaviour(mut opened) = swarm.select_next_some().await {
                tokio::spawn(async move {
                    let bytes = vec![7; COPY_BYTES];
                    let mut left = size();
                    while left > 0 {
                        let part = bytes.len().min(left as usize);
                        opened.stream.write_all(&bytes[..part]).await.unwrap();
                        left -= part as u64;
                    }
                    opened.stream.close().await.unwrap();
                });
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = until_told() => say_usage(0.0),
    }
}

async fn plain_fetch(address: Multiaddr) {
    let mut swarm = swarm(raw::Raw::new("/plain/1".into()));
    connected(&mut swarm, &address).await;
    let begun = Instant::now();
    swarm.behaviour_mut().open(peer_of(&address));
    let mut stream = loop {
        if let SwarmEvent::Behaviour(opened) = swarm.select_next_some().await {
            break opened.stream;
        }
    };
    let mut bytes = vec![0; COPY_BYTES];
    let read = async {
        let mut came = 0;
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            came += count as u64;
        }
        assert_eq!(came, size());
    };
    tokio::select! {
        () = read => {}
        () = async { loop { swarm.select_next_some().await; } } => {}
    }
    say_usage(begun.elapsed().as_secs_f64());
}

/// Not a test: the other process of the measurement below.
#[test]
#[ignore = "a process of the measurement"]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match words[..] {
            ["source", file, dir] => source(Path::new(file), Path::new(dir)).await,
            ["fetch", dir, address, manifest] => fetch(address.parse().unwrap(), manifest, Path::new(dir)).await,
            ["plain_source"] => plain_source().await,
            ["plain_fetch", address, _] => plain_fetch(address.parse().unwrap()).await,
            _ => panic!("{role}"),
        }
    });
}

struct Process(Child, BufReader<std::process::ChildStdout>);

impl Process {
    fn start(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process", "--ignored", "--nocapture"]).env(ROLE, role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    fn line(&mut self) -> String {
        let mut lines = self.1.by_ref().lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix("FOG ").map(str::to_owned)).expect("it says something")
    }

    fn numbers(&mut self) -> [f64; 3] {
        let numbers: Vec<f64> = self.line().split(' ').map(|word| word.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Its usage, when it has ended.
    fn end(mut self) -> [f64; 3] {
        drop(self.0.stdin.take());
        let numbers = self.numbers();
        self.0.wait().unwrap();
        numbers
    }
}

/// What one transfer took: MB/s, and of the source and of who fetched the peak memory in MB and the seconds of processor.
fn transfer(source: &str, fetch: &str) -> [f64; 5] {
    let mut source = Process::start(source);
    let mut fetch = Process::start(&format!("{fetch} {}", source.line()));
    let [seconds, peak, cpu] = fetch.numbers();
    let [_, source_peak, source_cpu] = source.end();
    fetch.0.wait().unwrap();
    [size() as f64 / 1e6 / seconds, source_peak / 1e6, source_cpu, peak / 1e6, cpu]
}

#[test]
#[ignore = "measures, and prints what it found"]
fn a_file_beside_a_plain_stream() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("film.mkv");
    let mut out = fs::File::create(&file).unwrap();
    let part: Vec<u8> = (0..1u32 << 18).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    (0..size() >> 20).for_each(|_| out.write_all(&part).unwrap());
    drop(out);
    let mut rates = [Vec::new(), Vec::new()];
    for run in 0..number("FOG_BLOBS_RUNS", 3) {
        let [a, b] = ["a", "b"].map(|name| dir.path().join(format!("{name}{run}")).display().to_string());
        fs::create_dir_all(&b).unwrap();
        let plain = transfer("plain_source", "plain_fetch");
        let blobs = transfer(&format!("source {} {a}", file.display()), &format!("fetch {b}"));
        for (name, [rate, source_peak, source_cpu, peak, cpu]) in [("plain stream", plain), ("fog-blobs", blobs)] {
            println!(
                "{name:<14}{rate:>7.0} MB/s; source {source_peak:>4.0} MB, {source_cpu:.2} s; fetching {peak:>4.0} MB, {cpu:.2} s"
            );
        }
        rates[0].push(plain[0]);
        rates[1].push(blobs[0]);
    }
    let [plain, blobs] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("median: {blobs:.0} of {plain:.0} MB/s: {:.2}", blobs / plain);
}
