//! What a program asks the proxy for, whichever way it speaks.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The suffix of names that lead to services.
const SUFFIX: &str = ".fog";
/// The longest name.
const MAX_NAME: usize = 253;
/// The user that asks for the mixed privacy level, alone or with more behind a colon.
const MIXED: &[u8] = b"mixed";

/// User and password; they say which streams must not be linked, and protect nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: Vec<u8>,
    pub(super) password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A host as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// A stream that a program wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) credentials: Option<Credentials>,
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a service; the name as it was given, not yet checked.
    Service {
        /// `….fog`
        name: String,
        /// Its port.
        port: u16,
    },
    /// To a name, which an exit resolves.
    Name(String, u16),
    /// To an address, through an exit.
    Address(IpAddr, u16),
}

/// How a stream is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Over a circuit.
    Fast,
    /// In packets of the mixnet.
    Mixed,
}

/// Which streams may share a circuit: those with equal values.
pub(crate) type Isolation = [u8; 32];

/// Why a request cannot be for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("the name of the host is empty or too long, or has characters that no name has")]
    Name,
    #[error("there is no port 0")]
    Port,
}

impl Request {
    /// Where it goes.
    pub(super) fn target(&self) -> Result<Target, BadRequest> {
        if self.port == 0 {
            return Err(BadRequest::Port);
        }
        let name = match &self.host {
            Host::V4(address) => return Ok(Target::Address((*address).into(), self.port)),
            Host::V6(address) => return Ok(Target::Address((*address).into(), self.port)),
            Host::Name(name) => name.strip_suffix('.').unwrap_or(name),
        };
        // Programs that were given an address may pass it on as a name.
        if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Target::Address(address, self.port));
        }
        let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_of_names) || name.contains("..") {
            return Err(BadRequest::Name);
        }
        let name = name.to_ascii_lowercase();
        if name.ends_with(SUFFIX) {
            return Ok(Target::Service { name, port: self.port });
        }
        Ok(Target::Name(name, self.port))
    }

    /// How it is carried.
    pub(super) fn privacy(&self) -> Privacy {
        let user = self.credentials.as_ref().map_or(&[][..], |credentials| &credentials.user);
        match user.strip_prefix(MIXED) {
            Some([] | [b':', ..]) => Privacy::Mixed,
            _ => Privacy::Fast,
        }
    }

    /// Which other streams it may share a circuit with: those with the same user and password.
    pub(super) fn isolation(&self) -> Isolation {
        let mut hasher = blake3::Hasher::new_derive_key("fog proxy isolation v1");
        if let Some(Credentials { user, password }) = &self.credentials {
            hasher.update(&(user.len() as u64).to_be_bytes()).update(user).update(password);
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, port: u16, credentials: Option<(&str, &str)>) -> Request {
        let credentials =
            credentials.map(|(user, password)| Credentials { user: user.into(), password: password.into() });
        Request { host: Host::Name(host.into()), port, credentials }
    }

    fn target(host: &str) -> Result<Target, BadRequest> {
        request(host, 80, None).target()
    }

    #[test]
    fn names_addresses_and_services_are_told_apart_and_nothing_is_looked_up() {
        assert_eq!(target("ABC.fog"), Ok(Target::Service { name: "abc.fog".into(), port: 80 }));
        assert_eq!(target("abc.fog."), Ok(Target::Service { name: "abc.fog".into(), port: 80 }));
        assert_eq!(target("Example.COM"), Ok(Target::Name("example.com".into(), 80)));
        assert_eq!(target("fog"), Ok(Target::Name("fog".into(), 80)));
        assert_eq!(target("127.0.0.1"), Ok(Target::Address(Ipv4Addr::LOCALHOST.into(), 80)));
        assert_eq!(target("[::1]"), Ok(Target::Address(Ipv6Addr::LOCALHOST.into(), 80)));
        for name in ["", ".", "a..fog", "a b", "a/b.fog", "é.fog", "a\r\n.fog", &"a".repeat(254)] {
            assert_eq!(target(name), Err(BadRequest::Name), "{name:?}");
        }
        assert_eq!(request("a.fog", 0, None).target(), Err(BadRequest::Port));
    }

    #[test]
    fn user_and_password_isolate_and_the_user_mixed_asks_for_the_mixnet() {
        let isolation = |credentials| request("a.fog", 80, credentials).isolation();
        let all = [None, Some(("", "")), Some(("a", "b")), Some(("ab", "")), Some(("", "ab")), Some(("mixed", "b"))];
        let different: std::collections::BTreeSet<_> = all.map(isolation).into();
        assert_eq!(different.len(), all.len());
        assert_eq!(isolation(Some(("a", "b"))), request("other.fog", 443, Some(("a", "b"))).isolation());
        for (user, expected) in [("mixed", Privacy::Mixed), ("mixed:x", Privacy::Mixed), ("mixedx", Privacy::Fast)] {
            assert_eq!(request("a.fog", 80, Some((user, "p"))).privacy(), expected, "{user}");
        }
        let shown = format!("{:?}", request("a.fog", 80, Some(("user", "secret"))));
        assert!(!shown.contains("secret") && !shown.contains("user"), "{shown}");
    }
}
