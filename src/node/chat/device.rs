//! The device of a data directory: how it is opened, opened again after the store failed, and destroyed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fog_base::{DropCounters, Network};
use fog_chat::{Chat, core::engine};
use zeroize::Zeroizing;

use super::{files, kept, key, report, rows::StoredRows};
use crate::{
    config::Config,
    keys::Keys,
    node::{
        clock,
        command::{Failure, Reply},
        event_loop::EventLoop,
        gossip::Topic,
    },
    store::{Batch, Durability, Store, StoreError, Table, Writer},
};

/// The folder of files in the data directory.
const FILES: &str = "blobs";
/// After which time chat is opened again if the store did not take what it wrote.
const RETRY: Duration = Duration::from_secs(5);
const STANDS: &str = "chat stands still: the store does not take what it writes (is the disk full?); it goes on by itself when there is room";

/// The store does not take what chat writes.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Chat stands still; it is opened again at this time.
    Failed(Instant),
    /// It was opened again; the first batch that is on the disk ends the trouble.
    Reopened,
}

/// A device, and where its files are.
pub(super) struct Opened {
    pub(super) chat: Chat,
    pub(super) master: Zeroizing<[u8; 32]>,
    pub(super) files: PathBuf,
    /// Rows of what a backup kept, which the device has taken: they go with its first batch.
    pub(super) adopted: Vec<Vec<u8>>,
}

/// Opens the device of a data directory. Without a key what is left of an earlier one is erased first, as nothing can open it.
pub(super) fn open(config: &Config, keys: &Keys, network: &Network, store: &Arc<dyn Store>) -> anyhow::Result<Opened> {
    let dir = &config.data_dir;
    let master = match key::read(dir, keys).context("the key of chat cannot be read")? {
        key::Found::Key(master) => master,
        found => {
            // Of a restored node what its backup kept is there, and stays.
            let is_restored = found == key::Found::Nothing && kept::is_there(&**store)?;
            let tables: &[_] = if is_restored { &[Table::Chat] } else { &[Table::Chat, Table::Contacts] };
            erase_rows(&**store, tables).context("what is left of an earlier chat cannot be erased")?;
            if found == key::Found::Destroyed {
                // These rows are not sealed under the key that was destroyed.
                store.compact(Table::Contacts).context("what is left of an earlier chat cannot be erased")?;
                erase_fetched(dir).context("files that were fetched cannot be erased")?;
            }
            key::create(dir, keys).context("the key of chat cannot be written")?
        }
    };
    let node = keys.node_id();
    let settings = engine::Config {
        network: network.id,
        node,
        name: config.chat_name.clone().unwrap_or_else(|| engine::default_name(node)),
        seal_key: keys.seal_public(),
    };
    let rows = Box::new(StoredRows(Arc::clone(store)));
    let mut chat = Chat::open(settings, master.clone(), rows, super::random(), clock::now()).with_context(|| {
        format!("chat cannot be opened; to begin it anew, remove `{}`", dir.join(key::FILE).display())
    })?;
    let name = blake3::derive_key("fog blobs folder v1", master.as_slice());
    let files = dir.join(FILES).join(data_encoding::HEXLOWER.encode(name.get(..8).unwrap_or_default()));
    let adopted = kept::adopt(&mut chat, &**store).context("what the backup kept of chat cannot be read")?;
    Ok(Opened { chat, master, files, adopted })
}

/// Starts the files that belong to a key of chat: their records are sealed under it, in a folder of its own. Folders of other keys are of
/// a chat that was destroyed.
pub(super) fn open_files(config: &Config, network: &Network, opened: &Opened) -> anyhow::Result<fog_blobs::Behaviour> {
    let secret = Zeroizing::new(blake3::derive_key("fog blobs records v1", opened.master.as_slice()));
    let rate = |kib: u64| (kib > 0).then_some(kib * 1024);
    let (up, down) = (rate(config.limits.files_up_kib), rate(config.limits.files_down_kib));
    let settings = fog_blobs::Config { up, down, ..fog_blobs::Config::new(network.id, &opened.files, secret) };
    let blobs = fog_blobs::Behaviour::new(settings).context("the files cannot be opened")?;
    // Before fetches go on, and the first that it is told: there is room.
    let _taken = blobs.avoid(&opened.chat.hidden_nodes());
    Ok(blobs)
}

/// Removes what a chat that was destroyed left of its files.
pub(super) fn erase_other_files(ours: &Path) -> anyhow::Result<()> {
    let Some(folder) = ours.parent() else { return Ok(()) };
    let erase = || {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path != ours {
                std::fs::remove_dir_all(path)?;
            }
        }
        std::io::Result::Ok(())
    };
    erase().context("what is left of files that were destroyed")
}

fn erase_fetched(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(files::default_folder(data_dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn erase_rows(store: &dyn Store, tables: &[Table]) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for table in tables {
        for (key, _) in store.scan(*table, &[])? {
            batch.delete(*table, key);
        }
    }
    store.commit(batch, Durability::Synced)
}

/// Waits until all that was given to the writer is in the store, or refused by it. This blocks: it is for what is rare.
fn flush(writer: &Writer) -> anyhow::Result<()> {
    let committed =
        writer.submit(Batch::new(), Durability::Relaxed).map_err(|_| anyhow::anyhow!("the store is busy"))?;
    // A thread of its own, as a task of the runtime must not block on a channel.
    let waited = std::thread::scope(|scope| scope.spawn(|| committed.blocking_recv()).join());
    waited.map_err(|_| anyhow::anyhow!("the wait for the store"))?.context("the store's writer is gone")??;
    Ok(())
}

impl EventLoop {
    /// Whether a batch is on the disk. What follows from one that is not never leaves; chat goes on from what the store has.
    pub(super) fn note_chat_stored(&mut self, ok: bool) {
        if ok {
            if self.chat.trouble.take().is_some() {
                tracing::info!("the store takes again what chat writes");
                self.notice("chat goes on");
            }
            return;
        }
        if self.chat.trouble.is_none() {
            tracing::warn!("the store does not take what chat writes; it is tried again");
        }
        self.chat.trouble = Some(Trouble::Failed(clock::now().mono + RETRY));
        self.notice(STANDS);
    }

    /// Tells whoever follows chat.
    pub(super) fn notice(&self, text: &str) {
        let _nobody_listens = self.chat.news.send(report::News::Notice { to: None, text: text.to_owned() });
    }

    pub(super) fn is_chat_running(&self) -> bool {
        !matches!(self.chat.trouble, Some(Trouble::Failed(_)))
    }

    /// Opens chat again if the store failed a while ago.
    pub(super) fn retry_chat(&mut self) {
        let Some(Trouble::Failed(at)) = self.chat.trouble else { return };
        if at > clock::now().mono {
            return;
        }
        match self.reopen_chat() {
            Ok(()) => self.chat.trouble = Some(Trouble::Reopened),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "chat cannot be opened again yet");
                self.note_chat_stored(false);
            }
        }
    }

    /// What was not taken, by reason: by this device since it was opened, and by this node as a carrier.
    pub(in crate::node) fn chat_drops(&self) -> DropCounters {
        let sum = DropCounters::default();
        let engine = self.swarm.behaviour().chat.chat().counts().drops;
        engine.into_iter().chain(self.chat.drops.snapshot()).for_each(|(reason, n)| sum.add(reason, n));
        sum
    }

    /// Why chat stands still, for a person.
    pub(in crate::node) fn chat_warning(&self) -> Option<String> {
        self.chat.trouble.as_ref().map(|_| STANDS.into())
    }

    /// Puts the device that the store and the key file hold in the place of the running one.
    fn reopen_chat(&mut self) -> anyhow::Result<()> {
        flush(&self.store)?;
        let opened = open(&self.config, &self.keys, &self.network, &self.chat.store)?;
        if opened.files != self.chat.files.folder {
            let blobs = open_files(&self.config, &self.network, &opened)?;
            // The old one has written everything when it is dropped; then its folder goes.
            drop(std::mem::replace(&mut self.swarm.behaviour_mut().blobs, blobs));
            erase_other_files(&opened.files)?;
            self.chat.files = files::Files::new(opened.files);
        }
        self.swarm.behaviour_mut().chat.replace(opened.chat);
        self.chat.adopted = opened.adopted;
        self.avoid_hidden();
        self.chat.writing = None;
        self.chat.mixing.clear();
        for message in std::mem::take(&mut self.chat.unassigned) {
            self.swarm.behaviour_mut().mix.accepted(message, false);
        }
        let is_carried = self.carries_chat();
        for bucket in std::mem::take(&mut self.chat.heard) {
            if !is_carried {
                self.swarm.behaviour_mut().gossip.unsubscribe(&Topic::Chat(bucket).ident(&self.network.id));
            }
        }
        let mailboxes = super::slots(self.invite_mailboxes());
        self.swarm.behaviour_mut().chat.chat_mut().set_mailboxes(mailboxes, clock::now());
        self.meet_again();
        Ok(())
    }

    /// `fog chat panic`: destroys the key first, then the engine, then the rows and files; then begins a new device. If that fails the node
    /// stops, and the next start goes on with it.
    pub(in crate::node) fn chat_panic(&mut self, reply: Reply<report::Destroyed>) {
        let failed = |error: anyhow::Error, hint| Failure::failed(format!("chat cannot be destroyed: {error:#}"), hint);
        if let Err(error) = key::destroy(&self.config.data_dir).context("the key file") {
            return drop(reply.send(Err(failed(error, "stop the node and delete its data directory"))));
        }
        if let Err(error) = self.reopen_chat() {
            let error = error
                .context("its key is destroyed, so nothing of it can be read, but its rows are there; the node stops");
            self.shutdown.cancel();
            return drop(reply.send(Err(failed(error, "start the node again, or delete its directory `store`"))));
        }
        // A fetch that ran until now may have written to where files go.
        if let Err(error) = erase_fetched(&self.config.data_dir).context("files that were fetched") {
            return drop(reply.send(Err(failed(error, "delete the directory `files` in the data directory"))));
        }
        self.chat.trouble = None;
        // New connections know nothing of what the old device served.
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _left = self.swarm.disconnect_peer_id(peer);
        }
        let store = Arc::clone(&self.chat.store);
        tokio::task::spawn_blocking(move || {
            let compacted = store.compact(Table::Chat).and_then(|()| store.compact(Table::Contacts));
            let outcome = compacted.map(|()| report::Destroyed { destroyed: true }).map_err(|error| {
                let rows = "nothing of chat can be read any more, but its deleted rows are still on the disk";
                Failure::failed(format!("{rows}: {error}"), "stop the node and delete its directory `store`")
            });
            drop(reply.send(outcome));
        });
    }
}

#[cfg(test)]
mod tests {
    use fog_chat::core::engine::{Kind, Output, Via};

    use super::*;
    use crate::{config::Layers, store::MemoryStore};

    struct Place {
        dir: tempfile::TempDir,
        config: Config,
        keys: Keys,
        network: Network,
        store: Arc<dyn Store>,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_str().unwrap().to_owned();
            let data_dir = |name: &str| (name == "FOG_DATA_DIR").then(|| path.clone());
            let config = Config::resolve(Layers::default(), None, &data_dir).unwrap();
            let (keys, network) = (Keys::generate().unwrap(), Network::lan());
            Self { dir, config, keys, network, store: Arc::new(MemoryStore::new()) }
        }

        fn open(&self) -> anyhow::Result<Opened> {
            open(&self.config, &self.keys, &self.network, &self.store)
        }

        /// Says something in a room, and writes all rows; how many lines the room has then.
        fn talk(&self, chat: &mut Chat) -> usize {
            let room = chat.join_room("lobby", None, clock::now()).unwrap();
            chat.send(room, Kind::TEXT, b"said", Via::Auto, clock::now()).unwrap();
            self.write(chat);
            chat.history(room, None).unwrap().len()
        }

        fn write(&self, chat: &mut Chat) {
            while let Some(output) = chat.poll_output() {
                let Output::Persist { number, rows, .. } = output else { continue };
                let mut batch = Batch::new();
                for row in rows {
                    match row.value {
                        Some(value) => batch.put(Table::Chat, row.key, value),
                        None => batch.delete(Table::Chat, row.key),
                    };
                }
                self.store.commit(batch, Durability::Synced).unwrap();
                chat.handle_persisted(number, true, clock::now());
            }
        }

        fn rows(&self) -> usize {
            self.store.scan(Table::Chat, &[]).unwrap().len()
        }
    }

    #[test]
    fn a_device_goes_on_with_its_key_and_its_rows() {
        let place = Place::new();
        let mut first = place.open().unwrap();
        assert_eq!(place.talk(&mut first.chat), 1);
        let mut again = place.open().unwrap();
        assert_eq!((again.chat.device(), &again.files), (first.chat.device(), &first.files));
        assert_eq!(place.talk(&mut again.chat), 2);
    }

    #[test]
    fn after_a_crash_in_the_middle_of_panic_the_next_start_destroys_the_rest() {
        let place = Place::new();
        let mut first = place.open().unwrap();
        place.talk(&mut first.chat);
        let fetched = files::default_folder(place.dir.path());
        std::fs::create_dir_all(&fetched).unwrap();
        std::fs::write(fetched.join("plan.txt"), "secret").unwrap();
        key::destroy(place.dir.path()).unwrap();
        assert!(place.rows() > 0);
        let mut second = place.open().unwrap();
        assert_eq!((place.rows(), fetched.exists()), (0, false));
        assert_ne!((second.chat.device(), &second.files), (first.chat.device(), &first.files));
        assert_eq!(place.talk(&mut second.chat), 1, "nothing of the first is left");
    }

    #[test]
    fn without_its_key_file_a_device_begins_anew_and_fetched_files_stay() {
        let place = Place::new();
        let mut first = place.open().unwrap();
        place.talk(&mut first.chat);
        let fetched = files::default_folder(place.dir.path());
        std::fs::create_dir_all(&fetched).unwrap();
        std::fs::remove_file(place.dir.path().join(key::FILE)).unwrap();
        let mut second = place.open().unwrap();
        assert_eq!((place.rows(), fetched.exists()), (0, true));
        assert_eq!(place.talk(&mut second.chat), 1);
    }

    #[test]
    fn a_key_of_another_device_is_an_error_that_says_what_to_do() {
        let (one, other) = (Place::new(), Place::new());
        one.talk(&mut one.open().unwrap().chat);
        key::create(one.dir.path(), &one.keys).unwrap();
        let error = format!("{:#}", one.open().err().unwrap());
        assert!(error.contains("remove") && error.contains(key::FILE), "{error}");
        other.open().unwrap();
        std::fs::copy(other.dir.path().join(key::FILE), one.dir.path().join(key::FILE)).unwrap();
        let error = format!("{:#}", one.open().err().unwrap());
        assert!(error.contains("remove") && error.contains(key::FILE), "{error}");
        assert!(one.rows() > 0, "nothing is erased unasked");
    }
}
