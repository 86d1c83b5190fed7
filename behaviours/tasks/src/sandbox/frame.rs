//! What is said between a node and its task processes, over the process's standard input and output: frames of a kind (u8), a length
//! (u32, little-endian, at most [`MAX_FRAME`]) and that many bytes. What is longer than a frame follows as [`DATA`] frames, so neither
//! side holds more than one frame of what it does not expect. Numbers are little-endian.

use std::io::{self, ErrorKind, Read, Write};

/// The longest payload.
pub(super) const MAX_FRAME: usize = 256 * 1024;

/// To the process. `bytes of memory u64 ‖ nice u8`, once, first.
pub(super) const SETUP: u8 = 0;
/// `hash 32 ‖ size u64`; the module follows as data.
pub(super) const MODULE: u8 = 1;
/// The next piece of what was announced, in both directions; never empty.
pub(super) const DATA: u8 = 2;
/// `run u64 ‖ encoded work`; standard input and inputs follow as data, in that order, each as long as the work says.
pub(super) const RUN: u8 = 3;
/// `run u64 ‖ why u8`: it ends as killed (1) or by its deadline (2), now or when it is its turn.
pub(super) const CANCEL: u8 = 4;
/// `hash 32`: the module is not needed any more.
pub(super) const FORGET: u8 = 5;

/// From the process. `hash 32 ‖ size u64`: the module is compiled, or known to be unfit.
pub(super) const COMPILED: u8 = 16;
/// `run u64`: it has begun.
pub(super) const BEGUN: u8 = 17;
/// `run u64 ‖ stream u8 ‖ bytes`: 1 is standard output, 2 standard error.
pub(super) const LOG: u8 = 18;
/// `run u64 ‖ size u64 ‖ path`: a file under `/out`, which follows as data.
pub(super) const FILE: u8 = 19;
/// `run u64 ‖ ending u8 ‖ code u32 ‖ fuel u64 ‖ detail`: the last of a run. Ending and code are [`Ending::code`](crate::Ending::code).
pub(super) const DONE: u8 = 20;
/// `u8`: 1 if the system holds it to the calls that a run needs, else 0; once, first.
pub(super) const READY: u8 = 21;

/// Length of a frame's head.
const HEAD: usize = 5;

/// Writes one frame of several parts. What exceeds [`MAX_FRAME`] is an error of the caller.
pub(super) fn write(to: &mut impl Write, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > MAX_FRAME {
        return Err(malformed());
    }
    to.write_all(&[kind])?;
    to.write_all(&(len as u32).to_le_bytes())?;
    parts.iter().try_for_each(|part| to.write_all(part))
}

/// Writes `bytes` as data.
pub(super) fn write_data(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(MAX_FRAME).try_for_each(|piece| write(to, DATA, &[piece]))
}

/// Reads one frame into `payload` and gives its kind; `None` where the stream ends between two frames.
pub(super) fn read(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<u8>> {
    let mut head = [0; HEAD];
    let (first, rest) = head.split_at_mut(1);
    loop {
        match from.read(first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    from.read_exact(rest)?;
    let [kind, len @ ..] = head;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(malformed());
    }
    payload.resize(len, 0);
    from.read_exact(payload)?;
    Ok(Some(kind))
}

/// Reads what follows as data, which is `len` bytes. It grows with what comes, not with what was announced.
pub(super) fn read_data(from: &mut impl Read, len: u64, frame: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    while (data.len() as u64) < len {
        let kind = read(from, frame)?.ok_or(ErrorKind::UnexpectedEof)?;
        if kind != DATA || frame.is_empty() || (data.len() + frame.len()) as u64 > len {
            return Err(malformed());
        }
        data.extend_from_slice(frame);
    }
    Ok(data)
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "not a frame that is expected here")
}

/// A payload that is read from its begin.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u8(&mut self) -> io::Result<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn text(self) -> io::Result<String> {
        String::from_utf8(self.0.to_vec()).map_err(|_| malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_long_as_it_was_announced_and_no_longer() {
        let bytes = vec![7; MAX_FRAME + 3];
        let mut stream = Vec::new();
        write_data(&mut stream, &bytes).unwrap();
        let mut frame = Vec::new();
        assert_eq!(read_data(&mut &stream[..], bytes.len() as u64, &mut frame).unwrap(), bytes);
        for wrong in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
            assert!(read_data(&mut &stream[..], wrong, &mut frame).is_err());
        }
        let huge = [DATA, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(read(&mut &huge[..], &mut frame).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
