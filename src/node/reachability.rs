//! Whether others can reach this node, and where. Relay roles and Kademlia's server mode follow from it (DESIGN §4).
//!
//! Proof of an address is a peer that dialled us on it, or a confirmation by AutoNAT or a router's port mapping. libp2p itself counts
//! global addresses only; here a proof counts within its scope, so that a network on one host, or on one LAN, has relays too. Of
//! several scopes the widest one is advertised, and only if it is as wide as the network that we see: a relay that half of the
//! network cannot dial would lose its packets.

use std::{collections::BTreeSet, net::IpAddr};

use fog_directory::{Address, Scope, core::address::scope};
use libp2p::{Multiaddr, multiaddr::Protocol};

/// The most confirmed addresses that are not of an interface of our own.
const MAX_EXTERNAL: usize = 16;

/// What is known of our own addresses.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    listen: BTreeSet<Address>,
    proved: BTreeSet<IpAddr>,
    external: BTreeSet<Address>,
    /// The widest scope of a peer's address.
    network: Option<Scope>,
}

/// An address without the peer id at its end, if it is one that a descriptor may have.
pub(super) fn plain(address: &Multiaddr) -> Option<Address> {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    Address::from_bytes(&address.to_vec())
}

/// As libp2p dials it.
pub(super) fn multiaddr(address: Address) -> Option<Multiaddr> {
    Multiaddr::try_from(address.to_bytes()).ok()
}

/// The IP address at the start of a multiaddress, behind its zone if it has one.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().find(|part| !matches!(part, Protocol::Ip6zone(_)))? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

impl Reachability {
    /// We listen on `address`.
    pub(super) fn handle_listening(&mut self, address: &Multiaddr) {
        self.listen.extend(plain(address));
    }

    /// We listen on `address` no more; what was proved of its interface is void.
    pub(super) fn handle_not_listening(&mut self, address: &Multiaddr) {
        let Some(address) = plain(address) else { return };
        self.listen.remove(&address);
        if !self.listen.iter().any(|other| other.ip == address.ip) {
            self.proved.remove(&address.ip);
        }
    }

    /// A peer at `remote` dialled us at `local`. With QUIC `local` may be unspecified; then it is the interface that the peer is
    /// on the network of.
    pub(super) fn handle_inbound(&mut self, local: &Multiaddr, remote: &Multiaddr) {
        let (Some(local), Some(remote)) = (ip(local), ip(remote)) else { return };
        let ip = if local.is_unspecified() { self.interface_towards(remote) } else { Some(local) };
        self.proved.extend(ip.filter(|ip| self.listen.iter().any(|address| address.ip == *ip)));
    }

    fn interface_towards(&self, remote: IpAddr) -> Option<IpAddr> {
        self.listen.iter().map(|address| address.ip).find(|ip| match (ip, remote.to_canonical()) {
            (IpAddr::V4(ip), IpAddr::V4(remote)) if remote.is_loopback() => ip.is_loopback(),
            (IpAddr::V4(ip), IpAddr::V4(remote)) => {
                ip.octets().first_chunk::<3>() == remote.octets().first_chunk::<3>()
            }
            (IpAddr::V6(ip), IpAddr::V6(remote)) if remote.is_loopback() => ip.is_loopback(),
            (IpAddr::V6(ip), IpAddr::V6(remote)) => {
                ip.octets().first_chunk::<8>() == remote.octets().first_chunk::<8>()
            }
            _ => false,
        })
    }

    /// AutoNAT or a port mapping confirmed `address`.
    pub(super) fn handle_confirmed(&mut self, address: &Multiaddr) {
        let Some(address) = plain(address) else { return };
        if self.listen.iter().any(|listen| listen.ip == address.ip) {
            self.proved.insert(address.ip);
        } else if self.external.len() < MAX_EXTERNAL {
            self.external.insert(address);
        }
    }

    /// `address` is confirmed no more.
    pub(super) fn handle_unconfirmed(&mut self, address: &Multiaddr) {
        if let Some(address) = plain(address) {
            self.external.remove(&address);
        }
    }

    /// The widest scope of an address of a connected peer.
    pub(super) fn set_network(&mut self, widest: Option<Scope>) {
        self.network = widest;
    }

    fn is_loopback_only(&self) -> bool {
        self.listen.iter().all(|address| address.scope() == Scope::Loopback)
    }

    /// What is proved, of every scope; loopback only if that is all there is, so that it is never told off the host.
    fn proved(&self) -> impl Iterator<Item = Address> {
        let loopback_only = self.is_loopback_only();
        let of_interfaces = self.listen.iter().filter(|address| self.proved.contains(&address.ip));
        of_interfaces.chain(&self.external).copied().filter(move |a| loopback_only || a.scope() != Scope::Loopback)
    }

    /// Where others can dial us: addresses of the widest scope that is proved, if that is as wide as the network; else none.
    pub(super) fn advertised(&self) -> Vec<Address> {
        let Some(widest) = self.proved().map(|address| address.scope()).max() else { return Vec::new() };
        if self.network.is_some_and(|network| network > widest) {
            return Vec::new();
        }
        self.proved()
            .filter(|address| address.scope() == widest)
            .take(fog_directory::core::descriptor::MAX_ADDRESSES)
            .collect()
    }

    /// The addresses that we listen on, as far as they can be told to others.
    pub(super) fn listening(&self) -> Vec<Address> {
        let loopback_only = self.is_loopback_only();
        self.listen.iter().copied().filter(|a| loopback_only || a.scope() != Scope::Loopback).collect()
    }

    /// What an invite says: what is proved, and then what we listen on of that scope or a wider one. Somebody in the local network proves nothing of
    /// the internet, and whoever gets the invite may be there.
    pub(super) fn invited(&self) -> Vec<Address> {
        let mut addresses = self.advertised();
        let narrowest = addresses.iter().map(|address| address.scope()).min();
        let more = self.listening().into_iter().filter(|address| Some(address.scope()) >= narrowest);
        let more: Vec<_> = more.filter(|address| !addresses.contains(address)).collect();
        addresses.extend(more);
        addresses
    }

    /// Whether `address` may be told to others at all.
    pub(super) fn may_be_told(&self, address: &Multiaddr) -> bool {
        let scope = ip(address).and_then(scope);
        scope.is_some() && (self.is_loopback_only() || scope != Some(Scope::Loopback))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn node(listen: &[&str]) -> Reachability {
        let mut node = Reachability::default();
        for text in listen {
            node.handle_listening(&address(text));
        }
        node
    }

    fn advertised(node: &Reachability) -> Vec<String> {
        node.advertised().iter().map(ToString::to_string).collect()
    }

    const LAN: [&str; 4] =
        ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.5/tcp/1", "/ip4/192.168.1.5/udp/2/quic-v1", "/ip6/fe80::1/tcp/1"];

    #[test]
    fn without_proof_nothing_is_advertised() {
        assert_eq!(advertised(&node(&LAN)), [""; 0]);
    }

    #[test]
    fn a_peer_that_dialled_us_on_loopback_makes_a_loopback_node_reachable() {
        let mut node = node(&["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/2/quic-v1"]);
        node.handle_inbound(&address("/ip4/127.0.0.1/tcp/1"), &address("/ip4/127.0.0.1/tcp/5000"));
        node.set_network(Some(Scope::Loopback));
        assert_eq!(advertised(&node), ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/2/quic-v1"]);
    }

    #[test]
    fn loopback_is_never_told_by_a_node_that_listens_elsewhere_too() {
        let mut node = node(&LAN);
        node.handle_inbound(&address("/ip4/127.0.0.1/tcp/1"), &address("/ip4/127.0.0.1/tcp/5000"));
        assert_eq!(advertised(&node), [""; 0]);
        assert!(!node.may_be_told(&address("/ip4/127.0.0.1/tcp/1")));
        assert!(!node.may_be_told(&address("/ip6/fe80::1/tcp/1")), "link-local addresses are not told");
        assert!(node.may_be_told(&address("/ip4/192.168.1.5/tcp/1")));
        assert_eq!(node.listening().len(), 2);
    }

    #[test]
    fn an_invite_names_the_internet_though_only_the_lan_is_proved() {
        let mut node = node(&[LAN[1], "/ip4/9.9.1.2/tcp/1"]);
        let invited = |node: &Reachability| node.invited().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(invited(&node).len(), 2);
        node.handle_inbound(&address("/ip4/0.0.0.0/tcp/1"), &address("/ip4/192.168.1.77/tcp/9"));
        assert_eq!(advertised(&node), [LAN[1]]);
        assert_eq!(invited(&node), [LAN[1], "/ip4/9.9.1.2/tcp/1"]);
        node.handle_confirmed(&address("/ip4/9.9.1.2/tcp/1"));
        assert_eq!(invited(&node), ["/ip4/9.9.1.2/tcp/1"], "who is on the internet need not know the local network");
    }

    #[test]
    fn a_peer_on_the_lan_proves_the_interface_for_tcp_and_quic() {
        let mut node = node(&LAN);
        node.handle_inbound(&address("/ip4/0.0.0.0/udp/2/quic-v1"), &address("/ip4/192.168.1.77/udp/9/quic-v1"));
        assert_eq!(advertised(&node), ["/ip4/192.168.1.5/tcp/1", "/ip4/192.168.1.5/udp/2/quic-v1"]);
        node.handle_not_listening(&address(LAN[1]));
        assert_eq!(advertised(&node), ["/ip4/192.168.1.5/udp/2/quic-v1"]);
        node.handle_not_listening(&address(LAN[2]));
        node.handle_listening(&address(LAN[2]));
        assert_eq!(advertised(&node), [""; 0], "an interface that came back must be proved again");
    }

    #[test]
    fn behind_nat_a_private_address_is_no_proof_for_a_network_on_the_internet() {
        let mut node = node(&LAN);
        node.handle_inbound(&address("/ip4/192.168.1.5/tcp/1"), &address("/ip4/192.168.1.77/tcp/9"));
        node.set_network(Some(Scope::Global));
        assert_eq!(advertised(&node), [""; 0]);
        node.handle_confirmed(&address("/ip4/203.0.113.7/tcp/4001"));
        assert_eq!(advertised(&node), ["/ip4/203.0.113.7/tcp/4001"], "and then the widest scope alone is told");
        node.handle_unconfirmed(&address("/ip4/203.0.113.7/tcp/4001"));
        assert_eq!(advertised(&node), [""; 0]);
    }

    #[test]
    fn a_confirmed_interface_serves_all_its_transports() {
        let mut node = node(&["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1"]);
        node.handle_confirmed(&address("/ip4/8.8.8.8/tcp/1"));
        assert_eq!(node.advertised().len(), 2);
    }

    #[test]
    fn an_address_that_we_do_not_listen_on_is_not_proved_by_a_claim() {
        let mut node = node(&LAN);
        node.handle_inbound(&address("/ip4/10.9.9.9/tcp/1"), &address("/ip4/10.9.9.8/tcp/9"));
        assert_eq!(advertised(&node), [""; 0]);
    }
}
