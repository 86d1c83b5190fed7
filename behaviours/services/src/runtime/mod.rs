//! The adapter between the cores and circuits: one task that holds the client and the services of this node, and one that holds its part as a
//! relay. They decide nothing of the protocol.
//!
//! The node gives it what its circuits tell ([`Services::handle`]), what it knows of the network ([`Services::set_network`]), and the
//! store ([`Keep`]); programs ask it for streams ([`Services::connect`]).

mod circuits;
mod exchange;
mod host;
mod mixed;
mod relay;
mod sessions;
mod task;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{Epoch, NodeId, Now, UnixMillis};
use fog_circuits::{Circuits, Event, Hop, Isolation, Side, Stream};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::mixed::{MixEvent, MixOrder};
pub use crate::core::client::Stage;
use crate::core::{
    address::Address,
    blinding::Identity,
    client::Failure,
    descriptor::{ClientKey, ClientSecret},
    mixed::{Asking, Failure as NotAnswered},
    period::Calendar,
    ring::Ring,
    service::{Row, Status},
    view::View,
};
use crate::{core::reject::Reject, wire::command};
use task::Task;

/// Messages of circuits that wait for a task.
const MAX_MESSAGES: usize = 4096;
/// All that waits for it. Beyond messages that is what is told of circuits, of which a node has fewer at a time, and what somebody awaits.
const QUEUE: usize = 65_536;
/// How often the tasks look who left, at least.
const TICK: Duration = Duration::from_millis(500);

#[expect(clippy::disallowed_methods, reason = "this is where the cores' clock is read")]
fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

/// What the node knows of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The relays that introduction and rendezvous points are chosen from, as circuits end at them.
    pub relays: Vec<Hop>,
    /// The rings of the open periods that are known.
    pub rings: Vec<Ring>,
    /// Whether this node is one of the relays.
    pub is_relay: bool,
    /// Whether there are relays enough for circuits with one more behind the second layer.
    pub has_long_paths: bool,
}

/// Where services' rows are kept.
pub trait Keep: Send + Sync + 'static {
    /// Writes all rows of the service of this number, on the disk when it returns true.
    fn write(&self, service: u64, rows: Vec<Row>) -> impl Future<Output = bool> + Send;
}

/// What the task is started with.
pub struct Config {
    /// The network's times.
    pub calendar: Calendar,
    /// This node.
    pub us: NodeId,
    /// Relays of a client's circuit to a rendezvous point, that one included; all others have one more where the network has relays enough.
    pub hops: usize,
    /// 32 random bytes.
    pub seed: [u8; 32],
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("calendar", &self.calendar).field("hops", &self.hops).finish_non_exhaustive()
    }
}

/// A service that this node runs.
pub struct Hosted {
    /// A number of its own, for its rows.
    pub number: u64,
    /// Its key.
    pub identity: Identity,
    /// Where its streams go.
    pub target: SocketAddr,
    /// The port under which it is reached.
    pub port: u16,
    /// Whom it admits; everybody if there is none.
    pub clients: Vec<ClientKey>,
    /// What it kept.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("number", &self.number).field("target", &self.target).finish_non_exhaustive()
    }
}

/// A stream to a service that is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// The service.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// The key for it, if it admits known clients only.
    pub client: Option<ClientSecret>,
    /// With whom it may share circuits.
    pub isolation: Isolation,
    /// What is said first.
    pub early: Vec<u8>,
    /// Follows the stage.
    pub stage: watch::Sender<Option<Stage>>,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many introduction points the descriptor names.
    pub points: usize,
    /// The last epoch in which it is valid.
    pub last_epoch: Epoch,
    /// Its revision.
    pub revision: u64,
}

/// What was refused, and what is held for others.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Messages that were refused, by reason.
    pub rejects: Vec<(&'static str, u64)>,
    /// What this node keeps as a relay: descriptors, introduction points, waiting clients.
    pub held: (usize, usize, usize),
    /// Connections to services that are open.
    pub sessions: usize,
    /// Exchanges through the mixnet that this node keeps as a relay.
    pub exchanges: usize,
    /// Requests that this node made through the mixnet.
    pub mixed_asked: u64,
    /// Requests through the mixnet that its own services were asked.
    pub mixed_served: u64,
}

#[derive(Debug)]
enum Command {
    Event(Event),
    Network(Network),
    Connect(Wanted, oneshot::Sender<Result<Stream, Failure>>),
    Lookup { address: Address, client: Option<ClientSecret>, reply: oneshot::Sender<Result<Found, Failure>> },
    Host(Box<Hosted>),
    Remove(u64, oneshot::Sender<()>),
    Renew { address: Address, isolation: Isolation, client: Option<ClientKey> },
    Admit(u64, Vec<ClientKey>),
    Status(oneshot::Sender<Vec<(u64, Status)>>),
}

/// Services and connections to services. Cheap to copy; the tasks end when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct Services {
    commands: mpsc::Sender<Command>,
    relay: relay::Desk,
    mixed: mixed::Desk,
    us: NodeId,
    /// Messages that wait.
    waiting: Arc<AtomicUsize>,
    /// Messages that found no room, in either queue.
    crowded: Arc<AtomicU64>,
    counts: Arc<Mutex<Counts>>,
}

impl Services {
    /// Starts the tasks, within a tokio runtime. What is asked of the mixnet goes to `orders`.
    pub fn start<K: Keep>(config: Config, circuits: Circuits, keep: Arc<K>, orders: mpsc::Sender<MixOrder>) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (waiting, counts) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Counts>>::default());
        // What follows these closely is for the hop, or the circuit, that is joined because of them.
        circuits.hold_after(&[command::RENDEZVOUS1, command::RENDEZVOUS2]);
        let relay = relay::Desk::start(&config, circuits.clone(), orders.clone());
        let mixed = mixed::Desk::start(&config, orders);
        let us = config.us;
        let task = Task::new(config, circuits, keep, Arc::clone(&counts));
        tokio::spawn(task.run(queue, Arc::clone(&waiting)));
        Self { commands, relay, mixed, us, waiting, crowded: Arc::default(), counts }
    }

    /// What the mixnet tells.
    pub fn handle_mix(&self, event: MixEvent) {
        match event {
            MixEvent::Asked { body, blocks } => {
                let is_taken = self.relay.asked(body, blocks);
                self.crowded.fetch_add(u64::from(!is_taken), Ordering::Relaxed);
            }
            MixEvent::Sent(message, sent) => self.mixed.sent(message, sent),
            MixEvent::Answer(message, bytes) => self.mixed.answer(message, bytes),
        }
    }

    /// A request and its answer through the mixnet; without a request, whether the service is there and takes such. Dropping the future
    /// gives up.
    pub async fn ask_mixed(&self, asking: Asking) -> Result<Vec<u8>, NotAnswered> {
        self.mixed.ask(asking).await
    }

    /// An event of circuits, in order. False if it is a message and too many wait: its circuit is to be closed. That a circuit is there, or gone, is
    /// always taken.
    pub fn handle(&self, event: Event) -> bool {
        let is_taken = match &event {
            Event::Message { side: Side::Relay, .. } | Event::Closed { side: Side::Relay, .. } => {
                self.relay.handle(event)
            }
            _ => self.handle_own(event),
        };
        self.crowded.fetch_add(u64::from(!is_taken), Ordering::Relaxed);
        is_taken
    }

    fn handle_own(&self, event: Event) -> bool {
        let is_message = matches!(event, Event::Message { .. });
        if is_message && self.waiting.load(Ordering::Relaxed) >= MAX_MESSAGES {
            return false;
        }
        self.waiting.fetch_add(usize::from(is_message), Ordering::Relaxed);
        let is_taken = self.commands.try_send(Command::Event(event)).is_ok();
        if !is_taken {
            self.waiting.fetch_sub(usize::from(is_message), Ordering::Relaxed);
        }
        is_taken
    }

    /// The network changed, or an epoch began.
    pub fn set_network(&self, network: Network) {
        self.relay.set_network(network.is_relay, network.rings.clone());
        self.mixed.set_view(network.view(self.us));
        self.send(Command::Network(network));
    }

    /// A stream to a service. Dropping the future gives up.
    pub async fn connect(&self, wanted: Wanted) -> Result<Stream, Failure> {
        self.ask(|reply| Command::Connect(wanted, reply)).await.unwrap_or(Err(Failure::NotReady))
    }

    /// Fetches and checks a descriptor.
    pub async fn lookup(&self, address: Address, client: Option<ClientSecret>) -> Result<Found, Failure> {
        let found = self.ask(|reply| Command::Lookup { address, client, reply }).await;
        found.unwrap_or(Err(Failure::NotReady))
    }

    /// Runs a service.
    pub fn host(&self, hosted: Hosted) {
        self.send(Command::Host(Box::new(hosted)));
    }

    /// Ends a service; when this returns it writes no more rows, and those that it wrote are the caller's to erase.
    pub async fn remove(&self, number: u64) {
        // Without an answer the task has ended, and writes nothing either.
        let _ended = self.ask(|reply| Command::Remove(number, reply)).await;
    }

    /// An open connection to a service does not answer: the next stream gets another one.
    pub fn renew(&self, address: Address, isolation: Isolation, client: Option<&ClientSecret>) {
        self.send(Command::Renew { address, isolation, client: client.map(ClientSecret::public) });
    }

    /// Whom a service admits from now on; everybody if there is none.
    pub fn admit(&self, number: u64, clients: Vec<ClientKey>) {
        self.send(Command::Admit(number, clients));
    }

    /// How each service stands.
    pub async fn status(&self) -> Vec<(u64, Status)> {
        self.ask(Command::Status).await.unwrap_or_default()
    }

    /// What was refused, and what is held for others; half a second old at most.
    pub fn counts(&self) -> Counts {
        let own = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let relay = self.relay.told();
        let crowded = (Reject::Full.name(), self.crowded.load(Ordering::Relaxed));
        let (mixed, mixed_asked) = self.mixed.told();
        let mut rejects: BTreeMap<_, u64> = own.rejects.into_iter().collect();
        relay
            .rejects
            .iter()
            .chain(mixed.iter())
            .chain([crowded])
            .for_each(|(reason, n)| *rejects.entry(reason).or_default() += n);
        let held = relay.held;
        Counts {
            rejects: rejects.into_iter().collect(),
            held: (held.descriptors, held.points, held.waiting),
            sessions: own.sessions,
            exchanges: held.exchanges,
            mixed_asked,
            mixed_served: own.mixed_served,
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply));
        answer.await.ok()
    }

    fn send(&self, command: Command) {
        // The task ends with the node: then nobody needs it.
        let _ended = self.commands.try_send(command);
    }
}

impl Network {
    fn view(&self, us: NodeId) -> View {
        let relays = self.relays.iter().map(|hop| hop.relay.id).collect();
        View::new(relays, self.is_relay.then_some(us), self.rings.iter().cloned())
    }
}
