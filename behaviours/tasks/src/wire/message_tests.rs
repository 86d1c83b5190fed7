use std::time::Duration;

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, UnixMillis, record::Validity};
use proptest::prelude::*;

use super::*;
use crate::wire::record::{COMMIT, CommitBody};

const X: ExecutionId = ExecutionId([7; 16]);

fn signed() -> SignedRecord {
    let validity = Validity { seq: 1, not_before: UnixMillis(1_800_000_000_000), lifetime: Duration::from_secs(60) };
    let body = CommitBody { execution: X, hash: [1; 32] };
    SignedRecord::sign(&COMMIT, &NetworkId([2; 32]), &SigningKey::from_bytes(&[3; 32]), validity, &body).unwrap()
}

fn to_worker() -> Vec<ToWorker> {
    let content = Content::of(b"abc");
    let items = vec![
        (content, Source::Inline(ByteBuf::from(*b"abc"))),
        (Content::of(b"d"), Source::Blob(ByteBuf::from(vec![1; MAX_MANIFEST]))),
    ];
    vec![
        ToWorker::Bid { record: signed(), work: vec![1, 2] },
        ToWorker::Lease(signed()),
        ToWorker::Stage { execution: X, items },
        ToWorker::Cancel(X),
        ToWorker::Reveal { execution: X, want_output: true },
        ToWorker::Voucher(signed()),
    ]
}

fn to_coordinator() -> Vec<ToCoordinator> {
    let revealed =
        |output| ToCoordinator::Revealed { execution: X, result: ResultHash([4; 32]), nonce: [5; 32], fuel: 6, output };
    vec![
        ToCoordinator::Agreement(signed()),
        ToCoordinator::Refused { execution: X, reason: Refusal::Unpaid },
        ToCoordinator::Heartbeat(Phase::ALL.iter().map(|phase| (X, *phase)).collect()),
        ToCoordinator::Log { execution: X, stream: StreamKind::Stderr, bytes: vec![1; MAX_LOG] },
        ToCoordinator::Commit(signed()),
        ToCoordinator::Ended { execution: X, failure: Failure::Host(HostEnd::Killed) },
        ToCoordinator::Ended { execution: X, failure: Failure::Stage(StageError::Mismatch) },
        ToCoordinator::Ended { execution: X, failure: Failure::Vacated },
        ToCoordinator::Ended { execution: X, failure: Failure::TooLarge },
        revealed(None),
        revealed(Some(Source::Inline(ByteBuf::from(vec![1; MAX_OUTCOME])))),
        revealed(Some(Source::Blob(ByteBuf::from(vec![1; MAX_MANIFEST])))),
        ToCoordinator::Acknowledged { execution: X, record: signed() },
    ]
}

fn messages() -> Vec<Message> {
    let workers = to_worker().into_iter().map(Message::ToWorker);
    workers.chain(to_coordinator().into_iter().map(Message::ToCoordinator)).collect()
}

#[test]
fn messages_are_read_as_written_and_have_one_length() {
    for message in messages() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message));
        assert!(Message::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        for cut in [0, bytes.len() / 2, bytes.len() - 1] {
            assert!(Message::decode(&bytes[..cut]).is_err());
        }
    }
}

#[test]
fn each_bound_is_held() {
    let too_long = [
        Message::ToWorker(ToWorker::Bid { record: signed(), work: vec![0; MAX_WORK + 1] }),
        Message::ToWorker(ToWorker::Stage {
            execution: X,
            items: vec![(Content::of(b""), Source::Inline(ByteBuf::from(vec![0; MAX_INLINE]))); 5],
        }),
        Message::ToWorker(ToWorker::Stage {
            execution: X,
            items: vec![(Content::of(b""), Source::Blob(ByteBuf::new())); MAX_CONTENTS + 1],
        }),
        Message::ToWorker(ToWorker::Stage {
            execution: X,
            items: vec![(Content::of(b""), Source::Blob(ByteBuf::from(vec![0; MAX_MANIFEST + 1])))],
        }),
        Message::ToCoordinator(ToCoordinator::Log {
            execution: X,
            stream: StreamKind::Stdout,
            bytes: vec![0; MAX_LOG + 1],
        }),
        Message::ToCoordinator(ToCoordinator::Heartbeat(vec![(X, Phase::Queued); MAX_HEARTBEAT + 1])),
    ];
    for message in too_long {
        assert_eq!(Message::decode(&message.encode()), Err(WireError::TooLong));
    }
    let largest = ToWorker::Stage {
        execution: X,
        items: (0..MAX_CONTENTS)
            .map(|place| {
                let bytes = if place < 4 { vec![0; MAX_INLINE] } else { vec![0; MAX_MANIFEST] };
                let source = if place < 4 { Source::Inline } else { Source::Blob };
                (Content::of(b""), source(ByteBuf::from(bytes)))
            })
            .collect(),
    };
    assert!(Message::decode(&Message::ToWorker(largest).encode()).is_ok());
}

proptest! {
    #[test]
    fn garbage_is_refused_or_has_one_form(mut bytes in any::<Vec<u8>>(), tag in 0u8..80) {
        bytes.insert(0, tag);
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_has_one_form(which in 0usize..20, at in any::<prop::sample::Index>(), by in 1u8..) {
        let messages = messages();
        let mut bytes = messages[which % messages.len()].encode();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
