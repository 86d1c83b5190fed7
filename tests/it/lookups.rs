//! A node under hostile lookups: more than a thousand requests a second from several peers, and an honest one among them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fog_base::Network;
use fog_directory::wire::{Request, Scope};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identity, noise,
    request_response::{self, Message, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};

use super::support::Alone;

const HOSTILE: usize = 8;
/// Between two requests of one hostile peer.
const PACE: Duration = Duration::from_millis(4);
const HONEST_PACE: Duration = Duration::from_millis(100);
const TIME: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes as they are; an answer ends after its length (Kademlia) or with the stream (directory).
#[derive(Debug, Clone, Copy)]
struct Raw {
    has_length: bool,
}

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = usize;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> std::io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> std::io::Result<usize>
    where
        T: AsyncRead + Unpin + Send,
    {
        if !self.has_length {
            return io.read_to_end(&mut Vec::new()).await;
        }
        let (mut length, mut shift, mut byte) = (0usize, 0, [0x80]);
        while byte[0] & 0x80 != 0 {
            io.read_exact(&mut byte).await?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
        }
        let mut answer = vec![0; length.min(1 << 20)];
        io.read_exact(&mut answer).await?;
        Ok(length)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> std::io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request).await?;
        io.close().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, _: usize) -> std::io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[derive(NetworkBehaviour)]
struct Client {
    kad: request_response::Behaviour<Raw>,
    directory: request_response::Behaviour<Raw>,
}

fn client() -> Swarm<Client> {
    let network = Network::lan().id;
    let behaviour = |name: &str, has_length| {
        let protocol = StreamProtocol::try_from_owned(network.protocol(name, 1)).expect("a name");
        let config =
            request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(1000);
        request_response::Behaviour::with_codec(Raw { has_length }, [(protocol, ProtocolSupport::Outbound)], config)
    };
    SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_behaviour(|_| Client { kad: behaviour("kad", true), directory: behaviour("directory", false) })
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

/// libp2p's Kademlia messages: protobuf, with its length before it. 1 is GET_VALUE, 4 is FIND_NODE.
fn kad_request(kind: u8, key: [u8; 32]) -> Vec<u8> {
    let message = [&[0x08, kind, 0x12, 32][..], &key].concat();
    [vec![message.len() as u8], message].concat()
}

fn send(swarm: &mut Swarm<Client>, to: &PeerId, n: u64) {
    let key = *blake3::hash(&n.to_be_bytes()).as_bytes();
    let client = swarm.behaviour_mut();
    let _id = match n % 3 {
        0 => client.kad.send_request(to, kad_request(4, key)),
        1 => client.kad.send_request(to, kad_request(1, key)),
        _ => {
            let message = fog_directory::core::exchange::reconcile::list_all();
            let request = Request::Reconcile { scope: Scope::Live, message }.encode().expect("bytes");
            client.directory.send_request(to, request)
        }
    };
}

/// Asks as fast as its pace; takes a new identity when it is sent away.
async fn hostile(to: PeerId, at: Multiaddr, sent: Arc<AtomicU64>, exiled: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut n = rand::random::<u64>() / 2;
    while !stop.load(Ordering::Relaxed) {
        let mut swarm = client();
        let _dialled = swarm.dial(at.clone());
        let mut tick = tokio::time::interval(PACE);
        while !stop.load(Ordering::Relaxed) {
            tokio::select! {
                _ = tick.tick(), if swarm.is_connected(&to) => {
                    n += 1;
                    send(&mut swarm, &to, n);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                event = swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => break,
                    _ => {}
                }
            }
        }
        exiled.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks ten times a second; how long each answer took.
async fn honest(to: PeerId, at: Multiaddr, time: Duration) -> Vec<Duration> {
    let mut swarm = client();
    swarm.dial(at).expect("dialled");
    let (start, mut times, mut asked) = (Instant::now(), Vec::new(), Instant::now());
    let (mut tick, mut n, mut waits) = (tokio::time::interval(HONEST_PACE), 0, false);
    while start.elapsed() < time {
        tokio::select! {
            _ = tick.tick(), if swarm.is_connected(&to) && !waits => {
                n += 1;
                (asked, waits) = (Instant::now(), true);
                send(&mut swarm, &to, n);
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(
                    ClientEvent::Kad(request_response::Event::Message { message: Message::Response { .. }, .. })
                    | ClientEvent::Directory(request_response::Event::Message { message: Message::Response { .. }, .. }),
                ) => {
                    times.push(asked.elapsed());
                    waits = false;
                }
                SwarmEvent::Behaviour(
                    ClientEvent::Kad(request_response::Event::OutboundFailure { error, .. })
                    | ClientEvent::Directory(request_response::Event::OutboundFailure { error, .. }),
                ) => panic!("an honest peer is not answered: {error}"),
                _ => {}
            }
        }
    }
    times
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    eprintln!("{what}: {} answers, p50 {:?}, p99 {:?}, longest {:?}", times.len(), at(0.5), at(0.99), at(1.0 - 1e-9));
}

/// `cargo test --release --test it -- --ignored --nocapture lookups`
#[test]
#[ignore = "takes a minute and prints figures"]
fn an_honest_peer_is_answered_while_a_thousand_hostile_lookups_come_each_second() {
    let node = Alone::start();
    let to: PeerId = node.client().peer_id().parse().expect("a peer id");
    let at: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", node.port).parse().expect("an address");
    let pid = node.process.pid();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let mut alone = honest(to, at.clone(), TIME / 4).await;
        report("alone", &mut alone);
        let before = resident_kib(pid);
        let [sent, exiled] = [0, 0].map(|zero| Arc::new(AtomicU64::new(zero)));
        let stop = Arc::new(AtomicBool::new(false));
        let task = || hostile(to, at.clone(), sent.clone(), exiled.clone(), stop.clone());
        let tasks: Vec<_> = (0..HOSTILE).map(|_| tokio::spawn(task())).collect();
        let start = Instant::now();
        let mut times = honest(to, at.clone(), TIME).await;
        let took = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        report("under attack", &mut times);
        let after = resident_kib(pid);
        let rate = sent.load(Ordering::Relaxed) as f64 / took;
        eprintln!("{rate:.0} hostile requests/s, {} identities sent away", exiled.load(Ordering::Relaxed));
        eprintln!("memory: {before} KiB before, {after} KiB after");
        for task in tasks {
            task.await.expect("a hostile peer");
        }
        assert!(times.len() > 50, "{} answers", times.len());
    });
}
