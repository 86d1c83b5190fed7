//! Files between real swarms over TCP on loopback.

#[path = "common/raw.rs"]
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
#[ignore = "measures, and prints what it found"]
async fn four_sources_of_20_mb_s_beside_one() {
    let content = random(400_000_000, 14);
    let mut rates = Vec::new();
    for count in [1, 4] {
        let (mut from, manifest) = sources(count, &content, 20_000_000).await;
        let mut to = Node::new().await;
        from.iter().for_each(|source| connect(&mut to, source));
        let peers: Vec<_> = from.iter().map(Node::peer).collect();
        let task = to.fetch(&manifest, &peers);
        drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
        let (_, helped) = assert_done(&to, task, &content);
        let Some(Event::Done { took, .. }) = to.end(task) else { panic!() };
        rates.push(content.len() as f64 / 1e6 / took.as_secs_f64());
        println!("{count} sources, of which {helped} sent something: {:.1} MB/s", rates[rates.len() - 1]);
    }
    println!("ratio {:.2}", rates[1] / rates[0]);
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
    // What is here already is copied.
    let task = b.fetch(&manifest, &[]);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(task)).await;
    assert_eq!(assert_done(&b, task, &content).1, 0);
    assert_eq!(b.names(), ["note (1).txt", "note (2).txt", "note.txt"]);
    let junk = b.fetch(&manifest[1..], &[]);
    drive(&mut [&mut b], |nodes| nodes[0].is_over(junk)).await;
    assert_eq!(b.end(junk), Some(&Event::Failed { task: junk, reason: Failure::Manifest }));
}

/// A peer that speaks as it likes.
struct Hostile {
    swarm: Swarm<raw::Raw>,
    address: Multiaddr,
}

impl Hostile {
    async fn new() -> Self {
        let mut swarm = swarm(raw::Raw::new(NETWORK.protocol("blobs", 1)));
        let address = address(&mut swarm).await;
        Self { swarm, address }
    }

    /// Serves each stream with `serve`, in the background.
    fn serve<F: Future<Output = ()> + Send + 'static>(mut self, serve: impl Fn(Stream) -> F + Send + 'static) {
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(opened) = self.swarm.select_next_some().await {
                    assert!(opened.is_inbound);
                    tokio::spawn(serve(opened.stream));
                }
            }
        });
    }

    /// A stream to `node`; the swarm goes on in the background.
    async fn stream(mut self, node: &mut Node) -> Stream {
        let (to, peer) = (node.address.clone(), node.peer());
        self.swarm.dial(to).unwrap();
        let (give, mut take) = futures::channel::oneshot::channel();
        let mut give = Some(give);
        tokio::spawn(async move {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => self.swarm.behaviour_mut().open(peer),
                    SwarmEvent::Behaviour(opened) => drop(give.take().unwrap().send(opened.stream)),
                    _ => {}
                }
            }
        });
        loop {
            tokio::select! {
                stream = &mut take => return stream.unwrap(),
                event = node.swarm.select_next_some() => {
                    if let SwarmEvent::Behaviour(event) = event {
                        node.events.push(event);
                    }
                }
            }
        }
    }
}

/// The next message of a stream; `None` when it has ended.
async fn read<M: Message>(stream: &mut Stream, buffer: &mut Vec<u8>) -> Option<M> {
    loop {
        if let Some((message, len)) = M::decode(buffer).unwrap() {
            buffer.drain(..len);
            return Some(message);
        }
        let mut more = [0; 4096];
        let count = stream.read(&mut more).await.unwrap_or(0);
        if count == 0 {
            return None;
        }
        buffer.extend_from_slice(&more[..count]);
    }
}

/// Serves what `source` has, with a bit of each group from the fifth on flipped.
async fn lie(mut stream: Stream, blob: Blob, file: PathBuf, tree: PathBuf) {
    let (mut source, mut buffer) = (Shared::open(blob, &file, &tree, None).unwrap(), Vec::new());
    while let Some(message) = read::<ToSource>(&mut stream, &mut buffer).await {
        let answer = match message {
            ToSource::Want(id) => vec![FromSource::Have(id, Holding::All(blob.size()))],
            ToSource::Request { id, first, count, .. } => {
                Steps::new(&blob, first.into()..u64::from(first) + u64::from(count))
                    .enumerate()
                    .map(|(n, step)| {
                        let mut bytes = source.read(&step).unwrap();
                        *bytes.last_mut().unwrap() ^= u8::from(n >= 5);
                        FromSource::Step(id, bytes)
                    })
                    .collect()
            }
            _ => Vec::new(),
        };
        let bytes: Vec<u8> = answer.iter().flat_map(Message::encode).collect();
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_found_with_its_first_wrong_group_and_the_file_is_right() {
    let content = random(4 << 20, 10);
    let (mut from, manifest) = sources(1, &content, 1_000_000).await;
    let (blob, liar) = (Manifest::decode(&manifest).unwrap().blob, Hostile::new().await);
    let (address, lies) = (liar.address.clone(), *liar.swarm.local_peer_id());
    let file = from[0].files().join("film.mkv");
    let tree = from[0].dir.path().join("tree");
    Shared::create(&file, &tree, None).unwrap();
    liar.serve(move |stream| lie(stream, blob, file.clone(), tree.clone()));
    let mut to = Node::new().await;
    connect(&mut to, &from[0]);
    to.swarm.dial(address).unwrap();
    let task = to.fetch(&manifest, &[from[0].peer(), lies]);
    drive(&mut all(&mut from, &mut to), |nodes| nodes[0].is_over(task)).await;
    assert_done(&to, task, &content);
    assert_eq!(to.blames(), [(lies, Reject::Lie)], "once: it is asked for nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_the_stream_and_is_blamed() {
    let mut node = Node::new().await;
    let content = random(100_000, 11);
    let manifest = node.shared("x", &content).await;
    let blob = Manifest::decode(&manifest).unwrap().blob;
    let id = RequestId { download: 0, number: 0 };
    let beyond = ToSource::Request { id, blob: blob.id(), first: 7, count: 1 }.encode();
    let answer = FromSource::End(id, Ending::Busy).encode();
    for (n, garbage) in [random(300, 12), vec![0xff; 4], vec![0; 4], beyond, answer].into_iter().enumerate() {
        let peer = Hostile::new().await;
        let mut stream = peer.stream(&mut node).await;
        stream.write_all(&garbage).await.unwrap();
        stream.flush().await.unwrap();
        drive(&mut [&mut node], |nodes| nodes[0].blames().len() > n).await;
        assert_eq!(node.blames()[n].1, Reject::Malformed);
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).await.is_err() || rest.is_empty(), "nothing is answered");
    }
    assert!(node.events.iter().all(|event| !matches!(event, Event::Broken { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sends_what_is_no_message_is_blamed_and_the_fetch_ends_without_one() {
    let liar = Hostile::new().await;
    let (address, peer) = (liar.address.clone(), *liar.swarm.local_peer_id());
    liar.serve(|mut stream| async move {
        let _sent = stream.write_all(&[0xee; 1000]).await;
        let _flushed = stream.flush().await;
        let _end = stream.read_to_end(&mut Vec::new()).await;
    });
    let mut node = Node::with(|config| config.patience = Duration::from_secs(1)).await;
    let blob = Blob::new(BlobId([1; 32]), 70_000).unwrap();
    let manifest = Manifest { blob, name: FileName::parse("x").unwrap(), key: None }.encode().unwrap();
    node.swarm.dial(address).unwrap();
    let task = node.fetch(&manifest, &[peer]);
    drive(&mut [&mut node], |nodes| nodes[0].is_over(task)).await;
    assert_eq!(node.end(task), Some(&Event::Failed { task, reason: Failure::NoSource }));
    assert_eq!(node.blames(), [(peer, Reject::Malformed)]);
    // It can be taken up again.
    assert_eq!(node.names(), ["x.part"]);
    let mut node = Node::on(node.stop(), |_| {}).await;
    assert_eq!(node.blobs().resume().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_more_of_an_unknown_hash_than_that_nothing_is_there() {
    let mut node = Node::new().await;
    let peer = Hostile::new().await;
    let mut stream = peer.stream(&mut node).await;
    let (blob, id) = (BlobId([9; 32]), RequestId { download: 7, number: 3 });
    let asked = [ToSource::Want(blob), ToSource::Request { id, blob, first: 0, count: 1 }, ToSource::Forget(blob)];
    stream.write_all(&asked.iter().flat_map(Message::encode).collect::<Vec<_>>()).await.unwrap();
    stream.flush().await.unwrap();
    let mut buffer = Vec::new();
    let answers = async { (read(&mut stream, &mut buffer).await, read(&mut stream, &mut buffer).await) };
    let answers = tokio::select! {
        answers = answers => answers,
        () = async { loop { node.swarm.select_next_some().await; } } => unreachable!(),
    };
    assert_eq!(answers.0, Some(FromSource::Have(blob, Holding::Nothing)));
    assert_eq!(answers.1, Some(FromSource::End(id, Ending::Missing)));
    assert!(node.blames().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_bound_hear_busy_and_the_others_are_served() {
    let mut node = Node::with(|config| config.up = Some(500_000)).await;
    let content = random(8 << 20, 13);
    let manifest = node.shared("x", &content).await;
    let blob = Manifest::decode(&manifest).unwrap().blob;
    let mut stream = Hostile::new().await.stream(&mut node).await;
    let request = |number| {
        let id = RequestId { download: 0, number };
        ToSource::Request { id, blob: blob.id(), first: 64 * (number % 8), count: 2 }.encode()
    };
    let all: Vec<u8> = (0..200).flat_map(request).collect();
    stream.write_all(&all).await.unwrap();
    stream.flush().await.unwrap();
    let (mut buffer, mut busy, mut steps) = (Vec::new(), 0, 0);
    while busy + steps / 2 < 200 {
        let message = tokio::select! {
            message = read(&mut stream, &mut buffer) => message,
            () = async { loop { node.swarm.select_next_some().await; } } => unreachable!(),
        };
        match message {
            Some(FromSource::End(_, Ending::Busy)) => busy += 1,
            Some(FromSource::Step(..)) => steps += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((100..=136).contains(&busy), "{busy} of 200 were refused: 64 may wait");
    assert!(node.blames().is_empty(), "asking for much is no crime");
}
