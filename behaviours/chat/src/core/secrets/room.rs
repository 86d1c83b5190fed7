//! Rooms: the keys of their envelopes. A password room's key is Argon2id (RFC 9106) of the password; whoever knows the password
//! reads everything that was ever written there, and the room says so. An open room is readable by anybody.

use argon2::{Algorithm, Argon2, Params, Version};
use fog_base::NetworkId;
use zeroize::Zeroizing;

use super::key::SecretKey;

/// How a conversation's bodies are sealed: the first byte of each body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// By the envelope alone, for whoever knows the room's name.
    Open = 0,
    /// By the envelope alone, for whoever knows the password.
    Password = 1,
    /// By Megolm.
    Group = 2,
    /// By Olm.
    Direct = 3,
    /// By Olm, with the sender before it: from somebody whom the recipient may not know.
    First = 4,
    /// A group's membership: by the envelope alone, for whoever has the group's secret.
    Membership = 5,
}

/// Longest name of a room, in bytes of UTF-8.
pub const MAX_NAME: usize = 64;
/// Longest password, in bytes of UTF-8.
pub const MAX_PASSWORD: usize = 1024;
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
#[derive(Debug, Clone)]
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
    fn only_the_same_network_name_and_password_give_the_key() {
        let keys = |room: &Room| (*room.tag(), room.key().map(|key| *key.expose()));
        let one = room(&NETWORK, "#ops", "secret");
        assert_eq!(keys(&one), keys(&room(&NETWORK, "#ops", "secret")));
        assert!(Room::open(&NETWORK, "#ops").unwrap().key().is_none());
        for other in [
            room(&NetworkId([2; 32]), "#ops", "secret"),
            room(&NETWORK, "#op", "secret"),
            room(&NETWORK, "#ops", "secret "),
            Room::open(&NETWORK, "#ops").unwrap(),
        ] {
            assert_ne!(keys(&other).0, keys(&one).0);
            assert_ne!(keys(&other).1, keys(&one).1);
        }
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
        let body = "0707070707070707070707070707070707070707070707072bf7577ee20d8d8f2faa2fde419ef619d89af528";
        let body = data_encoding::HEXLOWER.decode(body.as_bytes()).unwrap();
        assert_eq!(room.key().unwrap().open(b"header", &body).unwrap().as_slice(), b"text");
    }
}
