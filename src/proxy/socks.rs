//! SOCKS5 (RFC 1928, RFC 1929), the part that a program talks to Fog with: CONNECT by name or address, with or without user and password. Pure:
//! bytes in, bytes out. Nothing is looked up here; a name stays a name.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::request::{Credentials, Host, Request};

/// The most that a handshake may take, in bytes.
pub(super) const MAX: usize = 1 + 1 + 255 + 3 + 2 * 255 + 4 + 1 + 255 + 2;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0x00;
const USER_AND_PASSWORD: u8 = 0x02;
const NONE_ACCEPTABLE: u8 = 0xff;
/// Of the sub-negotiation of RFC 1929.
const AUTHENTICATION: u8 = 1;
const CONNECT: u8 = 1;
const NAME: u8 = 3;

/// Reply codes: those of RFC 1928, and for `.fog` names those of Tor's proposal 304.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    Done = 0x00,
    Failed = 0x01,
    NotAllowed = 0x02,
    NetworkUnreachable = 0x03,
    HostUnreachable = 0x04,
    Refused = 0x05,
    TimedOut = 0x06,
    UnknownCommand = 0x07,
    UnknownAddress = 0x08,
    NoDescriptor = 0xf0,
    BadDescriptor = 0xf1,
    IntroductionFailed = 0xf2,
    RendezvousFailed = 0xf3,
    ClientKeyMissing = 0xf4,
    ClientKeyWrong = 0xf5,
    BadAddress = 0xf6,
    IntroductionTimedOut = 0xf7,
}

/// Where the handshake is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Greeting,
    Password,
    Command(Option<Credentials>),
    /// It is over, one way or the other.
    Over,
}

/// What is to be done after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    More,
    /// These go back; then the handshake goes on.
    Say(Vec<u8>),
    /// What the program wants; the answer is [`reply`].
    Ask(Request),
    /// These go back, and that is the end.
    Refuse(Vec<u8>),
}

/// One handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    state: State,
    bytes: Vec<u8>,
}

impl Handshake {
    pub(super) fn new() -> Self {
        Self { state: State::Greeting, bytes: Vec::new() }
    }

    /// Takes bytes of the program; then [`Self::step`] says what follows. False if no handshake is that long.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        // What comes right behind the request belongs to the stream; a program may send it early.
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() <= MAX + super::EARLY
    }

    /// What came behind the request: the first bytes of the stream.
    pub(super) fn rest(self) -> Vec<u8> {
        self.bytes
    }

    /// The next step, as long as it is not [`Step::More`].
    pub(super) fn step(&mut self) -> Step {
        let parsed = match &self.state {
            State::Greeting => greeting(&self.bytes),
            State::Password => password(&self.bytes),
            State::Command(credentials) => command(&self.bytes, credentials.clone()),
            State::Over => refuse(&[]),
        };
        let Some((used, next, step)) = parsed else { return Step::More };
        self.bytes.drain(..used.min(self.bytes.len()));
        self.state = next;
        step
    }
}

/// Bytes used, the next state, and what follows; none if more are needed.
type Parsed = Option<(usize, State, Step)>;

fn refuse(bytes: &[u8]) -> Parsed {
    Some((0, State::Over, Step::Refuse(bytes.to_vec())))
}

fn greeting(bytes: &[u8]) -> Parsed {
    let [version, count, rest @ ..] = bytes else { return None };
    if *version != VERSION {
        return refuse(&[]);
    }
    let methods = rest.get(..usize::from(*count))?;
    let used = 2 + methods.len();
    // Who offers a password is asked for it: it says which streams must not be linked.
    if methods.contains(&USER_AND_PASSWORD) {
        return Some((used, State::Password, Step::Say(vec![VERSION, USER_AND_PASSWORD])));
    }
    if methods.contains(&NO_AUTHENTICATION) {
        return Some((used, State::Command(None), Step::Say(vec![VERSION, NO_AUTHENTICATION])));
    }
    refuse(&[VERSION, NONE_ACCEPTABLE])
}

fn password(bytes: &[u8]) -> Parsed {
    let (version, rest) = bytes.split_first()?;
    if *version != AUTHENTICATION {
        return refuse(&[AUTHENTICATION, 1]);
    }
    let (user, rest) = counted(rest)?;
    let (password, _) = counted(rest)?;
    let used = 3 + user.len() + password.len();
    let credentials = Credentials { user: user.to_vec(), password: password.to_vec() };
    Some((used, State::Command(Some(credentials)), Step::Say(vec![AUTHENTICATION, 0])))
}

/// Bytes behind their length.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*count))
}

fn command(bytes: &[u8], credentials: Option<Credentials>) -> Parsed {
    let [version, command, _reserved, kind, rest @ ..] = bytes else { return None };
    if *version != VERSION {
        return refuse(&[]);
    }
    let (host, length) = match kind {
        1 => (Host::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)), 4),
        4 => (Host::V6(Ipv6Addr::from(*rest.first_chunk::<16>()?)), 16),
        &NAME => {
            let (name, _) = counted(rest)?;
            match std::str::from_utf8(name) {
                Ok(name) => (Host::Name(name.to_owned()), 1 + name.len()),
                Err(_) => return refuse(&reply(Code::UnknownAddress)),
            }
        }
        _ => return refuse(&reply(Code::UnknownAddress)),
    };
    let port = u16::from_be_bytes(*rest.get(length..)?.first_chunk::<2>()?);
    // RESOLVE and RESOLVE_PTR of Tor, BIND and UDP are not answered: names are resolved where the stream ends.
    if *command != CONNECT {
        return refuse(&reply(Code::UnknownCommand));
    }
    Some((4 + length + 2, State::Over, Step::Ask(Request { host, port, credentials })))
}

/// The answer to a request. The address in it says nothing.
pub(super) fn reply(code: Code) -> Vec<u8> {
    vec![VERSION, code as u8, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &[u8] = &[5, 1, 0];

    /// All steps of `bytes`, given one at a time, up to the end; and what is left.
    fn slowly(bytes: &[u8]) -> (Vec<Step>, Vec<u8>) {
        let (mut handshake, mut steps) = (Handshake::new(), Vec::new());
        let mut bytes = bytes.iter();
        loop {
            match handshake.step() {
                Step::More => match bytes.next() {
                    Some(byte) => assert!(handshake.push(&[*byte])),
                    None => {
                        steps.push(Step::More);
                        break;
                    }
                },
                step => {
                    let is_last = matches!(step, Step::Ask(_) | Step::Refuse(_));
                    steps.push(step);
                    if is_last {
                        break;
                    }
                }
            }
        }
        assert!(handshake.push(&bytes.copied().collect::<Vec<_>>()));
        (steps, handshake.rest())
    }

    fn at_once(bytes: &[u8]) -> (Vec<Step>, Vec<u8>) {
        let (mut handshake, mut steps) = (Handshake::new(), Vec::new());
        assert!(handshake.push(bytes));
        loop {
            let step = handshake.step();
            let is_last = !matches!(step, Step::Say(_));
            steps.push(step);
            if is_last {
                return (steps, handshake.rest());
            }
        }
    }

    fn name(host: &str, port: u16) -> Vec<u8> {
        let mut bytes = vec![5, 1, 0, 3, host.len() as u8];
        bytes.extend(host.as_bytes());
        bytes.extend(port.to_be_bytes());
        bytes
    }

    #[test]
    fn a_request_is_the_same_in_one_piece_and_byte_by_byte_and_what_follows_is_the_stream() {
        let asked = Request { host: Host::Name("a.fog".into()), port: 80, credentials: None };
        let bytes = [GREETING, &name("a.fog", 80), b"GET /"].concat();
        let expected = vec![Step::Say(vec![5, 0]), Step::Ask(asked)];
        assert_eq!(slowly(&bytes), (expected, b"GET /".to_vec()));
        assert_eq!(at_once(&bytes), slowly(&bytes));
    }

    #[test]
    fn user_and_password_are_taken_where_they_are_offered() {
        let bytes = [&[5, 2, 0, 2, 1, 5][..], b"mixed", &[2], b"pw", &[5, 1, 0, 1, 1, 2, 3, 4, 0x1f, 0x90]].concat();
        let credentials = Some(Credentials { user: b"mixed".to_vec(), password: b"pw".to_vec() });
        let asked = Request { host: Host::V4(Ipv4Addr::new(1, 2, 3, 4)), port: 8080, credentials };
        let expected = vec![Step::Say(vec![5, 2]), Step::Say(vec![1, 0]), Step::Ask(asked)];
        assert_eq!(slowly(&bytes), (expected, Vec::new()));
        assert_eq!(at_once(&bytes), slowly(&bytes));
    }

    #[test]
    fn what_is_no_connect_is_refused_with_its_code() {
        let of = |bytes: &[u8]| at_once(&[GREETING, bytes].concat()).0.pop().unwrap();
        for command in [2, 3, 0xf0, 0xf1, 0, 255] {
            let mut bytes = name("example.com", 80);
            bytes[1] = command;
            assert_eq!(of(&bytes), Step::Refuse(reply(Code::UnknownCommand)), "{command}");
        }
        assert_eq!(of(&[5, 1, 0, 2]), Step::Refuse(reply(Code::UnknownAddress)));
        assert_eq!(of(&[5, 1, 0, 3, 2, 0xff, 0xfe, 0, 80]), Step::Refuse(reply(Code::UnknownAddress)));
        assert_eq!(of(&[4, 1, 0, 3]), Step::Refuse(Vec::new()));
        let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
        assert!(matches!(of(&v6), Step::Ask(Request { host: Host::V6(Ipv6Addr::LOCALHOST), port: 80, .. })));
    }

    #[test]
    fn what_is_no_greeting_is_refused() {
        assert_eq!(slowly(&[4, 1, 0, 80]).0, [Step::Refuse(Vec::new())]);
        assert_eq!(slowly(&[5, 1, 1]).0, [Step::Refuse(vec![5, 0xff])]);
        assert_eq!(slowly(&[5, 0]).0, [Step::Refuse(vec![5, 0xff])]);
        assert_eq!(slowly(&[5, 1, 2, 9]).0, [Step::Say(vec![5, 2]), Step::Refuse(vec![1, 1])]);
        assert_eq!(slowly(&[5, 200, 0]).0, [Step::More], "a truncated one waits");
    }

    #[test]
    fn a_handshake_is_bounded() {
        let mut handshake = Handshake::new();
        assert!(handshake.push(&[5; MAX]));
        assert!(!handshake.push(&vec![0; crate::proxy::EARLY + 1]));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_lead_to_the_same_steps_however_they_are_cut(bytes in proptest::collection::vec(0u8..8, 0..40)) {
            proptest::prop_assert_eq!(slowly(&bytes), at_once(&bytes));
        }
    }
}
