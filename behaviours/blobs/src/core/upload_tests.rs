//! Uploads, and downloads from uploads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fog_base::{NodeId, Now};
use proptest::prelude::*;

use super::*;
use crate::{
    core::{
        download::{self, Download},
        testing::{Content, sizes, start},
    },
    wire::Message,
};

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);

fn request(number: u32, content: &Content, first: u32, count: u16) -> ToSource {
    let id = RequestId { download: 0, number };
    ToSource::Request { id, blob: content.blob.id(), first, count }
}

fn serving(content: &Content, config: Config, now: Now) -> Upload {
    let mut upload = Upload::new(config, now);
    assert!(upload.serve(content.blob, Bitmap::full(content.blob.pieces())));
    upload
}

/// Does what the upload wants with a disk and streams that take no time, and says what was sent.
fn run(upload: &mut Upload, content: &Content, now: Now) -> Vec<(NodeId, FromSource)> {
    let mut sent = Vec::new();
    while let Some(output) = upload.poll_output() {
        match output {
            Output::Send { to, message } => {
                sent.push((to, message));
                upload.handle_sent(to, now);
            }
            Output::Load { to, id, steps, .. } => {
                let steps = steps.iter().map(|step| content.read(step)).collect();
                upload.handle_loaded(to, id, Some(steps), now);
            }
            Output::Broken { .. } => {}
        }
    }
    sent
}

fn steps_to(sent: &[(NodeId, FromSource)], peer: NodeId) -> usize {
    sent.iter().filter(|(to, message)| *to == peer && matches!(message, FromSource::Step(..))).count()
}

#[test]
fn peers_get_the_same_whoever_asks_for_more() {
    let (content, mut now) = (Content::new(32 << 20, 1), start());
    let mut upload = serving(&content, Config { rate: Some(1 << 20), ..Config::default() }, now);
    for number in 0..30 {
        upload.handle_message(A, request(number, &content, number * 64, 64), now).unwrap();
    }
    upload.handle_message(B, request(0, &content, 0, 64), now).unwrap();
    upload.handle_message(B, request(1, &content, 64, 64), now).unwrap();
    let mut sent = Vec::new();
    for _ in 0..100 {
        upload.handle_timeout(now);
        sent.extend(run(&mut upload, &content, now));
        now = now.plus(Duration::from_millis(10));
    }
    let (to_a, to_b) = (steps_to(&sent, A), steps_to(&sent, B));
    // 1 MiB at once and 1 MiB in the second after it, in 16 KiB.
    assert!((120..=130).contains(&(to_a + to_b)), "{to_a} {to_b}");
    assert!(to_a.abs_diff(to_b) <= 16, "{to_a} {to_b}");
}

#[test]
fn one_peer_has_a_limit_of_its_own() {
    let (content, mut now) = (Content::new(32 << 20, 1), start());
    let mut upload = serving(&content, Config { peer_rate: Some(256 << 10), ..Config::default() }, now);
    upload.handle_message(A, request(0, &content, 0, 64), now).unwrap();
    let mut sent = run(&mut upload, &content, now);
    assert_eq!(steps_to(&sent, A), 16);
    let at = upload.poll_timeout().unwrap();
    assert!(at > now.mono && at <= now.mono + Duration::from_millis(70));
    for _ in 0..10 {
        now = now.plus(Duration::from_millis(100));
        upload.handle_timeout(now);
        sent.extend(run(&mut upload, &content, now));
    }
    assert_eq!(steps_to(&sent, A), 32);
}

#[test]
fn a_peer_that_does_not_read_is_not_served_on() {
    let (content, now) = (Content::new(8 << 20, 1), start());
    let mut upload = serving(&content, Config::default(), now);
    for number in 0..8 {
        upload.handle_message(A, request(number, &content, number * 64, 64), now).unwrap();
    }
    for _ in 0..1_000 {
        let _refused = upload.handle_message(A, ToSource::Want(content.blob.id()), now);
        let _refused = upload.handle_message(A, request(99, &content, 0, 1), now);
    }
    let (mut messages, mut steps) = (0, 0);
    while let Some(output) = upload.poll_output() {
        match output {
            Output::Send { message, .. } => {
                messages += 1;
                steps += u64::from(matches!(message, FromSource::Step(..)));
            }
            Output::Load { to, id, steps, .. } => {
                upload.handle_loaded(to, id, Some(steps.iter().map(|step| content.read(step)).collect()), now);
            }
            Output::Broken { .. } => panic!("nothing is broken"),
        }
        assert!(upload.groups() <= Config::default().max_peer_groups);
    }
    assert_eq!(steps, Config::default().max_peer_groups);
    assert!(messages <= Config::default().max_unsent as u64 + steps, "{messages}");
    upload.handle_gone(A, now);
    assert_eq!(upload.groups(), 0);
}

#[test]
fn a_cut_request_ends_where_it_was_cut() {
    let (content, now) = (Content::new(8 << 20, 1), start());
    let mut upload = serving(&content, Config::default(), now);
    let id = RequestId { download: 0, number: 0 };
    upload.handle_message(A, request(0, &content, 0, 64), now).unwrap();
    upload.handle_message(A, request(1, &content, 64, 64), now).unwrap();
    // The first 16 are being loaded.
    upload.handle_message(A, ToSource::Cut { id, end: 10 }, now).unwrap();
    upload.handle_message(A, ToSource::Cut { id: RequestId { number: 1, ..id }, end: 0 }, now).unwrap();
    let sent = run(&mut upload, &content, now);
    assert_eq!((steps_to(&sent, A), sent.len()), (10, 10));
}

#[test]
fn what_is_not_there_is_said_and_what_no_honest_peer_asks_is_refused() {
    let (content, other, now) = (Content::new(3 << 20, 1), Content::new(1 << 20, 2), start());
    let mut upload = Upload::new(Config::default(), now);
    let mut pieces = Bitmap::new(3);
    pieces.set(1);
    assert!(upload.serve(content.blob, pieces));
    assert!(!upload.serve(other.blob, Bitmap::full(2)), "not its number of pieces");
    let mut ask = |message| {
        let taken = upload.handle_message(A, message, now);
        (taken, run(&mut upload, &content, now).pop().map(|(_, message)| message))
    };
    let id = |number| RequestId { download: 0, number };
    let missing = |number| (Ok(()), Some(FromSource::End(id(number), Ending::Missing)));
    assert_eq!(ask(request(0, &other, 0, 1)), missing(0));
    assert_eq!(ask(request(1, &content, 0, 64)), missing(1));
    assert_eq!(ask(request(2, &content, 127, 2)), missing(2));
    assert_eq!(ask(request(3, &content, 0, 65)).0, Err(Reject::Malformed));
    assert_eq!(ask(request(4, &content, u32::MAX, u16::MAX)).0, Err(Reject::Malformed));
    assert_eq!(ask(request(5, &content, 190, 3)).0, Err(Reject::Malformed));
    assert!(matches!(ask(request(6, &content, 100, 1)), (Ok(()), Some(FromSource::Step(..)))));
    let holding = FromSource::Have(content.blob.id(), Holding::Some(3 << 20, vec![2]));
    assert_eq!(ask(ToSource::Want(content.blob.id())), (Ok(()), Some(holding)));
    let nothing = FromSource::Have(other.blob.id(), Holding::Nothing);
    assert_eq!(ask(ToSource::Want(other.blob.id())), (Ok(()), Some(nothing)));
    upload.handle_gained(content.blob.id(), 0);
    upload.handle_gained(content.blob.id(), 0);
    let news = run(&mut upload, &content, now);
    assert_eq!(news, [(A, FromSource::Gained(content.blob.id(), 0))]);
}

#[test]
fn what_rotted_is_not_sent_and_not_served_any_more() {
    let (content, now) = (Content::new(3 << 20, 1), start());
    let mut upload = serving(&content, Config::default(), now);
    upload.handle_message(A, request(0, &content, 0, 10), now).unwrap();
    let Some(Output::Load { to, id, steps, .. }) = upload.poll_output() else { panic!("nothing to load") };
    let mut read: Vec<_> = steps.iter().map(|step| content.read(step)).collect();
    *read[4].last_mut().unwrap() ^= 1;
    upload.handle_loaded(to, id, Some(read), now);
    let mut outputs = Vec::new();
    while let Some(output) = upload.poll_output() {
        outputs.push(output);
    }
    assert_eq!(outputs.len(), 6);
    assert_eq!(outputs[4], Output::Send { to: A, message: FromSource::End(id, Ending::Broken) });
    assert_eq!(outputs[5], Output::Broken { blob: content.blob.id(), group: Some(4) });
    upload.handle_message(A, request(1, &content, 0, 10), now).unwrap();
    assert!(matches!(upload.poll_output(), Some(Output::Send { message: FromSource::End(_, Ending::Missing), .. })));
}

#[test]
fn a_private_blob_is_not_here_for_nodes_that_are_avoided() {
    let (content, now) = (Content::new(3 << 20, 1), start());
    let mut upload = serving(&content, Config::default(), now);
    let want = || ToSource::Want(content.blob.id());
    let nothing = |to| (to, FromSource::Have(content.blob.id(), Holding::Nothing));
    let missing = |to, number| (to, FromSource::End(RequestId { download: 0, number }, Ending::Missing));
    upload.avoid([A].into());
    upload.handle_message(A, want(), now).unwrap();
    assert_ne!(run(&mut upload, &content, now), [nothing(A)], "it is not private");
    // What has begun ends.
    upload.make_private(content.blob.id());
    upload.handle_message(B, request(0, &content, 0, 10), now).unwrap();
    upload.avoid([A, B].into());
    assert!(run(&mut upload, &content, now).contains(&missing(B, 0)));
    upload.handle_message(A, want(), now).unwrap();
    upload.handle_message(A, request(1, &content, 0, 10), now).unwrap();
    assert_eq!(run(&mut upload, &content, now), [nothing(A), missing(A, 1)]);
    upload.avoid([A].into());
    upload.handle_message(B, request(2, &content, 0, 10), now).unwrap();
    assert_eq!(steps_to(&run(&mut upload, &content, now), B), 10);
}

#[test]
fn there_are_only_so_many_requests_peers_and_blobs() {
    let (content, now) = (Content::new(3 << 20, 1), start());
    let config = Config { max_peers: 2, max_blobs: 1, max_requests: 3, rate: Some(1), ..Config::default() };
    let mut upload = serving(&content, config, now);
    assert!(!upload.serve(Content::new(5, 5).blob, Bitmap::full(1)));
    for number in 0..10 {
        upload.handle_message(A, request(number, &content, 0, 64), now).unwrap();
    }
    assert_eq!(upload.counts().busy, 7);
    assert_eq!(
        upload.handle_message(A, request(0, &content, 0, 64), now),
        Err(Reject::Malformed),
        "its number is taken"
    );
    upload.handle_message(B, ToSource::Want(content.blob.id()), now).unwrap();
    assert_eq!(upload.handle_message(NodeId([3; 32]), ToSource::Want(content.blob.id()), now), Err(Reject::Full));
}

#[test]
fn a_slow_uplink_serves_no_more_peers_than_it_can_keep_from_stalling() {
    let (content, now) = (Content::new(3 << 20, 1), start());
    // Three groups in five seconds.
    let mut upload = serving(&content, Config { rate: Some(10_000), ..Config::default() }, now);
    for peer in 0..5 {
        upload.handle_message(NodeId([peer; 32]), request(0, &content, 0, 64), now).unwrap();
    }
    assert_eq!(upload.counts().busy, 2);
    upload.handle_message(A, request(1, &content, 0, 64), now).unwrap();
    assert_eq!(upload.counts().busy, 2, "who is served may ask on");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Through the wire, from several uploads that have parts of it, of which some learn more on the way.
    #[test]
    fn a_download_from_uploads_is_the_blob(size in sizes(), parts in prop::collection::vec(any::<u8>(), 1..5), seed in any::<u64>()) {
        let content = Content::new(size, seed);
        let (blob, mut now) = (content.blob, start());
        let have = Bitmap::new(blob.groups());
        let mut download = Download::new(blob, have, 3, seed, download::Config::default(), now).unwrap();
        let mut uploads = BTreeMap::new();
        for (at, part) in (1u8..).zip(&parts) {
            let mut pieces = Bitmap::new(blob.pieces());
            (0..blob.pieces()).filter(|piece| part >> (piece % 8) & 1 == 1).for_each(|piece| { pieces.set(piece); });
            let mut upload = Upload::new(Config::default(), now);
            prop_assert!(upload.serve(blob, pieces));
            uploads.insert(NodeId([at; 32]), upload);
            download.handle_source(NodeId([at; 32]), now).unwrap();
        }
        let (mut bytes, mut done) = (vec![0; size], false);
        for round in 0.. {
            prop_assert!(round < 200, "{:?}", download.progress(now));
            while let Some(output) = download.poll_output() {
                match output {
                    download::Output::Send { to, message } => {
                        let frame = message.encode();
                        let (message, _) = ToSource::decode(&frame).unwrap().unwrap();
                        prop_assert_eq!(uploads.get_mut(&to).unwrap().handle_message(to, message, now), Ok(()));
                    }
                    download::Output::Persist(verified) => {
                        let from = verified.offset() as usize;
                        bytes[from..from + verified.data().len()].copy_from_slice(verified.data());
                        download.handle_written(verified.group(), true, now);
                    }
                    download::Output::Report(report) => prop_assert!(false, "{:?}", report),
                    download::Output::Done => done = true,
                }
            }
            if done {
                break;
            }
            let mut quiet = true;
            for (peer, upload) in &mut uploads {
                for (_, message) in run(upload, &content, now) {
                    quiet = false;
                    let frame = message.encode();
                    let (message, _) = FromSource::decode(&frame).unwrap().unwrap();
                    // What was stolen may have been on its way.
                    prop_assert!(matches!(download.handle_message(*peer, message, now), Ok(()) | Err(Reject::Late)));
                }
                if round == 20 {
                    (0..blob.pieces()).for_each(|piece| upload.handle_gained(blob.id(), piece));
                }
            }
            now = now.plus(Duration::from_millis(if quiet { 300 } else { 1 }));
            download.handle_timeout(now);
        }
        prop_assert!(bytes == content.bytes);
        prop_assert_eq!(download.counts().released, 0);
    }

    #[test]
    fn any_messages_leave_it_within_its_bounds(
        messages in prop::collection::vec((0u8..3, 0u8..5, 0u32..6, 0u32..70, 0u16..70, any::<bool>()), 1..300),
    ) {
        let (content, mut now) = (Content::new(1 << 20, 1), start());
        let config = Config { max_groups: 40, max_requests: 4, rate: Some(4 << 20), ..Config::default() };
        let mut upload = serving(&content, config, now);
        let mut loads: Vec<(NodeId, RequestId, Vec<Step>)> = Vec::new();
        let mut given = BTreeSet::new();
        for (peer, kind, number, first, count, flag) in messages {
            let peer = NodeId([peer; 32]);
            let id = RequestId { download: 0, number };
            match kind {
                0 => { let _taken = upload.handle_message(peer, request(number, &content, first, count), now); }
                1 => { let _taken = upload.handle_message(peer, ToSource::Cut { id, end: first }, now); }
                2 if flag => upload.handle_gone(peer, now),
                2 => upload.handle_sent(peer, now),
                3 => if let Some((to, id, steps)) = loads.pop() {
                    let read = flag.then(|| steps.iter().map(|step| content.read(step)).collect());
                    upload.handle_loaded(to, id, read, now);
                    if !flag {
                        prop_assert!(upload.serve(content.blob, Bitmap::full(1)));
                    }
                },
                _ => { now = now.plus(Duration::from_millis(u64::from(first))); upload.handle_timeout(now); }
            }
            while let Some(output) = upload.poll_output() {
                match output {
                    Output::Load { to, id, steps, .. } => loads.push((to, id, steps)),
                    Output::Send { to, .. } => { given.insert(to); }
                    Output::Broken { .. } => {}
                }
            }
            prop_assert!(upload.groups() <= 40);
        }
    }
}
