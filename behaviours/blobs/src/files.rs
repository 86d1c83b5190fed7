//! Blobs on disk, by the standard library alone: a file that is being fetched ([`Partial`]) and a file that is offered
//! ([`Shared`]). Both are the user's own, in plain, encrypted as they are read; only the tree lies beside. Calls block; they
//! belong on a thread that may.
//!
//! Only groups whose bytes and parents were on the disk when the bitmap was written are taken up after a crash; a bitmap that is
//! torn or lost is made anew from the tree itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bao_tree::{TreeNode, io::sync::OutboardMut};

use crate::core::{
    bitmap::Bitmap,
    blob::{BLOCK, Blob, BlobId, MAX_BLOB_BYTES, PARENT_BYTES},
    seal::Key,
    slice::{Slice, Step, Verified},
    storage::{GroupSink, StepSource},
};

/// Groups that are written between two bitmaps: 64 MiB.
const CHECKPOINT_GROUPS: u64 = 4_096;
const MAGIC: &[u8; 8] = b"fogblob1";

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// The system's error.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// Whether the disk, or this user's part of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

pub(crate) fn at<T>(what: &'static str, path: &Path, outcome: io::Result<T>) -> Result<T, FileError> {
    outcome.map_err(|source| FileError { what, path: path.to_owned(), source })
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The bytes of a blob and the parents of its tree.
#[derive(Debug)]
struct Pair {
    data: File,
    data_path: PathBuf,
    outboard: File,
    outboard_path: PathBuf,
    /// The data is the plaintext of the blob under this key.
    key: Option<Key>,
    /// What is read or written at once.
    buffer: Vec<u8>,
}

impl Pair {
    /// The steps as they travel. What lies together is read and encrypted at once.
    fn read(&mut self, steps: &[Step]) -> Result<Vec<Vec<u8>>, FileError> {
        let offsets: Vec<u64> = steps.iter().flat_map(|step| &step.parents).copied().collect();
        let mut parents = vec![0; offsets.len() * PARENT_BYTES];
        let mut rest = &mut parents[..];
        for run in offsets.chunk_by(|one, next| one + PARENT_BYTES as u64 == *next) {
            let (into, behind) = std::mem::take(&mut rest).split_at_mut(run.len() * PARENT_BYTES);
            rest = behind;
            let from = run.first().copied().unwrap_or(0);
            at("read", &self.outboard_path, read_at(&mut self.outboard, from, into))?;
        }
        let (mut parents, mut found) = (&parents[..], Vec::with_capacity(steps.len()));
        for run in steps.chunk_by(|one, next| one.data.end == next.data.start) {
            let (from, end) =
                (run.first().map_or(0, |step| step.data.start), run.last().map_or(0, |step| step.data.end));
            self.buffer.resize(usize::try_from(end - from).unwrap_or(0), 0);
            at("read", &self.data_path, read_at(&mut self.data, from, &mut self.buffer))?;
            let sealed = self.key.as_ref().is_none_or(|key| key.apply(from, &mut self.buffer));
            at("encrypt", &self.data_path, if sealed { Ok(()) } else { Err(invalid("too long")) })?;
            let mut data = &self.buffer[..];
            for step in run {
                let mut bytes = Vec::with_capacity(step.len());
                let above = step.parents.len() * PARENT_BYTES;
                let (head, behind) = parents.split_at(above);
                bytes.extend_from_slice(head);
                parents = behind;
                let (head, behind) = data.split_at(step.len() - above);
                bytes.extend_from_slice(head);
                data = behind;
                found.push(bytes);
            }
        }
        Ok(found)
    }

    /// Writes groups and their parents. What lies together is decrypted and written at once.
    fn write(&mut self, groups: &[Verified]) -> Result<(), FileError> {
        for run in groups.chunk_by(|one, next| one.offset() + one.data().len() as u64 == next.offset()) {
            let from = run.first().map_or(0, Verified::offset);
            self.buffer.clear();
            run.iter().for_each(|group| self.buffer.extend_from_slice(group.data()));
            let opened = self.key.as_ref().is_none_or(|key| key.apply(from, &mut self.buffer));
            at("decrypt", &self.data_path, if opened { Ok(()) } else { Err(invalid("too long")) })?;
            at("write", &self.data_path, write_at(&mut self.data, from, &self.buffer))?;
        }
        let parents: Vec<_> = groups.iter().flat_map(Verified::parents).collect();
        for run in parents.chunk_by(|(one, _), (next, _)| one + PARENT_BYTES as u64 == *next) {
            let from = run.first().map_or(0, |(from, _)| *from);
            self.buffer.clear();
            run.iter().for_each(|(_, parent)| self.buffer.extend_from_slice(parent));
            at("write", &self.outboard_path, write_at(&mut self.outboard, from, &self.buffer))?;
        }
        Ok(())
    }
}

fn read_at(file: &mut File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(into)
}

fn write_at(file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

/// The only step that was asked for.
fn one(mut steps: Vec<Vec<u8>>) -> Vec<u8> {
    steps.pop().unwrap_or_default()
}

/// A blob that is being fetched: the file that it becomes, and `ID.outboard` and `ID.have` in one directory.
#[derive(Debug)]
pub struct Partial {
    blob: Blob,
    pair: Pair,
    have: Bitmap,
    have_path: PathBuf,
    unsynced: u64,
}

impl Partial {
    /// Opens what is there of `blob`, or begins it: its content goes to `data`, decrypted by `key`, and what else is kept to
    /// `dir`. No other handle on the same blob may be open.
    pub fn open(dir: &Path, data: &Path, blob: Blob, key: Option<Key>) -> Result<Self, FileError> {
        let (data_path, outboard_path, have_path) =
            (data.to_owned(), beside(dir, blob.id(), "outboard"), beside(dir, blob.id(), "have"));
        let (data, old_data) = open_sized(&data_path, blob.size())?;
        let (outboard, old_outboard) = open_sized(&outboard_path, blob.outboard_bytes())?;
        let pair = Pair { data, data_path, outboard, outboard_path, key, buffer: Vec::new() };
        let found = match fs::read(&have_path) {
            Ok(bytes) => decode_have(&blob, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return at("read", &have_path, Err(source)),
        };
        let have = Bitmap::new(blob.groups());
        let mut partial = Self { blob, pair, have, have_path, unsynced: 0 };
        let are_whole = old_data == Some(blob.size()) && old_outboard == Some(blob.outboard_bytes());
        match found {
            Some(have) if are_whole => partial.have = have,
            // Nothing was there, or an empty file was made and no more.
            _ if old_data.unwrap_or(0) == 0 && blob.size() > 0 => {}
            _ => partial.rescan()?,
        }
        Ok(partial)
    }

    /// The groups that are there.
    pub fn have(&self) -> &Bitmap {
        &self.have
    }

    /// The pieces that are there as a whole, for [`crate::Upload::serve`].
    pub fn pieces(&self) -> Bitmap {
        let mut pieces = Bitmap::new(self.blob.pieces());
        let whole = (0..self.blob.pieces()).filter(|piece| self.have.has_all(self.blob.piece_groups(*piece)));
        for piece in whole {
            pieces.set(piece);
        }
        pieces
    }

    /// Finds what is there by the tree alone: reads and hashes everything.
    pub fn rescan(&mut self) -> Result<(), FileError> {
        let mut have = Bitmap::new(self.blob.groups());
        for piece in 0..self.blob.pieces() {
            let groups = self.blob.piece_groups(piece);
            let mut from = groups.start;
            while from < groups.end {
                let mut slice = Slice::new(&self.blob, from..groups.end);
                while let Some(step) = slice.step().cloned() {
                    from = step.group + 1;
                    // A group that does not verify ends the slice; the next one begins again at the root.
                    if slice.accept(self.read(&step)?).is_err() {
                        break;
                    }
                    have.set(step.group);
                }
            }
        }
        self.have = have;
        self.checkpoint()
    }

    /// Puts all that was written on the disk, and then the bitmap that says so.
    pub fn checkpoint(&mut self) -> Result<(), FileError> {
        self.begin_checkpoint()?.run()
    }

    /// As [`Partial::checkpoint`], to be done while more is written: what was written until now is what it will say. Only one at a
    /// time may be under way.
    pub fn begin_checkpoint(&mut self) -> Result<Checkpoint, FileError> {
        let Pair { data, data_path, outboard, outboard_path, .. } = &self.pair;
        let files = [(data, data_path), (outboard, outboard_path)];
        let [data, outboard] =
            files.map(|(file, path)| at("open", path, file.try_clone()).map(|file| (file, path.clone())));
        let checkpoint = Checkpoint {
            files: [data?, outboard?],
            bitmap: encode_have(&self.blob, &self.have),
            have_path: self.have_path.clone(),
        };
        self.unsynced = 0;
        Ok(checkpoint)
    }

    /// Whether so much was written since the last checkpoint that the next one is due.
    pub fn is_checkpoint_due(&self) -> bool {
        self.unsynced >= CHECKPOINT_GROUPS
    }

    /// As [`GroupSink::write`], for several groups; those that follow each other are written at once. Makes no checkpoint. After
    /// an error none of them counts.
    pub fn write_all(&mut self, groups: &[Verified]) -> Result<(), FileError> {
        self.pair.write(groups)?;
        for group in groups {
            self.have.set(group.group());
        }
        self.unsynced += groups.len() as u64;
        Ok(())
    }

    /// As [`StepSource::read`], for several steps; those that follow each other are read at once.
    pub fn read_all(&mut self, steps: &[Step]) -> Result<Vec<Vec<u8>>, FileError> {
        self.pair.read(steps)
    }

    /// Whether something was written since the last [`Partial::checkpoint`].
    pub fn is_unsynced(&self) -> bool {
        self.unsynced > 0
    }

    /// Removes what `dir` has of `blob`; the file itself stays.
    pub fn remove(dir: &Path, blob: BlobId) -> Result<(), FileError> {
        for end in ["have", "have.new", "outboard"] {
            let path = beside(dir, blob, end);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return at("remove", &path, Err(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl GroupSink for Partial {
    type Error = FileError;

    fn write(&mut self, verified: &Verified) -> Result<(), FileError> {
        self.write_all(std::slice::from_ref(verified))?;
        if self.is_checkpoint_due() || self.have.is_full() { self.checkpoint() } else { Ok(()) }
    }
}

impl StepSource for Partial {
    type Error = FileError;

    fn read(&mut self, step: &Step) -> Result<Vec<u8>, FileError> {
        self.pair.read(std::slice::from_ref(step)).map(one)
    }
}

/// What [`Partial::begin_checkpoint`] has to put on the disk.
#[derive(Debug)]
pub struct Checkpoint {
    files: [(File, PathBuf); 2],
    bitmap: Vec<u8>,
    have_path: PathBuf,
}

impl Checkpoint {
    /// Syncs the files, and then writes the bitmap.
    pub fn run(self) -> Result<(), FileError> {
        for (file, path) in &self.files {
            at("sync", path, file.sync_data())?;
        }
        let new = self.have_path.with_extension("have.new");
        at("write", &new, write_synced(&new, &self.bitmap))?;
        at("rename", &new, fs::rename(&new, &self.have_path))?;
        sync_dir(&self.have_path);
        Ok(())
    }
}

/// A file of the user that is offered where it is: it is encrypted as it is read, and only its tree is stored beside it.
#[derive(Debug)]
pub struct Shared {
    blob: Blob,
    pair: Pair,
}

impl Shared {
    /// Reads and hashes `path`, and writes the tree to `outboard`. With a key, which must be new, the blob is the ciphertext.
    pub fn create(path: &Path, outboard: &Path, key: Option<Key>) -> Result<Self, FileError> {
        let data = at("open", path, File::open(path))?;
        let before = at("read", path, data.metadata())?;
        let size = before.len();
        let is_file = if before.is_file() { Ok(()) } else { Err(invalid("not a file")) };
        at("read", path, is_file)?;
        at("read", path, if size <= MAX_BLOB_BYTES { Ok(()) } else { Err(invalid("longer than 64 GiB")) })?;
        let tree = bao_tree::BaoTree::new(size, BLOCK);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(outboard);
        let mut parents = Parents { tree, file: at("create", outboard, options)? };
        at("write", outboard, parents.file.set_len(tree.outboard_size()))?;
        let mut reader = Sealing { file: data, offset: 0, key: key.as_ref() };
        let root = at("read", path, bao_tree::io::sync::outboard(&mut reader, tree, &mut parents))?;
        at("sync", outboard, parents.file.sync_data())?;
        // What the system makes up as it is read, as in `/proc`, has no length of its own.
        let has_more = at("read", path, reader.read(&mut [0]))? > 0;
        at("read", path, if has_more { Err(invalid("it has more bytes than its length says")) } else { Ok(()) })?;
        let after = at("read", path, reader.file.metadata())?;
        let is_same = after.len() == size && after.modified().ok() == before.modified().ok();
        at("read", path, if is_same { Ok(()) } else { Err(invalid("it changed while it was read")) })?;
        let blob = Blob::new(BlobId(*root.as_bytes()), size);
        let blob = at("read", path, blob.ok_or_else(|| invalid("longer than 64 GiB")))?;
        let (data, data_path, outboard_path) = (reader.file, path.to_owned(), outboard.to_owned());
        Ok(Self {
            blob,
            pair: Pair { data, data_path, outboard: parents.file, outboard_path, key, buffer: Vec::new() },
        })
    }

    /// Opens what [`Shared::create`] made. Whether the file is still the same is seen when it is sent.
    pub fn open(blob: Blob, path: &Path, outboard: &Path, key: Option<Key>) -> Result<Self, FileError> {
        let data = at("open", path, File::open(path))?;
        let parents = at("open", outboard, File::open(outboard))?;
        let (data_path, outboard_path) = (path.to_owned(), outboard.to_owned());
        Ok(Self { blob, pair: Pair { data, data_path, outboard: parents, outboard_path, key, buffer: Vec::new() } })
    }

    /// The blob.
    pub fn blob(&self) -> Blob {
        self.blob
    }

    /// As [`StepSource::read`], for several steps; those that follow each other are read at once.
    pub fn read_all(&mut self, steps: &[Step]) -> Result<Vec<Vec<u8>>, FileError> {
        self.pair.read(steps)
    }

    /// Writes the content, decrypted by `key`, to `path`, where nothing may be. Every group is verified once more.
    pub fn export(&mut self, path: &Path, key: Option<&Key>) -> Result<(), FileError> {
        let mut out = at("create", path, OpenOptions::new().write(true).create_new(true).open(path))?;
        let outcome = self.copy(&mut out, path, key);
        if outcome.is_err() {
            drop(out);
            // What is left of a failed export is of no use, and the failure is reported.
            let _removed = fs::remove_file(path);
        }
        outcome
    }

    /// Whether all of the file is what the tree says.
    pub fn verify(&mut self) -> Result<(), FileError> {
        self.for_each(|_| Ok(()))
    }

    /// Every group, verified.
    fn for_each(&mut self, mut each: impl FnMut(Verified) -> Result<(), FileError>) -> Result<(), FileError> {
        let mut slice = Slice::new(&self.blob, 0..self.blob.groups());
        while let Some(step) = slice.step().cloned() {
            let accepted = slice.accept(self.read(&step)?).map_err(|_| invalid("the bytes on the disk are wrong"));
            each(at("verify", &self.pair.data_path, accepted)?)?;
        }
        Ok(())
    }

    fn copy(&mut self, out: &mut File, path: &Path, key: Option<&Key>) -> Result<(), FileError> {
        self.for_each(|mut verified| {
            let offset = verified.offset();
            let opened = key.is_none_or(|key| key.apply(offset, verified.data_mut()));
            at("decrypt", path, if opened { Ok(()) } else { Err(invalid("too long")) })?;
            at("write", path, out.write_all(verified.data()))
        })?;
        at("sync", path, out.sync_all())?;
        sync_dir(path);
        Ok(())
    }
}

impl StepSource for Shared {
    type Error = FileError;

    fn read(&mut self, step: &Step) -> Result<Vec<u8>, FileError> {
        self.pair.read(std::slice::from_ref(step)).map(one)
    }
}

/// Encrypts what is read.
struct Sealing<'a> {
    file: File,
    offset: u64,
    key: Option<&'a Key>,
}

impl Read for Sealing<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        let read = buf.get_mut(..count).unwrap_or_default();
        if self.key.is_some_and(|key| !key.apply(self.offset, read)) {
            return Err(invalid("too long"));
        }
        self.offset += count as u64;
        Ok(count)
    }
}

/// The parents in a file, in pre-order.
struct Parents {
    tree: bao_tree::BaoTree,
    file: File,
}

impl OutboardMut for Parents {
    fn save(&mut self, node: TreeNode, (left, right): &(blake3::Hash, blake3::Hash)) -> io::Result<()> {
        let Some(place) = self.tree.pre_order_offset(node) else { return Ok(()) };
        write_at(&mut self.file, place * PARENT_BYTES as u64, &[*left.as_bytes(), *right.as_bytes()].concat())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Where `dir` has something of `blob`.
pub(crate) fn beside(dir: &Path, blob: BlobId, end: &str) -> PathBuf {
    dir.join(format!("{blob}.{end}"))
}

/// Opens or makes a file of `len` bytes, and says how long it was.
fn open_sized(path: &Path, len: u64) -> Result<(File, Option<u64>), FileError> {
    let old = fs::metadata(path).ok().map(|metadata| metadata.len());
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = at("open", path, options)?;
    if old != Some(len) {
        at("resize", path, file.set_len(len))?;
    }
    Ok((file, old))
}

fn encode_have(blob: &Blob, have: &Bitmap) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &blob.id().0, &blob.size().to_be_bytes(), &have.to_bytes()].concat();
    bytes.extend(blake3::hash(&bytes).as_bytes());
    bytes
}

/// `None` if it is torn, or another blob's.
fn decode_have(blob: &Blob, bytes: &[u8]) -> Option<Bitmap> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    let bits = body.strip_prefix(MAGIC)?.strip_prefix(&blob.id().0)?.strip_prefix(&blob.size().to_be_bytes())?;
    let fits = blake3::hash(body).as_bytes() == sum;
    fits.then(|| Bitmap::from_bytes(blob.groups(), bits)).flatten()
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename last on systems where a directory can be opened; elsewhere, and if it fails, an older bitmap may be found after
/// a loss of power, which costs a transfer and nothing else.
pub(crate) fn sync_dir(of: &Path) {
    if let Some(dir) = of.parent().and_then(|dir| File::open(dir).ok()) {
        let _synced = dir.sync_all();
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
