//! Bytes <-> types, with every length checked; layouts are in the README. Nothing here is believed yet: `core` verifies.

pub mod request;

use crate::core::{
    id::{ConversationId, DeviceId, MessageId},
    reconcile::{Fingerprint, Hello, HelloEntry, Lists, Messages, Range, Ranges, ShortName, Want},
    reject::Reject,
    tag::Tag,
};

/// The only version of messages, envelopes and proofs.
pub const VERSION: u8 = 1;
/// The longest message, header and signature included.
pub const MAX_MESSAGE: usize = 15_360;
/// The most parents of a message.
pub const MAX_PARENTS: usize = 8;
/// The most changes of a clock that a message lists.
pub const MAX_LISTED: usize = 32;
/// Up to the changes.
const FIXED_HEADER: usize = 188;
/// The longest header, without the signature.
pub const MAX_HEADER: usize = FIXED_HEADER + 12 * MAX_LISTED + 32 * MAX_PARENTS;
/// The length of a signature.
pub const SIGNATURE: usize = 64;
/// The length of a message's salt.
pub const SALT: usize = 16;
/// The longest fork proof.
pub const MAX_PROOF: usize = 1 + 2 * (2 + MAX_HEADER + SIGNATURE);

/// The most conversations in a hello.
pub const MAX_HELLO: usize = 256;
/// The most ranges for one conversation.
pub const MAX_RANGES: usize = 2_048;
/// The most fork proofs for one conversation in an answer.
pub const MAX_PROOFS: usize = 32;
/// The largest message of reconciliation: ranges.
pub const MAX_RANGES_BYTES: usize = 512 * 1024;
/// The largest lists.
pub const MAX_LISTS_BYTES: usize = 64 * 1024;
/// The largest answer with messages.
pub const MAX_MESSAGES_BYTES: usize = 320 * 1024;

/// Reads from the front of bytes; whatever is missing is [`Reject::Malformed`].
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Reject::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Reject> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Reject::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Reject> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Reject> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Reject> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Reject> {
        self.array().map(u64::from_be_bytes)
    }

    /// A count of two bytes, at most `max`.
    fn count(&mut self, max: usize) -> Result<usize, Reject> {
        Some(usize::from(self.u16()?)).filter(|n| *n <= max).ok_or(Reject::Malformed)
    }

    /// A count of which each stands for `size` bytes that are there.
    fn count_of(&mut self, size: usize) -> Result<usize, Reject> {
        let n = usize::try_from(self.varint()?).map_err(|_| Reject::Malformed)?;
        if n <= self.0.len() / size.max(1) { Ok(n) } else { Err(Reject::Malformed) }
    }

    /// A number of 1 to 10 bytes: seven bits each, the lowest first, the top bit set in all but the last.
    pub fn varint(&mut self) -> Result<u64, Reject> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // One encoding for each number: no zeros at the end, nothing beyond 64 bits.
            if (byte == 0 && shift > 0) || bits << shift >> shift != bits {
                return Err(Reject::Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Reject::Malformed)
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Reject> {
        if self.0.is_empty() { Ok(()) } else { Err(Reject::Malformed) }
    }
}

/// A change of a clock as a message lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The first eight bytes of the author.
    pub author: [u8; 8],
    /// The author's seq.
    pub seq: u32,
}

/// The header of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the message is; order does not depend on it.
    pub kind: u8,
    /// Where it belongs.
    pub conversation: ConversationId,
    /// Who signed it.
    pub author: DeviceId,
    /// Its number among its author's, from 1.
    pub seq: u32,
    /// Larger than that of each predecessor.
    pub lamport: u64,
    /// When its author says that it was sent, in Unix milliseconds.
    pub sent_at: u64,
    /// The author's previous message; none exactly if `seq` is 1.
    pub previous: Option<MessageId>,
    /// The clock's digest.
    pub digest: [u8; 32],
    /// BLAKE3 over salt and body.
    pub body_hash: [u8; 32],
    /// How many entries of the clock changed since the previous message.
    pub changed: u32,
    /// The first [`MAX_LISTED`] of them.
    pub changes: Vec<Change>,
    /// At most [`MAX_PARENTS`], ascending, without the previous one.
    pub parents: Vec<MessageId>,
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_HEADER + 12 * self.changes.len() + 32 * self.parents.len());
        bytes.extend_from_slice(&[VERSION, self.kind]);
        bytes.extend_from_slice(&self.conversation.0);
        bytes.extend_from_slice(&self.author.0);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.lamport.to_be_bytes());
        bytes.extend_from_slice(&self.sent_at.to_be_bytes());
        bytes.extend_from_slice(&self.previous.map_or([0; 32], |id| id.0));
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.body_hash);
        bytes.extend_from_slice(&self.changed.to_be_bytes());
        // Both are bounded far below 256 when a header is made.
        bytes.push(u8::try_from(self.changes.len()).unwrap_or(u8::MAX));
        bytes.push(u8::try_from(self.parents.len()).unwrap_or(u8::MAX));
        for change in &self.changes {
            bytes.extend_from_slice(&change.author);
            bytes.extend_from_slice(&change.seq.to_be_bytes());
        }
        for parent in &self.parents {
            bytes.extend_from_slice(&parent.0);
        }
        bytes
    }

    /// From the front of bytes, with every field's own range checked.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Reject> {
        if reader.u8()? != VERSION {
            return Err(Reject::UnknownVersion);
        }
        let mut header = Self {
            kind: reader.u8()?,
            conversation: ConversationId(reader.array()?),
            author: DeviceId(reader.array()?),
            seq: reader.u32()?,
            lamport: reader.u64()?,
            sent_at: reader.u64()?,
            previous: Some(MessageId(reader.array()?)).filter(|id| id.0 != [0; 32]),
            digest: reader.array()?,
            body_hash: reader.array()?,
            changed: reader.u32()?,
            changes: Vec::new(),
            parents: Vec::new(),
        };
        let (listed, parents) = (reader.u8()?, usize::from(reader.u8()?));
        if u32::from(listed) != header.changed.min(MAX_LISTED as u32) || parents > MAX_PARENTS {
            return Err(Reject::Malformed);
        }
        for _ in 0..listed {
            header.changes.push(Change { author: reader.array()?, seq: reader.u32()? });
        }
        for _ in 0..parents {
            header.parents.push(MessageId(reader.array()?));
        }
        let is_first = header.seq == 1;
        let ascending = header.parents.is_sorted_by(|a, b| a < b);
        let repeats = header.previous.is_some_and(|previous| header.parents.contains(&previous));
        let has_predecessor = header.previous.is_some() || !header.parents.is_empty();
        let lamport_fits = if has_predecessor { header.lamport > 1 } else { header.lamport == 1 };
        if header.seq == 0 || is_first != header.previous.is_none() || !ascending || repeats || !lamport_fits {
            return Err(Reject::Malformed);
        }
        Ok(header)
    }

    /// The previous message, then the parents.
    pub fn predecessors(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.previous.into_iter().chain(self.parents.iter().copied())
    }
}

/// Two signed headers as one proof; the lower id first.
pub fn encode_proof(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for header in [first, second] {
        put_short(&mut bytes, header);
    }
    bytes
}

/// The two signed headers of a proof, as they came.
pub fn decode_proof(bytes: &[u8]) -> Result<(&[u8], &[u8]), Reject> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Reject::UnknownVersion);
    }
    let mut signed = || {
        let length = reader.count(MAX_HEADER + SIGNATURE)?;
        reader.bytes(length)
    };
    let pair = (signed()?, signed()?);
    reader.end()?;
    Ok(pair)
}

/// Bytes with a length of two bytes; callers keep below that.
fn put_short(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

fn put_count(into: &mut Vec<u8>, n: usize) {
    into.extend_from_slice(&u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes());
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn put_names(into: &mut Vec<u8>, names: &[ShortName]) {
    put_varint(into, names.len() as u64);
    into.extend(names.iter().flatten());
}

fn names(reader: &mut Reader<'_>) -> Result<Vec<ShortName>, Reject> {
    let n = reader.count_of(size_of::<ShortName>())?;
    (0..n).map(|_| reader.array()).collect()
}

fn opening<'a>(bytes: &'a [u8], tag: u8, max: usize) -> Result<Reader<'a>, Reject> {
    let mut reader = Reader::new(bytes);
    if bytes.len() > max || reader.u8()? != tag { Err(Reject::Malformed) } else { Ok(reader) }
}

impl Hello {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&self.salt);
        put_count(&mut bytes, self.entries.len());
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.token);
            bytes.extend_from_slice(&entry.summary);
        }
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut reader = opening(bytes, 1, 35 + 24 * MAX_HELLO)?;
        let salt = reader.array()?;
        let n = reader.count(MAX_HELLO)?;
        let entries = (0..n)
            .map(|_| Ok(HelloEntry { token: reader.array()?, summary: reader.array()? }))
            .collect::<Result<_, Reject>>()?;
        reader.end()?;
        Ok(Self { salt, entries })
    }
}

/// The answer to a hello: for each conversation that differs, by token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangesAnswer(pub Vec<(Tag, Ranges)>);

impl RangesAnswer {
    /// As bytes; conversations that no longer fit are left for the next time.
    pub fn encode(&self) -> Vec<u8> {
        let (mut bytes, mut n) = (vec![2, 0, 0], 0u16);
        for (token, ranges) in &self.0 {
            let mut entry = token.to_vec();
            entry.push(u8::try_from(ranges.proofs.len()).unwrap_or(u8::MAX));
            for proof in &ranges.proofs {
                put_short(&mut entry, proof);
            }
            put_count(&mut entry, ranges.ranges.len());
            let mut last = 0;
            for range in &ranges.ranges {
                put_varint(&mut entry, range.from.wrapping_sub(last));
                last = range.from;
                entry.extend_from_slice(&range.fingerprint);
            }
            if bytes.len() + entry.len() > MAX_RANGES_BYTES {
                break;
            }
            bytes.extend_from_slice(&entry);
            n += 1;
        }
        for (to, from) in bytes.iter_mut().skip(1).zip(n.to_be_bytes()) {
            *to = from;
        }
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut reader = opening(bytes, 2, MAX_RANGES_BYTES)?;
        let n = reader.count(MAX_HELLO)?;
        let mut all = Vec::new();
        for _ in 0..n {
            let token = reader.array()?;
            let proofs = usize::from(reader.u8()?);
            if proofs > MAX_PROOFS {
                return Err(Reject::Malformed);
            }
            let proofs = (0..proofs)
                .map(|_| {
                    let length = reader.count(MAX_PROOF)?;
                    reader.bytes(length).map(<[u8]>::to_vec)
                })
                .collect::<Result<_, Reject>>()?;
            let ranges = reader.count(MAX_RANGES)?;
            let mut from = 0u64;
            let ranges: Vec<Range> = (0..ranges)
                .map(|i| {
                    let step = reader.varint()?;
                    from = from.checked_add(step).filter(|_| (step == 0) == (i == 0)).ok_or(Reject::Malformed)?;
                    Ok(Range { from, fingerprint: Fingerprint::from(reader.array()?) })
                })
                .collect::<Result<_, Reject>>()?;
            all.push((token, Ranges { proofs, ranges }));
        }
        reader.end()?;
        Ok(Self(all))
    }
}

impl Lists {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![3];
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.token);
        put_count(&mut bytes, self.wants.len());
        let mut last = 0;
        for want in &self.wants {
            put_varint(&mut bytes, want.from.wrapping_sub(last));
            put_varint(&mut bytes, want.to.wrapping_sub(want.from));
            last = want.to;
            put_names(&mut bytes, &want.have);
        }
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut reader = opening(bytes, 3, MAX_LISTS_BYTES)?;
        let (salt, token) = (reader.array()?, reader.array()?);
        let n = reader.count(MAX_RANGES)?;
        let mut wants: Vec<Want> = Vec::new();
        let mut last = 0u64;
        for _ in 0..n {
            let from = last.checked_add(reader.varint()?).ok_or(Reject::Malformed)?;
            let length = reader.varint()?;
            let to = from.checked_add(length).filter(|to| *to > from).ok_or(Reject::Malformed)?;
            last = to;
            wants.push(Want { from, to, have: names(&mut reader)? });
        }
        reader.end()?;
        Ok(Self { salt, token, wants })
    }
}

impl Messages {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![4];
        bytes.extend_from_slice(&self.token);
        bytes.extend_from_slice(&self.complete_to.to_be_bytes());
        put_count(&mut bytes, self.messages.len());
        for message in &self.messages {
            put_short(&mut bytes, message);
        }
        put_names(&mut bytes, &self.wanted);
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut reader = opening(bytes, 4, MAX_MESSAGES_BYTES)?;
        let (token, complete_to) = (reader.array()?, reader.u64()?);
        let n = reader.count(usize::from(u16::MAX))?;
        let mut messages = Vec::new();
        for _ in 0..n {
            let length = reader.count(MAX_MESSAGE)?;
            messages.push(reader.bytes(length)?.to_vec());
        }
        let wanted = names(&mut reader)?;
        reader.end()?;
        Ok(Self { token, complete_to, messages, wanted })
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
