use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::core::{
    blob::{GROUP_BYTES, PIECE_GROUPS},
    slice::Steps,
    testing::{Content, sizes},
};

fn write(partial: &mut Partial, content: &Content, groups: std::ops::Range<u64>) {
    let mut slice = Slice::new(&content.blob, groups);
    while let Some(step) = slice.step().cloned() {
        let verified = slice.accept(content.read(&step)).unwrap();
        partial.write(&verified).unwrap();
    }
}

/// Whatever `have` names can be sent, and is right.
fn check(partial: &mut Partial, content: &Content) {
    for group in partial.have().clone().iter() {
        let mut slice = Slice::new(&content.blob, group..group + 1);
        let step = slice.step().cloned().unwrap();
        let verified = slice.accept(partial.read(&step).unwrap()).expect("it says that it has what it has not");
        assert_eq!(verified.data(), content.group(group));
    }
}

fn path(dir: &TempDir, content: &Content, end: &str) -> PathBuf {
    dir.path().join(format!("{}.{end}", content.blob.id()))
}

fn open(dir: &TempDir, blob: Blob) -> Partial {
    Partial::open(dir.path(), &beside(dir.path(), blob.id(), "data"), blob, None).unwrap()
}

fn offer(bytes: &[u8], key: Option<Key>) -> (TempDir, Shared) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), bytes).unwrap();
    let shared = Shared::create(&dir.path().join("file"), &dir.path().join("tree"), key).unwrap();
    (dir, shared)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_shared_arrives_decrypted(size in sizes(), is_sealed in any::<bool>()) {
        let content = Content::new(size, 1);
        let key = is_sealed.then(|| Key::from_random([3; 32]));
        let (dir, mut shared) = offer(&content.bytes, key.clone());
        prop_assert_eq!(shared.blob() == content.blob, !is_sealed || size == 0);
        let blob = shared.blob();
        let (out, copy) = (dir.path().join("out"), dir.path().join("copy"));
        let mut partial = Partial::open(dir.path(), &out, blob, key.clone()).unwrap();
        let mut slice = Slice::new(&blob, 0..blob.groups());
        for step in Steps::new(&blob, 0..blob.groups()) {
            partial.write(&slice.accept(shared.read(&step).unwrap()).unwrap()).unwrap();
            prop_assert_eq!(partial.read(&step).unwrap(), shared.read(&step).unwrap(), "it is served as it came");
        }
        prop_assert!(partial.have().is_full() && partial.pieces().is_full());
        prop_assert_eq!(fs::read(&out).unwrap(), &content.bytes[..]);
        let mut again = Shared::open(blob, &out, &beside(dir.path(), blob.id(), "outboard"), key.clone()).unwrap();
        for step in Steps::new(&blob, 0..blob.groups()) {
            prop_assert_eq!(again.read(&step).unwrap(), shared.read(&step).unwrap());
        }
        again.export(&copy, key.as_ref()).unwrap();
        prop_assert_eq!(fs::read(&copy).unwrap(), &content.bytes[..]);
        prop_assert!(again.export(&copy, key.as_ref()).is_err(), "nothing is overwritten");
    }

    /// The process ends anywhere between two writes: what the last bitmap names is there, and right.
    #[test]
    fn what_was_synced_is_there_after_a_crash(
        size in 1usize..2_000_000, first in prop::collection::vec(0u64..122, 0..20), then in prop::collection::vec(0u64..122, 0..20),
    ) {
        let (dir, content) = (tempfile::tempdir().unwrap(), Content::new(size, 2));
        let groups = content.blob.groups();
        let mut partial = open(&dir, content.blob);
        first.iter().map(|group| group % groups).for_each(|group| write(&mut partial, &content, group..group + 1));
        partial.checkpoint().unwrap();
        let saved = partial.have().clone();
        then.iter().map(|group| group % groups).for_each(|group| write(&mut partial, &content, group..group + 1));
        let written = partial.have().clone();
        drop(partial);
        let mut partial = open(&dir, content.blob);
        prop_assert_eq!(partial.have(), if written.is_full() { &written } else { &saved });
        check(&mut partial, &content);
        partial.rescan().unwrap();
        prop_assert_eq!(partial.have(), &written, "nothing that is on the disk is lost");
    }

    /// The bitmap is torn at any byte, or lost, and what was not synced is torn as well.
    #[test]
    fn a_torn_bitmap_is_made_anew(
        size in 1usize..2_000_000, groups in prop::collection::vec(0u64..122, 0..20), cut in any::<prop::sample::Index>(),
        flip in any::<bool>(), hole in any::<prop::sample::Index>(), tree in any::<prop::sample::Index>(),
    ) {
        let (dir, content) = (tempfile::tempdir().unwrap(), Content::new(size, 3));
        let mut partial = open(&dir, content.blob);
        for group in groups.iter().map(|group| group % content.blob.groups()) {
            write(&mut partial, &content, group..group + 1);
        }
        partial.checkpoint().unwrap();
        let before = partial.have().clone();
        drop(partial);
        let have = path(&dir, &content, "have");
        let mut bytes = fs::read(&have).unwrap();
        let at = cut.index(bytes.len());
        if flip { bytes[at] ^= 0x10 } else { bytes.truncate(at) }
        fs::write(&have, bytes).unwrap();
        // 4 KiB of the data, and one parent, were never written.
        let punch = |end: &str, at: usize, len: usize| {
            let mut bytes = fs::read(path(&dir, &content, end)).unwrap();
            bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
            fs::write(path(&dir, &content, end), bytes).unwrap();
        };
        let hole = hole.index(size);
        punch("data", hole, 4_096);
        if content.blob.groups() > 1 {
            punch("outboard", tree.index(content.outboard.len() / 64) * 64, 64);
        }
        let mut partial = open(&dir, content.blob);
        check(&mut partial, &content);
        prop_assert!(partial.have().iter().all(|group| before.get(group)));
        let mut again = open(&dir, content.blob);
        prop_assert_eq!(again.have(), partial.have());
        check(&mut again, &content);
    }
}

#[test]
fn files_that_were_cut_short_are_looked_through() {
    for end in ["data", "outboard"] {
        let (dir, content) = (tempfile::tempdir().unwrap(), Content::new(3_000_000, 4));
        let mut partial = open(&dir, content.blob);
        write(&mut partial, &content, 0..content.blob.groups());
        drop(partial);
        let file = OpenOptions::new().write(true).open(path(&dir, &content, end)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let mut partial = open(&dir, content.blob);
        assert!(!partial.have().is_full() && !partial.have().is_empty(), "{end}");
        check(&mut partial, &content);
    }
}

#[test]
fn the_bitmap_of_another_blob_is_not_taken() {
    let (dir, content, other) = (tempfile::tempdir().unwrap(), Content::new(500_000, 5), Content::new(500_000, 6));
    let mut partial = open(&dir, content.blob);
    write(&mut partial, &content, 0..content.blob.groups());
    drop(partial);
    fs::copy(path(&dir, &content, "have"), path(&dir, &other, "have")).unwrap();
    fs::write(path(&dir, &other, "data"), vec![0; 500_000]).unwrap();
    assert!(open(&dir, other.blob).have().is_empty());
}

#[test]
fn a_piece_counts_when_it_is_whole() {
    let (dir, content) = (tempfile::tempdir().unwrap(), Content::new(3 << 20, 7));
    let mut partial = open(&dir, content.blob);
    write(&mut partial, &content, PIECE_GROUPS..2 * PIECE_GROUPS);
    write(&mut partial, &content, 0..PIECE_GROUPS - 1);
    assert!(partial.pieces().iter().eq([1]));
}

#[test]
fn a_file_that_changed_is_not_what_was_offered() {
    let content = Content::new(300_000, 8);
    let (dir, mut shared) = offer(&content.bytes, None);
    let mut bytes = content.bytes.clone();
    bytes[200_000] ^= 1;
    fs::write(dir.path().join("file"), bytes).unwrap();
    let mut slice = Slice::new(&content.blob, 0..content.blob.groups());
    let outcomes: Vec<_> = Steps::new(&content.blob, 0..content.blob.groups())
        .map(|step| slice.accept(shared.read(&step).unwrap()).is_ok())
        .collect();
    assert_eq!(outcomes.iter().take_while(|is_ok| **is_ok).count(), 200_000 / GROUP_BYTES);
    fs::write(dir.path().join("file"), b"short").unwrap();
    let last = Steps::new(&content.blob, 18..19).next().unwrap();
    assert!(shared.read(&last).is_err());
}

#[test]
fn a_rotten_disk_is_seen_at_the_export_and_leaves_nothing() {
    let (dir, content) = (tempfile::tempdir().unwrap(), Content::new(300_000, 9));
    let mut partial = open(&dir, content.blob);
    write(&mut partial, &content, 0..content.blob.groups());
    let mut bytes = content.bytes.clone();
    bytes[299_999] ^= 1;
    fs::write(path(&dir, &content, "data"), bytes).unwrap();
    let (out, tree) = (dir.path().join("out"), path(&dir, &content, "outboard"));
    let mut shared = Shared::open(content.blob, &path(&dir, &content, "data"), &tree, None).unwrap();
    assert_eq!(shared.export(&out, None).unwrap_err().io().kind(), io::ErrorKind::InvalidData);
    assert!(!out.exists());
}

#[test]
fn neither_plaintext_nor_key_is_beside_the_file_and_all_of_it_is_removed() {
    let canary = b"canary-0123456789-canary";
    let plain: Vec<u8> = canary.iter().cycle().take(100_000).copied().collect();
    let key = Key::from_random(*b"key-key-key-key-key-key-key-key-");
    let (offered, mut shared) = offer(&plain, Some(key.clone()));
    let (dir, blob) = (tempfile::tempdir().unwrap(), shared.blob());
    let mut partial = Partial::open(dir.path(), &offered.path().join("out"), blob, Some(key)).unwrap();
    let mut slice = Slice::new(&blob, 0..blob.groups());
    for step in Steps::new(&blob, 0..blob.groups()) {
        partial.write(&slice.accept(shared.read(&step).unwrap()).unwrap()).unwrap();
    }
    for entry in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(8).any(|window| window == &canary[..8] || window == b"key-key-"));
    }
    Partial::remove(dir.path(), blob.id()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    Partial::remove(dir.path(), blob.id()).unwrap();
}

#[test]
fn directories_and_missing_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    assert!(Shared::create(dir.path(), &tree, None).is_err());
    let error = Shared::create(&dir.path().join("nothing"), &tree, None).unwrap_err();
    assert_eq!(error.io().kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("nothing"), "{error}");
    assert!(!error.is_full());
    let gone = dir.path().join("no/such/dir");
    assert!(Partial::open(&gone, &gone.join("data"), Content::new(1, 1).blob, None).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_more_bytes_than_its_length_says_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Shared::create(Path::new("/proc/self/environ"), &dir.path().join("tree"), None).unwrap_err();
    assert!(refused.to_string().contains("more bytes"), "{refused}");
    assert!(Shared::create(dir.path(), &dir.path().join("tree"), None).is_err(), "a folder is no file");
}
