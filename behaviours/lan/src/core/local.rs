//! Addresses: this host's own, those that packets come from, and those that a beacon tells.

use std::net::{IpAddr, Ipv6Addr};

use fog_base::NodeId;

/// Where a node listens at one IP address; 0 is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ports {
    /// The TCP port.
    pub tcp: u16,
    /// The UDP port of QUIC version 1.
    pub quic: u16,
}

impl Ports {
    /// Whether it listens nowhere.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An IP address with its zone: the index of the interface for an IPv6 link-local address, and 0 for any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    ip: IpAddr,
    zone: u32,
}

impl Source {
    /// From what the system tells. A zone counts for link-local addresses alone.
    pub fn new(ip: IpAddr, zone: u32) -> Self {
        let ip = ip.to_canonical();
        let has_zone = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        Self { ip, zone: if has_zone { zone } else { 0 } }
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The index of the interface; 0 if the address is not link-local.
    pub fn zone(&self) -> u32 {
        self.zone
    }
}

/// An address of this host on which the node listens, and the network that it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local {
    /// The address.
    pub at: Source,
    /// The index of its interface.
    pub interface: u32,
    /// The length of its network's prefix, in bits.
    pub prefix: u8,
    /// Where the node listens.
    pub ports: Ports,
}

impl Local {
    /// Whether `other` is on the same network.
    pub fn reaches(&self, other: Source) -> bool {
        let bits = |ip: Ipv6Addr, length: u32| if length == 0 { 0 } else { u128::from(ip) >> (128 - length.min(128)) };
        let same = |a: Ipv6Addr, b: Ipv6Addr, length: u32| bits(a, length) == bits(b, length);
        match (self.at.ip, other.ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same(a.to_ipv6_mapped(), b.to_ipv6_mapped(), 96 + u32::from(self.prefix.min(32)))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => self.at.zone == other.zone && same(a, b, u32::from(self.prefix)),
            _ => false,
        }
    }
}

/// Where a neighbour can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address, which its beacon came from.
    pub at: Source,
    /// Where it listens there.
    pub ports: Ports,
}

/// A beacon that was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) node: NodeId,
    pub(super) endpoint: Endpoint,
    /// Whether the node is new, was restarted, or listens elsewhere than before.
    pub(super) is_restarted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(ip: &str, prefix: u8, zone: u32) -> Local {
        Local { at: Source::new(ip.parse().unwrap(), zone), interface: 7, prefix, ports: Ports::default() }
    }

    fn source(ip: &str, zone: u32) -> Source {
        Source::new(ip.parse().unwrap(), zone)
    }

    #[test]
    fn an_address_is_reached_on_its_own_network_alone() {
        let v4 = local("192.168.7.9", 24, 0);
        assert!(v4.reaches(source("192.168.7.1", 0)) && v4.reaches(source("::ffff:192.168.7.1", 0)));
        for other in ["192.168.8.1", "8.8.8.8", "fd00::1"] {
            assert!(!v4.reaches(source(other, 0)), "{other}");
        }
        let v6 = local("fd00::9", 64, 0);
        assert!(v6.reaches(source("fd00::1", 3)), "a zone says nothing of such an address");
        assert!(!v6.reaches(source("fd01::1", 0)) && !v6.reaches(source("192.168.7.1", 0)));
        let link = local("fe80::9", 64, 2);
        assert!(link.reaches(source("fe80::1", 2)) && !link.reaches(source("fe80::1", 3)));
        assert!(local("10.0.0.1", 0, 0).reaches(source("8.8.8.8", 0)), "a network of everything");
        assert!(local("10.0.0.1", 255, 0).reaches(source("10.0.0.1", 0)), "a prefix that cannot be");
    }
}
