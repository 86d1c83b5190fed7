//! Chat in this node: what it is started with, and what its events and the commands for it lead to.

mod alone;
mod desk;
mod device;
mod files;
pub(crate) mod kept;
mod key;
pub mod report;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fog_base::{DropCounters, MessageId, Network, NodeId, Now};
use fog_chat::{
    Envelope, Reject,
    core::{
        engine::{self, MixAddress, MixProgress, Row, Validation},
        limits::Rates,
        tag::BUCKETS,
    },
};
use fog_directory::Acceptance;
use fog_mix::core::{
    endpoint::{Delivery, Kind, Send, SentNews, SentState},
    outgoing::Address,
};
use libp2p::{PeerId, gossipsub, gossipsub::PublishError};
use rand::RngExt;
use tokio::sync::broadcast;

pub(crate) use self::desk::Desk;
pub use self::files::{FileEvent, FileEvents};
pub use self::key::FILE as KEY_FILE;
use self::{device::Trouble, report::News};
use super::{
    behaviour::{node_id, peer_id},
    clock,
    contacts::Dial,
    event_loop::EventLoop,
    gossip::Topic,
    mixnet::Stored,
    peers::PathKind,
    reputation::Offence,
};
use crate::{
    config::Config,
    invite,
    keys::Keys,
    store::{Batch, Durability, Store, Table},
};

/// Events that a slow reader may be behind.
const NEWS_QUEUE: usize = 1024;
/// Envelopes of others that are passed on for one peer: a second, and at once.
const CARRIED: (f64, f64) = (1000.0, 4000.0);
/// How long a message may take through the mixnet before the engine sends it again.
const MIX_TIMEOUT: Duration = Duration::from_secs(300);
/// Chat messages in the mixnet at a time.
const MAX_MIXING: usize = 4096;

/// What chat needs of the node while it runs.
pub(super) struct ChatState {
    store: Arc<dyn Store>,
    files: files::Files,
    pub(super) news: broadcast::Sender<News>,
    /// What is in the mixnet, and what the engine calls it.
    mixing: BTreeMap<MessageId, (u64, Option<MixProgress>)>,
    /// The batch that the store has not answered for; the engine hands out one at a time.
    writing: Option<Writing>,
    batches: u64,
    /// What came through the mixnet and whose batch the engine has not handed out yet.
    unassigned: Vec<MessageId>,
    /// Rows that go with the next batch: [`device::Opened::adopted`].
    adopted: Vec<Vec<u8>>,
    /// Buckets that the engine listens to.
    heard: BTreeSet<u8>,
    /// What each peer may have carried.
    carried: Rates<NodeId>,
    /// What gossip brought for the engine since it was last asked: bucket, bearer, name, bytes.
    unjudged: Vec<(u8, PeerId, gossipsub::MessageId, Vec<u8>)>,
    /// Envelopes that are not passed on.
    drops: DropCounters,
    trouble: Option<Trouble>,
}

/// A batch on its way to the disk.
struct Writing {
    /// The node's number of it, which no other device of this process has.
    batch: u64,
    /// The engine's number of it.
    number: u64,
    /// What came through the mixnet and is acknowledged when this is on the disk.
    arrived: Vec<MessageId>,
    /// It takes over what a backup kept.
    is_adopting: bool,
}

impl std::fmt::Debug for ChatState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let written = self.writing.as_ref().map(|writing| writing.batch);
        f.debug_struct("ChatState")
            .field("mixing", &self.mixing.len())
            .field("writing", &written)
            .finish_non_exhaustive()
    }
}

impl ChatState {
    /// Fetches that go on from the last run: who asks for one of them follows it.
    pub(super) fn take_resumed(&mut self, resumed: Vec<fog_blobs::Resumed>) {
        self.files.take_resumed(resumed);
    }
}

/// Opens the device of a data directory, or begins a new one.
pub(super) fn open(
    config: &Config,
    keys: &Keys,
    network: &Network,
    store: &Arc<dyn Store>,
) -> anyhow::Result<(fog_chat::Behaviour, fog_blobs::Behaviour, ChatState)> {
    let mut opened = device::open(config, keys, network, store)?;
    let blobs = device::open_files(config, network, &opened)?;
    device::erase_other_files(&opened.files)?;
    // Those of the last run hold what was sent meanwhile; contacts must not be told that there are none.
    let mailboxes = slots(super::mailboxes(keys, &super::stored_mailboxes(&**store)?));
    opened.chat.set_mailboxes(mailboxes, clock::now());
    let (news, _) = broadcast::channel(NEWS_QUEUE);
    let state = ChatState {
        store: Arc::clone(store),
        files: files::Files::new(opened.files),
        news,
        mixing: BTreeMap::new(),
        writing: None,
        batches: 0,
        unassigned: Vec::new(),
        adopted: opened.adopted,
        heard: BTreeSet::new(),
        carried: Rates::new(CARRIED),
        unjudged: Vec::new(),
        drops: DropCounters::default(),
        trouble: None,
    };
    Ok((fog_chat::Behaviour::new(&network.id, opened.chat), blobs, state))
}

/// Where a card says that the mixnet leads, as the mixnet has it.
pub(super) fn mix_address(to: MixAddress) -> Address {
    Address { node: to.node, seal_key: to.seal_key, mailboxes: to.mailboxes }
}

/// Mailboxes as cards have them.
fn slots(mailboxes: Vec<invite::Mailbox>) -> Vec<(NodeId, [u8; 32])> {
    mailboxes.into_iter().map(|mailbox| (mailbox.relay, mailbox.slot)).collect()
}

#[expect(clippy::disallowed_methods, reason = "randomness enters the node here")]
pub(super) fn random<const N: usize>() -> [u8; N] {
    rand::rng().random()
}

impl EventLoop {
    /// What the engine wants.
    pub(super) fn on_chat(&mut self, event: fog_chat::Event) {
        match event {
            fog_chat::Event::Persist { number, rows, is_synced } => self.persist(number, rows, is_synced),
            fog_chat::Event::Subscribe(bucket, on) => {
                let topic = Topic::Chat(bucket).ident(&self.network.id);
                let is_carried = self.carries_chat();
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                if on {
                    self.chat.heard.insert(bucket);
                    if let Err(error) = gossip.subscribe(&topic) {
                        tracing::warn!(%error, "gossip takes no more topics: rooms of one are not heard");
                    }
                } else {
                    self.chat.heard.remove(&bucket);
                    if !is_carried {
                        gossip.unsubscribe(&topic);
                    }
                }
            }
            fog_chat::Event::Publish { handle, bucket, bytes } => {
                let topic = Topic::Chat(bucket).ident(&self.network.id);
                let published = self.swarm.behaviour_mut().gossip.publish(topic, bytes);
                let ok = matches!(published, Ok(_) | Err(PublishError::Duplicate));
                self.swarm.behaviour_mut().chat.handle_published(handle, ok);
            }
            fog_chat::Event::Mix { handle, to, bytes } => self.mix_chat(handle, to, bytes),
            fog_chat::Event::Dial(node) => self.dial_for_chat(node),
            fog_chat::Event::Blame(node, reject) => {
                tracing::debug!(%node, %reject, "a peer sent what no honest one sends");
                let now = clock::now();
                let actions = self.wiring.handle_offence(node, Offence::Invalid, now);
                self.perform(actions, now);
            }
            fog_chat::Event::Chat(event) => self.tell_of_chat(&event),
        }
    }

    /// Whether this node passes on the envelopes of rooms that it is not in: members who know no address of each other meet at relays.
    fn carries_chat(&self) -> bool {
        !self.config.roles.is_empty()
    }

    /// Listens to all buckets if it carries chat.
    pub(super) fn start_chat(&mut self) {
        let carried = if self.carries_chat() { BUCKETS } else { 0 };
        for bucket in 0..carried {
            let topic = Topic::Chat(bucket).ident(&self.network.id);
            if let Err(error) = self.swarm.behaviour_mut().gossip.subscribe(&topic) {
                tracing::warn!(%error, "gossip takes no more topics: some rooms are not carried");
            }
        }
    }

    /// Judges an envelope: by the engine, where it is in a room of this bucket, with others that have come; else by its layout, its expiry
    /// and what its bearer may have carried.
    pub(super) fn judge_chat(&mut self, bucket: u8, from: PeerId, id: gossipsub::MessageId, bytes: Vec<u8>, now: Now) {
        if self.chat.heard.contains(&bucket) || !self.carries_chat() {
            return self.chat.unjudged.push((bucket, from, id, bytes));
        }
        let outcome = Envelope::parse(&bytes, now.unix)
            .and_then(|_| node_id(&from).map_or(Err(Reject::Unknown), |from| self.chat.carried.take(from, now.mono)));
        let verdict = match outcome {
            Ok(()) => Validation::Accept,
            Err(reject) => {
                self.chat.drops.count(reject.drop_reason());
                if reject.is_misbehaviour() { Validation::Reject } else { Validation::Ignore }
            }
        };
        self.report_chat(bucket, from, &id, verdict, now);
    }

    /// How many envelopes wait for the engine's judgement.
    pub(super) fn unjudged(&self) -> usize {
        self.chat.unjudged.len()
    }

    /// Has the engine judge them together: their signatures cost less so.
    pub(super) fn judge_envelopes(&mut self) {
        let now = clock::now();
        let came = std::mem::take(&mut self.chat.unjudged);
        let envelopes: Vec<_> = came.iter().map(|(_, from, _, bytes)| (*from, &bytes[..])).collect();
        let verdicts = self.swarm.behaviour_mut().chat.handle_gossips(&envelopes);
        for ((bucket, from, id, _), verdict) in came.iter().zip(verdicts) {
            self.report_chat(*bucket, *from, id, verdict, now);
        }
    }

    fn report_chat(&mut self, bucket: u8, from: PeerId, id: &gossipsub::MessageId, verdict: Validation, now: Now) {
        let acceptance = match verdict {
            Validation::Accept => Acceptance::Accept,
            Validation::Ignore => Acceptance::Ignore,
            Validation::Reject => Acceptance::Reject,
        };
        self.report(Topic::Chat(bucket), from, id, acceptance, now);
    }

    fn persist(&mut self, number: u64, rows: Vec<Row>, is_synced: bool) {
        let mut batch = Batch::new();
        for Row { key, value } in rows {
            match value {
                Some(value) => batch.put(Table::Chat, key, value),
                None => batch.delete(Table::Chat, key),
            };
        }
        let is_adopting = !self.chat.adopted.is_empty();
        for key in std::mem::take(&mut self.chat.adopted) {
            batch.delete(Table::Contacts, key);
        }
        self.chat.batches += 1;
        let (name, arrived) = (self.chat.batches, std::mem::take(&mut self.chat.unassigned));
        self.chat.writing = Some(Writing { batch: name, number, arrived, is_adopting });
        let durability = if is_synced { Durability::Synced } else { Durability::Relaxed };
        match self.store.submit(batch, durability) {
            Ok(committed) => self.answer(committed, move |ok| Stored::Chat(name, ok)),
            Err(_) => self.on_chat_stored(name, false),
        }
    }

    /// The store has answered for a batch; a device that was destroyed meanwhile does not hear it.
    pub(super) fn on_chat_stored(&mut self, batch: u64, ok: bool) {
        let Some(writing) = self.chat.writing.take_if(|writing| writing.batch == batch) else { return };
        for message in writing.arrived {
            self.swarm.behaviour_mut().mix.accepted(message, ok);
        }
        self.swarm.behaviour_mut().chat.handle_persisted(writing.number, ok);
        if ok && writing.is_adopting {
            kept::forget(Arc::clone(&self.chat.store));
        }
        self.note_chat_stored(ok);
    }

    /// Regularly: what came and changed nothing is acknowledged too; and whether the mixnet can be used.
    pub(super) fn chat_tick(&mut self) {
        self.retry_chat();
        self.avoid_hidden();
        if self.chat.writing.is_none() {
            let ok = self.is_chat_running();
            for message in std::mem::take(&mut self.chat.unassigned) {
                self.swarm.behaviour_mut().mix.accepted(message, ok);
            }
        }
        let behaviour = self.swarm.behaviour_mut();
        let status = behaviour.mix.stats().status();
        // Without roles an answer needs a mailbox.
        let is_ready = status.ready && (!self.config.roles.is_empty() || !status.mailboxes.is_empty());
        behaviour.chat.handle_mix_ready(is_ready);
        let mailboxes = slots(self.invite_mailboxes());
        self.swarm.behaviour_mut().chat.chat_mut().set_mailboxes(mailboxes, clock::now());
    }

    /// A peer of our network is here.
    pub(super) fn meet(&mut self, peer: &PeerId, is_lan: bool) {
        if let Some(node) = node_id(peer) {
            self.swarm.behaviour_mut().chat.handle_connected(node, is_lan);
        }
    }

    /// Another device has taken the place of the one that knew who is here.
    fn meet_again(&mut self) {
        for view in self.wiring.peers.views(clock::now().mono) {
            self.meet(&view.id, view.path == PathKind::Lan);
        }
    }

    /// It is gone.
    pub(super) fn part(&mut self, peer: &PeerId) {
        if let Some(node) = node_id(peer) {
            self.swarm.behaviour_mut().chat.handle_disconnected(node);
        }
    }

    fn mix_chat(&mut self, handle: u64, to: MixAddress, body: Vec<u8>) {
        let behaviour = self.swarm.behaviour_mut();
        if self.chat.mixing.len() >= MAX_MIXING {
            return behaviour.chat.handle_mix_progress(handle, MixProgress::Failed);
        }
        let (to, id) = (mix_address(to), MessageId(random()));
        self.chat.mixing.insert(id, (handle, None));
        behaviour.mix.send(Send { id, to, body, hops: None, kind: Kind::Chat, timeout: MIX_TIMEOUT });
    }

    /// News of a message in the mixnet; false if it is not one of chat.
    pub(super) fn on_chat_mixed(&mut self, news: &SentNews) -> bool {
        let progress = match news.state {
            SentState::Progress => MixProgress::Sent,
            SentState::Stored => MixProgress::Stored,
            SentState::Delivered => MixProgress::Acknowledged,
            SentState::Failed => MixProgress::Failed,
        };
        self.chat_mix_progress(news.message, progress)
    }

    /// A message cannot be sent; false if it is not one of chat.
    pub(super) fn on_chat_unmixable(&mut self, message: MessageId) -> bool {
        self.chat_mix_progress(message, MixProgress::Failed)
    }

    fn chat_mix_progress(&mut self, message: MessageId, progress: MixProgress) -> bool {
        let Some((handle, told)) = self.chat.mixing.get_mut(&message) else { return false };
        let (handle, is_new) = (*handle, told.replace(progress) != Some(progress));
        if matches!(progress, MixProgress::Acknowledged | MixProgress::Failed) {
            self.chat.mixing.remove(&message);
        }
        if is_new {
            self.swarm.behaviour_mut().chat.handle_mix_progress(handle, progress);
        }
        true
    }

    /// A chat message came through the mixnet: it is acknowledged when what follows from it is on the disk.
    pub(super) fn on_chat_delivery(&mut self, delivery: Delivery) {
        self.chat.unassigned.push(delivery.message);
        self.swarm.behaviour_mut().chat.handle_mix(&delivery.body);
    }

    fn dial_for_chat(&mut self, node: NodeId) {
        let Some(peer) = peer_id(node) else { return };
        if self.wiring.peers.is_connected(&peer) || self.wiring.peers.is_banned(&peer) {
            return;
        }
        let mut addresses = self.addresses_of(node);
        addresses.extend(desk::invite_addresses(&*self.chat.store, node));
        self.dial(Dial { peer: Some(peer), addresses });
    }

    fn tell_of_chat(&mut self, event: &engine::Event) {
        if self.chat.news.receiver_count() == 0 {
            return;
        }
        if let Some(news) = self.desk().news(event) {
            let _nobody_listens = self.chat.news.send(news);
        }
    }

    /// What a person works with.
    pub(super) fn desk(&mut self) -> Desk<'_> {
        let counts = self.peer_counts();
        let (now, is_running) = (clock::now(), self.is_chat_running());
        let alone = (counts.lan + counts.direct + counts.relayed == 0).then(|| self.why_alone());
        let behaviour = self.swarm.behaviour_mut();
        let mix_ready = behaviour.mix.stats().status().ready;
        Desk {
            chat: behaviour.chat.chat_mut(),
            writer: &self.store,
            network: &self.network,
            now,
            lan: counts.lan as u64,
            net: (counts.direct + counts.relayed) as u64,
            alone,
            mix_ready,
            is_running,
        }
    }
}
