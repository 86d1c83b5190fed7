//! Shared by `corpora.rs` and by the fuzz targets: what is done with bytes that anybody may send, and the seeds of the corpora.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]

use std::time::{Duration, Instant};

use fog_base::{NodeId, Now, UnixMillis};
use fog_blobs::{
    Bitmap, Blob, BlobId, Download, DownloadConfig, DownloadOutput, FileName, Key, Manifest, Upload, UploadConfig,
    UploadOutput,
    core::slice::Steps,
    wire::{Ending, FromSource, Holding, Message, RequestId, ToSource},
};

const US: NodeId = NodeId([1; 32]);
/// Two groups and a part of a third: a tree with parents on two levels.
const SIZE: usize = 2 * 16_384 + 100;

fn now() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(0) }
}

/// A content and its tree in pre-order.
struct Content {
    blob: Blob,
    bytes: Vec<u8>,
    tree: Vec<u8>,
}

impl Content {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 7) as u8).collect();
        let block = bao_tree::BlockSize::from_chunk_log(4);
        let tree = bao_tree::io::outboard::PreOrderMemOutboard::create(&bytes, block).data;
        let blob = Blob::new(BlobId(*blake3::hash(&bytes).as_bytes()), SIZE as u64).unwrap();
        Self { blob, bytes, tree }
    }

    fn steps(&self, first: u64, count: u64) -> Vec<Vec<u8>> {
        let read = |step: fog_blobs::Step| {
            let parents = step.parents.iter().flat_map(|at| &self.tree[*at as usize..*at as usize + 64]);
            let data = &self.bytes[step.data.start as usize..step.data.end as usize];
            parents.chain(data).copied().collect()
        };
        let end = (first + count).min(self.blob.groups());
        Steps::new(&self.blob, first..end).map(read).collect()
    }
}

/// Any bytes as frames, in both directions. What is read is written back as it was.
pub fn fuzz_wire(data: &[u8]) {
    read::<ToSource>(data);
    read::<FromSource>(data);
}

fn read<M: Message + PartialEq + std::fmt::Debug>(mut data: &[u8]) {
    while let Ok(Some((message, length))) = M::decode(data) {
        assert_eq!(message.encode(), data[..length]);
        data = &data[length..];
    }
}

/// Any bytes as a manifest, or, if the first is odd, as the name of a file.
pub fn fuzz_manifest(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else { return };
    if what % 2 == 1 {
        let text = String::from_utf8_lossy(bytes);
        let name = FileName::nearest(&text);
        assert_eq!(FileName::parse(name.as_str()), Ok(name.clone()));
        if let Ok(same) = FileName::parse(&text) {
            assert_eq!(same.as_str(), text);
            assert_eq!(same, name);
        }
        return;
    }
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert!(FileName::parse(manifest.name.as_str()).is_ok());
        assert_eq!(Manifest::decode(&manifest.encode().unwrap()), Ok(manifest));
    }
}

/// A source and a download that get frames: the input is steps of a number (1), a length (2) and that many bytes. An honest source answers
/// when a step says so; whatever the others said, no wrong byte is written.
pub fn fuzz_cores(data: &[u8]) {
    let content = Content::new();
    let mut now = now();
    let mut upload = Upload::new(UploadConfig::default(), now);
    assert!(upload.serve(content.blob, Bitmap::full(content.blob.pieces())));
    let have = Bitmap::new(content.blob.groups());
    let mut download = Download::new(content.blob, have, 0, 1, DownloadConfig::default(), now).unwrap();
    let mut rest = data;
    for _ in 0..64 {
        let Some((&[what, high, low], after)) = rest.split_first_chunk::<3>() else { break };
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        let peer = NodeId([2 + what / 64; 32]);
        match what % 8 {
            0 => _ = download.handle_source(peer, now),
            1 => download.handle_gone(peer, now),
            2 => {
                now = now.plus(Duration::from_millis(u64::from(bytes.first().copied().unwrap_or_default()) * 100));
                download.handle_timeout(now);
                upload.handle_timeout(now);
            }
            3 => upload.handle_gone(peer, now),
            4 => download.pause(),
            5 => download.resume(now),
            6 => {
                if let Ok(Some((message, _))) = ToSource::decode(bytes) {
                    _ = upload.handle_message(peer, message, now);
                }
            }
            _ => {
                if let Ok(Some((message, _))) = FromSource::decode(bytes) {
                    _ = download.handle_message(peer, message, now);
                }
            }
        }
        settle(&content, &mut upload, &mut download, now);
    }
    assert!(upload.groups() <= UploadConfig::default().max_groups);
}

/// Does what both want, until they want nothing.
fn settle(content: &Content, upload: &mut Upload, download: &mut Download, now: Now) {
    while let Some(output) = upload.poll_output() {
        match output {
            UploadOutput::Load { to, id, steps, .. } => {
                let read = |step: &fog_blobs::Step| {
                    let parents = step.parents.iter().flat_map(|at| &content.tree[*at as usize..*at as usize + 64]);
                    let data = &content.bytes[step.data.start as usize..step.data.end as usize];
                    parents.chain(data).copied().collect()
                };
                upload.handle_loaded(to, id, Some(steps.iter().map(read).collect()), now);
            }
            UploadOutput::Send { to, message } => {
                if let FromSource::Step(_, bytes) = &message {
                    assert!(!bytes.is_empty());
                }
                upload.handle_sent(to, now);
            }
            UploadOutput::Broken { .. } => panic!("the content is right"),
        }
    }
    while let Some(output) = download.poll_output() {
        if let DownloadOutput::Persist(verified) = output {
            let group = verified.group();
            let at = content.blob.offset(group) as usize;
            assert_eq!(verified.data(), &content.bytes[at..at + content.blob.group_len(group)]);
            download.handle_written(group, true, now);
        }
    }
    assert!(download.have().count() <= content.blob.groups());
}

fn step(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what], &(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// One of each message, to a source and from it.
fn messages() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let content = Content::new();
    let (blob, id) = (content.blob.id(), RequestId { download: 0, number: 0 });
    let to = [
        ToSource::Want(blob),
        ToSource::Request { id, blob, first: 0, count: 3 },
        ToSource::Cut { id, end: 1 },
        ToSource::Forget(blob),
    ];
    let mut from = vec![
        FromSource::Have(blob, Holding::All(SIZE as u64)),
        FromSource::Have(blob, Holding::Some(SIZE as u64, vec![1])),
        FromSource::Have(blob, Holding::Nothing),
        FromSource::Gained(blob, 0),
        FromSource::End(id, Ending::Busy),
    ];
    from.extend(content.steps(0, 3).into_iter().map(|step| FromSource::Step(id, step)));
    (to.iter().map(Message::encode).collect(), from.iter().map(Message::encode).collect())
}

pub fn wire_seeds() -> Vec<(String, Vec<u8>)> {
    let (to, from) = messages();
    let named = |(n, bytes): (usize, Vec<u8>)| (format!("message_{n}"), bytes);
    let all = [to.concat(), from[..5].concat()];
    to.into_iter().chain(from).chain(all).enumerate().map(named).collect()
}

pub fn manifest_seeds() -> Vec<(String, Vec<u8>)> {
    let blob = Content::new().blob;
    let manifest = |name: &str, key| Manifest { blob, name: FileName::nearest(name), key }.encode().unwrap();
    let mut seeds = vec![
        ("sealed".to_owned(), [&[0], &manifest("cat.jpg", Some(Key::from_random([1; 32])))[..]].concat()),
        ("open".to_owned(), [&[0], &manifest("Zoë's 猫.tar.gz", None)[..]].concat()),
    ];
    for (n, name) in ["con.txt", "../../etc/passwd", "a\u{202e}gpj.exe", " .. ", "COM1", "x"].iter().enumerate() {
        seeds.push((format!("name_{n}"), [&[1], name.as_bytes()].concat()));
    }
    seeds
}

pub fn cores_seeds() -> Vec<(String, Vec<u8>)> {
    let (to, from) = messages();
    let served: Vec<_> = to.iter().flat_map(|bytes| step(6, bytes)).collect();
    let begin = [step(0, &[]), step(7, &from[0])].concat();
    let fetched: Vec<_> = begin.iter().copied().chain(from[5..].iter().flat_map(|bytes| step(7, bytes))).collect();
    let mut lie = from[5].clone();
    lie[100] ^= 1;
    vec![
        ("served".to_owned(), served),
        ("fetched".to_owned(), fetched),
        ("lie".to_owned(), [&begin[..], &step(7, &lie)].concat()),
        ("stall".to_owned(), [&begin[..], &step(2, &[101]), &step(2, &[30])].concat()),
        ("refused".to_owned(), [&begin[..], &step(7, &from[4]), &step(2, &[30])].concat()),
        ("paused".to_owned(), [&begin[..], &step(4, &[]), &step(7, &from[5]), &step(5, &[])].concat()),
        (
            "gone".to_owned(),
            [&begin[..], &step(1, &[]), &step(0, &[]), &step(64, &[]), &step(64 + 7, &from[1])].concat(),
        ),
    ]
}
