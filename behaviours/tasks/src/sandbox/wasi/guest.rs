//! The module's memory as the functions see it: every pointer checked, every byte that is moved paid for in fuel.

use super::{Errno, Fault, Stop};

/// Fuel that each call costs, before what it moves.
pub const CALL_FUEL: u64 = 100;
/// The most vectors of a scattered read or write, and subscriptions of a poll.
const MAX_VECTORS: u32 = 1024;

/// A module's memory and fuel for the length of one call.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The whole linear memory.
    pub memory: &'a mut [u8],
    /// What is left. What is charged beyond it ends the run.
    pub fuel: &'a mut u64,
}

/// A piece of memory: where, and how many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Guest<'_> {
    /// Takes `units` of fuel.
    pub(super) fn charge(&mut self, units: u64) -> Result<(), Stop> {
        match self.fuel.checked_sub(units) {
            Some(left) => *self.fuel = left,
            None => {
                *self.fuel = 0;
                return Err(Stop::OutOfFuel);
            }
        }
        Ok(())
    }

    /// Whether the bytes are there; nothing is charged.
    pub(super) fn check(&self, at: u32, len: u32) -> Result<(), Errno> {
        let end = u64::from(at) + u64::from(len);
        if end <= self.memory.len() as u64 { Ok(()) } else { Err(Errno::FAULT) }
    }

    pub(super) fn read(&mut self, at: u32, len: u32) -> Result<&[u8], Fault> {
        self.check(at, len)?;
        self.charge(len.into())?;
        let at = at as usize;
        Ok(self.memory.get(at..at + len as usize).ok_or(Errno::FAULT)?)
    }

    pub(super) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.room(at, u32::try_from(bytes.len()).map_err(|_| Errno::FAULT)?)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Where `len` bytes are to be written.
    pub(super) fn room(&mut self, at: u32, len: u32) -> Result<&mut [u8], Fault> {
        self.check(at, len)?;
        self.charge(len.into())?;
        let at = at as usize;
        Ok(self.memory.get_mut(at..at + len as usize).ok_or(Errno::FAULT)?)
    }

    pub(super) fn read_array<const N: usize>(&mut self, at: u32) -> Result<[u8; N], Fault> {
        let bytes = self.read(at, N as u32)?;
        Ok(bytes.try_into().map_err(|_| Errno::FAULT)?)
    }

    pub(super) fn read_u32(&mut self, at: u32) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.read_array(at)?))
    }

    pub(super) fn write_u32(&mut self, at: u32, value: u32) -> Result<(), Fault> {
        self.write(at, &value.to_le_bytes())
    }

    pub(super) fn write_u64(&mut self, at: u32, value: u64) -> Result<(), Fault> {
        self.write(at, &value.to_le_bytes())
    }

    /// The vectors of a scattered read or write, all of them inside the memory.
    pub(super) fn pieces(&mut self, at: u32, count: u32) -> Result<Vec<Piece>, Fault> {
        if count > MAX_VECTORS {
            return Err(Errno::INVAL.into());
        }
        self.check(at, count * 8)?;
        let mut pieces = Vec::with_capacity(count as usize);
        let mut total = 0u32;
        for index in 0..count {
            let piece = Piece { at: self.read_u32(at + index * 8)?, len: self.read_u32(at + index * 8 + 4)? };
            self.check(piece.at, piece.len)?;
            total = total.checked_add(piece.len).ok_or(Errno::INVAL)?;
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// The records of a poll.
    pub(super) fn records<const N: usize>(&mut self, at: u32, count: u32) -> Result<Vec<[u8; N]>, Fault> {
        if count == 0 || count > MAX_VECTORS {
            return Err(Errno::INVAL.into());
        }
        self.check(at, count * N as u32)?;
        (0..count).map(|index| self.read_array(at + index * N as u32)).collect()
    }
}

/// Copies from `source` into the pieces, in order, until either ends; how many bytes it were.
pub(super) fn scatter(guest: &mut Guest<'_>, pieces: &[Piece], mut source: &[u8]) -> Result<u32, Fault> {
    let mut copied = 0u32;
    for piece in pieces {
        let now = source.len().min(piece.len as usize);
        let (part, rest) = source.split_at(now);
        guest.write(piece.at, part)?;
        source = rest;
        copied += now as u32;
        if source.is_empty() {
            break;
        }
    }
    Ok(copied)
}
