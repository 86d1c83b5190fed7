//! Files: what verifying and writing cost beside plain BLAKE3 and plain files, a file between two processes over loopback beside plain
//! libp2p streams, and four capped sources beside one. Linux: memory is read from `/proc`.
//!
//! `FOG_BLOBS_MIB` is the length of the file between processes, 1,024 by default.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod harness;
#[path = "../behaviours/blobs/tests/common/process.rs"]
mod process;
#[path = "../behaviours/blobs/tests/common/raw.rs"]
mod raw;

use std::{
    fs,
    hint::black_box,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use fog_blobs::{
    Behaviour, Bitmap, Blob, BlobId, Config, Download, DownloadConfig, DownloadOutput, Event, GroupSink, Key, Slice,
    StepSource, Upload, UploadConfig, UploadOutput,
    core::{blob::GROUP_BYTES, slice::Steps},
    files::{Partial, Shared},
    wire::{FromSource, Message, RequestId, ToSource},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use harness::{Harness, Target};
use libp2p::{Multiaddr, swarm::SwarmEvent};
use process::{Process, connected, film, listen, peer_of, play, role, say, say_usage, swarm, until_told};
use zeroize::Zeroizing;

const RUNS: usize = 5;
/// What is verified and written in one process.
const PART: usize = 256 << 20;
/// What the plain stream copies at once.
const COPY_BYTES: usize = 64 * 1024;
/// The cap of each of the four sources, in bytes a second, and what one of them sends: five seconds, the first of which is the bucket's.
const CAP: u64 = 20_000_000;
const SHARE: usize = 120_000_000;

fn main() {
    if let Some(role) = role() {
        return tokio::runtime::Runtime::new().unwrap().block_on(play_here(&role));
    }
    let mut harness = Harness::from_env();
    let parts = ["file_verify", "file_write", "file_share", "file_cores"];
    if parts.iter().any(|name| harness.wants(name)) {
        in_one_process(&mut harness);
    }
    let transfers = ["file_transfer_bytes_per_s", "file_transfer_beside_a_file", "file_transfer_peak_mb"];
    if transfers.iter().any(|name| harness.wants(name)) {
        between_processes(&mut harness);
    }
    if harness.wants("file_four_sources") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (one, four): (Vec<_>, Vec<_>) =
            (0..RUNS).map(|_| (runtime.block_on(from_sources(1)), runtime.block_on(from_sources(4)))).unzip();
        compare(&mut harness, "file_four_sources", four, ("one source", one), Some(Target::AtLeast(3.0)));
    }
    harness.finish();
}

fn size() -> u64 {
    let mib = std::env::var("FOG_BLOBS_MIB").ok().and_then(|text| text.parse().ok());
    mib.unwrap_or(1024) << 20
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Records rates of ours beside rates of the rival, which took turns.
fn compare(harness: &mut Harness, name: &str, mut ours: Vec<f64>, rival: (&str, Vec<f64>), target: Option<Target>) {
    if harness.wants(name) {
        harness.medians(name, &mut ours, Some((rival.0, median(rival.1))), "B/s", target);
    }
}

/// Bytes a second of each of several turns, and of the rival's.
fn take_turns(mut ours: impl FnMut(), mut rival: impl FnMut()) -> (Vec<f64>, Vec<f64>) {
    let rate = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        run();
        PART as f64 / begun.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| (rate(&mut ours), rate(&mut rival))).unzip()
}

fn in_one_process(harness: &mut Harness) {
    let dir = tempfile::tempdir().unwrap();
    let (file, tree) = (dir.path().join("file"), dir.path().join("tree"));
    let plain: Vec<u8> = (0..PART as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(&file, &plain).unwrap();
    let hash = || _ = black_box(blake3::hash(black_box(&plain)));
    let key = Key::from_random([1; 32]);
    let mut sealed = vec![0; GROUP_BYTES];
    let seal_and_hash = || {
        let mut hasher = blake3::Hasher::new();
        for (at, group) in plain.chunks(GROUP_BYTES).enumerate() {
            sealed[..group.len()].copy_from_slice(group);
            assert!(key.apply((at * GROUP_BYTES) as u64, &mut sealed[..group.len()]));
            hasher.update(&sealed[..group.len()]);
        }
        black_box(hasher.finalize());
    };
    if harness.wants("file_share") {
        let share = || _ = black_box(Shared::create(&file, &tree, Some(key.clone())).unwrap());
        let (ours, rival) = take_turns(share, seal_and_hash);
        compare(harness, "file_share", ours, ("ChaCha20 and BLAKE3 alone", rival), None);
    }
    let mut shared = Shared::create(&file, &tree, None).unwrap();
    let blob = shared.blob();
    assert_eq!(blob.id(), BlobId(*blake3::hash(&plain).as_bytes()));
    let id = RequestId { download: 0, number: 0 };
    let read = |step| FromSource::Step(id, shared.read(&step).unwrap()).encode();
    let frames: Vec<_> = Steps::new(&blob, 0..blob.groups()).map(read).collect();
    let verify = || verified(blob, &frames, |verified| _ = black_box(verified));
    if harness.wants("file_verify") {
        let (ours, rival) = take_turns(verify, hash);
        compare(harness, "file_verify", ours, ("BLAKE3 alone", rival), None);
    }
    if harness.wants("file_write") {
        let write = || {
            let to = tempfile::tempdir_in(dir.path()).unwrap();
            let mut partial = Partial::open(to.path(), &to.path().join("data"), blob, None).unwrap();
            verified(blob, &frames, |verified| partial.write(&verified).unwrap());
            assert!(partial.have().is_full());
        };
        let (ours, rival) = take_turns(write, || write_plainly(dir.path(), &plain));
        compare(harness, "file_write", ours, ("a plain file, synced", rival), None);
    }
    if harness.wants("file_cores") {
        let (ours, rival) = take_turns(|| fetch_in_memory(&mut shared), hash);
        compare(harness, "file_cores", ours, ("BLAKE3 alone", rival), None);
    }
}

fn verified(blob: Blob, frames: &[Vec<u8>], mut take: impl FnMut(fog_blobs::Verified)) {
    let mut slice = Slice::new(&blob, 0..blob.groups());
    for frame in frames {
        let Ok(Some((FromSource::Step(_, bytes), _))) = FromSource::decode(frame) else { panic!("a step") };
        take(slice.accept(bytes).unwrap());
    }
}

fn write_plainly(dir: &Path, plain: &[u8]) {
    let to = tempfile::tempdir_in(dir).unwrap();
    let mut out = fs::File::create(to.path().join("plain")).unwrap();
    plain.chunks(GROUP_BYTES).for_each(|group| out.write_all(group).unwrap());
    out.sync_data().unwrap();
}

/// A whole download through both cores and the frames, on this thread alone; nothing is written.
fn fetch_in_memory(shared: &mut Shared) {
    let (blob, now) = (shared.blob(), Now { mono: Instant::now(), unix: UnixMillis(0) });
    let (us, them) = (NodeId([1; 32]), NodeId([2; 32]));
    let mut upload = Upload::new(UploadConfig::default(), now);
    assert!(upload.serve(blob, Bitmap::full(blob.pieces())));
    let have = Bitmap::new(blob.groups());
    let mut download = Download::new(blob, have, 0, 1, DownloadConfig::default(), now).unwrap();
    download.handle_source(them, now).unwrap();
    loop {
        let now = Now { mono: Instant::now(), ..now };
        while let Some(output) = download.poll_output() {
            match output {
                DownloadOutput::Send { message, .. } => {
                    let (message, _) = ToSource::decode(&message.encode()).unwrap().unwrap();
                    upload.handle_message(us, message, now).unwrap();
                }
                DownloadOutput::Persist(verified) => download.handle_written(verified.group(), true, now),
                DownloadOutput::Report(report) => panic!("{report:?}"),
                DownloadOutput::Done => return,
            }
        }
        while let Some(output) = upload.poll_output() {
            match output {
                UploadOutput::Load { to, id, steps, .. } => {
                    let steps = steps.iter().map(|step| shared.read(step).unwrap()).collect();
                    upload.handle_loaded(to, id, Some(steps), now);
                }
                UploadOutput::Send { message, .. } => {
                    let (message, _) = FromSource::decode(&message.encode()).unwrap().unwrap();
                    download.handle_message(them, message, now).unwrap();
                    upload.handle_sent(us, now);
                }
                UploadOutput::Broken { .. } => panic!("broken"),
            }
        }
    }
}

/// A child of `between_processes`.
async fn play_here(role: &str) {
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["plain_source"] => plain_source().await,
        ["plain_fetch", address, _] => plain_fetch(address.parse().unwrap(), None).await,
        ["plain_file", path, address, _] => {
            plain_fetch(address.parse().unwrap(), Some(fs::File::create(path).unwrap())).await;
        }
        _ => assert!(play(role).await, "{role}"),
    }
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

/// What one transfer took: bytes a second, the larger peak of memory of the two processes in MB, and what it says of itself.
fn transfer(source: &str, fetch: &str) -> (f64, f64, String) {
    let mut source = Process::start(source);
    let mut fetch = Process::start(&format!("{fetch} {}", source.line()));
    let [seconds, peak, cpu, _] = fetch.numbers();
    let [_, source_peak, source_cpu, _] = source.end();
    fetch.0.wait().unwrap();
    let (rate, peak) = (size() as f64 / seconds, peak.max(source_peak) / 1e6);
    (rate, peak, format!("{:.0} MB/s, cpu of source {source_cpu:.2} s, of fetch {cpu:.2} s", rate / 1e6))
}

fn between_processes(harness: &mut Harness) {
    let dir = tempfile::tempdir().unwrap();
    let file = film(dir.path(), size() >> 20);
    let (mut ours, mut copied, mut written, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let [a, b] = ["a", "b"].map(|name| dir.path().join(format!("{name}{run}")));
        fs::create_dir_all(&b).unwrap();
        let source = format!("source {} {}", file.display(), a.display());
        let runs = [
            transfer("plain_source", "plain_fetch"),
            transfer("plain_source", &format!("plain_file {}", b.join("plain").display())),
            transfer(&source, &format!("fetch {}", b.display())),
        ];
        fs::remove_dir_all(b).unwrap();
        for (name, (_, _, says)) in ["a stream, copied", "a stream, into a file", "fog-blobs"].iter().zip(&runs) {
            println!("  {name:22} {says}");
        }
        let [(copy, ..), (write, ..), (rate, peak, _)] = runs;
        copied.push(copy);
        written.push(write);
        ours.push(rate);
        peaks.push(peak);
    }
    let (streams, files) = (("a plain stream, copied", copied), ("a plain stream, written", written));
    compare(harness, "file_transfer_bytes_per_s", ours.clone(), streams, Some(Target::AtLeast(0.7)));
    compare(harness, "file_transfer_beside_a_file", ours, files, None);
    if harness.wants("file_transfer_peak_mb") {
        harness.medians("file_transfer_peak_mb", &mut peaks, None, "MB", Some(Target::AtMost(200.0)));
    }
}

/// Bytes a second that come from so many capped sources, each of which sends as much as the others.
async fn from_sources(count: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("film.mkv");
    let content: Vec<u8> =
        (0..(SHARE * count / 4) as u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(&file, &content).unwrap();
    let node = |name: &str, up| {
        let config = Config::new(NetworkId([6; 32]), &dir.path().join(name), Zeroizing::new([1; 32]));
        swarm(Behaviour::new(Config { up, ..config }).unwrap())
    };
    let (mut peers, mut manifest, mut to) = (Vec::new(), Vec::new(), node("to", None));
    for number in 0..count {
        let mut source = node(&number.to_string(), Some(CAP));
        let address = listen(&mut source).await;
        source.behaviour_mut().share_open(&file);
        manifest = loop {
            if let SwarmEvent::Behaviour(Event::Shared { manifest, .. }) = source.select_next_some().await {
                break manifest;
            }
        };
        peers.push((
            peer_of(&address),
            tokio::spawn(async move {
                loop {
                    source.select_next_some().await;
                }
            }),
        ));
        connected(&mut to, &address).await;
    }
    let sources = peers.iter().map(|(peer, _)| *peer).collect();
    to.behaviour_mut().fetch(&manifest, dir.path().join("fetched"), sources);
    let took: Duration = loop {
        match to.select_next_some().await {
            SwarmEvent::Behaviour(Event::Done { took, .. }) => break took,
            SwarmEvent::Behaviour(Event::Failed { reason, .. }) => panic!("{reason}"),
            _ => {}
        }
    };
    peers.iter().for_each(|(_, task)| task.abort());
    content.len() as f64 / took.as_secs_f64()
}
