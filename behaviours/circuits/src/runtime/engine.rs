//! The thread that holds the core: it feeds it with what comes from links, streams and the node, and does what it says. No rules of
//! the protocol.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
};

use fog_base::Now;

use super::{
    clock,
    flow::Flow,
    hub::{Command, Hub, Told},
    pipe::{Over, Pipe},
};
use crate::{
    core::{
        cell::CELL_LEN,
        edge::LOW_WATER,
        node::Core,
        numbers::ByNumber,
        types::{CircuitId, FIRST_STREAM, Job, LinkId, Output, StreamRef},
    },
    event::{Event, Inbound},
    ids::peer_id,
    wire::{EndReason, StreamId, Target},
};

/// A stream of which the core has more than this waiting is not asked for more.
const ENOUGH: usize = 2 * LOW_WATER;

/// A stream, at the application and in the core.
#[derive(Debug)]
struct Open {
    flow: Arc<Flow>,
    is_finished: bool,
    /// The application has dropped it.
    is_dropped: bool,
}

/// The core, and what is between it and the world.
#[derive(Debug)]
pub(crate) struct Engine {
    hub: Arc<Hub>,
    core: Core,
    jobs: SyncSender<Job>,
    /// Links, and whether the core knows of them.
    pipes: ByNumber<LinkId, (Arc<Pipe>, bool)>,
    streams: BTreeMap<StreamRef, Open>,
    flows: ByNumber<u64, StreamRef>,
    bytes: Vec<u8>,
}

impl Engine {
    pub(crate) fn new(hub: Arc<Hub>, core: Core, jobs: SyncSender<Job>) -> Self {
        Self {
            hub,
            core,
            jobs,
            pipes: ByNumber::default(),
            streams: BTreeMap::new(),
            flows: ByNumber::default(),
            bytes: Vec::new(),
        }
    }

    /// Works until it is stopped.
    pub(crate) fn run(mut self) {
        while !self.hub.is_stopped() {
            let found = self.hub.wait(self.core.poll_timeout(), clock().mono);
            let now = clock();
            for command in found.commands {
                self.handle_command(command, now);
            }
            for circuit in found.closing {
                self.core.close(circuit, now);
            }
            for answer in found.answers {
                self.core.handle_answer(answer, now);
            }
            for pipe in found.pipes {
                self.handle_pipe(pipe, now);
            }
            for flow in found.flows {
                self.handle_flow(&flow, now);
            }
            if self.core.poll_timeout() <= now.mono {
                self.core.handle_timeout(now);
                self.hub.set_counts(self.core.counts());
            }
            self.pump(now);
        }
        for open in self.streams.values() {
            open.flow.ended(Some(EndReason::CircuitClosed));
        }
        self.pipes.values().for_each(|(pipe, _)| pipe.close());
        self.hub.end();
    }

    fn handle_command(&mut self, command: Command, now: Now) {
        let (circuit, is_done) = match command {
            Command::Open(circuit, open) => {
                self.core.open_as(circuit, open, now);
                (circuit, true)
            }
            Command::Close(circuit) => (circuit, false),
            Command::HoldAfter(commands) => return self.core.hold_after(commands),
            Command::Offer(circuit, command, body, give) => {
                // Whoever asked may have gone.
                let _gone = give.send(self.core.offer_message(circuit, command, body, now));
                return;
            }
            Command::Message(circuit, command, body) => (circuit, self.core.send_message(circuit, command, body, now)),
            Command::VirtualHop { circuit, role, seed, transcript, first, flow } => {
                let is_added = self.core.add_virtual_hop(circuit, role, (&seed.0, &transcript), first, now);
                if let Some(flow) = flow {
                    self.insert(StreamRef { circuit, stream: FIRST_STREAM }, flow);
                }
                if !is_added {
                    self.end_streams(circuit);
                }
                (circuit, is_added)
            }
            Command::Join(a, b) => {
                let is_joined = self.core.join(a, b, now);
                if !is_joined {
                    self.core.close(b, now);
                }
                (a, is_joined)
            }
            Command::Stream { circuit, target, early, flow } => {
                self.begin(circuit, target, early, flow, now);
                (circuit, true)
            }
            Command::StreamFor { target, isolation, early, flow } => {
                let (Target::Host(_, port) | Target::Service(port)) = target;
                let circuit = self.core.circuit_for(port, isolation, now);
                self.begin(circuit, target, early, flow, now);
                (circuit, true)
            }
            Command::Accept(flow) => return self.accept(&flow),
            Command::Refuse(flow, reason) => return self.refuse(&flow, reason),
            Command::List(give) => {
                // Whoever asked may have gone.
                let _gone = give.send(self.core.list_circuits(now));
                return;
            }
        };
        if !is_done {
            self.core.close(circuit, now);
        }
    }

    fn begin(&mut self, circuit: CircuitId, target: Target, early: Vec<u8>, flow: Arc<Flow>, now: Now) {
        match self.core.open_stream(circuit, target, early, now) {
            Some(stream) => self.insert(stream, flow),
            None => flow.ended(Some(EndReason::CircuitClosed)),
        }
    }

    fn insert(&mut self, stream: StreamRef, flow: Arc<Flow>) {
        self.flows.insert(flow.number, stream);
        self.streams.insert(stream, Open { flow: Arc::clone(&flow), is_finished: false, is_dropped: false });
        // The application may have written before the stream had its number.
        self.pull(stream);
        self.look(stream, &flow);
    }

    fn accept(&mut self, flow: &Flow) {
        if let Some(stream) = self.flows.get(&flow.number) {
            self.core.accept(*stream);
        }
    }

    fn refuse(&mut self, flow: &Flow, reason: EndReason) {
        if let Some(stream) = self.flows.get(&flow.number).copied() {
            self.core.reset(stream, reason);
            self.remove(stream);
        }
    }

    fn remove(&mut self, stream: StreamRef) {
        if let Some(open) = self.streams.remove(&stream) {
            self.flows.remove(&open.flow.number);
        }
    }

    fn handle_pipe(&mut self, pipe: Arc<Pipe>, now: Now) {
        let link = pipe.link;
        let news = pipe.take();
        let is_known = self.pipes.get(&link).is_some_and(|(_, is_known)| *is_known);
        if !is_known && news.is_open && !pipe.is_closed() {
            self.pipes.insert(link, (Arc::clone(&pipe), true));
            self.core.handle_link(link, pipe.node, pipe.is_opener, now);
        }
        let is_known = self.pipes.get(&link).is_some_and(|(_, is_known)| *is_known);
        if is_known {
            for cell in news.received {
                self.core.handle_cell(link, cell, now);
            }
        }
        if let Some(over) = news.over {
            self.handle_over(&pipe, is_known, over, now);
        }
    }

    fn handle_over(&mut self, pipe: &Arc<Pipe>, is_known: bool, over: Over, now: Now) {
        if over == Over::Malformed {
            self.core.handle_garbage(pipe.link);
        }
        let was_there = self.pipes.remove(&pipe.link).is_some();
        if is_known && was_there {
            self.core.handle_link_down(pipe.link, now);
        } else if was_there {
            self.core.handle_unreachable(pipe.node, now);
        }
    }

    /// An application has read, written or dropped a stream.
    fn handle_flow(&mut self, flow: &Arc<Flow>, _: Now) {
        if let Some(stream) = self.flows.get(&flow.number).copied() {
            self.look(stream, flow);
        }
    }

    fn look(&mut self, stream: StreamRef, flow: &Arc<Flow>) {
        let news = flow.take();
        if news.consumed > 0 {
            self.core.handle_consumed(stream, news.consumed);
        }
        if news.has_bytes || news.is_finished || news.is_dropped {
            self.pull(stream);
        }
        if news.is_dropped {
            self.handle_dropped(stream);
        }
    }

    /// What was written and finished still goes; what comes is not wanted. What was not finished is no whole: the other end is told.
    fn handle_dropped(&mut self, stream: StreamRef) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        open.is_dropped = true;
        let (bytes, is_finished) = open.flow.take_outgoing();
        if !is_finished && !open.is_finished {
            self.core.reset(stream, EndReason::Reset);
            return self.remove(stream);
        }
        if !std::mem::replace(&mut open.is_finished, true) {
            self.core.write(stream, bytes);
            self.core.finish(stream);
        }
        self.remove_if_over(stream);
    }

    fn remove_if_over(&mut self, stream: StreamRef) {
        let is_dropped = self.streams.get(&stream).is_some_and(|open| open.is_dropped);
        if is_dropped && self.core.unsent(stream).is_none() {
            self.remove(stream);
        }
    }

    /// Takes what an application has written, if the core has little left.
    fn pull(&mut self, stream: StreamRef) {
        let unsent = self.core.unsent(stream);
        let Some(open) = self.streams.get_mut(&stream).filter(|open| !open.is_finished) else { return };
        if unsent.is_none_or(|unsent| unsent > ENOUGH) {
            return;
        }
        let (bytes, is_finished) = open.flow.take_outgoing();
        open.is_finished = is_finished;
        if !bytes.is_empty() {
            self.core.write(stream, bytes);
        }
        if is_finished {
            self.core.finish(stream);
        }
    }

    /// Does what the core says, and moves cells to links, until there is nothing to do or no room.
    fn pump(&mut self, now: Now) {
        loop {
            let mut is_any = false;
            while let Some(output) = self.core.poll_output() {
                self.handle_output(output, now);
                is_any = true;
            }
            for link in self.core.ready_links() {
                is_any |= self.fill(link, now);
            }
            if !is_any {
                return;
            }
        }
    }

    fn fill(&mut self, link: LinkId, now: Now) -> bool {
        let Some((pipe, _)) = self.pipes.get(&link) else { return false };
        self.bytes.clear();
        for _ in 0..pipe.room() / CELL_LEN {
            let Some(cell) = self.core.next_cell(link, now) else { break };
            cell.append(&mut self.bytes);
        }
        if !self.bytes.is_empty() {
            pipe.send(&mut self.bytes);
            return true;
        }
        false
    }

    fn handle_output(&mut self, output: Output, now: Now) {
        let event = match output {
            Output::Connect { node, addresses, is_hint } => {
                let (end, pipe) = Pipe::new_end(&self.hub, node, true);
                self.pipes.insert(pipe.link, (pipe, false));
                // If it is not taken, its end is dropped, and the node counts as unreachable.
                self.hub.tell(Told::Link { node, addresses, is_hint, end });
                return;
            }
            Output::Disconnect(link) => return self.disconnect(link, now),
            Output::Run(job) => {
                if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.jobs.try_send(job) {
                    self.core.handle_answer(job.give_up(), now);
                }
                return;
            }
            Output::Opened { circuit, purpose, hops, binding } => Event::Opened { circuit, purpose, hops, binding },
            Output::Closed { circuit, side, reason } => {
                self.end_streams(circuit);
                Event::Closed { circuit, side, reason }
            }
            Output::Message { circuit, side, command, body, binding } => {
                if !self.hub.tell(Told::Event(Event::Message { circuit, side, command, body, binding })) {
                    // It is lost, and all messages of a circuit come or none.
                    self.core.close(circuit, now);
                }
                return;
            }
            Output::Inbound { stream, target } => {
                let flow = Flow::new(&self.hub);
                self.insert(stream, Arc::clone(&flow));
                let request = Inbound { flow, hub: Arc::clone(&self.hub), is_answered: false };
                Event::Inbound { circuit: stream.circuit, target, request }
            }
            Output::Recorded(record) => Event::Recorded(record),
            Output::Experience(all) => Event::Experience(all),
            Output::Blame(node, reason) => match peer_id(node) {
                Some(peer) => Event::Blame { peer, reason },
                None => return,
            },
            Output::Connected(stream) => {
                if let Some(open) = self.streams.get(&stream) {
                    open.flow.connected();
                }
                return;
            }
            Output::Received(stream, bytes) => return self.handle_received(stream, &bytes),
            Output::Finished(stream) => return self.handle_ended(stream, None),
            Output::Ended(stream, reason) => return self.handle_ended(stream, Some(reason)),
            Output::Sent(stream) => {
                self.pull(stream);
                return self.remove_if_over(stream);
            }
        };
        self.hub.tell(Told::Event(event));
    }

    fn disconnect(&mut self, link: LinkId, now: Now) {
        if let Some((pipe, _)) = self.pipes.remove(&link) {
            pipe.close();
            self.core.handle_link_down(link, now);
        }
    }

    fn handle_received(&mut self, stream: StreamRef, bytes: &[u8]) {
        match self.streams.get(&stream) {
            Some(open) if !open.is_dropped => open.flow.received(bytes),
            Some(_) => {
                self.core.reset(stream, EndReason::Reset);
                self.remove(stream);
            }
            None => {}
        }
    }

    fn handle_ended(&mut self, stream: StreamRef, reason: Option<EndReason>) {
        if let Some(open) = self.streams.get(&stream) {
            open.flow.ended(reason);
        }
        if reason.is_some() {
            self.remove(stream);
        } else {
            self.remove_if_over(stream);
        }
    }

    fn end_streams(&mut self, circuit: CircuitId) {
        let from = |number| StreamRef { circuit, stream: StreamId(number) };
        let of_circuit: Vec<_> = self.streams.range(from(0)..=from(u32::MAX)).map(|(stream, _)| *stream).collect();
        for stream in of_circuit {
            self.handle_ended(stream, Some(EndReason::CircuitClosed));
        }
    }
}
