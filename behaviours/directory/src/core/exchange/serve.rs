//! What a request is worth and what is answered to it. Nothing is remembered between two requests.

use fog_base::Now;

use super::{
    archive::Archive,
    reconcile::{Items, Malformed},
};
use crate::{
    core::relay_set::RelaySet,
    wire::{MAX_BATCH, MAX_CONTENT, MAX_LINKS, Request, Response, Scope},
};

/// Items, bytes of a message, and hashes for which a token is due.
const ITEMS_PER_TOKEN: usize = 1000;
const MESSAGE_PER_TOKEN: usize = 2048;
const HASHES_PER_TOKEN: usize = 8;
/// A part of the chain or of a state: [`MAX_CONTENT`] bytes at 8 KiB a token.
const PART_PRICE: u32 = 16;

/// Tokens for `request`. A set that is not here and a set that is the same cost one.
pub(super) fn price(request: &Request, live: &Items, archive: &dyn Archive) -> u32 {
    let more = match request {
        Request::Reconcile { scope, message } => {
            let items = match scope {
                Scope::Live if live.is_same(message) => return 1,
                Scope::Live => live.len(),
                Scope::Root(root) => match archive.set(root) {
                    Some(set) if !set.items().is_same(message) => set.relays().len(),
                    _ => return 1,
                },
            };
            items.div_ceil(ITEMS_PER_TOKEN) + message.len().div_ceil(MESSAGE_PER_TOKEN)
        }
        Request::Get { hashes, .. } => hashes.len().div_ceil(HASHES_PER_TOKEN),
        Request::Links { .. } | Request::State { .. } => return PART_PRICE,
    };
    u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
}

/// Answers `request`; an error is a message that no honest peer sends.
pub(super) fn answer(
    request: &Request,
    live: &Items,
    set: &RelaySet,
    archive: &dyn Archive,
    now: Now,
) -> Result<Response, Malformed> {
    Ok(match request {
        Request::Reconcile { scope, message } => {
            let reply = match scope {
                Scope::Live => live.answer(message)?,
                Scope::Root(root) => match archive.set(root) {
                    Some(set) => set.items().answer(message)?,
                    None => return Ok(Response::Unknown),
                },
            };
            Response::Reconcile { now_ms: now.unix.0, message: reply }
        }
        Request::Get { scope, hashes } => match scope {
            Scope::Live => records(hashes, |hash| set.by_hash(hash).map(|one| one.as_bytes().to_vec())),
            Scope::Root(root) => match archive.set(root) {
                Some(set) => records(hashes, |hash| set.by_hash(hash).map(|one| one.as_bytes().to_vec())),
                None => Response::Unknown,
            },
        },
        Request::Links { after } => {
            let (mut links, more) = archive.links(*after, MAX_CONTENT);
            let cut = links.len() > MAX_LINKS;
            links.truncate(MAX_LINKS);
            Response::Links { links, more: more || cut }
        }
        Request::State { hash, offset } => match archive.state(hash, *offset, MAX_CONTENT) {
            Some((total, bytes)) => Response::State { total, bytes },
            None => Response::Unknown,
        },
    })
}

/// As many records as fit, in the order in which they were asked for.
fn records(hashes: &[[u8; 32]], find: impl Fn(&[u8; 32]) -> Option<Vec<u8>>) -> Response {
    let (mut records, mut room, mut more) = (Vec::new(), MAX_CONTENT, false);
    for record in hashes.iter().take(MAX_BATCH).filter_map(find) {
        match room.checked_sub(record.len()) {
            Some(rest) => room = rest,
            None => {
                more = true;
                break;
            }
        }
        records.push(record);
    }
    Response::Records { records, more }
}
