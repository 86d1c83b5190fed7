//! What a service keeps on disk: rows of bytes, secret, for the caller to seal.
//!
//! | key | value |
//! |---|---|
//! | `p` ‖ authentication key (32) | seed (32) ‖ relay (32) ‖ made, Unix ms (8) ‖ replaced by then, Unix ms (8) ‖ or after so many introductions (4) |
//! | `r` ‖ authentication key (32) ‖ tag (16) | nothing: an introduction that was answered |
//! | `v` ‖ period (8) | the last revision's step (8) |
//! | `w` | the puzzle: seed (32) ‖ its last epoch (4) ‖ the seed before (32) |

use std::collections::BTreeMap;

use fog_base::{Epoch, NodeId, UnixMillis};
use zeroize::Zeroizing;

use crate::core::{bytes::Reader, handshake::PointKeys, period::Period, replay::Tag};

/// A change to what is on disk.
#[derive(Clone, PartialEq, Eq)]
pub enum Row {
    /// This value under this key.
    Put(Vec<u8>, Zeroizing<Vec<u8>>),
    /// Nothing any more under keys that begin so.
    DeletePrefix(Vec<u8>),
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values are secret.
        let (name, key) = match self {
            Self::Put(key, _) => ("Put", key),
            Self::DeletePrefix(prefix) => ("DeletePrefix", prefix),
        };
        f.debug_tuple(name).field(key).finish()
    }
}

/// An introduction point as it is kept.
#[derive(Debug)]
pub(super) struct SavedPoint {
    pub(super) keys: PointKeys,
    pub(super) life: Life,
}

/// When a point is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) made: UnixMillis,
    pub(super) until: UnixMillis,
    pub(super) introductions: u32,
}

/// The puzzle's seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seeds {
    pub(super) current: [u8; 32],
    pub(super) last_epoch: Epoch,
    pub(super) before: [u8; 32],
}

/// What was on disk.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) points: Vec<SavedPoint>,
    pub(super) answered: BTreeMap<[u8; 32], Vec<Tag>>,
    pub(super) steps: BTreeMap<Period, u64>,
    pub(super) seeds: Option<Seeds>,
}

impl Saved {
    /// From all rows, in any order. Rows that cannot be read are left out.
    pub(super) fn read<'a>(rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut saved = Self::default();
        for (key, value) in rows {
            let mut key = Reader(key);
            match key.u8() {
                Some(b'p') => saved.points.extend(read_point(key, Reader(value))),
                Some(b'r') => {
                    if let Some((point, tag)) = key.array().zip(key.array()) {
                        saved.answered.entry(point).or_default().push(tag);
                    }
                }
                Some(b'v') => saved.steps.extend(key.u64().map(Period).zip(Reader(value).u64())),
                Some(b'w') => saved.seeds = read_seeds(Reader(value)).or(saved.seeds),
                _ => {}
            }
        }
        saved
    }
}

fn read_point(mut key: Reader<'_>, mut value: Reader<'_>) -> Option<SavedPoint> {
    let auth_key: [u8; 32] = key.array()?;
    let seed = Zeroizing::new(value.array()?);
    let relay = NodeId(value.array()?);
    let life = Life { made: UnixMillis(value.u64()?), until: UnixMillis(value.u64()?), introductions: value.u32()? };
    let keys = PointKeys::from_seed(&seed, relay);
    (keys.public().auth_key == auth_key).then_some(SavedPoint { keys, life })
}

fn read_seeds(mut value: Reader<'_>) -> Option<Seeds> {
    Some(Seeds { current: value.array()?, last_epoch: Epoch(value.u32()?), before: value.array()? })
}

fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[prefix], parts.concat().as_slice()].concat()
}

impl Row {
    pub(super) fn point(seed: &[u8; 32], keys: &PointKeys, life: &Life) -> Self {
        let public = keys.public();
        let times = [life.made.0.to_be_bytes(), life.until.0.to_be_bytes()].concat();
        let value = [seed.as_slice(), &public.relay.0, &times, &life.introductions.to_be_bytes()].concat();
        Self::Put(key(b'p', &[&public.auth_key]), Zeroizing::new(value))
    }

    pub(super) fn answered(point: &[u8; 32], tag: &Tag) -> Self {
        Self::Put(key(b'r', &[point, tag]), Zeroizing::default())
    }

    pub(super) fn step(period: Period, step: u64) -> Self {
        Self::Put(key(b'v', &[&period.0.to_be_bytes()]), Zeroizing::new(step.to_be_bytes().to_vec()))
    }

    pub(super) fn seeds(seeds: &Seeds) -> Self {
        let value = [seeds.current.as_slice(), &seeds.last_epoch.0.to_be_bytes(), &seeds.before].concat();
        Self::Put(key(b'w', &[]), Zeroizing::new(value))
    }

    /// A point's keys and its log go together.
    pub(super) fn forget_point(point: &[u8; 32]) -> [Self; 2] {
        [Self::DeletePrefix(key(b'p', &[point])), Self::DeletePrefix(key(b'r', &[point]))]
    }

    pub(super) fn forget_step(period: Period) -> Self {
        Self::DeletePrefix(key(b'v', &[&period.0.to_be_bytes()]))
    }
}
