use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, ToSwarm, handler::ConnectionEvent,
    },
};
use libp2p_swarm_test::SwarmExt;

use super::*;

/// Tells the name that was agreed on.
#[derive(Debug, Clone)]
struct Named(LinkProtocol);

impl UpgradeInfo for Named {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;
    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl InboundUpgrade<Stream> for Named {
    type Output = ();
    type Error = Infallible;
    type Future = future::Ready<Result<(), Infallible>>;
    fn upgrade_inbound(self, _: Stream, _: StreamProtocol) -> Self::Future {
        future::ready(Ok(()))
    }
}

impl OutboundUpgrade<Stream> for Named {
    type Output = StreamProtocol;
    type Error = Infallible;
    type Future = future::Ready<Result<StreamProtocol, Infallible>>;
    fn upgrade_outbound(self, _: Stream, name: StreamProtocol) -> Self::Future {
        future::ready(Ok(name))
    }
}

/// Opens one stream when told to, and tells its name, or that there was none in common.
struct Opener {
    protocol: Named,
    opens: bool,
    told: VecDeque<Option<String>>,
}

impl ConnectionHandler for Opener {
    type FromBehaviour = Infallible;
    type ToBehaviour = Option<String>;
    type InboundProtocol = Named;
    type OutboundProtocol = Named;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Named> {
        SubstreamProtocol::new(self.protocol.clone(), ())
    }
    fn connection_keep_alive(&self) -> bool {
        true
    }
    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Named, Named>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(opened) => {
                self.told.push_back(Some(opened.protocol.to_string()));
            }
            ConnectionEvent::DialUpgradeError(_) => self.told.push_back(None),
            _ => {}
        }
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Named, (), Option<String>>> {
        if let Some(told) = self.told.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
        }
        if std::mem::take(&mut self.opens) {
            let protocol = SubstreamProtocol::new(self.protocol.clone(), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }
}

struct Peer {
    protocol: Named,
    told: VecDeque<Option<String>>,
}

impl Peer {
    fn opener(&self, opens: bool) -> Opener {
        Opener { protocol: self.protocol.clone(), opens, told: VecDeque::new() }
    }
}

impl NetworkBehaviour for Peer {
    type ConnectionHandler = Opener;
    type ToSwarm = Option<String>;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Opener, ConnectionDenied> {
        Ok(self.opener(false))
    }
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Opener, ConnectionDenied> {
        Ok(self.opener(true))
    }
    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}
    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, told: Option<String>) {
        self.told.push_back(told);
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Option<String>, Infallible>> {
        self.told.pop_front().map_or(Poll::Pending, |told| Poll::Ready(ToSwarm::GenerateEvent(told)))
    }
}

/// What a dialler that speaks `ours` and a listener that speaks `theirs` agree on.
async fn agreed(ours: &[u16], theirs: &[u16]) -> Option<String> {
    let network = NetworkId([1; 32]);
    let peer = |versions: &[u16]| {
        let protocol = Named(LinkProtocol::new(&network, versions));
        libp2p::Swarm::new_ephemeral_tokio(|_| Peer { protocol, told: VecDeque::new() })
    };
    let (mut dialler, mut listener) = (peer(ours), peer(theirs));
    listener.listen().with_memory_addr_external().await;
    dialler.connect(&mut listener).await;
    let listening = tokio::spawn(listener.loop_on_next());
    let told = dialler.wait(|event| event.try_into_behaviour_event().ok()).await;
    listening.abort();
    told
}

#[tokio::test]
async fn a_link_has_the_highest_version_that_both_sides_speak() {
    let name = |version| Some(NetworkId([1; 32]).protocol("mix", version));
    assert_eq!(agreed(&[1], &[1]).await, name(1));
    assert_eq!(agreed(&[2, 1], &[1]).await, name(1));
    assert_eq!(agreed(&[1], &[2, 1]).await, name(1));
    assert_eq!(agreed(&[3, 2, 1], &[2, 1]).await, name(2));
    assert_eq!(agreed(&[2], &[1]).await, None);
}
