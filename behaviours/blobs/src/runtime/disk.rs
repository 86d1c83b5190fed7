//! What reads and writes files: one thread that serves, one that writes what was fetched, and two for what takes long (hashing a
//! file to share it, looking through one that is taken up again).

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use fog_base::NodeId;

use super::{
    hub::Hub,
    lock,
    place::{self, Place},
    queue::Queue,
    record::{self, Record, Sealer},
};
use crate::{
    core::{
        bitmap::Bitmap,
        blob::{Blob, BlobId},
        manifest::{FileName, Manifest},
        seal::Key,
        slice::{Step, Verified},
    },
    event::{Failure, TaskId},
    files::{FileError, Partial, Shared, at, beside},
    wire::RequestId,
};

/// Shared files that are open at once.
const MAX_OPEN: usize = 64;
/// What a file's tree is called while the file is hashed.
const IMPORTING: &str = "importing";

/// Steps to read.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) to: NodeId,
    pub(crate) id: RequestId,
    pub(crate) blob: BlobId,
    pub(crate) steps: Vec<Step>,
}

/// What is done in order, behind what was written before.
#[derive(Debug)]
pub(crate) enum Write {
    Groups(BlobId, Vec<Verified>),
    /// Puts all that was written on the disk, and with it who may have the rest.
    Checkpoint(BlobId, Option<Vec<NodeId>>),
    /// All is written: the file gets its name.
    Finish(TaskId, BlobId),
    /// Keeps what there is until it is opened again.
    Close(BlobId),
    /// The same, until it is asked for: the next process does not go on with it by itself.
    Pause(BlobId),
    /// Removes all but whole files.
    Forget(BlobId),
}

/// What may take long.
#[derive(Debug)]
pub(crate) enum Job {
    Import { task: TaskId, path: PathBuf, key: Option<Key> },
    Open { task: TaskId, manifest: Manifest, out: PathBuf, sources: Vec<NodeId> },
}

/// What there is of a blob that is fetched.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Some of it, or nothing: these groups and pieces; who may have it, by the record.
    Partial { have: Bitmap, pieces: Bitmap, sources: Vec<NodeId> },
    /// It was here, and is there now as well, or was already.
    Copied(PathBuf),
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Reply {
    Loaded {
        to: NodeId,
        id: RequestId,
        steps: Option<Vec<Vec<u8>>>,
    },
    Written {
        blob: BlobId,
        groups: Vec<u64>,
        failure: Option<Failure>,
    },
    Finished {
        task: TaskId,
        outcome: Result<PathBuf, Failure>,
    },
    /// What [`Write::Close`] or [`Write::Forget`] asked for is done.
    Ended(BlobId),
    Imported {
        task: TaskId,
        outcome: Result<Manifest, Failure>,
    },
    Opened {
        task: TaskId,
        manifest: Manifest,
        outcome: Result<Opened, Failure>,
    },
}

#[derive(Debug)]
enum Stored {
    /// The file of the user, or one that was fetched; opened when it is asked for.
    Whole {
        record: Record,
        open: Option<Shared>,
    },
    Partial {
        record: Record,
        partial: Partial,
    },
    /// A fetch that was begun, and is not going on.
    Idle(Record),
}

/// Every blob of the directory, and what is to be done with them.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    sealer: Sealer,
    /// Random; the nonces of records come from it.
    seed: [u8; 32],
    nonces: AtomicU64,
    table: Mutex<BTreeMap<BlobId, Arc<Mutex<Stored>>>>,
    /// The checkpoint that is under way.
    syncing: Mutex<Option<JoinHandle<()>>>,
    pub(crate) loads: Queue<Load>,
    pub(crate) writes: Queue<Write>,
    pub(crate) jobs: Queue<Job>,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        if error.is_full() { Self::DiskFull } else { Self::Disk(error.to_string()) }
    }
}

impl Disk {
    /// Opens the directory, or makes it, and finds the records in it.
    pub(crate) fn open(dir: &Path, secret: &[u8; 32], seed: [u8; 32]) -> Result<Self, FileError> {
        at("create", dir, fs::create_dir_all(dir))?;
        let sealer = Sealer::new(secret);
        let mut table = BTreeMap::new();
        for record in sealer.read_all(dir)? {
            let blob = record.manifest.blob.id();
            let stored =
                if record.part.is_some() { Stored::Idle(record) } else { Stored::Whole { record, open: None } };
            table.insert(blob, Arc::new(Mutex::new(stored)));
        }
        for entry in at("read", dir, fs::read_dir(dir))?.flatten() {
            if entry.path().extension().is_some_and(|end| end == IMPORTING) {
                // What is left of an import that did not end is of no use; if it stays, it costs its place alone.
                let _removed = fs::remove_file(entry.path());
            }
        }
        let (nonces, table, syncing) = (AtomicU64::new(0), Mutex::new(table), Mutex::new(None));
        let (loads, writes, jobs) = (Queue::new(), Queue::new(), Queue::new());
        Ok(Self { dir: dir.to_owned(), sealer, seed, nonces, table, syncing, loads, writes, jobs })
    }

    /// The blobs that are whole, as far as their files' sizes tell, and the records of those that are not.
    pub(crate) fn found(&self) -> (Vec<(Blob, bool)>, Vec<Record>) {
        let (mut whole, mut idle) = (Vec::new(), Vec::new());
        for stored in lock(&self.table).values() {
            match &*lock(stored) {
                Stored::Whole { record, .. } => {
                    let blob = record.manifest.blob;
                    let is_there = fs::metadata(&record.path).is_ok_and(|found| found.len() == blob.size());
                    whole.extend(is_there.then_some((blob, record.manifest.key.is_some())));
                }
                Stored::Idle(record) if record.is_paused => {}
                Stored::Idle(record) => idle.push(record.clone()),
                Stored::Partial { .. } => {}
            }
        }
        (whole, idle)
    }

    /// Reads for peers, until the queue is closed.
    pub(crate) fn run_loads(&self, hub: &Arc<Hub>) {
        let mut open = VecDeque::new();
        while let Some(Load { to, id, blob, steps }) = self.loads.pop() {
            let steps = self.load(blob, &steps, &mut open);
            let steps = steps.inspect_err(|error| tracing::debug!(%error, "a shared file cannot be read")).ok();
            hub.reply(Reply::Loaded { to, id, steps });
        }
    }

    /// Writes what was fetched, until the queue is closed.
    pub(crate) fn run_writes(&self, hub: &Arc<Hub>) {
        while let Some(write) = self.writes.pop() {
            let outcome = match write {
                Write::Groups(blob, groups) => {
                    let failure = self.write(blob, &groups, hub).err();
                    let groups = groups.iter().map(Verified::group).collect();
                    hub.reply(Reply::Written { blob, groups, failure });
                    Ok(())
                }
                Write::Finish(task, blob) => {
                    hub.reply(Reply::Finished { task, outcome: self.finish(blob) });
                    Ok(())
                }
                Write::Checkpoint(blob, sources) => self.checkpoint(blob, sources),
                Write::Close(blob) | Write::Pause(blob) => {
                    let closed = self.close(blob, matches!(write, Write::Pause(_)));
                    hub.reply(Reply::Ended(blob));
                    closed
                }
                Write::Forget(blob) => {
                    let forgotten = self.forget(blob);
                    hub.reply(Reply::Ended(blob));
                    forgotten
                }
            };
            if let Err(failure) = outcome {
                // What could not be kept costs a transfer; whoever writes next hears of a disk that is full.
                tracing::debug!(%failure, "the state of a file is not kept");
            }
        }
    }

    /// Does what takes long, until the queue is closed.
    pub(crate) fn run_jobs(&self, hub: &Arc<Hub>) {
        while let Some(job) = self.jobs.pop() {
            match job {
                Job::Import { task, path, key } => {
                    hub.reply(Reply::Imported { task, outcome: self.import(task, &path, key) });
                }
                Job::Open { task, manifest, out, sources } => {
                    let outcome = self.open_fetch(&manifest, &out, sources);
                    hub.reply(Reply::Opened { task, manifest, outcome });
                }
            }
        }
    }

    fn get(&self, blob: BlobId) -> Option<Arc<Mutex<Stored>>> {
        lock(&self.table).get(&blob).cloned()
    }

    fn put(&self, blob: BlobId, stored: Stored) {
        lock(&self.table).insert(blob, Arc::new(Mutex::new(stored)));
    }

    fn keep(&self, record: &Record) -> Result<(), FileError> {
        let count = self.nonces.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; 24];
        let random = blake3::keyed_hash(&self.seed, &count.to_le_bytes());
        nonce.iter_mut().zip(random.as_bytes()).for_each(|(to, from)| *to = *from);
        self.sealer.write(&self.dir, record, &nonce)
    }

    fn load(&self, blob: BlobId, steps: &[Step], open: &mut VecDeque<BlobId>) -> Result<Vec<Vec<u8>>, Failure> {
        let stored = self.get(blob).ok_or_else(gone)?;
        let mut stored = lock(&stored);
        match &mut *stored {
            Stored::Partial { partial, .. } => partial.read_all(steps).map_err(Failure::from),
            Stored::Idle(_) => Err(gone()),
            Stored::Whole { record, open: Some(shared) } => {
                debug_assert_eq!(shared.blob(), record.manifest.blob);
                shared.read_all(steps).map_err(Failure::from)
            }
            Stored::Whole { record, open: shut } => {
                let Manifest { blob: whole, key, .. } = &record.manifest;
                let tree = beside(&self.dir, blob, "outboard");
                let steps = shut.insert(Shared::open(*whole, &record.path, &tree, key.clone())?).read_all(steps)?;
                drop(stored);
                open.push_back(blob);
                let oldest = (open.len() > MAX_OPEN).then(|| open.pop_front()).flatten();
                if let Some(Stored::Whole { open, .. }) =
                    oldest.and_then(|id| self.get(id)).as_deref().map(lock).as_deref_mut()
                {
                    *open = None;
                }
                Ok(steps)
            }
        }
    }

    fn write(&self, blob: BlobId, groups: &[Verified], hub: &Arc<Hub>) -> Result<(), Failure> {
        let stored = self.get(blob).ok_or_else(gone)?;
        let Stored::Partial { partial, .. } = &mut *lock(&stored) else { return Err(gone()) };
        partial.write_all(groups)?;
        if partial.is_checkpoint_due() {
            self.checkpoint_behind(blob, partial, hub)?;
        }
        Ok(())
    }

    /// Puts what was written on the disk while more is written; not while another checkpoint is under way.
    fn checkpoint_behind(&self, blob: BlobId, partial: &mut Partial, hub: &Arc<Hub>) -> Result<(), Failure> {
        let mut syncing = lock(&self.syncing);
        if syncing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let (checkpoint, hub) = (partial.begin_checkpoint()?, Arc::clone(hub));
        let sync = move || {
            if let Err(error) = checkpoint.run() {
                hub.reply(Reply::Written { blob, groups: Vec::new(), failure: Some(error.into()) });
            }
        };
        let thread = std::thread::Builder::new().name("blobs-sync".into()).spawn(sync);
        *syncing = Some(thread.map_err(|error| Failure::Disk(error.to_string()))?);
        Ok(())
    }

    /// Waits for the checkpoint that is under way: two would write one file.
    fn settle(&self) {
        if let Some(thread) = lock(&self.syncing).take() {
            // A thread that panicked has said so itself, and what it did not keep costs a transfer.
            let _ended = thread.join();
        }
    }

    fn checkpoint(&self, blob: BlobId, sources: Option<Vec<NodeId>>) -> Result<(), Failure> {
        self.settle();
        let Some(stored) = self.get(blob) else { return Ok(()) };
        let Stored::Partial { record, partial } = &mut *lock(&stored) else { return Ok(()) };
        if partial.is_unsynced() {
            partial.checkpoint()?;
        }
        if let Some(sources) = sources {
            record.sources = sources;
            self.keep(record)?;
        }
        Ok(())
    }

    fn close(&self, blob: BlobId, is_paused: bool) -> Result<(), Failure> {
        let checked = self.checkpoint(blob, None);
        let Some(stored) = self.get(blob) else { return checked };
        let mut stored = lock(&stored);
        if let Stored::Partial { record, .. } = &*stored {
            let record = Record { is_paused, ..record.clone() };
            *stored = Stored::Idle(record.clone());
            if is_paused {
                self.keep(&record)?;
            }
        }
        checked
    }

    fn forget(&self, blob: BlobId) -> Result<(), Failure> {
        self.settle();
        let Some(stored) = lock(&self.table).remove(&blob) else { return Ok(()) };
        record::remove(&self.dir, blob)?;
        Partial::remove(&self.dir, blob)?;
        let part = match &*lock(&stored) {
            Stored::Whole { .. } => None,
            Stored::Partial { record, .. } | Stored::Idle(record) => record.part.clone(),
        };
        match part.as_deref().map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(Failure::Disk(error.to_string())),
            _ => Ok(()),
        }
    }

    fn finish(&self, blob: BlobId) -> Result<PathBuf, Failure> {
        self.settle();
        let stored = self.get(blob).ok_or_else(gone)?;
        let mut stored = lock(&stored);
        let Stored::Partial { record, partial } = &mut *stored else { return Err(gone()) };
        if partial.is_unsynced() {
            partial.checkpoint()?;
        }
        let record = record.clone();
        *stored = Stored::Idle(record.clone());
        if let Some(part) = record.part.clone().filter(|part| part.exists()) {
            let place = Place { path: record.path.clone(), part };
            place::settle(&place).map_err(|error| taken(&place, error))?;
        }
        let record = Record { part: None, sources: Vec::new(), is_paused: false, ..record };
        self.keep(&record)?;
        let (path, have) = (record.path.clone(), beside(&self.dir, blob, "have"));
        *stored = Stored::Whole { record, open: None };
        // A bitmap of what is whole says nothing that the record does not.
        let _removed = fs::remove_file(have);
        Ok(path)
    }

    fn import(&self, task: TaskId, path: &Path, key: Option<Key>) -> Result<Manifest, Failure> {
        let path = at("find", path, std::path::absolute(path))?;
        let tree = self.dir.join(format!("{task}.{IMPORTING}"));
        let made = Shared::create(&path, &tree, key.clone());
        if made.is_err() {
            let _removed = fs::remove_file(&tree);
        }
        let blob = made?.blob();
        if self.get(blob.id()).is_some_and(|stored| !matches!(*lock(&stored), Stored::Whole { .. })) {
            let _removed = fs::remove_file(&tree);
            return Err(Failure::AlreadyFetching);
        }
        let name = FileName::nearest(&path.file_name().unwrap_or_default().to_string_lossy());
        let (manifest, sources) = (Manifest { blob, name, key }, Vec::new());
        let record = Record { manifest, path, part: None, sources, is_paused: false };
        at("rename", &tree, fs::rename(&tree, beside(&self.dir, blob.id(), "outboard")))?;
        self.keep(&record)?;
        let manifest = record.manifest.clone();
        self.put(blob.id(), Stored::Whole { record, open: None });
        Ok(manifest)
    }

    fn open_fetch(&self, manifest: &Manifest, out: &Path, sources: Vec<NodeId>) -> Result<Opened, Failure> {
        let blob = manifest.blob;
        let out = at("find", out, std::path::absolute(out))?;
        let known = self.get(blob.id()).map(|stored| match &*lock(&stored) {
            Stored::Partial { .. } => Err(Failure::AlreadyFetching),
            Stored::Whole { record, .. } | Stored::Idle(record) => Ok(record.clone()),
        });
        let mut record = match known.transpose()? {
            None => self.begin(manifest, &out, sources.clone())?,
            Some(whole) if whole.part.is_none() => match self.copy_once(&whole, manifest, &out) {
                // The file was moved or changed since: it is fetched like any other.
                Err(Failure::Disk(_)) => {
                    self.forget(blob.id())?;
                    self.begin(manifest, &out, sources.clone())?
                }
                outcome => return outcome,
            },
            Some(idle) => idle,
        };
        for source in sources {
            if record.sources.len() < record::MAX_SOURCES && !record.sources.contains(&source) {
                record.sources.push(source);
            }
        }
        if std::mem::take(&mut record.is_paused) {
            self.keep(&record)?;
        }
        // Of two manifests with one id and two keys, the one that was begun counts.
        let key = record.manifest.key.clone();
        let part = record.part.clone().unwrap_or_else(|| record.path.clone());
        let is_renamed = !part.exists() && fs::metadata(&record.path).is_ok_and(|found| found.len() == blob.size());
        let renamed = if is_renamed { Some(Partial::open(&self.dir, &record.path, blob, key.clone())?) } else { None };
        let partial = match renamed.filter(|partial| partial.have().is_full()) {
            Some(whole) => whole,
            None => {
                if !part.exists() {
                    place::claim(&Place { path: record.path.clone(), part: part.clone() })?;
                }
                Partial::open(&self.dir, &part, blob, key)?
            }
        };
        let (have, pieces, sources) = (partial.have().clone(), partial.pieces(), record.sources.clone());
        self.put(blob.id(), Stored::Partial { record, partial });
        Ok(Opened::Partial { have, pieces, sources })
    }

    /// The record comes first: a file of which no record tells is not ours.
    fn begin(&self, manifest: &Manifest, out: &Path, sources: Vec<NodeId>) -> Result<Record, Failure> {
        let place = place::find(out, &manifest.name).map_err(Failure::Exists)?;
        let Place { path, part } = place.clone();
        let record = Record { manifest: manifest.clone(), path, part: Some(part), sources, is_paused: false };
        self.keep(&record)?;
        if let Err(error) = place::claim(&place) {
            record::remove(&self.dir, manifest.blob.id())?;
            return Err(taken(&place, error));
        }
        Ok(record)
    }

    /// Copies what is here to where it is wanted, unless it is there.
    fn copy_once(&self, record: &Record, manifest: &Manifest, out: &Path) -> Result<Opened, Failure> {
        let blob = record.manifest.blob;
        let tree = beside(&self.dir, blob.id(), "outboard");
        let open = |path: &Path| Shared::open(blob, path, &tree, record.manifest.key.clone());
        let is_it = |path: &PathBuf| open(path).and_then(|mut found| found.verify()).is_ok();
        if let Some(path) = place::standing(out, &manifest.name, blob.size()).into_iter().find(is_it) {
            return Ok(Opened::Copied(path));
        }
        let place = place::find(out, &manifest.name).map_err(Failure::Exists)?;
        let mut shared = open(&record.path)?;
        shared.export(&place.part, manifest.key.as_ref())?;
        place::settle(&place).map_err(|error| taken(&place, error))?;
        Ok(Opened::Copied(place.path))
    }
}

fn gone() -> Failure {
    Failure::Disk("nothing is known of that file any more".into())
}

fn taken(place: &Place, error: FileError) -> Failure {
    let is_taken = error.io().kind() == io::ErrorKind::AlreadyExists;
    if is_taken { Failure::Exists(place.path.clone()) } else { error.into() }
}
