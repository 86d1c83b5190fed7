//! The beacon's sockets: one per family that hears the group on every interface, and one per own address that sends.
//!
//! The ports are shared, so that several nodes on one host hear each other. What fails is tried again with the next beacon: an
//! IPv6 address cannot be used in its first seconds, for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    task::{Context, Poll},
};

use if_addrs::IfAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::ReadBuf, net::UdpSocket as TokioSocket};

use crate::{
    core::local::{Local, Ports, Source},
    wire::{GROUP_V4, GROUP_V6, MAX_PACKET},
};

/// The sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    port: u16,
    v4: Option<TokioSocket>,
    v6: Option<TokioSocket>,
    joined: BTreeSet<(Ipv4Addr, u32)>,
    senders: BTreeMap<Source, (u32, UdpSocket)>,
}

/// Which of this host's addresses the node listens on, with their networks. Loopback counts only if it listens on nothing else;
/// point-to-point interfaces (VPNs) are no LAN.
pub(crate) fn locals(listening: &BTreeMap<IpAddr, Ports>) -> io::Result<Vec<Local>> {
    let loopback_only = listening.keys().all(IpAddr::is_loopback);
    let mut locals = Vec::new();
    for interface in if_addrs::get_if_addrs()? {
        let Some(ports) = listening.get(&interface.ip()) else { continue };
        if interface.is_loopback() != loopback_only || (interface.is_p2p() && !loopback_only) {
            continue;
        }
        let prefix = match &interface.addr {
            IfAddr::V4(v4) => v4.prefixlen,
            IfAddr::V6(v6) => v6.prefixlen,
        };
        let index = interface.index.unwrap_or_default();
        locals.push(Local { at: Source::new(interface.ip(), index), interface: index, prefix, ports: *ports });
    }
    Ok(locals)
}

impl Sockets {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, v4: None, v6: None, joined: BTreeSet::new(), senders: BTreeMap::new() }
    }

    /// Opens what is missing for these addresses and closes what is not needed any more.
    pub(crate) fn set_locals(&mut self, locals: &[Local]) {
        let wanted: BTreeSet<_> = locals.iter().map(membership).collect();
        let gone: Vec<_> = self.joined.difference(&wanted).copied().collect();
        for of in gone {
            self.joined.remove(&of);
            if let Err(error) = self.leave(of) {
                tracing::debug!(?of, %error, "the group was left already");
            }
        }
        self.senders.retain(|at, (interface, _)| locals.iter().any(|l| l.at == *at && l.interface == *interface));
        for local in locals {
            if let Err(error) = self.join(local) {
                tracing::debug!(at = %local.at.ip(), %error, "the beacons of a network cannot be heard");
            }
            if let Err(error) = self.open(local) {
                tracing::debug!(at = %local.at.ip(), %error, "no beacon can be sent from an address");
            }
        }
    }

    fn join(&mut self, local: &Local) -> io::Result<()> {
        let of = membership(local);
        if self.joined.contains(&of) {
            return Ok(());
        }
        let joined = match local.at.ip() {
            IpAddr::V4(_) => match &mut self.v4 {
                Some(socket) => socket,
                none => none.insert(listen(self.port, Domain::IPV4)?),
            }
            .join_multicast_v4(GROUP_V4, of.0),
            IpAddr::V6(_) => match &mut self.v6 {
                Some(socket) => socket,
                none => none.insert(listen(self.port, Domain::IPV6)?),
            }
            .join_multicast_v6(&GROUP_V6, of.1),
        };
        match joined {
            // Another address of the same interface.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            _ => self.joined.insert(of),
        };
        Ok(())
    }

    fn leave(&self, (ip, interface): (Ipv4Addr, u32)) -> io::Result<()> {
        match (&self.v4, &self.v6) {
            (Some(socket), _) if !ip.is_unspecified() => socket.leave_multicast_v4(GROUP_V4, ip),
            (_, Some(socket)) if ip.is_unspecified() => socket.leave_multicast_v6(&GROUP_V6, interface),
            _ => Ok(()),
        }
    }

    fn open(&mut self, local: &Local) -> io::Result<()> {
        if self.senders.contains_key(&local.at) {
            return Ok(());
        }
        let socket = match local.at.ip() {
            IpAddr::V4(ip) => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
                socket.set_multicast_if_v4(&ip)?;
                socket.set_multicast_ttl_v4(1)?;
                socket.set_multicast_loop_v4(true)?;
                socket.bind(&SocketAddr::from((ip, 0)).into())?;
                socket
            }
            IpAddr::V6(ip) => {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
                socket.set_only_v6(true)?;
                socket.set_multicast_if_v6(local.interface)?;
                socket.set_multicast_hops_v6(1)?;
                socket.set_multicast_loop_v6(true)?;
                socket.bind(&SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, local.at.zone())).into())?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        self.senders.insert(local.at, (local.interface, socket.into()));
        Ok(())
    }

    /// Sends a packet to the group from one of this host's addresses. A socket that is full loses it: the next one comes soon.
    pub(crate) fn send(&mut self, from: Source, bytes: &[u8]) {
        let Some((interface, socket)) = self.senders.get(&from) else { return };
        let to = match from.ip() {
            IpAddr::V4(_) => SocketAddr::from((GROUP_V4, self.port)),
            IpAddr::V6(_) => SocketAddr::V6(SocketAddrV6::new(GROUP_V6, self.port, 0, *interface)),
        };
        if let Err(error) = socket.send_to(bytes, to) {
            tracing::debug!(at = %from.ip(), %error, "a beacon was not sent");
            // Made anew with the next beacon: its address or interface may be gone.
            self.senders.remove(&from);
        }
    }

    /// The next packet and where it came from. One that is too long is cut to one byte more than the longest beacon.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<(Source, Vec<u8>)> {
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            let mut buffer = [0; MAX_PACKET + 1];
            let mut packet = ReadBuf::new(&mut buffer);
            match socket.poll_recv_from(cx, &mut packet) {
                Poll::Ready(Ok(from)) => {
                    let zone = if let SocketAddr::V6(from) = from { from.scope_id() } else { 0 };
                    return Poll::Ready((Source::new(from.ip(), zone), packet.filled().to_vec()));
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a beacon was not received");
                    // An error is of one packet; the socket must be asked again to be woken.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

/// What a membership of the group is of: an address on IPv4, an interface on IPv6.
fn membership(local: &Local) -> (Ipv4Addr, u32) {
    match local.at.ip() {
        IpAddr::V4(ip) => (ip, 0),
        IpAddr::V6(_) => (Ipv4Addr::UNSPECIFIED, local.interface),
    }
}

fn listen(port: u16, domain: Domain) -> io::Result<TokioSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    let ip: IpAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::from((ip, port)).into())?;
    socket.set_nonblocking(true)?;
    TokioSocket::from_std(socket.into())
}
