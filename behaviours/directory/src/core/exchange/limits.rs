//! Who is answered when more is asked than this node answers.
//!
//! The attack: many peers, each within its own limit, ask for so much together that nobody else is answered. So there is
//! one pool for the whole node, which whoever asks may empty, and a reserve for each peer, which nobody else can touch.
//! Work is counted in tokens (`price` in `serve.rs`); one is about 6 KiB of an answer, or 10 µs of a processor.

use std::time::Instant;

use fog_base::TokenBucket;

/// Tokens per second that one peer may use, and at once: enough to read 10,000 descriptors in one go.
pub(super) const PEER_RATE: f64 = 250.0;
pub(super) const PEER_BURST: f64 = 4096.0;
/// Tokens per second that all peers may use together, besides their reserves, and at once.
pub(super) const POOL_RATE: f64 = 1000.0;
pub(super) const POOL_BURST: f64 = 8192.0;
/// Tokens that a peer has even where the pool is empty. More than the dearest request costs.
pub(super) const RESERVE_RATE: f64 = 16.0;
pub(super) const RESERVE_BURST: f64 = 128.0;
/// Requests that a peer may have refused: an honest one waits at least a second after a refusal.
const REFUSAL_RATE: f64 = 4.0;
const REFUSAL_BURST: f64 = 32.0;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is answered.
    Served,
    /// It is not; its sender may be honest.
    Refused,
    /// It is not, and its sender goes on asking where an honest peer would wait.
    Flood,
}

/// What one peer may still ask.
#[derive(Debug)]
pub(super) struct Allowance {
    cap: TokenBucket,
    reserve: TokenBucket,
    refusals: TokenBucket,
}

/// What all peers may still ask.
#[derive(Debug)]
pub(super) struct Pool(TokenBucket);

impl Pool {
    pub(super) fn new(now: Instant) -> Self {
        Self(TokenBucket::new(POOL_RATE, POOL_BURST, now))
    }
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            cap: TokenBucket::new(PEER_RATE, PEER_BURST, now),
            reserve: TokenBucket::new(RESERVE_RATE, RESERVE_BURST, now),
            refusals: TokenBucket::new(REFUSAL_RATE, REFUSAL_BURST, now),
        }
    }

    /// Pays `price` for a request, out of the pool or else the reserve. A refused request costs no tokens.
    pub(super) fn admit(&mut self, pool: &mut Pool, price: u32, now: Instant) -> Admission {
        let capped = less(&self.cap, price, now);
        let paid = capped.is_some() && (pay(&mut pool.0, price, now) || pay(&mut self.reserve, price, now));
        match capped {
            Some(cap) if paid => {
                self.cap = cap;
                Admission::Served
            }
            _ if self.refusals.try_take(now) => Admission::Refused,
            _ => Admission::Flood,
        }
    }
}

/// The bucket after `price` was taken; `None` if it has less.
fn less(bucket: &TokenBucket, price: u32, now: Instant) -> Option<TokenBucket> {
    let mut after = bucket.clone();
    (after.take(price, now) == price).then_some(after)
}

fn pay(bucket: &mut TokenBucket, price: u32, now: Instant) -> bool {
    let after = less(bucket, price, now);
    let is_paid = after.is_some();
    if let Some(after) = after {
        *bucket = after;
    }
    is_paid
}
