//! Olm accounts whose keys come from the world's seed.
//!
//! vodozemac draws keys itself, and a device's identity and fallback key are in its card, which membership messages carry: so they decide those
//! messages' ids and the order of a group. Before a device is used, the row of its account gets keys of the world's generator. What Olm and Megolm draw
//! later, the keys of ratchets and sessions, is inside ciphertexts of fixed lengths; no id and no order follows from it.

use curve25519_dalek::MontgomeryPoint;
use fog_chat::core::{
    engine::Row,
    secrets::{RowKind, SecretKey, Vault},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::{ChaCha8Rng, ChaCha20Rng};
use serde_json::{Value, json};

use super::node::Store;

/// Replaces the keys of the account on this disk; `None` if there is none, or it is not laid out as it was.
pub(super) fn settle(store: &Store, master: [u8; 32], rng: &mut ChaCha8Rng) -> Option<()> {
    let mut vault = Vault::new(SecretKey::new(master), ChaCha20Rng::from_seed(rng.random()));
    let disk = store.copy();
    let of = |kind: RowKind| disk.iter().filter(move |(key, _)| key.first() == Some(&(kind as u8)));
    of(RowKind::ConversationKey).try_for_each(|(key, value)| vault.take_key(key, value).ok())?;
    let (key, value) = of(RowKind::Account).next()?;
    let opened = vault.open_row(key, value).ok()??;
    let mut saved: Value = serde_json::from_slice(&opened.value).ok()?;
    let (identity, fallback): ([u8; 32], [u8; 32]) = (rng.random(), rng.random());
    let public = |secret| MontgomeryPoint::mul_base_clamped(secret).to_bytes();
    for (place, was, is) in [
        ("/fallback/identity", "/account/diffie_hellman_key", identity),
        ("/fallback/pre_key", "/account/fallback_keys/fallback_key/key", fallback),
    ] {
        let secret: [u8; 32] = serde_json::from_value(saved.pointer(was)?.clone()).ok()?;
        let known = saved.pointer_mut(place)?;
        if *known != json!(public(secret)) {
            return None;
        }
        *known = json!(public(is));
        *saved.pointer_mut(was)? = json!(is);
    }
    let mut rows = Vec::new();
    vault.put(&mut rows, RowKind::Account, &opened.conversation, b"", &serde_json::to_vec(&saved).ok()?);
    store.write(rows.into_iter().map(|row| Row { key: row.key.to_vec(), value: row.value }).collect());
    Some(())
}
