//! Peers that lie, and that speak as they like.

use super::*;

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
