//! A client's exchanges through the mixnet, in a task of their own: what goes to the mixnet leaves as [`MixOrder`], and what it tells comes
//! as [`MixEvent`]. The node carries both; this crate does not know the mixnet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fog_base::{MessageId, NodeId};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Config, QUEUE, TICK, clock};
use crate::core::{
    client,
    mixed::{Asker, Asking, Failure, JobId, Output, Sent},
    pow::{Equihash, Work},
    reject::Rejects,
    relay::Block,
    view::View,
};

/// Proofs of work that are made at a time; each has a core.
const SOLVERS: usize = 2;
/// Nonces that are tried for one, ten milliseconds each: a minute.
const MAX_TRIES: u32 = 6_000;

/// What is asked of the mixnet.
#[derive(Debug)]
pub enum MixOrder {
    /// Send a message for the services of a relay's node, with so many blocks by which they can answer.
    Send {
        /// Its name; [`MixEvent::Sent`] and [`MixEvent::Answer`] use it.
        message: MessageId,
        /// To which relay.
        to: NodeId,
        /// What it says.
        body: Vec<u8>,
        /// With so many reply blocks.
        blocks: usize,
    },
    /// Answer by a block of somebody else's.
    Answer {
        /// The block.
        block: Block,
        /// What to say; zeros follow.
        piece: Vec<u8>,
    },
}

/// What the mixnet tells.
#[derive(Debug)]
pub enum MixEvent {
    /// A message for the services of this node, with the blocks by which it can be answered.
    Asked {
        /// What it says.
        body: Vec<u8>,
        /// The blocks.
        blocks: Vec<Block>,
    },
    /// What became of a message of this node's.
    Sent(MessageId, Sent),
    /// An answer to it.
    Answer(MessageId, Vec<u8>),
}

#[derive(Debug)]
enum Input {
    View(View),
    Ask(Asking, oneshot::Sender<Result<Vec<u8>, Failure>>),
    Sent(MessageId, Sent),
    Answer(MessageId, Vec<u8>),
}

/// The way to the task, which ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    inputs: mpsc::Sender<Input>,
    told: Arc<Mutex<Rejects>>,
    asked: Arc<AtomicU64>,
}

impl Desk {
    pub(super) fn start(config: &Config, orders: mpsc::Sender<MixOrder>) -> Self {
        let (inputs, queue) = mpsc::channel(QUEUE);
        let told = Arc::<Mutex<Rejects>>::default();
        let task = Task {
            asker: Asker::new(config.calendar, *blake3::keyed_hash(&config.seed, b"mixed").as_bytes()),
            orders,
            waiting: BTreeMap::new(),
            running: FuturesUnordered::new(),
            solvers: Arc::new(Semaphore::new(SOLVERS)),
            told: Arc::clone(&told),
            tick: clock().mono,
        };
        tokio::spawn(task.run(queue));
        Self { inputs, told, asked: Arc::default() }
    }

    pub(super) fn set_view(&self, view: View) {
        self.send(Input::View(view));
    }

    pub(super) async fn ask(&self, asking: Asking) -> Result<Vec<u8>, Failure> {
        self.asked.fetch_add(u64::from(asking.request.is_some()), Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.send(Input::Ask(asking, reply));
        answer.await.unwrap_or(Err(client::Failure::NotReady.into()))
    }

    pub(super) fn sent(&self, message: MessageId, sent: Sent) {
        self.send(Input::Sent(message, sent));
    }

    pub(super) fn answer(&self, message: MessageId, bytes: Vec<u8>) {
        self.send(Input::Answer(message, bytes));
    }

    /// What was refused, and how many requests were made.
    pub(super) fn told(&self) -> (Rejects, u64) {
        (*self.told.lock().unwrap_or_else(PoisonError::into_inner), self.asked.load(Ordering::Relaxed))
    }

    fn send(&self, input: Input) {
        // Of answers that find no room the missing ones are asked for again; the rest is told by its deadline.
        let _full = self.inputs.try_send(input);
    }
}

struct Task {
    asker: Asker,
    orders: mpsc::Sender<MixOrder>,
    waiting: BTreeMap<JobId, oneshot::Sender<Result<Vec<u8>, Failure>>>,
    running: FuturesUnordered<BoxFuture<'static, (JobId, Option<Work>)>>,
    solvers: Arc<Semaphore>,
    told: Arc<Mutex<Rejects>>,
    tick: Instant,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        loop {
            self.pump();
            let due = self.asker.poll_timeout().map_or(self.tick, |due| due.min(self.tick));
            tokio::select! {
                input = queue.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return,
                },
                Some((job, work)) = self.running.next(), if !self.running.is_empty() => {
                    self.asker.handle_work(job, work, clock());
                }
                () = tokio::time::sleep_until(due.into()) => self.handle_timeout(),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let now = clock();
        match input {
            Input::View(view) => self.asker.set_view(view),
            Input::Ask(asking, reply) => {
                let job = self.asker.ask(asking, now);
                self.waiting.insert(job, reply);
            }
            Input::Sent(message, sent) => self.asker.handle_sent(message, sent, now),
            Input::Answer(message, bytes) => self.asker.handle_piece(message, &bytes, now),
        }
    }

    fn handle_timeout(&mut self) {
        let now = clock();
        self.tick = now.mono + TICK;
        let left: Vec<_> = self.waiting.iter().filter(|(_, reply)| reply.is_closed()).map(|(job, _)| *job).collect();
        for job in left {
            self.waiting.remove(&job);
            self.asker.cancel(job);
        }
        self.asker.handle_timeout(now);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = *self.asker.rejects();
    }

    fn pump(&mut self) {
        while let Some(output) = self.asker.poll_output() {
            match output {
                Output::Send { message, to, body, blocks } => {
                    if self.orders.try_send(MixOrder::Send { message, to, body, blocks }).is_err() {
                        self.asker.handle_sent(message, Sent::Refused, clock());
                    }
                }
                Output::Solve { job, key, seed, effort, nonce } => {
                    let tries = effort.saturating_mul(32).clamp(256, MAX_TRIES);
                    let solve = move || Work::make(&Equihash, &key, &seed, effort, nonce, tries);
                    let solvers = Arc::clone(&self.solvers);
                    self.running.push(Box::pin(async move {
                        // Never closed.
                        let _permit = solvers.acquire_owned().await;
                        (job, tokio::task::spawn_blocking(solve).await.ok().flatten())
                    }));
                }
                Output::Done(job, result) => {
                    // Whoever left needs no answer.
                    self.waiting.remove(&job).into_iter().for_each(|reply| drop(reply.send(result.clone())));
                }
            }
        }
    }
}
