//! What this node does as a relay for the services of others, in a task and a queue of its own: a flood there is not felt by the services and
//! clients of this node.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fog_circuits::{CircuitId, Circuits, Event};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{Config, MAX_MESSAGES, MixOrder, QUEUE, TICK, clock};
use crate::{
    core::{
        circuit::Circuit,
        reject::Rejects,
        relay::{Block, Held, Output, Relay},
        ring::Ring,
    },
    wire::Message,
};

/// Introductions of which it is not known yet whether the service's circuit took them.
const MAX_OFFERS: usize = 1024;

#[derive(Debug)]
enum Input {
    Event(Event),
    Network { is_relay: bool, rings: Vec<Ring> },
    Asked { body: Vec<u8>, blocks: Vec<Block> },
}

/// What a circuit took, or did not.
#[derive(Debug)]
enum Offered {
    /// The introduction of this client.
    Introduction(Circuit, bool),
    /// All parts of this request.
    Request(u64, bool),
}

/// What the task tells of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) rejects: Rejects,
    pub(super) held: Held,
}

/// The way to the task, which ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    inputs: mpsc::Sender<Input>,
    /// Messages that wait.
    waiting: Arc<AtomicUsize>,
    told: Arc<Mutex<Told>>,
}

impl Desk {
    pub(super) fn start(config: &Config, circuits: Circuits, orders: mpsc::Sender<MixOrder>) -> Self {
        let (inputs, queue) = mpsc::channel(QUEUE);
        let (waiting, told) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Told>>::default());
        let task = Task {
            calendar: config.calendar,
            us: config.us,
            circuits,
            orders,
            relay: None,
            offers: FuturesUnordered::new(),
            told: Arc::clone(&told),
            tick: clock().mono,
        };
        tokio::spawn(task.run(queue, Arc::clone(&waiting)));
        Self { inputs, waiting, told }
    }

    /// As [`Services::handle`](super::Services::handle), of circuits that end at this node as a relay.
    pub(super) fn handle(&self, event: Event) -> bool {
        let is_message = matches!(event, Event::Message { .. });
        if is_message && self.waiting.load(Ordering::Relaxed) >= MAX_MESSAGES {
            return false;
        }
        self.waiting.fetch_add(usize::from(is_message), Ordering::Relaxed);
        let is_taken = self.inputs.try_send(Input::Event(event)).is_ok();
        if !is_taken {
            self.waiting.fetch_sub(usize::from(is_message), Ordering::Relaxed);
        }
        is_taken
    }

    /// A message for services, through the mixnet. False if too many wait.
    pub(super) fn asked(&self, body: Vec<u8>, blocks: Vec<Block>) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= MAX_MESSAGES {
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let is_taken = self.inputs.try_send(Input::Asked { body, blocks }).is_ok();
        if !is_taken {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        is_taken
    }

    pub(super) fn set_network(&self, is_relay: bool, rings: Vec<Ring>) {
        // The task ends with the node: then nobody needs it.
        let _ended = self.inputs.try_send(Input::Network { is_relay, rings });
    }

    pub(super) fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Task {
    calendar: crate::core::period::Calendar,
    us: fog_base::NodeId,
    circuits: Circuits,
    orders: mpsc::Sender<MixOrder>,
    relay: Option<Relay>,
    offers: FuturesUnordered<BoxFuture<'static, Offered>>,
    told: Arc<Mutex<Told>>,
    /// When it tells and looks who waits too long, however much comes until then.
    tick: Instant,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Input>, waiting: Arc<AtomicUsize>) {
        loop {
            self.pump();
            let due = self.relay.as_ref().and_then(Relay::poll_timeout).map_or(self.tick, |due| due.min(self.tick));
            tokio::select! {
                input = queue.recv() => match input {
                    Some(input) => {
                        if matches!(input, Input::Event(Event::Message { .. }) | Input::Asked { .. }) {
                            waiting.fetch_sub(1, Ordering::Relaxed);
                        }
                        self.handle(input);
                    }
                    None => return,
                },
                Some(offered) = self.offers.next(), if !self.offers.is_empty() => match (&mut self.relay, offered) {
                    (Some(relay), Offered::Introduction(client, is_taken)) => relay.handle_offered(client, is_taken),
                    (Some(relay), Offered::Request(exchange, is_taken)) => relay.handle_passed(exchange, is_taken),
                    (None, _) => {}
                },
                () = tokio::time::sleep_until(due.into()) => self.handle_timeout(),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Event(Event::Message { circuit, command, body, binding, .. }) => {
                self.handle_message(circuit, command, &body, &binding);
            }
            Input::Event(Event::Closed { circuit, .. }) => {
                if let Some(relay) = &mut self.relay {
                    relay.handle_closed(Circuit(circuit.0));
                }
            }
            Input::Event(_) => {}
            Input::Asked { body, blocks } => {
                let now = clock();
                let Some(relay) = &mut self.relay else { return };
                if let Err(reject) = relay.handle_ask(&body, blocks, self.calendar.epoch(now.unix), now) {
                    tracing::debug!(?reject, "what came through the mixnet is refused");
                }
            }
            Input::Network { is_relay, rings } => {
                if is_relay {
                    let new = || Relay::new(self.calendar.network, self.us, clock());
                    self.relay.get_or_insert_with(new).set_rings(rings);
                }
            }
        }
    }

    fn handle_message(&mut self, circuit: CircuitId, command: u8, body: &[u8], binding: &[u8; 32]) {
        let Some(relay) = &mut self.relay else { return self.circuits.close(circuit) };
        let now = clock();
        let epoch = self.calendar.epoch(now.unix);
        if let Err(reject) = relay.handle_message(Circuit(circuit.0), binding, command, body, epoch, now) {
            tracing::debug!(?reject, "a message of a circuit is refused");
        }
    }

    fn handle_timeout(&mut self) {
        let now = clock();
        self.tick = now.mono + TICK;
        if let Some(relay) = &mut self.relay {
            relay.handle_timeout(self.calendar.epoch(now.unix), now);
            let told = Told { rejects: *relay.rejects(), held: relay.held() };
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }

    fn pump(&mut self) {
        while let Some(output) = self.relay.as_mut().and_then(Relay::poll_output) {
            match output {
                Output::Send(circuit, message) => {
                    let (command, body) = message.encode();
                    self.circuits.send_message(CircuitId(circuit.0), command, body);
                }
                Output::Offer { service, client, introduction } => {
                    if self.offers.len() < MAX_OFFERS {
                        let (command, body) = Message::Introduce2(introduction).encode();
                        let offer = self.circuits.offer_message(CircuitId(service.0), command, body);
                        self.offers.push(Box::pin(async move { Offered::Introduction(client, offer.await) }));
                    } else if let Some(relay) = &mut self.relay {
                        relay.handle_offered(client, false);
                    }
                }
                Output::Pass { service, exchange, messages } => self.pass(CircuitId(service.0), exchange, messages),
                Output::Answer { block, piece } => {
                    if self.orders.try_send(MixOrder::Answer { block, piece }).is_err() {
                        self.relay.iter_mut().for_each(Relay::handle_unanswered);
                    }
                }
                Output::Join(a, b) => self.circuits.join(CircuitId(a.0), CircuitId(b.0)),
                Output::Close(circuit) => self.circuits.close(CircuitId(circuit.0)),
            }
        }
    }

    /// All parts at once, in order, or none that counts.
    fn pass(&mut self, service: CircuitId, exchange: u64, messages: Vec<Message>) {
        if self.offers.len() >= MAX_OFFERS {
            self.relay.iter_mut().for_each(|relay| relay.handle_passed(exchange, false));
            return;
        }
        let offer = |message: Message| {
            let (command, body) = message.encode();
            self.circuits.offer_message(service, command, body)
        };
        let offers: Vec<_> = messages.into_iter().map(offer).collect();
        self.offers.push(Box::pin(async move {
            let taken = futures::future::join_all(offers).await;
            Offered::Request(exchange, taken.into_iter().all(|is_taken| is_taken))
        }));
    }
}
