//! TCP that also dials IPv6 link-local addresses: `/ip6zone/<interface index>/ip6/fe80::…/tcp/…`, as fog-lan tells them. libp2p's own
//! TCP drops the zone, without which no system knows which link is meant. Two laptops on a cable have no other addresses.

use std::{
    io,
    net::SocketAddrV6,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
    tcp,
};

/// libp2p's TCP, and what it cannot dial.
pub(super) struct Tcp(tcp::tokio::Transport);

impl Tcp {
    pub(super) fn new(config: tcp::Config) -> Self {
        Self(tcp::tokio::Transport::new(config))
    }
}

fn link_local(address: &Multiaddr) -> Option<SocketAddrV6> {
    let mut parts = address.iter();
    let Some(Protocol::Ip6zone(zone)) = parts.next() else { return None };
    let Some(Protocol::Ip6(ip)) = parts.next() else { return None };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    let is_whole = matches!(parts.next(), None | Some(Protocol::P2p(_))) && parts.next().is_none();
    let zone = zone.parse().ok().filter(|zone| *zone != 0)?;
    (is_whole && ip.is_unicast_link_local()).then(|| SocketAddrV6::new(ip, port, 0, zone))
}

async fn connect(to: SocketAddrV6) -> io::Result<tcp::tokio::TcpStream> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(tcp::tokio::TcpStream(stream))
}

impl Transport for Tcp {
    type Output = tcp::tokio::TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = <tcp::tokio::Transport as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<tcp::tokio::TcpStream>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        match link_local(&address) {
            Some(to) => Ok(connect(to).boxed()),
            None => Ok(self.0.dial(address, opts)?.boxed()),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_local_address_with_its_zone_is_dialled_here() {
        let of = |text: &str| link_local(&text.parse().unwrap());
        let expected = SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, 3);
        assert_eq!(of("/ip6zone/3/ip6/fe80::1/tcp/5"), Some(expected));
        assert_eq!(
            of("/ip6zone/3/ip6/fe80::1/tcp/5/p2p/12D3KooW9xk7Zp1gejwfwNpfm6L9zH5NL4Bx5rm94LRYJJHJuARZ"),
            Some(expected)
        );
        for other in [
            "/ip6/fe80::1/tcp/5",
            "/ip6zone/0/ip6/fe80::1/tcp/5",
            "/ip6zone/eth0/ip6/fe80::1/tcp/5",
            "/ip6zone/3/ip6/fd00::1/tcp/5",
            "/ip6zone/3/ip6/fe80::1/udp/5/quic-v1",
            "/ip6zone/3/ip6/fe80::1/tcp/5/ws",
            "/ip4/10.0.0.1/tcp/5",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
