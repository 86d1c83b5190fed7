use proptest::prelude::*;

use super::*;
use crate::core::testing::{dag, write};

fn header() -> Header {
    let mut dag = dag();
    write(&mut dag, 1, "a");
    write(&mut dag, 2, "b");
    write(&mut dag, 1, "c").header().clone()
}

fn decode(bytes: &[u8]) -> Result<Header, Reject> {
    let mut reader = Reader::new(bytes);
    let header = Header::decode(&mut reader)?;
    reader.end()?;
    Ok(header)
}

#[test]
fn a_header_has_the_layout_of_the_readme() {
    let header = header();
    let bytes = header.encode();
    assert_eq!(bytes.len(), 188 + 12 * 2 + 32);
    assert_eq!((bytes[0], bytes[1]), (1, 1));
    assert_eq!(bytes[2..34], header.conversation.0);
    assert_eq!(bytes[34..66], header.author.0);
    assert_eq!(bytes[66..70], 2u32.to_be_bytes());
    assert_eq!(bytes[70..78], 3u64.to_be_bytes());
    assert_eq!(bytes[78..86], header.sent_at.to_be_bytes());
    assert_eq!(bytes[86..118], header.previous.unwrap().0);
    assert_eq!(bytes[118..150], header.digest);
    assert_eq!(bytes[150..182], header.body_hash);
    assert_eq!(bytes[182..188], [0, 0, 0, 2, 2, 1]);
    assert_eq!(bytes[188..196], header.changes[0].author);
    assert_eq!(bytes[196..200], header.changes[0].seq.to_be_bytes());
    assert_eq!(bytes[212..], header.parents[0].0);
    assert_eq!(decode(&bytes), Ok(header));
}

#[test]
fn fields_out_of_their_range_are_refused() {
    type Break = (&'static str, fn(&mut Header));
    let breaks: [Break; 9] = [
        ("seq 0", |h| h.seq = 0),
        ("a first message with a previous one", |h| h.seq = 1),
        ("a later message without a previous one", |h| h.previous = None),
        ("lamport 1 with predecessors", |h| h.lamport = 1),
        ("lamport 0", |h| h.lamport = 0),
        ("the previous message among the parents", |h| h.parents = vec![h.previous.unwrap()]),
        ("parents twice", |h| h.parents = vec![MessageId([1; 32]); 2]),
        ("parents out of order", |h| h.parents = vec![MessageId([2; 32]), MessageId([1; 32])]),
        ("fewer changes than listed", |h| h.changed = 1),
    ];
    for (name, change) in breaks {
        let mut header = header();
        change(&mut header);
        assert_eq!(decode(&header.encode()), Err(Reject::Malformed), "{name}");
    }
    let mut many = header();
    many.parents = (0..9).map(|i| MessageId([i; 32])).collect();
    assert_eq!(decode(&many.encode()), Err(Reject::Malformed));
    let mut other = header().encode();
    other[0] = 2;
    assert_eq!(decode(&other), Err(Reject::UnknownVersion));
    let bytes = header().encode();
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn a_varint_has_one_encoding() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.varint(), Ok(value));
        assert_eq!(reader.end(), Ok(()));
    }
    for bytes in [&[0x80, 0][..], &[0x80], &[0xff; 10], &[0xff; 11], &[0xff, 0x80, 0]] {
        assert_eq!(Reader::new(bytes).varint(), Err(Reject::Malformed), "{bytes:?}");
    }
}

fn lists() -> Lists {
    let wants = vec![
        Want { from: 0, to: 7, have: vec![[1; 6], [2; 6]] },
        Want { from: 7, to: 9, have: vec![] },
        Want { from: 100, to: u64::MAX, have: vec![[3; 6]] },
    ];
    Lists { salt: [1; 32], token: [2; 16], wants }
}

#[test]
fn messages_of_reconciliation_survive_the_wire_and_have_the_layout_of_the_readme() {
    let hello = Hello { salt: [7; 32], entries: vec![HelloEntry { token: [1; 16], summary: [2; 8] }] };
    assert_eq!(hello.encode(), [&[1][..], &[7; 32], &[0, 1], &[1; 16], &[2; 8]].concat());
    assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    let ranges = vec![Range { from: 0, fingerprint: [3; 8] }, Range { from: 300, fingerprint: [4; 8] }];
    let answer =
        RangesAnswer(vec![([1; 16], Ranges { proofs: vec![vec![9, 9]], ranges }), ([2; 16], Ranges::default())]);
    let first = [&[1; 16][..], &[1, 0, 2, 9, 9, 0, 2, 0], &[3; 8], &[0xac, 2], &[4; 8]].concat();
    assert_eq!(answer.encode(), [&[2, 0, 2][..], &first, &[2; 16], &[0, 0, 0]].concat());
    assert_eq!(RangesAnswer::decode(&answer.encode()), Ok(answer));
    let lists = lists();
    let want = [&[0, 7, 2][..], &[1; 6], &[2; 6], &[0, 2, 0], &[91]].concat();
    assert_eq!(lists.encode()[..51 + want.len()], [&[3][..], &[1; 32], &[2; 16], &[0, 3], &want].concat());
    assert_eq!(Lists::decode(&lists.encode()), Ok(lists));
    let messages =
        Messages { token: [1; 16], complete_to: 5, messages: vec![vec![8; 3], vec![]], wanted: vec![[6; 6]] };
    let expected = [&[4][..], &[1; 16], &5u64.to_be_bytes(), &[0, 2, 0, 3, 8, 8, 8, 0, 0, 1], &[6; 6]].concat();
    assert_eq!(messages.encode(), expected);
    assert_eq!(Messages::decode(&messages.encode()), Ok(messages));
}

#[test]
fn ranges_and_lists_that_overlap_or_are_empty_are_refused() {
    for wants in [
        vec![Want { from: 5, to: 5, have: vec![] }],
        vec![Want { from: 0, to: 7, have: vec![] }, Want { from: 6, to: 8, have: vec![] }],
    ] {
        let lists = Lists { wants, ..lists() };
        assert_eq!(Lists::decode(&lists.encode()), Err(Reject::Malformed));
    }
    for froms in [vec![1], vec![0, 0], vec![0, 5, 4]] {
        let ranges = froms.into_iter().map(|from| Range { from, fingerprint: [0; 8] }).collect();
        let answer = RangesAnswer(vec![([0; 16], Ranges { proofs: vec![], ranges })]);
        assert_eq!(RangesAnswer::decode(&answer.encode()), Err(Reject::Malformed));
    }
    // A count of names that are not there reserves no memory.
    let mut claims = [&[3][..], &[0; 48], &[0, 1, 0, 1]].concat();
    claims.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(Lists::decode(&claims), Err(Reject::Malformed));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), tag in 0u8..5) {
        let tagged = [&[tag][..], &bytes].concat();
        for bytes in [&bytes, &tagged] {
            let _outcomes = (decode(bytes), decode_proof(bytes).is_ok(), Hello::decode(bytes), Lists::decode(bytes));
            let _outcomes = (RangesAnswer::decode(bytes), Messages::decode(bytes));
        }
    }

    #[test]
    fn a_flipped_bit_is_another_header_or_none(bit in 0usize..8 * 244) {
        let good = header().encode();
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(header) = decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }
}
