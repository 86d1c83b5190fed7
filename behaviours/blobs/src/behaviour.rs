//! The libp2p behaviour: connections on one side, the engine's commands and events on the other. No rules of the protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    thread::JoinHandle,
};

use fog_base::{DropCounters, NodeId};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use crate::{
    config::{Config, StartError},
    core::{blob::BlobId, manifest::Manifest, seal::Key, upload},
    event::{Event, Failure, Resumed, TaskId},
    handler::Handler,
    ids::{node_id, peer_id},
    runtime::{
        disk::Disk,
        engine::{Engine, Limits},
        hub::{Command, Hub, Told},
        record::Record,
    },
    wire::PROTOCOL,
};

/// Files in a swarm.
#[derive(Debug)]
pub struct Behaviour {
    hub: Arc<Hub>,
    protocol: StreamProtocol,
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
    next_task: u64,
    idle: Vec<Record>,
    /// The engine, and what writes: what ends with everything on the disk.
    threads: Vec<JoinHandle<()>>,
}

impl Behaviour {
    /// Starts the threads, and serves again what was served before.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the randomness of nonces and of the first piece enters"
    )]
    pub fn new(config: Config) -> Result<Self, StartError> {
        let Config { network, dir, secret, up, down, patience } = config;
        let hub = Arc::new(Hub::default());
        let disk = Arc::new(Disk::open(&dir, &secret, rand::random())?);
        let (whole, idle) = disk.found();
        let limits = Limits { down, patience };
        let serves = upload::Config { rate: up, ..upload::Config::default() };
        let engine = Engine::new((Arc::clone(&hub), Arc::clone(&disk)), serves, limits, rand::random(), whole);
        let name = network.protocol(PROTOCOL.0, PROTOCOL.1);
        let mut behaviour = Self {
            hub: Arc::clone(&hub),
            // The name starts with a slash, which is all that libp2p asks for.
            protocol: StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/fog/blobs/1")),
            connections: BTreeMap::new(),
            next_task: 0,
            idle,
            threads: Vec::new(),
        };
        let spawn = |name: &str, run: fn(&Disk, &Arc<Hub>)| {
            let (hub, disk) = (Arc::clone(&hub), Arc::clone(&disk));
            std::thread::Builder::new().name(name.into()).spawn(move || run(&disk, &hub))
        };
        let writes = spawn("blobs-write", Disk::run_writes)?;
        for (name, run) in [
            ("blobs-read", Disk::run_loads as fn(&Disk, &Arc<Hub>)),
            ("blobs-job", Disk::run_jobs),
            ("blobs-job", Disk::run_jobs),
        ] {
            spawn(name, run)?;
        }
        let engine = std::thread::Builder::new().name("blobs".into()).spawn(move || engine.run())?;
        behaviour.threads = vec![engine, writes];
        Ok(behaviour)
    }

    /// Encrypts and hashes the file at `path`, where it stays, and offers it to whoever knows its hash; ends in
    /// [`Event::Shared`] or [`Event::Failed`].
    #[expect(clippy::disallowed_methods, reason = "this is where the key of a file is drawn")]
    pub fn share(&mut self, path: &Path) -> TaskId {
        self.import(path, Some(Key::from_random(rand::random())), true)
    }

    /// As [`Behaviour::share`], also for nodes that are [avoided](Behaviour::avoid).
    #[expect(clippy::disallowed_methods, reason = "this is where the key of a file is drawn")]
    pub fn share_with_all(&mut self, path: &Path) -> TaskId {
        self.import(path, Some(Key::from_random(rand::random())), false)
    }

    /// As [`Behaviour::share`], without encryption: the same content has the same hash everywhere, and whoever knows it reads it.
    pub fn share_open(&mut self, path: &Path) -> TaskId {
        self.import(path, None, false)
    }

    /// Fetches what `manifest` names: to `out`, or into it under the manifest's name if it is a folder. What there is of it from
    /// before is taken up, to where it was going then. Ends in [`Event::Done`] or [`Event::Failed`].
    pub fn fetch(&mut self, manifest: &[u8], out: PathBuf, sources: Vec<PeerId>) -> TaskId {
        self.begin_fetch(manifest, out, sources, true)
    }

    /// As [`Behaviour::fetch`], also from nodes that are [avoided](Behaviour::avoid).
    pub fn fetch_from_all(&mut self, manifest: &[u8], out: PathBuf, sources: Vec<PeerId>) -> TaskId {
        self.begin_fetch(manifest, out, sources, false)
    }

    fn begin_fetch(&mut self, manifest: &[u8], out: PathBuf, sources: Vec<PeerId>, may_be_private: bool) -> TaskId {
        let task = self.task();
        let sources = sources.iter().filter_map(node_id).collect();
        match Manifest::decode(manifest) {
            Ok(manifest) => {
                let is_private = may_be_private && manifest.key.is_some();
                self.command(task, Command::Fetch { task, manifest, out, sources, is_private });
            }
            Err(_) => self.hub.tell(Told::Event(Event::Failed { task, reason: Failure::Manifest })),
        }
        task
    }

    /// Goes on with the fetches that were not over when the last process ended, with the sources that they had.
    pub fn resume(&mut self) -> Vec<Resumed> {
        let mut resumed = Vec::new();
        for Record { manifest, path, .. } in std::mem::take(&mut self.idle) {
            let (task, blob, is_private) = (self.task(), manifest.blob, manifest.key.is_some());
            resumed.push(Resumed { task, hash: blob.id(), path: path.clone(), bytes: blob.size() });
            self.command(task, Command::Fetch { task, manifest, out: path, sources: Vec::new(), is_private });
        }
        resumed
    }

    /// `peer` may have what `task` fetches.
    pub fn add_source(&mut self, task: TaskId, peer: PeerId) {
        if let Some(node) = node_id(&peer) {
            self.hub.command(Command::AddSource(task, node));
        }
    }

    /// Ends a task: a shared file is not offered any more, and what a fetch has is removed. Whole files stay. Ends in
    /// [`Event::Failed`] with [`Failure::Cancelled`].
    pub fn cancel(&mut self, task: TaskId) {
        self.hub.command(Command::Cancel(task));
    }

    /// Ends a fetch, whose parts stay: it goes on when it is asked for, and not by itself, after a restart neither. Ends in
    /// [`Event::Failed`] with [`Failure::Paused`].
    pub fn pause(&mut self, task: TaskId) {
        self.hub.command(Command::Pause(task));
    }

    /// The shared file with this hash is not offered any more, of whatever task or process it was; what is being fetched is.
    pub fn unshare(&mut self, hash: BlobId) {
        self.hub.command(Command::Unshare(hash));
    }

    /// With these nodes, and no others, no encrypted file is exchanged: they are asked for none and hear that none is here. What is not encrypted, and
    /// what is shared and fetched for all, goes to them as to others. `false` if too much waits for the engine: then nothing has changed.
    #[must_use]
    pub fn avoid(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.hub.command(Command::Avoid(nodes.clone()))
    }

    /// What was dropped between the streams and the cores, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.hub.drops
    }

    fn task(&mut self) -> TaskId {
        self.next_task += 1;
        TaskId(self.next_task)
    }

    fn import(&mut self, path: &Path, key: Option<Key>, is_private: bool) -> TaskId {
        let task = self.task();
        self.command(task, Command::Share { task, path: path.to_owned(), key, is_private });
        task
    }

    fn command(&self, task: TaskId, command: Command) {
        if !self.hub.command(command) {
            self.hub.tell(Told::Event(Event::Failed { task, reason: Failure::TooMany }));
        }
    }

    fn handler(&self, peer: &PeerId) -> Result<Handler, ConnectionDenied> {
        let node = node_id(peer).ok_or_else(|| ConnectionDenied::new(NotAFogNode))?;
        Ok(Handler::new(self.protocol.clone(), Arc::clone(&self.hub), node))
    }
}

impl Drop for Behaviour {
    /// Waits until what was written is on the disk.
    fn drop(&mut self) {
        self.hub.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ended = thread.join();
        }
    }
}

/// The peer's id does not embed an Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the peer's key is not an Ed25519 key")]
struct NotAFogNode;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                self.connections.entry(new.peer_id).or_default().push(new.connection_id);
                if let Some(node) = node_id(&new.peer_id).filter(|_| new.other_established == 0) {
                    self.hub.command(Command::Connected(node));
                }
            }
            FromSwarm::ConnectionClosed(old) => {
                if let Some(connections) = self.connections.get_mut(&old.peer_id) {
                    connections.retain(|connection| *connection != old.connection_id);
                }
                if let Some(node) = node_id(&old.peer_id).filter(|_| old.remaining_established == 0) {
                    self.connections.remove(&old.peer_id);
                    self.hub.command(Command::Disconnected(node));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            let Poll::Ready(told) = self.hub.poll_told(cx) else { return Poll::Pending };
            match told {
                None => return Poll::Ready(ToSwarm::GenerateEvent(Event::Stopped)),
                Some(Told::Event(event)) => return Poll::Ready(ToSwarm::GenerateEvent(event)),
                Some(Told::Dial(node)) => {
                    let Some(peer) = peer_id(node) else { continue };
                    let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
                Some(Told::Open(node, end)) => {
                    let Some(peer_id) = peer_id(node) else { continue };
                    // Without a connection the end is dropped, and the engine hears of it.
                    let Some(connection) = self.connections.get(&peer_id).and_then(|all| all.first()) else { continue };
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id,
                        handler: NotifyHandler::One(*connection),
                        event: end,
                    });
                }
            }
        }
    }
}
