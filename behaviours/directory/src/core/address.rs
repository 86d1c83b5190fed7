//! Where a relay can be dialled: an IP address, TCP or QUIC, and a port. Nothing else is accepted in a descriptor.
//!
//! The bytes are those of a binary multiaddr (multiformats/multiaddr; codes from multicodec's table), parsed here so that the core
//! does not need libp2p.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Multicodec codes, as unsigned varints.
const IP4: [u8; 1] = [0x04];
const IP6: [u8; 1] = [0x29];
const TCP: [u8; 1] = [0x06];
const UDP: [u8; 2] = [0x91, 0x02];
const QUIC_V1: [u8; 2] = [0xcd, 0x03];

/// What runs on the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, with Noise and Yamux on top.
    Tcp,
    /// QUIC version 1 over UDP.
    Quic,
}

/// From how far away an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This host.
    Loopback,
    /// The local network: RFC 1918, carrier-grade NAT (RFC 6598), IPv4 link-local (RFC 3927), unique local IPv6 (RFC 4193).
    Private,
    /// The internet.
    Global,
}

/// The network that an operator is assumed to hold as a whole: a global IPv4 /16 or IPv6 /32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Net {
    /// The first two bytes.
    V4([u8; 2]),
    /// The first four bytes.
    V6([u8; 4]),
}

/// An address that may stand in a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The host.
    pub ip: IpAddr,
    /// TCP or QUIC.
    pub transport: Transport,
    /// The port; not 0.
    pub port: u16,
}

/// The scope of an IP address; `None` if it cannot be advertised at all (unspecified, multicast, broadcast, IPv6 link-local).
pub fn scope(ip: IpAddr) -> Option<Scope> {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => None,
        IpAddr::V4(ip) if ip.is_loopback() => Some(Scope::Loopback),
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip) => Some(Scope::Private),
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() => None,
        IpAddr::V6(ip) if ip.is_loopback() => Some(Scope::Loopback),
        IpAddr::V6(ip) if ip.is_unique_local() => Some(Scope::Private),
        _ => Some(Scope::Global),
    }
}

/// RFC 6598, 100.64.0.0/10.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

impl Address {
    /// Reads a binary multiaddr; `None` for anything but the two forms of the README, and for what cannot be advertised.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (ip, rest): (IpAddr, _) = if let Some(rest) = bytes.strip_prefix(&IP4) {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*ip).into(), rest)
        } else {
            let (ip, rest) = bytes.strip_prefix(&IP6)?.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*ip).into(), rest)
        };
        let (transport, rest) = match rest.strip_prefix(&TCP) {
            Some(rest) => (Transport::Tcp, rest),
            None => (Transport::Quic, rest.strip_prefix(&UDP)?),
        };
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let end: &[u8] = if transport == Transport::Tcp { &[] } else { &QUIC_V1 };
        let address = Self { ip, transport, port: u16::from_be_bytes(*port) };
        (rest == end && address.port != 0 && scope(ip).is_some()).then_some(address)
    }

    /// The binary multiaddr.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        match self.ip {
            IpAddr::V4(ip) => bytes.extend(IP4.into_iter().chain(ip.octets())),
            IpAddr::V6(ip) => bytes.extend(IP6.into_iter().chain(ip.octets())),
        }
        match self.transport {
            Transport::Tcp => bytes.extend(TCP.into_iter().chain(self.port.to_be_bytes())),
            Transport::Quic => bytes.extend(UDP.into_iter().chain(self.port.to_be_bytes()).chain(QUIC_V1)),
        }
        bytes
    }

    /// From how far away it can be reached.
    pub fn scope(&self) -> Scope {
        // An address whose scope is `None` is never made by `from_bytes`; one made by hand counts as the widest.
        scope(self.ip).unwrap_or(Scope::Global)
    }

    /// The network that no two hops of a path may share; `None` off the internet.
    pub fn net(&self) -> Option<Net> {
        if self.scope() != Scope::Global {
            return None;
        }
        Some(match self.ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Net::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Net::V6([a, b, c, d])
            }
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "/ip4/{ip}")?,
            IpAddr::V6(ip) => write!(f, "/ip6/{ip}")?,
        }
        match self.transport {
            Transport::Tcp => write!(f, "/tcp/{}", self.port),
            Transport::Quic => write!(f, "/udp/{}/quic-v1", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, transport: Transport, port: u16) -> Address {
        Address { ip: ip.parse().unwrap(), transport, port }
    }

    #[test]
    fn bytes_are_those_of_a_multiaddr_and_read_back() {
        let tcp = address("1.2.3.4", Transport::Tcp, 80);
        assert_eq!(tcp.to_bytes(), [4, 1, 2, 3, 4, 6, 0, 80]);
        let quic = address("2001:db8::1", Transport::Quic, 4001);
        assert_eq!(Address::from_bytes(&quic.to_bytes()), Some(quic));
        assert_eq!(quic.to_string(), "/ip6/2001:db8::1/udp/4001/quic-v1");
        assert_eq!(Address::from_bytes(&tcp.to_bytes()), Some(tcp));
    }

    #[test]
    fn what_cannot_be_dialled_or_advertised_is_refused() {
        let good = address("1.2.3.4", Transport::Quic, 9).to_bytes();
        for cut in 0..good.len() {
            assert_eq!(Address::from_bytes(&good[..cut]), None, "{cut} bytes");
        }
        assert_eq!(Address::from_bytes(&[good, vec![0]].concat()), None);
        assert_eq!(Address::from_bytes(&address("1.2.3.4", Transport::Tcp, 0).to_bytes()), None);
        for ip in ["0.0.0.0", "224.0.0.251", "255.255.255.255", "fe80::1", "ff02::1", "::"] {
            assert_eq!(Address::from_bytes(&address(ip, Transport::Tcp, 1).to_bytes()), None, "{ip}");
        }
        // /dns4/a/tcp/1
        assert_eq!(Address::from_bytes(&[0x36, 1, b'a', 6, 0, 1]), None);
    }

    #[test]
    fn scopes_and_networks_follow_the_address() {
        for (ip, expected) in [
            ("127.0.0.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("::ffff:127.0.0.1", Scope::Loopback),
            ("10.0.0.1", Scope::Private),
            ("169.254.3.4", Scope::Private),
            ("100.127.0.1", Scope::Private),
            ("fd00::1", Scope::Private),
            ("100.128.0.1", Scope::Global),
            ("8.8.8.8", Scope::Global),
            ("2001:db8::1", Scope::Global),
        ] {
            assert_eq!(scope(ip.parse().unwrap()), Some(expected), "{ip}");
        }
        let net = |ip| address(ip, Transport::Tcp, 1).net();
        assert_eq!(net("8.8.4.4"), Some(Net::V4([8, 8])));
        assert_eq!(net("::ffff:8.8.4.4"), Some(Net::V4([8, 8])));
        assert_eq!(net("2001:db8::1"), Some(Net::V6([0x20, 0x01, 0x0d, 0xb8])));
        assert_eq!(net("192.168.1.1"), None);
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            if let Some(address) = Address::from_bytes(&bytes) {
                proptest::prop_assert_eq!(address.to_bytes(), bytes);
            }
        }
    }
}
