//! Cells: what travels on a link. All have one size, and a 16-byte head that only the two ends of the link see:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | circuit id on this link, big-endian, not zero |
//! | 4 | 1 | command |
//! | 5 | 11 | zero |
//! | 16 | 2032 | body; of a RELAY cell a tag of 16 bytes and a payload of 2016 |

/// A cell on a link.
pub const CELL_LEN: usize = 2048;
const HEAD_LEN: usize = 16;
/// What a cell carries for circuits.
pub const BODY_LEN: usize = CELL_LEN - HEAD_LEN;
/// What begins the body of a RELAY cell.
pub const TAG_LEN: usize = 16;
/// What a RELAY cell carries for the hop that it is for.
pub const PAYLOAD_LEN: usize = BODY_LEN - TAG_LEN;

/// The bytes of a RELAY cell that the layers of a circuit encrypt.
pub type Body = [u8; BODY_LEN];

/// What a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Asks for a circuit; the body is a handshake.
    Create,
    /// Answers it.
    Created,
    /// Belongs to a circuit that is there.
    Relay,
    /// The circuit is gone; the body is zero, so it says nothing of why.
    Destroy,
}

impl Command {
    /// The byte on the wire.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Create => 1,
            Self::Created => 2,
            Self::Relay => 3,
            Self::Destroy => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Create, Self::Created, Self::Relay, Self::Destroy].into_iter().find(|command| command.byte() == byte)
    }
}

/// A circuit on one link. The side that opened the link takes ids below 2³¹, the other side those from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopId(pub u32);

/// A cell.
#[derive(Clone, PartialEq, Eq)]
pub struct Cell {
    head: [u8; HEAD_LEN],
    body: Box<Body>,
}

impl Cell {
    /// A cell with a body of zeros.
    pub fn new(id: HopId, command: Command) -> Self {
        let mut cell = Self { head: [0; HEAD_LEN], body: Box::new([0; BODY_LEN]) };
        cell.set_head(id, command);
        cell
    }

    /// With `body` at the start of the body; what does not fit is cut off.
    pub fn with_body(id: HopId, command: Command, body: &[u8]) -> Self {
        let mut cell = Self::new(id, command);
        cell.body.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
        cell
    }

    /// The bytes as they came; `None` if they are no cell.
    pub fn decode(bytes: &[u8; CELL_LEN]) -> Option<Self> {
        let (head, body) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let [a, b, c, d, command, zeros @ ..] = head;
        let is_valid = [*a, *b, *c, *d] != [0; 4] && Command::from_byte(*command).is_some() && *zeros == [0; 11];
        let body = body.first_chunk().filter(|_| is_valid)?;
        Some(Self { head: *head, body: Box::new(*body) })
    }

    /// Appends the bytes on the wire.
    pub fn append(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.head);
        to.extend_from_slice(self.body.as_slice());
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CELL_LEN);
        self.append(&mut bytes);
        bytes
    }

    /// Which circuit of the link.
    pub fn id(&self) -> HopId {
        let [a, b, c, d, ..] = self.head;
        HopId(u32::from_be_bytes([a, b, c, d]))
    }

    /// What it is.
    pub fn command(&self) -> Command {
        let [_, _, _, _, command, ..] = self.head;
        Command::from_byte(command).unwrap_or(Command::Destroy)
    }

    /// Makes it a cell of another link.
    pub fn set_head(&mut self, id: HopId, command: Command) {
        let [a, b, c, d] = id.0.to_be_bytes();
        let head = [a, b, c, d, command.byte()];
        self.head.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    }

    /// The body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The body.
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.body
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cell({:?}, {:?})", self.id(), self.command())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_reads_back() {
        let cell = Cell::with_body(HopId(7), Command::Create, b"abc");
        let read = Cell::decode(&cell.to_bytes().try_into().unwrap()).unwrap();
        assert_eq!((read.id(), read.command(), &read.body()[..4]), (HopId(7), Command::Create, b"abc\0".as_slice()));
    }

    #[test]
    fn what_is_no_cell_is_none() {
        let good: [u8; CELL_LEN] = Cell::new(HopId(7), Command::Relay).to_bytes().try_into().unwrap();
        for (at, value) in [(3, 0), (4, 0), (4, 5), (5, 1), (15, 1)] {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(Cell::decode(&bytes), None, "{at} {value}");
        }
    }
}
