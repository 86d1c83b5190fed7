//! Rooms: how their messages are sealed. A password room's key is Argon2id (RFC 9106) of the password; whoever knows the password
//! reads everything that was ever written there, and the room says so. An open room is readable by anybody.
//!
//! The first byte of every body says how it is sealed, and a conversation takes bodies of its own way alone: nobody can turn a password
//! room into an open one by writing plainly.

use argon2::{Algorithm, Argon2, Params, Version};
use fog_base::NetworkId;
use zeroize::Zeroizing;

use super::{
    key::{NONCE, SecretKey, TAG},
    reject::Reject,
};

/// How a conversation's bodies are sealed: the first byte of each body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not at all: signed by the envelope, readable by anybody.
    Open = 0,
    /// Under the key of a room's password.
    Password = 1,
    /// By Megolm.
    Group = 2,
    /// By Olm.
    Direct = 3,
}

/// Longest name of a room, in bytes of UTF-8.
pub const MAX_NAME: usize = 64;
/// Longest password, in bytes of UTF-8.
pub const MAX_PASSWORD: usize = 1024;
/// Bytes that a password room adds to a text.
pub const OVERHEAD: usize = 1 + NONCE + TAG;
/// Argon2id's memory (KiB), passes and lanes: RFC 9106's second recommended setting with one lane.
pub const ARGON2: (u32, u32, u32) = (64 * 1024, 3, 1);

const SALT: &str = "fog chat room salt v1";
const KEY: &str = "fog chat room key v1";
const TAG_CONTEXT: &str = "fog chat room tag v1";
const OPEN_TAG: &str = "fog chat open room tag v1";

/// Why a room cannot be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// Empty, longer than [`MAX_NAME`], or with control characters.
    #[error("a room's name has 1 to 64 bytes and no control characters")]
    Name,
    /// Empty, or longer than [`MAX_PASSWORD`].
    #[error("a password has 1 to 1024 bytes")]
    Password,
    /// Argon2 refused, for want of memory.
    #[error("not enough memory to derive the key")]
    Memory,
}

/// A room one is in.
#[derive(Debug)]
pub struct Room {
    key: Option<SecretKey>,
    tag: [u8; 32],
}

impl Room {
    /// An open room. Its tag is `BLAKE3-derive-key("fog chat open room tag v1", network id ‖ name)`.
    pub fn open(network: &NetworkId, name: &str) -> Result<Self, RoomError> {
        check_name(name)?;
        let mut hasher = blake3::Hasher::new_derive_key(OPEN_TAG);
        hasher.update(&network.0).update(name.as_bytes());
        Ok(Self { key: None, tag: *hasher.finalize().as_bytes() })
    }

    /// A password room. Takes 64 MiB and a fraction of a second: not for the event loop.
    ///
    /// The root is Argon2id(password, salt), 32 bytes, with the salt the first 16 bytes of
    /// `BLAKE3-derive-key("fog chat room salt v1", network id ‖ name)`: no table fits two networks or two rooms. The key and the tag are
    /// derived from the root, so that the tag, which others see, is as hard to guess from as the key.
    pub fn with_password(network: &NetworkId, name: &str, password: &str) -> Result<Self, RoomError> {
        Self::derived(network, name, password, ARGON2)
    }

    fn derived(network: &NetworkId, name: &str, password: &str, cost: (u32, u32, u32)) -> Result<Self, RoomError> {
        check_name(name)?;
        if password.is_empty() || password.len() > MAX_PASSWORD {
            return Err(RoomError::Password);
        }
        let mut hasher = blake3::Hasher::new_derive_key(SALT);
        hasher.update(&network.0).update(name.as_bytes());
        let salt = hasher.finalize();
        let (salt, _) = salt.as_bytes().split_at(16);
        let (memory, passes, lanes) = cost;
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(|_| RoomError::Memory)?;
        let mut root = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), salt, root.as_mut_slice())
            .map_err(|_| RoomError::Memory)?;
        let root = SecretKey::new(*root);
        Ok(Self { tag: *root.derive(TAG_CONTEXT, &[]).expose(), key: Some(root.derive(KEY, &[])) })
    }

    /// What names the room on the wire: 32 bytes that tell neither its name nor its password.
    pub fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// The key of a password room.
    pub fn key(&self) -> Option<&SecretKey> {
        self.key.as_ref()
    }

    /// How bodies are sealed here.
    pub fn mode(&self) -> Mode {
        if self.key.is_some() { Mode::Password } else { Mode::Open }
    }

    /// The body for `text`, bound to the envelope's `header`. `nonce` must be random.
    pub fn seal(&self, nonce: &[u8; NONCE], header: &[u8], text: &[u8]) -> Result<Vec<u8>, Reject> {
        let mut body = vec![self.mode() as u8];
        match &self.key {
            None => body.extend_from_slice(text),
            Some(key) => body.extend(key.seal(nonce, header, text).ok_or(Reject::TooLong)?),
        }
        Ok(body)
    }

    /// The text of a body.
    pub fn unseal(&self, header: &[u8], body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Reject> {
        let (&mode, sealed) = body.split_first().ok_or(Reject::Malformed)?;
        if mode != self.mode() as u8 {
            return Err(Reject::WrongMode);
        }
        match &self.key {
            None => Ok(Zeroizing::new(sealed.to_vec())),
            Some(key) => key.open(header, sealed).ok_or(Reject::Undecryptable),
        }
    }
}

fn check_name(name: &str) -> Result<(), RoomError> {
    let fits = !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(RoomError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([1; 32]);
    /// Argon2's smallest cost, for the tests that do not fix a vector.
    const CHEAP: (u32, u32, u32) = (8, 1, 1);

    fn room(network: &NetworkId, name: &str, password: &str) -> Room {
        Room::derived(network, name, password, CHEAP).unwrap()
    }

    #[test]
    fn only_the_same_network_name_and_password_read_a_room() {
        let nonce = [5; NONCE];
        let body = room(&NETWORK, "#ops", "secret").seal(&nonce, b"header", b"text").unwrap();
        assert_eq!(body.len(), 4 + OVERHEAD);
        assert_eq!(room(&NETWORK, "#ops", "secret").unseal(b"header", &body).unwrap().as_slice(), b"text");
        assert_eq!(room(&NETWORK, "#ops", "secret").unseal(b"headers", &body), Err(Reject::Undecryptable));
        for other in [
            room(&NetworkId([2; 32]), "#ops", "secret"),
            room(&NETWORK, "#op", "secret"),
            room(&NETWORK, "#ops", "secret "),
        ] {
            assert_eq!(other.unseal(b"header", &body), Err(Reject::Undecryptable));
            assert_ne!(other.tag(), room(&NETWORK, "#ops", "secret").tag());
        }
    }

    #[test]
    fn a_password_room_takes_no_open_text_and_an_open_room_no_sealed_one() {
        let (open, closed) = (Room::open(&NETWORK, "#ops").unwrap(), room(&NETWORK, "#ops", "secret"));
        let plain = open.seal(&[0; NONCE], b"", b"text").unwrap();
        let sealed = closed.seal(&[0; NONCE], b"", b"text").unwrap();
        assert_eq!(open.unseal(b"", &plain).unwrap().as_slice(), b"text");
        assert_eq!(closed.unseal(b"", &plain), Err(Reject::WrongMode));
        assert_eq!(open.unseal(b"", &sealed), Err(Reject::WrongMode));
        assert_eq!(open.unseal(b"", &[]), Err(Reject::Malformed));
        assert_ne!(open.tag(), closed.tag());
    }

    #[test]
    fn names_and_passwords_have_bounds() {
        for name in ["", "#a\u{1b}[2J", &"n".repeat(MAX_NAME + 1)] {
            assert_eq!(Room::open(&NETWORK, name).map(|_| ()), Err(RoomError::Name), "{name:?}");
        }
        for password in [String::new(), "p".repeat(MAX_PASSWORD + 1)] {
            let made = Room::derived(&NETWORK, "#a", &password, CHEAP);
            assert_eq!(made.map(|_| ()), Err(RoomError::Password));
        }
    }

    /// Frozen: the full cost, the salt and the derivations. A change would lock people out of their rooms.
    #[test]
    fn the_key_of_a_known_password() {
        let room = Room::with_password(&NETWORK, "#ops", "correct horse").unwrap();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(hex(room.tag()), "f3f01b09b5ca2ff5138330487bfa7a6d46b50c00c4209dc42043f6240e8e5538");
        let body = room.seal(&[7; NONCE], b"header", b"text").unwrap();
        assert_eq!(
            hex(&body),
            "010707070707070707070707070707070707070707070707072bf7577ee20d8d8f2faa2fde419ef619d89af528"
        );
    }
}
