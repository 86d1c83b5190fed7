//! Fields of fixed layouts: integers big-endian, everything of variable length behind its length.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A tag, a length or a field that no message has.
    #[error("not a message")]
    Malformed,
    /// Longer than any message.
    #[error("longer than any message")]
    TooLong,
}

/// Reads fields from the front.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Malformed),
        }
    }

    /// A length of four bytes, at most `max`, and as many bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(WireError::TooLong);
        }
        let (head, tail) = self.0.split_at_checked(length).ok_or(WireError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<String, WireError> {
        String::from_utf8(self.bytes(max)?.to_vec()).map_err(|_| WireError::Malformed)
    }

    /// A count of two bytes, at most `max`.
    pub(crate) fn count(&mut self, max: usize) -> Result<usize, WireError> {
        let count = usize::from(self.u16()?);
        if count > max { Err(WireError::TooLong) } else { Ok(count) }
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Malformed) }
    }
}

/// Writes fields at the end.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    /// Lengths and counts are bounded where values are made; a longer one is refused by whoever reads it.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).put(bytes)
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.put(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes())
    }
}
