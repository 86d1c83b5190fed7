//! What an exit opens connections to. Nothing, unless it is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A policy: rules in order, the first that fits decides; what no rule fits is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExitPolicy {
    rules: Vec<Rule>,
    allows_private: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    accepts: bool,
    ports: (u16, u16),
}

/// Not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a rule of an exit policy: `{0}`; rules are `accept` or `reject` and ports, as in `accept 80, accept 443, reject *`"
)]
pub struct BadPolicy(String);

impl ExitPolicy {
    /// Reads `accept 80, accept 8000-8999, reject *`.
    pub fn parse(text: &str) -> Result<Self, BadPolicy> {
        let rule = |part: &str| Rule::parse(part.trim()).ok_or_else(|| BadPolicy(part.trim().to_owned()));
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        Ok(Self { rules: parts.map(rule).collect::<Result<_, _>>()?, allows_private: false })
    }

    /// Allows addresses that are not global: for testnets alone.
    #[must_use]
    pub fn with_private(mut self) -> Self {
        self.allows_private = true;
        self
    }

    /// Whether a connection to this port may be asked for at all.
    pub fn allows_port(&self, port: u16) -> bool {
        let fits = |rule: &&Rule| (rule.ports.0..=rule.ports.1).contains(&port);
        port != 0 && self.rules.iter().find(fits).is_some_and(|rule| rule.accepts)
    }

    /// Whether a connection may be opened. Every address that a name resolves to is asked for.
    pub fn allows(&self, address: IpAddr, port: u16) -> bool {
        self.allows_port(port) && (self.allows_private || is_global(address))
    }

    /// Whether the host of a request, a name or an address as text, may be asked for.
    pub fn allows_host(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => self.allows(address, port),
            // What looks like an address in another notation, and names of this host and its network, are not resolved.
            Err(_) => self.allows_port(port) && (self.allows_private || is_public_name(host)),
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let (word, ports) = text.split_once(char::is_whitespace)?;
        let accepts = match word {
            "accept" => true,
            "reject" => false,
            _ => return None,
        };
        let ports = match (ports.trim(), ports.split_once('-')) {
            ("*", _) => (1, u16::MAX),
            (_, Some((from, to))) => (from.trim().parse().ok()?, to.trim().parse().ok()?),
            (port, None) => (port.parse().ok()?, port.parse().ok()?),
        };
        (ports.0 <= ports.1).then_some(Self { accepts, ports })
    }
}

fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_reserved = ["localhost", "local", "internal", "lan", "home", "arpa", "fog", "onion"].contains(&last);
    let is_number = last.starts_with(|c: char| c.is_ascii_digit());
    name.contains('.') && !is_reserved && !is_number && !last.is_empty()
}

/// Whether an address is of the internet (IANA's special-purpose registries).
pub(crate) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !is_special
}

/// 2000::/3 but for documentation, benchmarks, ORCHID, and what carries an IPv4 address: Teredo and 6to4.
fn is_global_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_special = matches!((a, b), (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff));
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_global_v4(mapped);
    }
    (0x2000..0x4000).contains(&a) && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_by_default() {
        let policy = ExitPolicy::default();
        assert!(!policy.allows("8.8.8.8".parse().unwrap(), 80) && !policy.allows_host("example.com", 443));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = ExitPolicy::parse("reject 25, accept 1-1000, accept 8080").unwrap();
        let allowed: Vec<_> = [0, 1, 25, 443, 1000, 1001, 8080, 65535].map(|port| policy.allows_port(port)).into();
        assert_eq!(allowed, [false, true, false, true, true, false, true, false]);
        for text in ["accept", "allow 80", "accept 80-", "accept 90-80", "accept 70000", "accept -"] {
            assert!(ExitPolicy::parse(text).is_err(), "{text}");
        }
        assert!(ExitPolicy::parse("accept *").unwrap().allows_port(65535));
    }

    #[test]
    fn what_is_not_of_the_internet_is_refused_unless_a_testnet_allows_it() {
        let policy = ExitPolicy::parse("accept *").unwrap();
        let refused = [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "2001::1",
            "[::1]",
            "localhost",
            "printer.local",
            "router",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "a.localhost.",
            "x.fog",
            "",
        ];
        for host in refused {
            assert!(!policy.allows_host(host, 80), "{host}");
        }
        for host in ["8.8.8.8", "2606:4700::1111", "[2606:4700::1111]", "example.com", "a.b.example.", "1.example.org"]
        {
            assert!(policy.allows_host(host, 80), "{host}");
        }
        let testnet = policy.with_private();
        assert!(testnet.allows_host("127.0.0.1", 80) && testnet.allows_host("localhost", 80));
    }
}
