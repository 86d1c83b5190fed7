//! What verification costs, beside plain BLAKE3 in the same run. Prints; asserts no speed.
//!
//! `cargo test --release -p fog-blobs --no-default-features --test throughput -- --ignored --nocapture`

#![expect(clippy::disallowed_methods, reason = "this measures")]

use std::{io::Write, time::Instant};

use fog_base::{NodeId, Now, UnixMillis};
use fog_blobs::{
    Bitmap, Blob, BlobId, Download, DownloadConfig, DownloadOutput, GroupSink, Key, Slice, StepSource, Upload,
    UploadConfig, UploadOutput,
    core::{blob::GROUP_BYTES, slice::Steps},
    files::{Partial, Shared},
    wire::{FromSource, Message, RequestId, ToSource},
};

const SIZE: usize = 256 << 20;
const RUNS: usize = 5;

/// The median of several runs, in MB/s of content.
fn measure(what: &str, mut run: impl FnMut()) -> f64 {
    let mut rates: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            SIZE as f64 / 1e6 / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let median = rates[RUNS / 2];
    println!("{what:<52} {median:>8.0} MB/s");
    median
}

/// A whole download through both cores and the frames, on this thread alone; nothing is written.
fn fetch(shared: &mut Shared) {
    let (blob, now) = (shared.blob(), Now { mono: Instant::now(), unix: UnixMillis(0) });
    let (us, them) = (NodeId([1; 32]), NodeId([2; 32]));
    let mut upload = Upload::new(UploadConfig::default(), now);
    assert!(upload.serve(blob, Bitmap::full(blob.pieces())));
    let have = Bitmap::new(blob.groups());
    let mut download = Download::new(blob, have, 0, 1, DownloadConfig::default(), now).unwrap();
    download.handle_source(them, now).unwrap();
    loop {
        let now = Now { mono: Instant::now(), ..now };
        while let Some(output) = download.poll_output() {
            match output {
                DownloadOutput::Send { message, .. } => {
                    let (message, _) = ToSource::decode(&message.encode()).unwrap().unwrap();
                    upload.handle_message(us, message, now).unwrap();
                }
                DownloadOutput::Persist(verified) => download.handle_written(verified.group(), true, now),
                DownloadOutput::Report(report) => panic!("{report:?}"),
                DownloadOutput::Done => return,
            }
        }
        while let Some(output) = upload.poll_output() {
            match output {
                UploadOutput::Load { to, id, steps, .. } => {
                    let steps = steps.iter().map(|step| shared.read(step).unwrap()).collect();
                    upload.handle_loaded(to, id, Some(steps), now);
                }
                UploadOutput::Send { message, .. } => {
                    let (message, _) = FromSource::decode(&message.encode()).unwrap().unwrap();
                    download.handle_message(them, message, now).unwrap();
                    upload.handle_sent(us, now);
                }
                UploadOutput::Broken { .. } => panic!("broken"),
            }
        }
    }
}

/// What the parts cost that are not ours; the rate of plain BLAKE3.
fn baseline(plain: &[u8], key: &Key) -> f64 {
    let hash = measure("BLAKE3 of everything", || {
        std::hint::black_box(blake3::hash(std::hint::black_box(plain)));
    });
    measure("BLAKE3 of everything, in updates of 16 KiB", || {
        let mut hasher = blake3::Hasher::new();
        plain.chunks(GROUP_BYTES).for_each(|group| {
            hasher.update(group);
        });
        std::hint::black_box(hasher.finalize());
    });
    let mut sealed = plain.to_vec();
    measure("ChaCha20, a group at a time", || {
        for (at, group) in sealed.chunks_mut(GROUP_BYTES).enumerate() {
            assert!(key.apply((at * GROUP_BYTES) as u64, group));
        }
    });
    hash
}

/// Writes a plain file, once without and once with a sync at the end; the rate of the second.
fn plain_files(plain: &[u8], dir: &std::path::Path) -> f64 {
    let sink = |what: &str, is_synced: bool| {
        measure(what, || {
            let target = tempfile::tempdir_in(dir).unwrap();
            let mut out = std::fs::File::create(target.path().join("plain")).unwrap();
            plain.chunks(GROUP_BYTES).for_each(|group| out.write_all(group).unwrap());
            if is_synced {
                out.sync_data().unwrap();
            }
        })
    };
    sink("a plain file, a group at a time, not synced", false);
    sink("a plain file, a group at a time, synced at the end", true)
}

#[test]
#[ignore = "measures, and prints what it found"]
fn verifying_and_writing_beside_plain_blake3() {
    let dir = tempfile::tempdir().unwrap();
    let (file, tree) = (dir.path().join("file"), dir.path().join("tree"));
    let plain: Vec<u8> = (0..SIZE as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    std::fs::write(&file, &plain).unwrap();
    let key = Key::from_random([1; 32]);

    let hash = baseline(&plain, &key);
    measure("Shared::create: read, encrypt, hash, write the tree", || {
        Shared::create(&file, &tree, Some(key.clone())).unwrap();
    });
    let mut shared = Shared::create(&file, &tree, None).unwrap();
    let blob: Blob = shared.blob();
    assert_eq!(blob.id(), BlobId(*blake3::hash(&plain).as_bytes()));
    let all = || 0..blob.groups();
    let id = RequestId { download: 0, number: 0 };
    measure("Shared::read: what a source reads", || {
        Steps::new(&blob, all()).for_each(|step| {
            std::hint::black_box(shared.read(&step).unwrap());
        });
    });
    let frames: Vec<_> =
        Steps::new(&blob, all()).map(|step| FromSource::Step(id, shared.read(&step).unwrap()).encode()).collect();
    let steps = || {
        frames.iter().map(|frame| match FromSource::decode(frame) {
            Ok(Some((FromSource::Step(_, bytes), _))) => bytes,
            other => panic!("{other:?}"),
        })
    };
    measure("reading the frames", || {
        steps().for_each(|step| {
            std::hint::black_box(step);
        });
    });
    let verify = measure("reading the frames and verifying", || {
        let mut slice = Slice::new(&blob, all());
        steps().for_each(|step| {
            std::hint::black_box(slice.accept(step).unwrap());
        });
    });
    measure("the same in requests of 1 MiB", || {
        let mut steps = Vec::with_capacity(64);
        for first in all().step_by(64) {
            steps.extend(Steps::new(&blob, first..first + 64));
            let mut slice = Slice::new(&blob, first..first + 64);
            for step in steps.drain(..) {
                std::hint::black_box(slice.accept(shared.read(&step).unwrap()).unwrap());
            }
        }
    });
    measure("one source and one that fetches, both cores and the wire", || fetch(&mut shared));
    let plain_write = plain_files(&plain, dir.path());
    let write = measure("reading the frames, verifying and writing, synced", || {
        let target = tempfile::tempdir_in(dir.path()).unwrap();
        let mut partial = Partial::open(target.path(), &target.path().join("data"), blob, None).unwrap();
        let mut slice = Slice::new(&blob, all());
        steps().for_each(|step| partial.write(&slice.accept(step).unwrap()).unwrap());
        assert!(partial.have().is_full());
    });
    println!(
        "verifying is {:.2} of plain BLAKE3; with writing {:.2} of a plain file",
        verify / hash,
        write / plain_write
    );
}
