//! A port for the one node of a network whose address must be known before it runs.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    ops::Range,
};

use rand::RngExt;

/// Below the ports that systems give away by themselves (Linux: 32768 on; IANA: 49152 on), so that neither an outgoing connection nor a
/// socket on port 0 takes the chosen one before its node binds it.
const PORTS: Range<u16> = 12_000..32_000;
const TRIES: usize = 64;

/// A random port that nobody has on 127.0.0.1 now, for TCP and for UDP.
pub fn free_port() -> io::Result<u16> {
    let mut last = None;
    for _ in 0..TRIES {
        let port = rand::rng().random_range(PORTS);
        let both = TcpListener::bind(("127.0.0.1", port)).and_then(|_tcp| UdpSocket::bind(("127.0.0.1", port)));
        match both {
            Ok(_) => return Ok(port),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no free port")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_outside_what_the_system_gives_away_and_can_be_bound() {
        let port = free_port().expect("a port");
        assert!(PORTS.contains(&port), "{port}");
        let _tcp = TcpListener::bind(("127.0.0.1", port)).expect("free for TCP");
        let _udp = UdpSocket::bind(("127.0.0.1", port)).expect("free for UDP");
    }
}
