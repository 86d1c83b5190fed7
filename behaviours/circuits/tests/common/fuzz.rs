//! What the fuzz target `circuits_cells` runs, and the test that replays its corpus.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{DropCounters, NodeId, Now, UnixMillis};
use fog_circuits::{
    Core, CoreConfig, End, ExitPolicy, Hop, NoPath, PathSource, RelaySecret,
    core::{
        cell::{CELL_LEN, Cell, Command, HopId, TAG_LEN},
        crypto::{
            handshake::{Waiting, answer},
            layer::ClientLayer,
        },
        types::{CircuitId, LinkId, Output, Side},
    },
    wire::Frames,
};

const RELAY: NodeId = NodeId([1; 32]);
const CLIENT: NodeId = NodeId([2; 32]);
const LINK: LinkId = LinkId(1);
const MAX_OWN: usize = 64;

/// The first byte says what of the rest: bytes of a link and frames, a handshake, or a script for a relay.
pub(crate) fn fuzz_cells(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => frames(rest),
        Some((1, rest)) => handshake(rest),
        Some((_, rest)) => Script::new().run(rest),
        None => {}
    }
}

/// What is read is written again as it was, up to the padding.
fn frames(data: &[u8]) {
    let mut bytes = [0; CELL_LEN];
    bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    if let Some(cell) = Cell::decode(&bytes) {
        assert_eq!(cell.to_bytes(), bytes);
    }
    let mut written = Vec::new();
    for frame in Frames::new(data) {
        match frame {
            Ok(frame) => frame.append(&mut written),
            Err(_) => return,
        }
    }
    let again: Vec<_> = Frames::new(&written).map(|frame| frame.is_ok()).collect();
    assert!(again.iter().all(|is_read| *is_read), "what was read cannot be read again");
}

fn secret() -> RelaySecret {
    RelaySecret::new(RELAY, &[3; 32])
}

/// A request to a relay, an answer to a client: the rest of the bytes; or a right one with changes, which must be refused.
fn handshake(data: &[u8]) {
    let _ = answer(&secret(), data, &[5; 64], |_| vec![1]);
    let waiting = || Waiting::new(secret().public(), &[1], &[7; 96]).expect("a good key");
    let right = answer(&secret(), waiting().request(), &[5; 64], |_| vec![1]).expect("a good request").1;
    let mut changed = right.clone();
    let changes = data.chunks_exact(3).take(16);
    changes.for_each(|change| {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % changed.len();
        changed[at] ^= change[2];
    });
    // The top bit of an X25519 key is not looked at, and is bound by the transcript all the same.
    assert_eq!(waiting().finish(&changed).is_ok(), changed == right);
    let _ = waiting().finish(data);
}

#[derive(Debug)]
struct Nowhere;

impl PathSource for Nowhere {
    fn stem(&mut self, _: usize, _: Option<&Hop>, _: Now) -> Result<Vec<Hop>, NoPath> {
        Err(NoPath::TooFewRelays)
    }

    fn end(&mut self, _: &[NodeId], _: &End, _: Now) -> Result<Hop, NoPath> {
        Err(NoPath::TooFewRelays)
    }

    fn is_open(&self, _: &NodeId, _: u16) -> bool {
        false
    }

    fn handle_built(&mut self, _: NodeId, _: Now) -> bool {
        true
    }

    fn handle_failed(&mut self, _: NodeId, _: Now) {}
}

/// A client that does what the bytes say, and a relay.
struct Script {
    relay: Core,
    now: Now,
    link: LinkId,
    next: u32,
    layers: Vec<(HopId, ClientLayer)>,
    waiting: Vec<(HopId, Waiting)>,
    known: Vec<CircuitId>,
}

impl Script {
    #[allow(clippy::disallowed_methods, reason = "the clock starts somewhere")]
    fn new() -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(0) };
        let exit = ExitPolicy::parse("accept *").expect("a policy");
        let config = CoreConfig {
            exit,
            spares: 0,
            max_circuits: 64,
            max_half_open: 16,
            max_own: MAX_OWN,
            ..CoreConfig::default()
        };
        let mut relay = Core::new(config, secret(), Box::new(Nowhere), Arc::<DropCounters>::default(), [9; 32], now);
        relay.hold_after(vec![71, 72]);
        relay.handle_link(LINK, CLIENT, false, now);
        Self { relay, now, link: LINK, next: 0, layers: vec![], waiting: vec![], known: vec![] }
    }

    fn run(mut self, mut data: &[u8]) {
        // An instruction, the length of its bytes in eights, and the bytes.
        while let [op, len, rest @ ..] = data {
            let (body, rest) = rest.split_at((8 * usize::from(*len)).min(rest.len()));
            data = rest;
            self.step(*op, body);
            self.settle();
            let counts = self.relay.counts();
            assert!(counts.relayed <= 64 && counts.half_open <= 2 * 64 && counts.links <= 4, "{counts:?}");
            assert!(counts.queued_cells <= 64 * 10_000, "{counts:?}");
        }
        self.relay.handle_link_down(self.link, self.now);
        self.settle();
        self.now = self.now.plus(Duration::from_secs(3 * 3600));
        self.relay.handle_timeout(self.now);
        self.settle();
        let counts = self.relay.counts();
        assert_eq!((counts.relayed, counts.half_open, counts.queued_cells), (0, 0, 0));
    }

    fn step(&mut self, op: u8, body: &[u8]) {
        match op % 10 {
            0 => self.raw(body),
            1 => self.create(),
            // A cell that the relay understands, with any frames.
            2..=4 => self.sealed(usize::from(op / 10), body),
            // One that it does not, on a circuit that is there.
            5 => {
                let id = self.layers.get(usize::from(op / 10)).map_or(HopId(1), |(id, _)| *id);
                self.relay.handle_cell(self.link, Cell::with_body(id, Command::Relay, body), self.now);
            }
            6 => {
                self.now = self.now.plus(Duration::from_millis(u64::from(op) * 40));
                self.relay.handle_timeout(self.now);
            }
            7 => {
                if let Some(circuit) = self.known.get(usize::from(op / 10)) {
                    self.relay.send_message(*circuit, 72, body.to_vec(), self.now);
                }
            }
            8 => {
                if let [a, b, ..] = self.known[..] {
                    self.relay.join(a, b, self.now);
                }
            }
            _ => {
                if let Some(circuit) = self.known.get(usize::from(op / 10)) {
                    self.relay.offer_message(*circuit, 67, body.to_vec(), self.now);
                }
            }
        }
    }

    fn raw(&mut self, body: &[u8]) {
        let mut bytes = [0; CELL_LEN];
        bytes.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
        match Cell::decode(&bytes) {
            Some(cell) => self.relay.handle_cell(self.link, cell, self.now),
            None => self.relay.handle_garbage(self.link),
        }
    }

    fn create(&mut self) {
        self.next += 1;
        let id = HopId(self.next);
        let waiting = Waiting::new(secret().public(), &[1], &[self.next as u8; 96]).expect("a good key");
        let request = waiting.request();
        let body = [&(request.len() as u16).to_be_bytes(), request].concat();
        self.relay.handle_cell(self.link, Cell::with_body(id, Command::Create, &body), self.now);
        self.waiting.push((id, waiting));
    }

    fn sealed(&mut self, at: usize, payload: &[u8]) {
        if let Some((id, layer)) = self.layers.get_mut(at) {
            let mut cell = Cell::new(*id, Command::Relay);
            cell.body_mut().iter_mut().skip(TAG_LEN).zip(payload).for_each(|(to, from)| *to = *from);
            layer.seal(cell.body_mut());
            self.relay.handle_cell(self.link, cell, self.now);
        }
    }

    fn settle(&mut self) {
        loop {
            let mut is_any = false;
            while let Some(output) = self.relay.poll_output() {
                is_any = true;
                self.told(output);
            }
            for link in self.relay.ready_links() {
                while let Some(cell) = self.relay.next_cell(link, self.now) {
                    is_any = true;
                    self.came(cell);
                }
            }
            if !is_any {
                return;
            }
        }
    }

    fn told(&mut self, output: Output) {
        match output {
            Output::Run(job) => self.relay.handle_answer(job.run(), self.now),
            Output::Connect { node, .. } => self.relay.handle_unreachable(node, self.now),
            Output::Disconnect(link) => {
                // The peer comes back.
                self.relay.handle_link_down(link, self.now);
                (self.layers, self.waiting) = (vec![], vec![]);
                self.link = LinkId(self.link.0 + 1);
                self.relay.handle_link(self.link, CLIENT, false, self.now);
            }
            Output::Message { circuit, side, .. } => {
                assert_eq!(side, Side::Relay);
                self.known.push(circuit);
            }
            Output::Inbound { stream, .. } => self.relay.accept(stream),
            Output::Received(stream, bytes) => {
                self.relay.handle_consumed(stream, bytes.len() as u64);
                self.relay.write(stream, bytes);
            }
            Output::Finished(stream) => self.relay.finish(stream),
            Output::Closed { circuit, .. } => self.known.retain(|known| *known != circuit),
            _ => {}
        }
    }

    fn came(&mut self, mut cell: Cell) {
        let id = cell.id();
        match cell.command() {
            Command::Created => {
                let Some(at) = self.waiting.iter().position(|(of, _)| *of == id) else { return };
                let (_, waiting) = self.waiting.remove(at);
                let len = usize::from(u16::from_be_bytes([cell.body()[0], cell.body()[1]]));
                let (keys, _) = waiting.finish(&cell.body()[2..2 + len]).expect("a good answer");
                self.layers.push((id, ClientLayer::new(&keys.keys)));
            }
            Command::Relay => {
                if let Some((_, layer)) = self.layers.iter_mut().find(|(of, _)| *of == id) {
                    let _ = layer.open(cell.body_mut());
                }
            }
            Command::Destroy => self.layers.retain(|(of, _)| *of != id),
            Command::Create => panic!("a relay asks for nothing here"),
        }
    }
}
