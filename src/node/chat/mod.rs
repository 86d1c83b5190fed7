//! Chat in this node: what it is started with, and what its events and the commands for it lead to.

mod desk;
mod files;
mod key;
pub mod report;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use fog_base::{MessageId, Network, NodeId};
use fog_chat::{
    Chat, Envelope, Reject,
    core::{
        engine::{self, MixAddress, MixProgress, Row, Validation},
        limits::Rates,
        tag::BUCKETS,
    },
};
use fog_mix::core::{
    endpoint::{Delivery, Kind, Send, SentNews, SentState},
    outgoing::Address,
};
use libp2p::gossipsub::PublishError;
use rand::RngExt;
use tokio::sync::{broadcast, oneshot};
use zeroize::Zeroizing;

pub(crate) use self::desk::Desk;
pub use self::files::{FileEvent, FileEvents};
pub use self::key::FILE as KEY_FILE;
use self::{report::News, rows::StoredRows};
use super::{
    behaviour::{node_id, peer_id},
    clock,
    command::{Failure, Reply},
    contacts::Dial,
    event_loop::EventLoop,
    gossip::Topic,
    mixnet::Stored,
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
/// The folder of files in the data directory.
const FILES: &str = "blobs";
/// How long a message may take through the mixnet before the engine sends it again.
const MIX_TIMEOUT: Duration = Duration::from_secs(300);
/// Chat messages in the mixnet at a time.
const MAX_MIXING: usize = 4096;

/// What chat needs of the node while it runs.
pub(super) struct ChatState {
    store: Arc<dyn Store>,
    rows: StoredRows,
    files: files::Files,
    pub(super) news: broadcast::Sender<News>,
    /// What is in the mixnet, and what the engine calls it.
    mixing: BTreeMap<MessageId, (u64, Option<MixProgress>)>,
    /// What came through the mixnet and is acknowledged when this batch is on the disk.
    arriving: BTreeMap<u64, Vec<MessageId>>,
    /// What came and whose batch the engine has not handed out yet.
    unassigned: Vec<MessageId>,
    /// Buckets that the engine listens to.
    heard: BTreeSet<u8>,
    /// What each peer may have carried.
    carried: Rates<NodeId>,
    /// Batches that the store has not answered for.
    unstored: usize,
}

impl std::fmt::Debug for ChatState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatState")
            .field("mixing", &self.mixing.len())
            .field("unstored", &self.unstored)
            .finish_non_exhaustive()
    }
}

/// Starts the files that belong to a key of chat: their records are sealed under it, in a folder of its own. Folders of other keys are of
/// a chat that was destroyed.
fn open_files(
    config: &Config,
    network: &Network,
    master: &Zeroizing<[u8; 32]>,
) -> anyhow::Result<(fog_blobs::Behaviour, PathBuf)> {
    let secret = Zeroizing::new(blake3::derive_key("fog blobs records v1", master.as_slice()));
    let name = blake3::derive_key("fog blobs folder v1", master.as_slice());
    let dir = config.data_dir.join(FILES).join(data_encoding::HEXLOWER.encode(name.get(..8).unwrap_or_default()));
    let settings = fog_blobs::Config::new(network.id, &dir, secret);
    Ok((fog_blobs::Behaviour::new(settings).context("the files cannot be opened")?, dir))
}

/// Removes what a chat that was destroyed left of its files.
fn remove_other_files(data_dir: &Path, ours: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(data_dir.join(FILES))? {
        let path = entry?.path();
        if path != ours {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// Opens the device of a data directory, or begins a new one.
pub(super) fn open(
    config: &Config,
    keys: &Keys,
    network: &Network,
    store: &Arc<dyn Store>,
) -> anyhow::Result<(fog_chat::Behaviour, fog_blobs::Behaviour, ChatState)> {
    let rows = StoredRows::new(Arc::clone(store));
    let master = key::open_or_create(&config.data_dir, keys).context("the key of chat cannot be read")?;
    let (blobs, dir) = open_files(config, network, &master)?;
    remove_other_files(&config.data_dir, &dir).context("what is left of files that were destroyed")?;
    let mut chat = device(config, keys, network, (master, rows.clone()))?;
    // Those of the last run hold what was sent meanwhile; contacts must not be told that there are none.
    chat.set_mailboxes(slots(super::mailboxes(keys, &super::stored_mailboxes(&**store)?)), clock::now());
    let (news, _) = broadcast::channel(NEWS_QUEUE);
    let state = ChatState {
        store: Arc::clone(store),
        rows,
        files: files::Files::default(),
        news,
        mixing: BTreeMap::new(),
        arriving: BTreeMap::new(),
        unassigned: Vec::new(),
        heard: BTreeSet::new(),
        carried: Rates::new(CARRIED),
        unstored: 0,
    };
    Ok((fog_chat::Behaviour::new(&network.id, chat), blobs, state))
}

/// Mailboxes as cards have them.
fn slots(mailboxes: Vec<invite::Mailbox>) -> Vec<(NodeId, [u8; 32])> {
    mailboxes.into_iter().map(|mailbox| (mailbox.relay, mailbox.slot)).collect()
}

fn device(
    config: &Config,
    keys: &Keys,
    network: &Network,
    (master, rows): (Zeroizing<[u8; 32]>, StoredRows),
) -> anyhow::Result<Chat> {
    let node = keys.node_id();
    let settings = engine::Config { network: network.id, node, name: name(config, node), seal_key: keys.seal_public() };
    Chat::open(settings, master, Box::new(rows), random(), clock::now()).context("chat cannot be opened")
}

/// Without a name of its own a node is `fog-` and the end of its id, which says nothing of its person.
fn name(config: &Config, node: NodeId) -> String {
    let id = node.to_string();
    let default = || format!("fog-{}", id.get(id.len().saturating_sub(6)..).unwrap_or_default());
    config.chat_name.clone().unwrap_or_else(default)
}

#[expect(clippy::disallowed_methods, reason = "randomness enters the node here")]
fn random<const N: usize>() -> [u8; N] {
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

    /// Judges an envelope: by the engine, where it is in a room of this bucket; else by its layout, its expiry and what its bearer may
    /// have carried.
    pub(super) fn judge_chat(&mut self, bucket: u8, from: &libp2p::PeerId, bytes: &[u8]) -> Validation {
        if self.chat.heard.contains(&bucket) || !self.carries_chat() {
            return self.swarm.behaviour_mut().chat.handle_gossip(from, bytes);
        }
        let now = clock::now();
        let outcome = Envelope::parse(bytes, now.unix)
            .and_then(|_| node_id(from).map_or(Err(Reject::Unknown), |from| self.chat.carried.take(from, now.mono)));
        match outcome {
            Ok(()) => Validation::Accept,
            Err(reject) if reject.is_misbehaviour() => Validation::Reject,
            Err(_) => Validation::Ignore,
        }
    }

    fn persist(&mut self, number: u64, rows: Vec<Row>, is_synced: bool) {
        let mut batch = Batch::new();
        self.chat.rows.stage(number, &rows);
        for Row { key, value } in rows {
            match value {
                Some(value) => batch.put(Table::Chat, key, value),
                None => batch.delete(Table::Chat, key),
            };
        }
        let arrived = std::mem::take(&mut self.chat.unassigned);
        if !arrived.is_empty() {
            self.chat.arriving.insert(number, arrived);
        }
        self.chat.unstored += 1;
        let durability = if is_synced { Durability::Synced } else { Durability::Relaxed };
        match self.store.submit(batch, durability) {
            Ok(committed) => self.answer(committed, move |ok| Stored::Chat(number, ok)),
            Err(_) => self.on_chat_stored(number, false),
        }
    }

    /// The store has answered for a batch.
    pub(super) fn on_chat_stored(&mut self, number: u64, ok: bool) {
        self.chat.rows.settle(number);
        self.chat.unstored = self.chat.unstored.saturating_sub(1);
        for message in self.chat.arriving.remove(&number).unwrap_or_default() {
            self.swarm.behaviour_mut().mix.accepted(message, ok);
        }
        self.swarm.behaviour_mut().chat.handle_persisted(number, ok);
    }

    /// Regularly: what came and changed nothing is acknowledged too; and whether the mixnet can be used.
    pub(super) fn chat_tick(&mut self) {
        if self.chat.unstored == 0 {
            for message in std::mem::take(&mut self.chat.unassigned) {
                self.swarm.behaviour_mut().mix.accepted(message, true);
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
    pub(super) fn meet(&mut self, peer: &libp2p::PeerId, is_lan: bool) {
        if let Some(node) = node_id(peer) {
            self.swarm.behaviour_mut().chat.handle_connected(node, is_lan);
        }
    }

    /// It is gone.
    pub(super) fn part(&mut self, peer: &libp2p::PeerId) {
        if let Some(node) = node_id(peer) {
            self.swarm.behaviour_mut().chat.handle_disconnected(node);
        }
    }

    fn mix_chat(&mut self, handle: u64, to: MixAddress, body: Vec<u8>) {
        let behaviour = self.swarm.behaviour_mut();
        if self.chat.mixing.len() >= MAX_MIXING {
            return behaviour.chat.handle_mix_progress(handle, MixProgress::Failed);
        }
        let to = Address { node: to.node, seal_key: to.seal_key, mailboxes: to.mailboxes };
        let id = MessageId(random());
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
        let now = clock::now();
        let behaviour = self.swarm.behaviour_mut();
        let mix_ready = behaviour.mix.stats().status().ready;
        Desk {
            chat: behaviour.chat.chat_mut(),
            writer: &self.store,
            network: &self.network,
            now,
            name: name(&self.config, self.keys.node_id()),
            lan: counts.lan as u64,
            net: (counts.direct + counts.relayed) as u64,
            mix_ready,
        }
    }

    /// Destroys the keys first, then the engine, then the rows; then begins a new device.
    pub(super) fn chat_panic(&mut self, reply: Reply<report::Destroyed>) {
        let begun = self.destroy_chat();
        let erased = match begun {
            Ok(erased) => erased,
            Err(error) => {
                let failure = Failure::failed(
                    format!("chat cannot be destroyed: {error:#}"),
                    "stop the node and delete its data directory",
                );
                return drop(reply.send(Err(failure)));
            }
        };
        let store = Arc::clone(&self.chat.store);
        tokio::spawn(async move {
            let outcome = finish_erasing(store, erased).await;
            drop(reply.send(outcome));
        });
    }

    fn destroy_chat(&mut self) -> anyhow::Result<oneshot::Receiver<Result<(), crate::store::StoreError>>> {
        key::destroy(&self.config.data_dir).context("the key file")?;
        let mut batch = Batch::new();
        for (key, _) in self.chat.store.scan(Table::Chat, &[])? {
            batch.delete(Table::Chat, key);
        }
        for (key, _) in self.chat.store.scan(Table::Contacts, &[])? {
            batch.delete(Table::Contacts, key);
        }
        let erased = self.store.submit(batch, Durability::Synced).map_err(|_| anyhow::anyhow!("the store is busy"))?;
        let master = key::open_or_create(&self.config.data_dir, &self.keys).context("the new key file")?;
        self.chat.rows = StoredRows::new(Arc::clone(&self.chat.store));
        let (blobs, dir) = open_files(&self.config, &self.network, &master)?;
        let chat = device(&self.config, &self.keys, &self.network, (master, self.chat.rows.clone()))?;
        self.swarm.behaviour_mut().chat.replace(chat);
        // The old one has written everything when it is dropped; then its folder goes, and what was fetched without another place.
        drop(std::mem::replace(&mut self.swarm.behaviour_mut().blobs, blobs));
        remove_other_files(&self.config.data_dir, &dir).context("the records of files")?;
        let fetched = files::default_folder(&self.config.data_dir);
        if fetched.exists() {
            std::fs::remove_dir_all(fetched).context("files that were fetched")?;
        }
        (self.chat.mixing, self.chat.arriving) = (BTreeMap::new(), BTreeMap::new());
        self.chat.files = files::Files::default();
        // New connections know nothing of what the old ones served.
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _left = self.swarm.disconnect_peer_id(peer);
        }
        Ok(erased)
    }
}

async fn finish_erasing(
    store: Arc<dyn Store>,
    erased: oneshot::Receiver<Result<(), crate::store::StoreError>>,
) -> Result<report::Destroyed, Failure> {
    let failed = |error: String| {
        Failure::failed(
            format!("the keys are destroyed, so nothing of chat can be read; the rows are still there: {error}"),
            "stop the node and delete its `store` directory",
        )
    };
    erased.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let compacted =
        tokio::task::spawn_blocking(move || store.compact(Table::Chat).and_then(|()| store.compact(Table::Contacts)));
    compacted.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(report::Destroyed { destroyed: true })
}
