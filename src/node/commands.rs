//! Answers the commands.

use std::{sync::Arc, time::Duration};

use fog_base::NodeId;
use libp2p::{Multiaddr, PeerId};

use super::{
    clock,
    command::{Command, Failure, Reply},
    contacts::split,
    event::dial_reason,
    event_loop::EventLoop,
    report::Connected,
};
use crate::invite::Invite;

impl EventLoop {
    pub(super) fn on_command(&mut self, command: Command) {
        // Whoever asked may have left; then nobody needs the answer.
        match command {
            Command::Status(reply) => drop(reply.send(Ok(self.status()))),
            Command::Peers(reply) => drop(reply.send(Ok(self.peers()))),
            Command::Identity(reply) => drop(reply.send(self.identity())),
            Command::Connect { target, timeout, reply } => self.connect(target, timeout, reply),
            Command::Chat(job) => {
                (job.0)(&mut self.desk());
                self.avoid_hidden();
            }
            Command::FileSend { to, path, reply } => self.file_send(to, path, reply),
            Command::FileList(reply) => drop(reply.send(self.file_list())),
            Command::FilePause(id, reply) => drop(reply.send(self.file_pause(&id))),
            Command::FileGet { id, out, events } => self.file_get(&id, out, events),
            Command::ChatPanic(reply) => self.chat_panic(reply),
            Command::Services(reply) => drop(reply.send(Ok(Arc::clone(&self.circuits.desk)))),
            Command::Tasks(reply) => drop(reply.send(Ok(Arc::clone(&self.tasks)))),
            Command::Relays(reply) => drop(reply.send(Ok(self.relays()))),
            Command::Snapshot(reply) => drop(reply.send(Ok(self.snapshot()))),
            Command::VerifySeat { relay, reply } => drop(reply.send(self.verify_seat(&relay))),
            Command::Reputation { peer, reply } => drop(reply.send(self.reputation(peer.as_deref()))),
            Command::Metrics(reply) => drop(reply.send(self.metrics())),
            Command::MixSend { send, events } => self.mix_send(send, events),
            Command::MixPing { ping, events } => self.mix_ping(&ping, &events),
            Command::MixReceive { all, reply } => {
                let inbox = self.mixnet.inbox.clone();
                tokio::spawn(async move { drop(reply.send(inbox.read(all, clock::now().unix).await)) });
            }
        }
    }

    fn connect(&mut self, target: String, timeout: Duration, reply: Reply<Connected>) {
        let now = clock::now().mono;
        let outcome = self.target(&target).and_then(|(peer, addresses)| {
            if peer == Some(*self.swarm.local_peer_id()) {
                return Err(Failure::usage(format!("{target} is this node itself"), "name another node"));
            }
            let is_connected = peer.is_some_and(|peer| self.wiring.peers.is_connected(&peer));
            if is_connected {
                return Ok((peer, Default::default()));
            }
            let attempts = self.dial_for_command(peer, addresses).map_err(|error| {
                let message = format!("cannot connect to {target}: {}", dial_reason(&error));
                Failure::failed(message, "name another node's multiaddress or invite")
            })?;
            Ok((peer, attempts))
        });
        match outcome {
            Ok((peer, attempts)) => self.connects.add(target, peer, attempts, (now, timeout), reply),
            Err(failure) => drop(reply.send(Err(failure))),
        }
        self.connects.settle(&self.wiring.peers, now);
    }

    /// Whom a text names: an invite, a multiaddress, or the peer id of a relay.
    fn target(&self, text: &str) -> Result<(Option<PeerId>, Vec<Multiaddr>), Failure> {
        let hint = "a target is a multiaddress such as /ip4/192.0.2.1/tcp/4001, an invite, or a relay's peer id";
        if Invite::is_invite(text) {
            let invite = self.invite(text)?;
            let peer = super::behaviour::peer_id(invite.node)
                .ok_or_else(|| Failure::usage("the invite names no node", "ask for a new invite"))?;
            if invite.addresses.is_empty() && !self.wiring.peers.is_connected(&peer) {
                let message = format!("the invite of {peer} has no address to connect to");
                return Err(Failure::failed(message, "messages reach it through the mixnet: `fog mix send`"));
            }
            return Ok((Some(peer), invite.addresses));
        }
        if let Ok(node) = text.parse() {
            return Ok((super::behaviour::peer_id(node), self.addresses_of(node)));
        }
        let address: Multiaddr =
            text.parse().map_err(|_| Failure::usage(format!("`{text}` is not a multiaddress or an invite"), hint))?;
        match split(&address) {
            (_, bare) if bare.is_empty() => Err(Failure::usage(format!("`{text}` names no place to connect to"), hint)),
            (peer, bare) => Ok((peer, vec![bare])),
        }
    }

    pub(super) fn invite(&self, text: &str) -> Result<Invite, Failure> {
        Invite::parse(text, &self.network, clock::now().unix)
            .map_err(|error| Failure::usage(error.to_string(), "ask for a new invite: `fog id` prints one"))
    }

    /// The node that a text names: by its id, by its invite, or as a contact.
    pub(super) fn named(&self, text: &str) -> Result<NodeId, Failure> {
        if Invite::is_invite(text) {
            return self.invite(text).map(|invite| invite.node);
        }
        let contact = || self.swarm.behaviour().chat.chat().contact_address(text).map(|contact| contact.node);
        text.parse().ok().or_else(contact).ok_or_else(|| {
            let message = format!("`{text}` is no id of a peer, no invite and no contact");
            Failure::usage(message, "`fog relays` and `fog peers` list ids, `fog chat contact list` contacts")
        })
    }

    /// Where a relay says that it can be dialled.
    pub(super) fn addresses_of(&self, relay: NodeId) -> Vec<Multiaddr> {
        let descriptor = self.swarm.behaviour().directory.relays().get(relay);
        let addresses = descriptor.map_or(&[][..], |descriptor| &descriptor.facts().addresses);
        addresses.iter().copied().filter_map(super::reachability::multiaddr).collect()
    }
}
