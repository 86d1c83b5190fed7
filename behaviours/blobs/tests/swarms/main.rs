//! Files between real swarms over TCP on loopback.

mod hostile;
#[path = "../common/raw.rs"]
mod raw;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fog_base::NetworkId;
use fog_blobs::{
    Behaviour, Blob, BlobId, Config, Event, Failure, FileName, Manifest, Reject, StepSource, TaskId,
    core::slice::Steps,
    files::Shared,
    wire::{Ending, FromSource, Holding, Message, RequestId, ToSource},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, SwarmBuilder, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([5; 32]);
const PATIENCE: Duration = Duration::from_secs(60);

/// A swarm, and all that it said.
struct Node {
    swarm: Swarm<Behaviour>,
    dir: TempDir,
    address: Multiaddr,
    events: Vec<Event>,
}

fn swarm<B: libp2p::swarm::NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let built = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Ok(behaviour));
    let mut swarm = built.unwrap().build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    swarm
}

async fn address<B: libp2p::swarm::NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    }
}

fn config(dir: &TempDir) -> Config {
    Config::new(NETWORK, &dir.path().join("blobs"), Zeroizing::new([1; 32]))
}

impl Node {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), change).await
    }

    /// On what an earlier one left.
    async fn on(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&dir);
        change(&mut config);
        let mut swarm = swarm(Behaviour::new(config).unwrap());
        let address = address(&mut swarm).await;
        fs::create_dir_all(dir.path().join("files")).unwrap();
        Self { swarm, dir, address, events: Vec::new() }
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    fn names(&self) -> Vec<String> {
        names(&self.files())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.files().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn blobs(&mut self) -> &mut Behaviour {
        self.swarm.behaviour_mut()
    }

    fn fetch(&mut self, manifest: &[u8], sources: &[PeerId]) -> TaskId {
        let files = self.files();
        self.blobs().fetch(manifest, files, sources.to_vec())
    }

    fn end(&self, task: TaskId) -> Option<&Event> {
        self.events.iter().find(|event| match event {
            Event::Shared { task: of, .. } | Event::Done { task: of, .. } | Event::Failed { task: of, .. } => {
                *of == task
            }
            _ => false,
        })
    }

    fn is_over(&self, task: TaskId) -> bool {
        self.end(task).is_some()
    }

    /// The bytes that a fetch had verified when it last told.
    fn progress(&self) -> u64 {
        let progress = |event: &Event| if let Event::Progress { bytes, .. } = event { Some(*bytes) } else { None };
        self.events.iter().filter_map(progress).next_back().unwrap_or(0)
    }

    fn blames(&self) -> Vec<(PeerId, Reject)> {
        let blame =
            |event: &Event| if let Event::Blame { peer, reject } = event { Some((*peer, *reject)) } else { None };
        self.events.iter().filter_map(blame).collect()
    }

    /// Shares what was written, and says under which manifest.
    async fn shared(&mut self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let path = self.write(name, bytes);
        let task = self.blobs().share(&path);
        self.manifest(task).await
    }

    async fn manifest(&mut self, task: TaskId) -> Vec<u8> {
        drive(&mut [self], |nodes| nodes[0].is_over(task)).await;
        match self.end(task) {
            Some(Event::Shared { manifest, .. }) => manifest.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What is left when its process ends.
    fn stop(self) -> TempDir {
        drop(self.swarm);
        self.dir
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn connect(from: &mut Node, to: &Node) {
    from.swarm.dial(to.address.clone()).unwrap();
}

/// Drives all swarms until `done`.
async fn drive(nodes: &mut [&mut Node], done: impl Fn(&[&mut Node]) -> bool) {
    let work = async {
        while !done(nodes) {
            let next = nodes.iter_mut().map(|node| Box::pin(node.swarm.next()));
            let (event, at, _) = futures::future::select_all(next).await;
            if let Some(SwarmEvent::Behaviour(event)) = event {
                nodes[at].events.push(event);
            }
        }
    };
    let is_done = tokio::time::timeout(PATIENCE, work).await.is_ok();
    assert!(is_done, "{:#?}", nodes.iter().map(|node| &node.events).collect::<Vec<_>>());
}

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[track_caller]
fn assert_done(node: &Node, task: TaskId, content: &[u8]) -> (PathBuf, usize) {
    let Some(Event::Done { path, bytes, sources, .. }) = node.end(task) else { panic!("{:?}", node.end(task)) };
    assert_eq!(*bytes, content.len() as u64);
    assert!(fs::read(path).unwrap() == content, "the file is another one");
    (path.clone(), *sources)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_arrives_and_nothing_is_left_beside_it() {
    let (mut a, mut b) = (Node::new().await, Node::new().await);
    for (size, seed) in [(5_000_001, 1), (0, 2), (1, 3)] {
        let content = random(size, seed);
        let manifest = a.shared(&format!("cat {seed}.jpg"), &content).await;
        connect(&mut b, &a);
        let task = b.fetch(&manifest, &[a.peer()]);
        drive(&mut [&mut a, &mut b], |nodes| nodes[1].is_over(task)).await;
        let (path, sources) = assert_done(&b, task, &content);
        assert_eq!(path, b.files().join(format!("cat {seed}.jpg")));
        assert_eq!(sources, size.min(1), "what is empty needs no source");
    }
    assert_eq!(b.names(), ["cat 1.jpg", "cat 2.jpg", "cat 3.jpg"]);
    assert!(a.blames().is_empty() && b.blames().is_empty());
    let kept = names(&b.dir.path().join("blobs"));
    assert!(kept.iter().all(|name| name.ends_with(".blob") || name.ends_with(".outboard")), "{kept:?}");
}

/// The same content at several nodes, which serve `up` bytes a second.
async fn sources(count: usize, content: &[u8], up: u64) -> (Vec<Node>, Vec<u8>) {
    let (mut nodes, mut manifest) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut node = Node::with(|config| config.up = Some(up)).await;
        let path = node.write("film.mkv", content);
        let task = node.blobs().share_open(&path);
        manifest = node.manifest(task).await;
        nodes.push(node);
    }
    (nodes, manifest)
}

fn all<'a>(sources: &'a mut [Node], to: &'a mut Node) -> Vec<&'a mut Node> {
    std::iter::once(to).chain(sources.iter_mut()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_share_the_work() {
    let content = random(16 << 20, 4);
    let (mut from, manifest) = sources(4, &content, 2_000_000).await;
    let mut to = Node::new().await;
    from.iter().for_each(|source| connect(&mut to, source));
    let peers: Vec<_> = from.iter().map(Node::peer).collect();
    let task = to.fetch(&manifest, &peers);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
    let (_, sources) = assert_done(&to, task, &content);
    assert!(sources > 1, "more than one source contributed");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_received_than_the_limit_lets_through() {
    let content = random(6_000_000, 15);
    let mut a = Node::new().await;
    let manifest = a.shared("x", &content).await;
    let mut b = Node::with(|config| config.down = Some(2_000_000)).await;
    connect(&mut b, &a);
    let task = b.fetch(&manifest, &[a.peer()]);
    drive(&mut [&mut a, &mut b], |nodes| nodes[1].is_over(task)).await;
    assert_done(&b, task, &content);
    let Some(Event::Done { took, .. }) = b.end(task) else { panic!() };
    // What waits in the buffers of both sides passes at once.
    assert!(*took > Duration::from_secs(1), "{took:?}");
    assert!(b.blames().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_source_dies_the_others_go_on() {
    let content = random(12 << 20, 5);
    let (mut from, manifest) = sources(2, &content, 2_000_000).await;
    let mut to = Node::new().await;
    from.iter().for_each(|source| connect(&mut to, source));
    let peers: Vec<_> = from.iter().map(Node::peer).collect();
    let task = to.fetch(&manifest, &peers);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].progress() > 0).await;
    assert!(!to.is_over(task));
    from.pop().unwrap().stop();
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
    assert_done(&to, task, &content);
    assert!(to.blames().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fetches_goes_on_after_a_restart_and_fetches_nothing_twice() {
    let content = random(24 << 20, 6);
    let (mut from, manifest) = sources(1, &content, 4_000_000).await;
    let mut to = Node::new().await;
    connect(&mut to, &from[0]);
    let peers = [from[0].peer()];
    let task = to.fetch(&manifest, &peers);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].progress() > 4 << 20).await;
    assert!(!to.is_over(task));
    assert_eq!(to.names(), ["film.mkv.part"]);
    let had = to.progress();
    // What was written is synced when the behaviour is dropped.
    let mut to = Node::on(to.stop(), |_| {}).await;
    let resumed = to.blobs().resume();
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].path, to.files().join("film.mkv"));
    assert!(to.blobs().resume().is_empty(), "once");
    connect(&mut to, &from[0]);
    let task = resumed[0].task;
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].progress() > 0).await;
    assert!(to.progress() >= had, "what was there counts from the start");
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
    assert_done(&to, task, &content);
    assert_eq!(to.names(), ["film.mkv"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_paused_goes_on_when_it_is_asked_for_and_not_by_itself() {
    let content = random(12 << 20, 12);
    let (mut from, manifest) = sources(1, &content, 4_000_000).await;
    let mut to = Node::new().await;
    connect(&mut to, &from[0]);
    let task = to.fetch(&manifest, &[from[0].peer()]);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].progress() > 0).await;
    to.blobs().pause(task);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
    assert_eq!(to.end(task), Some(&Event::Failed { task, reason: Failure::Paused }));
    let had = to.progress();
    assert!(had < content.len() as u64);

    let mut to = Node::on(to.stop(), |_| {}).await;
    assert!(to.blobs().resume().is_empty(), "a restart does not end it");
    connect(&mut to, &from[0]);
    let task = to.fetch(&manifest, &[from[0].peer()]);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].progress() > 0).await;
    assert!(to.progress() >= had, "what was there counts from the start");
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
    assert_done(&to, task, &content);
    // Of what is here already nothing can be paused.
    let open = to.fetch(&manifest, &[]);
    to.blobs().pause(open);
    drive(&mut [&mut to], |nodes| nodes[0].is_over(open)).await;
    assert_done(&to, open, &content);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_ask_members_also_after_restarts() {
    let content = random(3_000_000, 7);
    let mut a = Node::new().await;
    let manifest = a.shared("talk.pdf", &content).await;
    let mut b = Node::new().await;
    connect(&mut b, &a);
    let task = b.fetch(&manifest, &[a.peer()]);
    drive(&mut [&mut a, &mut b], |nodes| nodes[1].is_over(task)).await;
    a.stop();
    let (mut b, mut c) = (Node::on(b.stop(), |_| {}).await, Node::new().await);
    connect(&mut c, &b);
    let task = c.fetch(&manifest, &[]);
    let peer = b.peer();
    c.blobs().add_source(task, peer);
    drive(&mut [&mut b, &mut c], |nodes| nodes[1].is_over(task)).await;
    assert_done(&c, task, &content);

    // Not any more when it is not wanted, and the file stays.
    let hash = Manifest::decode(&manifest).unwrap().blob.id();
    b.blobs().unshare(hash);
    let mut d = Node::with(|config| config.patience = Duration::from_secs(1)).await;
    connect(&mut d, &b);
    let task = d.fetch(&manifest, &[b.peer()]);
    drive(&mut [&mut b, &mut d], |nodes| nodes[1].is_over(task)).await;
    assert_eq!(d.end(task), Some(&Event::Failed { task, reason: Failure::NoSource }));
    assert_eq!(b.names(), ["talk.pdf"]);
    assert!(names(&b.dir.path().join("blobs")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fetches_serves_what_it_has_already() {
    let content = random(12 << 20, 8);
    let (mut from, manifest) = sources(1, &content, 2_000_000).await;
    let (mut b, mut c) = (Node::new().await, Node::new().await);
    connect(&mut b, &from[0]);
    connect(&mut c, &b);
    let (origin, other) = (from[0].peer(), b.peer());
    let [from] = &mut from[..] else { panic!() };
    let one = b.fetch(&manifest, &[origin]);
    drive(&mut [from, &mut b, &mut c], |nodes| nodes[1].progress() > 0).await;
    let two = c.fetch(&manifest, &[other]);
    drive(&mut [from, &mut b, &mut c], |nodes| nodes[2].progress() > 0).await;
    assert!(!b.is_over(one), "it serves before it has everything");
    drive(&mut [from, &mut b, &mut c], |nodes| nodes[1].is_over(one) && nodes[2].is_over(two)).await;
    assert_done(&b, one, &content);
    assert_eq!(assert_done(&c, two, &content).1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overwritten_and_a_fetch_that_is_cancelled_leaves_nothing() {
    let content = random(100_000, 9);
    let mut a = Node::new().await;
    let manifest = a.shared("note.txt", &content).await;
    let mut b = Node::with(|config| config.patience = Duration::from_secs(20)).await;
    let asked = b.write("note.txt", b"mine");
    let task = b.blobs().fetch(&manifest, asked.clone(), vec![]);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(task)).await;
    assert_eq!(b.end(task), Some(&Event::Failed { task, reason: Failure::Exists(asked.clone()) }));

    // Without a source it waits; another fetch of the same is refused meanwhile.
    let waits = b.fetch(&manifest, &[]);
    let again = b.fetch(&manifest, &[]);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(again)).await;
    assert_eq!(b.end(again), Some(&Event::Failed { task: again, reason: Failure::AlreadyFetching }));
    b.blobs().cancel(waits);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(waits)).await;
    assert_eq!(b.end(waits), Some(&Event::Failed { task: waits, reason: Failure::Cancelled }));

    connect(&mut b, &a);
    let task = b.fetch(&manifest, &[a.peer()]);
    drive(&mut [&mut a, &mut b], |nodes| nodes[1].is_over(task)).await;
    assert_eq!(assert_done(&b, task, &content).0, b.files().join("note (1).txt"));
    assert_eq!(fs::read(asked).unwrap(), b"mine");
    // What is there already is there; elsewhere it is copied, once.
    let elsewhere = b.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for (out, path) in [
        (b.files(), b.files().join("note (1).txt")),
        (b.files().join("note (1).txt"), b.files().join("note (1).txt")),
        (elsewhere.clone(), elsewhere.join("note.txt")),
        (elsewhere.clone(), elsewhere.join("note.txt")),
    ] {
        let task = b.blobs().fetch(&manifest, out, vec![]);
        drive(&mut [&mut b], |nodes| nodes[0].is_over(task)).await;
        assert_eq!(assert_done(&b, task, &content), (path, 0));
    }
    assert_eq!(
        (b.names(), names(&elsewhere)),
        (vec!["note (1).txt".into(), "note.txt".into()], vec!["note.txt".into()])
    );
    // What somebody changed meanwhile is not it, and stays.
    fs::write(elsewhere.join("note.txt"), random(content.len(), 10)).unwrap();
    let task = b.blobs().fetch(&manifest, elsewhere.clone(), vec![]);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(task)).await;
    assert_eq!(assert_done(&b, task, &content), (elsewhere.join("note (1).txt"), 0));
    let junk = b.fetch(&manifest[1..], &[]);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(junk)).await;
    assert_eq!(b.end(junk), Some(&Event::Failed { task: junk, reason: Failure::Manifest }));
}
