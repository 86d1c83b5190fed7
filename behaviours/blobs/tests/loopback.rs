//! Files between two processes over TCP, Noise and yamux on loopback: one is killed and goes on, and a measurement beside plain
//! streams in the same run, which prints and asserts no speed:
//!
//! `cargo test --release -p fog-blobs --test loopback -- --ignored --nocapture --test-threads 1`, with `FOG_BLOBS_MIB=1024` and
//! `FOG_BLOBS_RUNS=3` by default.
#![expect(clippy::disallowed_methods, reason = "this measures, on the real clock")]

#[path = "common/raw.rs"]
mod raw;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
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

fn say_usage(seconds: f64, had: u64) {
    let (peak, cpu) = usage();
    say(&format!("{seconds} {peak} {cpu} {had}"));
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

fn files(dir: &Path, up: Option<u64>) -> Swarm<Behaviour> {
    let config = Config::new(NETWORK, &dir.join("blobs"), Zeroizing::new([1; 32]));
    swarm(Behaviour::new(Config { up, ..config }).unwrap())
}

async fn source(file: &Path, dir: &Path, up: Option<u64>) {
    let mut swarm = files(dir, up);
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
        () = until_told() => say_usage(0.0, 0),
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
    let mut swarm = files(dir, None);
    connected(&mut swarm, &address).await;
    let begun = Instant::now();
    swarm.behaviour_mut().fetch(&manifest, dir.to_owned(), vec![peer_of(&address)]);
    let mut had = None;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(Event::Progress { bytes, .. }) => drop(had.get_or_insert(bytes)),
            SwarmEvent::Behaviour(Event::Done { .. }) => break,
            SwarmEvent::Behaviour(Event::Failed { reason, .. }) => panic!("{reason}"),
            _ => {}
        }
    }
    say_usage(begun.elapsed().as_secs_f64(), had.unwrap_or(0));
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
        () = until_told() => say_usage(0.0, 0),
    }
}

/// Copies what comes, into a file if there is one.
async fn plain_fetch(address: Multiaddr, mut file: Option<fs::File>) {
    let mut swarm = swarm(raw::Raw::new("/plain/1".into()));
    connected(&mut swarm, &address).await;
    let begun = Instant::now();
    swarm.behaviour_mut().open(peer_of(&address));
    let mut stream = loop {
        if let SwarmEvent::Behaviour(opened) = swarm.select_next_some().await {
            assert!(!opened.is_inbound);
            break opened.stream;
        }
    };
    let mut bytes = vec![0; COPY_BYTES];
    let read = async {
        let mut came = 0;
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            came += count as u64;
            file.iter_mut().for_each(|file| file.write_all(&bytes[..count]).unwrap());
        }
        file.iter().for_each(|file| file.sync_data().unwrap());
        assert_eq!(came, size());
    };
    tokio::select! {
        () = read => {}
        () = async { loop { swarm.select_next_some().await; } } => {}
    }
    say_usage(begun.elapsed().as_secs_f64(), 0);
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
            ["source", file, dir] => source(Path::new(file), Path::new(dir), None).await,
            ["source", file, dir, up] => source(Path::new(file), Path::new(dir), up.parse().ok()).await,
            ["fetch", dir, address, manifest] => fetch(address.parse().unwrap(), manifest, Path::new(dir)).await,
            ["plain_source"] => plain_source().await,
            ["plain_fetch", address, _] => plain_fetch(address.parse().unwrap(), None).await,
            ["plain_file", path, address, _] => {
                plain_fetch(address.parse().unwrap(), Some(fs::File::create(path).unwrap())).await;
            }
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

    fn numbers(&mut self) -> [f64; 4] {
        let numbers: Vec<f64> = self.line().split(' ').map(|word| word.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Its usage, when it has ended.
    fn end(mut self) -> [f64; 4] {
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
    let [seconds, peak, cpu, _] = fetch.numbers();
    let [_, source_peak, source_cpu, _] = source.end();
    fetch.0.wait().unwrap();
    [size() as f64 / 1e6 / seconds, source_peak / 1e6, source_cpu, peak / 1e6, cpu]
}

/// A file of so many MiB.
fn film(dir: &Path, mib: u64) -> PathBuf {
    let file = dir.join("film.mkv");
    let mut out = fs::File::create(&file).unwrap();
    for mib in 0..mib as u32 {
        let part: Vec<u8> =
            (mib << 18..(mib + 1) << 18).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        out.write_all(&part).unwrap();
    }
    file
}

#[test]
fn a_fetch_that_was_killed_goes_on_from_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (file, a, b) = (film(dir.path(), 160), dir.path().join("a"), dir.path().join("b"));
    fs::create_dir_all(&b).unwrap();
    let mut source = Process::start(&format!("source {} {} 40000000", file.display(), a.display()));
    let role = format!("fetch {} {}", b.display(), source.line());
    let mut killed = Process::start(&role);
    // The first checkpoint is after 64 MiB.
    let begun = Instant::now();
    let has_checkpoint = || {
        let names = fs::read_dir(b.join("blobs")).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.to_string_lossy().ends_with(".have"))
    };
    while !has_checkpoint() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert!(b.join("film.mkv.part").exists(), "it was killed midway");
    let mut fetch = Process::start(&role);
    let [_, _, _, had] = fetch.numbers();
    fetch.0.wait().unwrap();
    source.end();
    assert!(had as u64 >= 64 << 20, "{had} bytes were there");
    assert!(fs::read(b.join("film.mkv")).unwrap() == fs::read(file).unwrap());
    assert!(!b.join("film.mkv.part").exists());
}

#[test]
#[ignore = "measures, and prints what it found"]
fn a_file_beside_plain_streams() {
    let dir = tempfile::tempdir().unwrap();
    let file = film(dir.path(), size() >> 20);
    let names = ["plain stream, copied", "plain stream, into a file", "fog-blobs"];
    let mut rates = names.map(|_| Vec::new());
    for run in 0..number("FOG_BLOBS_RUNS", 3) {
        let [a, b] = ["a", "b"].map(|name| dir.path().join(format!("{name}{run}")));
        fs::create_dir_all(&b).unwrap();
        let (source, out) = (format!("source {} {}", file.display(), a.display()), b.join("plain"));
        let runs = [
            transfer("plain_source", "plain_fetch"),
            transfer("plain_source", &format!("plain_file {}", out.display())),
            transfer(&source, &format!("fetch {}", b.display())),
        ];
        fs::remove_dir_all(b).unwrap();
        for ((name, rates), run) in names.iter().zip(&mut rates).zip(runs) {
            let [rate, source_peak, source_cpu, peak, cpu] = run;
            println!(
                "{name:<26}{rate:>5.0} MB/s; source {source_peak:.0} MB, {source_cpu:.2} s; fetching {peak:.0} MB, {cpu:.2} s"
            );
            rates.push(rate);
        }
    }
    let [copied, written, blobs] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!(
        "medians: {blobs:.0} MB/s, {:.2} of {copied:.0} MB/s, {:.2} of {written:.0} MB/s",
        blobs / copied,
        blobs / written
    );
}
