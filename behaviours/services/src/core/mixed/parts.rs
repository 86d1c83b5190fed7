//! Puts together what comes in parts on a circuit: in order, one thing at a time.

use crate::{core::reject::Reject, wire::mixed::Part};

/// What has come so far. A first part begins anew: what was cut off before it is lost.
#[derive(Debug, Default)]
pub struct Assembly {
    exchange: u64,
    count: u8,
    next: u8,
    bytes: Vec<u8>,
}

impl Assembly {
    /// A part; the whole, with its number, if it was the last.
    pub fn push(&mut self, part: &Part) -> Result<Option<(u64, Vec<u8>)>, Reject> {
        if part.index == 0 {
            *self = Self { exchange: part.exchange, count: part.count, next: 0, bytes: Vec::new() };
        }
        if (part.exchange, part.count, part.index) != (self.exchange, self.count, self.next) {
            return Err(Reject::Unexpected);
        }
        self.bytes.extend_from_slice(&part.bytes);
        self.next += 1;
        if self.next < self.count {
            return Ok(None);
        }
        let Self { exchange, bytes, .. } = std::mem::take(self);
        Ok(Some((exchange, bytes)))
    }
}
