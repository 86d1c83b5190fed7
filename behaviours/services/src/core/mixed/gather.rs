//! The pieces of an answer, which come in any order, some of them never.

use std::collections::BTreeMap;

use crate::wire::mixed::{PIECE_DATA, pieces};

/// The pieces that are there.
#[derive(Debug, Default)]
pub struct Gather {
    length: Option<u32>,
    pieces: BTreeMap<u16, Vec<u8>>,
}

impl Gather {
    /// Keeps a piece; false if it contradicts those before.
    pub fn insert(&mut self, index: u16, length: u32, data: Vec<u8>) -> bool {
        if *self.length.get_or_insert(length) != length {
            return false;
        }
        self.pieces.entry(index).or_insert(data);
        true
    }

    /// How many there are in all, once one has come.
    pub fn count(&self) -> Option<usize> {
        self.length.map(|length| pieces(length as usize))
    }

    /// How many have come.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many are missing from number `from` on, and a bit for each that is not: it came, or it stands before.
    pub fn missing(&self, from: usize) -> (usize, Vec<u8>) {
        let count = self.count().unwrap_or(0);
        let mut bits = vec![0u8; count.div_ceil(8)];
        let mut missing = 0;
        for index in 0..count {
            let is_here = u16::try_from(index).is_ok_and(|index| self.pieces.contains_key(&index));
            if !is_here && index >= from {
                missing += 1;
            } else if let Some(byte) = bits.get_mut(index / 8) {
                *byte |= 1 << (index % 8);
            }
        }
        (missing, bits)
    }

    /// All of it, if all of it is there.
    pub fn whole(&self) -> Option<Vec<u8>> {
        let (length, count) = (self.length? as usize, self.count()?);
        if self.pieces.len() != count {
            return None;
        }
        let mut whole = Vec::with_capacity(count * PIECE_DATA);
        self.pieces.values().for_each(|piece| whole.extend_from_slice(piece));
        (whole.len() == length).then_some(whole)
    }
}
