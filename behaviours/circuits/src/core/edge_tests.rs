use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Two ends, and cells that pass between them in order.
struct Pair {
    ends: [Edge; 2],
    cells: u32,
    events: [Vec<EdgeEvent>; 2],
    got: [HashMap<StreamId, Vec<u8>>; 2],
    /// Whether what comes is read.
    reads: bool,
}

impl Pair {
    fn new() -> Self {
        let got = [HashMap::new(), HashMap::new()];
        Self { ends: [Edge::new(true), Edge::new(false)], cells: 0, events: [vec![], vec![]], got, reads: true }
    }

    /// One cell from end `from`; false if it has none.
    fn step(&mut self, from: usize) -> bool {
        let mut payload = Vec::new();
        if !self.ends[from].is_ready() {
            return false;
        }
        let Some(is_counted) = self.ends[from].next_payload(&mut payload) else { return false };
        assert!(payload.len() <= PAYLOAD_LEN);
        payload.resize(PAYLOAD_LEN, 0);
        self.cells += 1;
        let tag = u128::from(self.cells).to_le_bytes();
        let now = Instant::now();
        if is_counted {
            self.ends[from].handle_sent(tag, now);
        }
        let to = 1 - from;
        let mut events = Vec::new();
        self.ends[to].handle_payload(&payload, tag, now, &mut events).unwrap();
        for event in &events {
            if let EdgeEvent::Data(id) = event
                && self.reads
            {
                self.read(to, *id);
            }
        }
        self.events[to].extend(events);
        true
    }

    fn read(&mut self, at: usize, id: StreamId) {
        let bytes = self.ends[at].take_received(id);
        self.ends[at].handle_consumed(id, bytes.len() as u64);
        self.got[at].entry(id).or_default().extend(bytes);
    }

    fn run(&mut self) {
        while self.step(0) | self.step(1) {}
    }

    fn begin(&mut self, early: &[u8]) -> StreamId {
        self.ends[0].begin(Target::Service(80), early.to_vec()).unwrap()
    }
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 7 + seed) % 251) as u8).collect()
}

#[test]
fn early_data_travels_with_the_request() {
    let mut pair = Pair::new();
    let id = pair.begin(b"GET /");
    assert!(pair.step(0));
    assert_eq!(pair.events[1], [EdgeEvent::Begin(id, Target::Service(80)), EdgeEvent::Data(id)]);
    assert_eq!(pair.got[1][&id], b"GET /");
    pair.ends[1].accept(id);
    pair.ends[1].write(id, b"200".to_vec());
    assert!(pair.step(1));
    assert_eq!(pair.events[0], [EdgeEvent::Connected(id), EdgeEvent::Data(id)]);
}

#[test]
fn much_passes_both_ways_at_once_and_ends_one_way_after_the_other() {
    let mut pair = Pair::new();
    let id = pair.begin(&[]);
    let (up, down) = (bytes(10_000_000, 1), bytes(7_000_000, 2));
    pair.ends[0].write(id, up.clone());
    pair.ends[0].finish(id);
    pair.run();
    assert!(pair.events[1].contains(&EdgeEvent::Fin(id)));
    pair.ends[1].accept(id);
    pair.ends[1].write(id, down.clone());
    pair.ends[1].finish(id);
    pair.run();
    assert_eq!((&pair.got[1][&id], &pair.got[0][&id]), (&up, &down));
    assert!(pair.events[0].contains(&EdgeEvent::Fin(id)));
    assert_eq!(pair.ends[0].streams().count() + pair.ends[1].streams().count(), 0);
}

#[test]
fn a_stream_that_nobody_reads_holds_no_more_than_its_window_and_stops_no_other() {
    let mut pair = Pair::new();
    pair.reads = false;
    let (slow, quick) = (pair.begin(&[]), pair.begin(&[]));
    pair.ends[0].write(slow, bytes(1_000_000, 1));
    pair.run();
    assert_eq!(pair.ends[1].held_bytes() as u64, INITIAL_WINDOW);
    pair.ends[0].write(quick, bytes(100_000, 2));
    pair.run();
    pair.read(1, quick);
    assert_eq!(pair.got[1][&quick], bytes(100_000, 2));
    // Reading goes on: all of it comes.
    for _ in 0..20 {
        pair.read(1, slow);
        pair.run();
    }
    assert_eq!(pair.got[1][&slow], bytes(1_000_000, 1));
}

#[test]
fn streams_of_one_circuit_share_it() {
    let mut pair = Pair::new();
    let ids: Vec<_> = (0..10).map(|_| pair.begin(&[])).collect();
    ids.iter().for_each(|id| pair.ends[0].write(*id, bytes(1_000_000, 0)));
    for _ in 0..100 {
        pair.step(0);
        pair.step(1);
    }
    let got: Vec<_> = ids.iter().map(|id| pair.got[1].get(id).map_or(0, Vec::len)).collect();
    assert!(got.iter().max().unwrap() - got.iter().min().unwrap() <= 2 * PAYLOAD_LEN, "{got:?}");
}

#[test]
fn messages_arrive_whole_and_in_order() {
    let mut pair = Pair::new();
    let bodies = [vec![], bytes(5, 1), bytes(MAX_MESSAGE, 2), bytes(PAYLOAD_LEN, 3)];
    for (at, body) in bodies.iter().enumerate() {
        assert!(pair.ends[0].send_message(64 + at as u8, body.clone()));
    }
    assert!(!pair.ends[0].send_message(64, bytes(MAX_MESSAGE + 1, 0)));
    pair.run();
    let expected: Vec<_> =
        bodies.into_iter().zip(64..).map(|(body, command)| EdgeEvent::Message(command, body)).collect();
    assert_eq!(pair.events[1], expected);
    let accepted = (0..1000).filter(|_| pair.ends[1].send_message(70, vec![])).count();
    assert_eq!(accepted, MAX_MESSAGES);
}

#[test]
fn the_other_end_is_told_when_there_are_too_many_streams() {
    let mut pair = Pair::new();
    (0..MAX_STREAMS).for_each(|_| {
        pair.begin(&[]);
    });
    assert_eq!(pair.ends[0].begin(Target::Service(1), vec![]), None);
    pair.run();
    // An end that keeps to no limit of its own.
    let mut payload = Vec::new();
    Frame::Begin(StreamId(MAX_STREAMS as u32 + 1), Target::Service(1)).append(&mut payload);
    let mut events = Vec::new();
    pair.ends[1].handle_payload(&payload, [0; 16], Instant::now(), &mut events).unwrap();
    assert_eq!(events, []);
    let mut answer = Vec::new();
    pair.ends[1].next_payload(&mut answer);
    let end = Frame::End(StreamId(MAX_STREAMS as u32 + 1), EndReason::Busy);
    assert!(Frames::new(&answer).any(|frame| frame == Ok(end.clone())));
}

#[test]
fn who_breaks_the_rules_is_found_out() {
    let begin = Frame::Begin(StreamId(1), Target::Service(1));
    let data = |len| Frame::Data(StreamId(1), vec![0; len].leak());
    let cases: Vec<(bool, Vec<Frame<'_>>)> = vec![
        // To the end that begins streams.
        (true, vec![begin.clone()]),
        (true, vec![Frame::Data(StreamId(1), b"a")]),
        (true, vec![Frame::Sendme([0; 16])]),
        (true, vec![Frame::Message(64, true, b"a"), Frame::Message(65, false, b"b")]),
        // To the other one.
        (false, vec![begin.clone(), begin.clone()]),
        (false, vec![begin.clone(), Frame::Connected(StreamId(1))]),
        (false, vec![begin.clone(), Frame::Fin(StreamId(1)), Frame::Fin(StreamId(1))]),
        (false, vec![begin.clone(), Frame::Fin(StreamId(1)), data(1)]),
        (false, vec![Frame::Extended(b"")]),
        (true, vec![Frame::Extended(b"")]),
        (false, vec![Frame::Credit(StreamId(9), 1)]),
    ];
    for (begins, frames) in cases {
        let mut payload = Vec::new();
        frames.iter().for_each(|frame| frame.append(&mut payload));
        let result = Edge::new(begins).handle_payload(&payload, [0; 16], Instant::now(), &mut Vec::new());
        assert_eq!(result, Err(Violation), "{frames:?}");
    }
}

#[test]
fn more_than_was_granted_is_a_violation() {
    let mut edge = Edge::new(false);
    let mut send = |frame: Frame<'_>| {
        let mut payload = Vec::new();
        frame.append(&mut payload);
        edge.handle_payload(&payload, [0; 16], Instant::now(), &mut Vec::new())
    };
    send(Frame::Begin(StreamId(1), Target::Service(1))).unwrap();
    for _ in 0..INITIAL_WINDOW / 1024 {
        send(Frame::Data(StreamId(1), &[0; 1024])).unwrap();
    }
    assert_eq!(send(Frame::Data(StreamId(1), &[0])), Err(Violation));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_arrives(
        writes in prop::collection::vec((0usize..2, 0usize..5, 0usize..20_000, any::<bool>()), 1..60),
    ) {
        let mut pair = Pair::new();
        let ids: Vec<_> = (0..5).map(|_| pair.begin(&[])).collect();
        pair.run();
        let mut expected: [HashMap<StreamId, Vec<u8>>; 2] = Default::default();
        for (seed, (end, stream, len, runs)) in writes.into_iter().enumerate() {
            let written = bytes(len, seed);
            expected[1 - end].entry(ids[stream]).or_default().extend(&written);
            pair.ends[end].write(ids[stream], written);
            if runs { pair.step(end); }
        }
        pair.run();
        for (expected, got) in expected.iter().zip(&pair.got) {
            for (id, bytes) in expected.iter().filter(|(_, bytes)| !bytes.is_empty()) {
                prop_assert_eq!(got.get(id), Some(bytes));
            }
        }
    }

    #[test]
    fn no_payload_makes_an_end_panic(payload in prop::collection::vec(any::<u8>(), 0..PAYLOAD_LEN), begins: bool) {
        let mut edge = Edge::new(begins);
        let _judged = edge.handle_payload(&payload, [0; 16], Instant::now(), &mut Vec::new());
    }
}
