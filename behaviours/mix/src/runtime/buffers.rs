//! Packet buffers, used again instead of allocated again; taken and given back many at a time.

use std::sync::Mutex;

use fog_sphinx::PACKET_LEN;

use super::lock;
use crate::core::PacketBuf;

/// Buffers kept for later use: 10 MB.
const KEPT: usize = 4096;

/// A slab of packet buffers.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<PacketBuf>>);

impl Buffers {
    /// Adds `count` buffers to `to`; their contents are old packets or zeros.
    pub fn take(&self, count: usize, to: &mut Vec<PacketBuf>) {
        let mut kept = lock(&self.0);
        let reused = count.min(kept.len());
        let from = kept.len() - reused;
        to.extend(kept.drain(from..));
        drop(kept);
        to.extend((reused..count).map(|_| -> PacketBuf { Box::new([0; PACKET_LEN]) }));
    }

    /// Takes back what is no longer used.
    pub fn give(&self, spent: &mut Vec<PacketBuf>) {
        if spent.is_empty() {
            return;
        }
        let mut kept = lock(&self.0);
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(spent.drain(..spent.len().min(room)));
        drop(kept);
        spent.clear();
    }
}
