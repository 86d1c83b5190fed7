//! The bytes of modules and inputs: kept by their hash, as many as fit, those that are asked for again before those that are not; and the
//! files of what is too large to travel inside of messages, which fog-blobs shares from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fog_tasks::Content;
pub(super) use fog_tasks::sandbox::Bytes;
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// Contents that are expected to be kept at once.
const EXPECTED: usize = 4_096;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Content, Bytes> for ByBytes {
    fn weight(&self, _: &Content, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + 128
    }
}

/// What is kept. All clones are one.
#[derive(Clone)]
pub(super) struct Contents {
    cache: Arc<Cache<Content, Bytes, ByBytes>>,
    folder: PathBuf,
    counts: Arc<[AtomicU64; 2]>,
    written: Arc<AtomicU64>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").field("kept", &self.cache.len()).finish_non_exhaustive()
    }
}

impl Contents {
    /// Keeps at most `bytes` in memory, and files in `folder`, which is emptied: what others share is found again by asking.
    pub(super) fn open(bytes: u64, folder: PathBuf) -> io::Result<Self> {
        crate::platform::files::create_private_dir(&folder)?;
        // One shard: a module may be a quarter of the cache, and has to fit into its shard.
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(EXPECTED).weight_capacity(bytes).shards(1);
        let options = options.build().map_err(|error| io::Error::other(error.to_string()))?;
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let cache = Arc::new(Cache::with_options(options, ByBytes, hasher, lifecycle));
        Ok(Self { cache, folder, counts: Arc::default(), written: Arc::default() })
    }

    /// The bytes, if they are kept.
    pub(super) fn get(&self, content: &Content) -> Option<Bytes> {
        let found = self.cache.get(content).or_else(|| self.read(content));
        let [hits, misses] = &*self.counts;
        (if found.is_some() { hits } else { misses }).fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps bytes; `None` if they are not what is named.
    pub(super) fn put(&self, content: &Content, bytes: Bytes) -> Option<Bytes> {
        if !content.is(&bytes) {
            return None;
        }
        self.cache.insert(*content, Arc::clone(&bytes));
        Some(bytes)
    }

    /// Asked for and there, asked for and not.
    pub(super) fn counts(&self) -> (u64, u64) {
        let [hits, misses] = &*self.counts;
        (hits.load(Ordering::Relaxed), misses.load(Ordering::Relaxed))
    }

    /// Where the file of a content that this node submits is.
    pub(super) fn path(&self, content: &Content) -> PathBuf {
        self.folder.join(data_encoding::HEXLOWER.encode(&content.hash))
    }

    /// A path for something that is fetched or shared, by a name of hex digits.
    pub(super) fn temporary(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.part"))
    }

    /// Writes the file of a content, if it is not there.
    pub(super) fn write(&self, content: &Content, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(content);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == content.size) {
            return Ok(path);
        }
        // Each writer has a file of its own: the same content may be written twice at once.
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let part = self.temporary(&format!("{}-new{number}", data_encoding::HEXLOWER.encode(&content.hash)));
        fs::write(&part, bytes)?;
        fs::rename(&part, &path)?;
        Ok(path)
    }

    fn read(&self, content: &Content) -> Option<Bytes> {
        let bytes: Bytes = Arc::new(fs::read(self.path(content)).ok()?);
        self.put(content, bytes)
    }

    /// Removes files that nothing needs: all but these contents'.
    pub(super) fn sweep(&self, needed: &BTreeSet<Content>) -> io::Result<()> {
        let needed: BTreeSet<_> = needed.iter().map(|content| self.path(content)).collect();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !needed.contains(&path) {
                remove(&path);
            }
        }
        Ok(())
    }
}

/// A file that is gone already is fine.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "a file of a task is not removed");
    }
}

/// Which tasks need which contents' files.
#[derive(Debug)]
pub(super) struct Needed<T>(BTreeMap<Content, BTreeSet<T>>);

impl<T> Default for Needed<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Copy> Needed<T> {
    pub(super) fn add(&mut self, content: Content, task: T) {
        self.0.entry(content).or_default().insert(task);
    }

    /// This task does not need contents of more than `size` bytes any more; those that then nobody needs.
    pub(super) fn forget_larger(&mut self, task: T, size: u64) -> Vec<Content> {
        let mut free = Vec::new();
        self.0.retain(|content, tasks| {
            if content.size > size && tasks.remove(&task) && tasks.is_empty() {
                free.push(*content);
            }
            !tasks.is_empty()
        });
        free
    }

    /// Tasks of which this does not hold need nothing any more; what then nobody needs.
    pub(super) fn keep(&mut self, is_known: impl Fn(&T) -> bool) -> Vec<Content> {
        self.0.values_mut().for_each(|tasks| tasks.retain(&is_known));
        self.0.extract_if(.., |_, tasks| tasks.is_empty()).map(|(content, _)| content).collect()
    }

    pub(super) fn contents(&self) -> BTreeSet<Content> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_what_they_are_named_and_files_go_when_nobody_needs_them() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(1 << 20, folder.path().join("tasks")).unwrap();
        let (one, other) = (Content::of(b"one"), Content::of(b"other"));
        assert!(contents.put(&one, Arc::new(b"two".to_vec())).is_none() && contents.get(&one).is_none());
        contents.put(&one, Arc::new(b"one".to_vec())).unwrap();
        assert_eq!(contents.get(&one).unwrap().as_slice(), b"one");
        contents.write(&other, b"other").unwrap();
        assert_eq!(contents.get(&other).unwrap().as_slice(), b"other");
        assert_eq!(contents.counts(), (2, 1));
        let mut needed = Needed::default();
        needed.add(other, 1);
        needed.add(other, 2);
        assert_eq!((needed.forget_larger(1, 5), needed.forget_larger(1, 0)), (vec![], vec![]));
        contents.sweep(&needed.contents()).unwrap();
        assert!(contents.path(&other).exists());
        needed.add(one, 3);
        assert_eq!(needed.keep(|task| *task == 2), [one]);
        assert_eq!(needed.forget_larger(2, 0), [other]);
        contents.sweep(&needed.contents()).unwrap();
        assert!(!contents.path(&other).exists());
    }

    #[test]
    fn what_is_nearly_as_large_as_the_cache_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(1 << 20, folder.path().join("tasks")).unwrap();
        let bytes = vec![7; 900 << 10];
        let content = Content::of(&bytes);
        contents.put(&content, Arc::new(bytes)).unwrap();
        assert!(contents.get(&content).is_some());
    }

    /// A number in [0, 1) from the state of SplitMix64.
    fn unit(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Numbers of contents that are asked for: the nth as often as `n^-skew`, and of each ten requests from the middle on, `scan` are
    /// for what is asked for once.
    fn trace(contents: usize, requests: usize, skew: f64, scan: usize) -> Vec<usize> {
        let mut state = 7;
        let mut sums = Vec::new();
        let mut sum = 0.0;
        for rank in 1..=contents {
            sum += (rank as f64).powf(-skew);
            sums.push(sum);
        }
        let mut once = contents..;
        let asked = |number: usize| {
            if number >= requests / 2 && number % 10 < scan {
                return once.next().unwrap();
            }
            let drawn = unit(&mut state) * sum;
            sums.partition_point(|sum| *sum <= drawn)
        };
        (0..requests).map(asked).collect()
    }

    /// The least recently used goes first.
    struct Lru {
        order: BTreeMap<u64, (usize, u64)>,
        places: BTreeMap<usize, u64>,
        left: u64,
        next: u64,
    }

    impl Lru {
        fn has(&mut self, content: usize, weight: u64) -> bool {
            self.next += 1;
            if let Some(place) = self.places.insert(content, self.next) {
                let kept = self.order.remove(&place).unwrap();
                self.order.insert(self.next, kept);
                return true;
            }
            while self.left < weight {
                let (_, (gone, weight)) = self.order.pop_first().unwrap();
                self.places.remove(&gone);
                self.left += weight;
            }
            self.left -= weight;
            self.order.insert(self.next, (content, weight));
            false
        }
    }

    /// 4,000 contents of 256 bytes to 16 KiB, of which a tenth fits.
    #[test]
    fn the_cache_finds_more_than_one_of_the_least_recently_used() {
        const COUNT: usize = 4_000;
        let size = |number: usize| 256 << (number * 7 % 7);
        let bytes = |number: usize| [&number.to_le_bytes()[..], &vec![0; size(number) - 8]].concat();
        let room: u64 = (0..COUNT).map(|number| size(number) as u64 + 128).sum::<u64>() / 10;
        let folder = tempfile::tempdir().unwrap();
        for (skew, scan) in [(0.7, 0), (0.9, 0), (1.1, 0), (0.9, 3)] {
            let contents = Contents::open(room, folder.path().join("tasks")).unwrap();
            let mut lru = Lru { order: BTreeMap::new(), places: BTreeMap::new(), left: room, next: 0 };
            let trace = trace(COUNT, 60_000, skew, scan);
            let mut found = [0, 0];
            for number in &trace {
                let bytes = bytes(*number);
                let content = Content::of(&bytes);
                let has = contents.get(&content).is_some();
                if !has {
                    contents.put(&content, Arc::new(bytes)).unwrap();
                }
                found[0] += usize::from(has);
                found[1] += usize::from(lru.has(*number, content.size + 128));
            }
            let [ours, rival] = found.map(|found| found as f64 / trace.len() as f64);
            eprintln!("skew {skew}, {scan}0 % asked for once: {ours:.3} found, by LRU {rival:.3}");
            assert!(ours > rival, "skew {skew}, {scan}0 % asked for once: {ours:.3}, by LRU {rival:.3}");
        }
    }

    #[test]
    fn many_may_write_one_content_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(1 << 20, folder.path().join("tasks")).unwrap();
        let bytes = vec![7; 3 << 20];
        let content = Content::of(&bytes);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let path = contents.write(&content, &bytes).unwrap();
                    assert!(content.is(&fs::read(path).unwrap()));
                });
            }
        });
        contents.sweep(&BTreeSet::from([content])).unwrap();
        assert_eq!(fs::read_dir(&contents.folder).unwrap().count(), 1);
    }
}
