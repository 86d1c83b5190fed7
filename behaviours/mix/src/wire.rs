//! Bytes to types and back, for everything inside a Sphinx payload. Layouts are in the README; every length is checked here and
//! nowhere else. Nothing in this file encrypts.

use fog_base::{MessageId, NodeId};
use fog_sphinx::{BODY_LEN, SURB_LEN};

/// What HPKE adds to a content: the encapsulated key before it and the tag behind it.
pub const SEAL_OVERHEAD: usize = 32 + 16;
/// The content of a packet for the relay itself.
pub const DELIVER_CONTENT: usize = BODY_LEN - SEAL_OVERHEAD;
/// The content of a packet for a mailbox slot: the receipt's SURB stands before the sealed part.
pub const SLOT_CONTENT: usize = BODY_LEN - SURB_LEN - SEAL_OVERHEAD;
/// What a fragment's content holds besides data.
const FRAGMENT_HEADER: usize = 1 + 16 + 8 + 4 + 2 + 2 + SURB_LEN;
/// The largest message of an application.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// What an answer by a reply block holds.
pub const ANSWER_LEN: usize = BODY_LEN - 1;
/// Reply blocks that a message may bring with it.
pub const MAX_BLOCKS: usize = 160;
/// The largest message with its envelope.
pub const MAX_ENVELOPE: usize = MAX_MESSAGE + 1 + 32 + 64;

const CONTENT_DROP: u8 = 0;
const CONTENT_LOOP: u8 = 1;
const CONTENT_PING: u8 = 2;
const CONTENT_FRAGMENT: u8 = 3;
const REPLY_ACK: u8 = 1;
const REPLY_PONG: u8 = 2;
const REPLY_STORED: u8 = 3;
const REPLY_ANSWER: u8 = 4;
const ENVELOPE_ANONYMOUS: u8 = 0;
const ENVELOPE_SIGNED: u8 = 1;
const ENVELOPE_CHAT: u8 = 2;
const ENVELOPE_SERVICES: u8 = 3;
const ENVELOPE_TASKS: u8 = 4;

/// Not a value of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid encoding")]
pub struct Malformed;

/// Which of the two bodies a packet's last hop gets: its own, or one for a slot of its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For the last hop itself.
    Deliver,
    /// For a slot of the last hop's mailbox.
    Slot,
}

impl Form {
    /// The size of the content.
    pub fn content_len(self) -> usize {
        match self {
            Self::Deliver => DELIVER_CONTENT,
            Self::Slot => SLOT_CONTENT,
        }
    }

    /// How many bytes of a message one fragment carries.
    pub fn fragment_len(self) -> usize {
        self.content_len() - FRAGMENT_HEADER
    }
}

/// One fragment of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The message.
    pub message: MessageId,
    /// When the sender made the message, Unix seconds.
    pub created: u64,
    /// The length of the message with its envelope.
    pub length: u32,
    /// Which fragment this is.
    pub index: u16,
    /// How many there are.
    pub count: u16,
    /// The reply block for the acknowledgement.
    pub surb: &'a [u8; SURB_LEN],
    /// The fragment's part of the message, without padding.
    pub data: &'a [u8],
}

/// What a sealed content says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// Cover: nothing.
    Drop,
    /// Cover that returns to its sender.
    Loop {
        /// Which loop it is.
        id: [u8; 16],
    },
    /// A question for a pong.
    Ping {
        /// The way back.
        surb: &'a [u8; SURB_LEN],
    },
    /// A part of a message.
    Fragment(Fragment<'a>),
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let rest = std::mem::take(&mut self.0);
        let (to, rest) = rest.split_at_mut_checked(bytes.len()).ok_or(Malformed)?;
        to.copy_from_slice(bytes);
        self.0 = rest;
        Ok(())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[b]| *b)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }
}

impl<'a> Content<'a> {
    /// Writes the content into `out`, which is zero and as long as the form says.
    pub fn write(&self, out: &mut [u8]) -> Result<(), Malformed> {
        let mut w = Writer(out);
        match self {
            Self::Drop => w.put(&[CONTENT_DROP]),
            Self::Loop { id } => w.put(&[CONTENT_LOOP]).and_then(|()| w.put(id)),
            Self::Ping { surb } => w.put(&[CONTENT_PING]).and_then(|()| w.put(surb.as_slice())),
            Self::Fragment(f) => {
                w.put(&[CONTENT_FRAGMENT])?;
                w.put(&f.message.0)?;
                w.put(&f.created.to_be_bytes())?;
                w.put(&f.length.to_be_bytes())?;
                w.put(&f.index.to_be_bytes())?;
                w.put(&f.count.to_be_bytes())?;
                w.put(f.surb)?;
                w.put(f.data)
            }
        }
    }

    /// Reads a content that came in a body of `form`.
    pub fn read(bytes: &'a [u8], form: Form) -> Result<Self, Malformed> {
        if bytes.len() != form.content_len() {
            return Err(Malformed);
        }
        let mut r = Reader(bytes);
        match r.byte()? {
            CONTENT_DROP => Ok(Self::Drop),
            CONTENT_LOOP => Ok(Self::Loop { id: *r.array()? }),
            CONTENT_PING => Ok(Self::Ping { surb: r.array()? }),
            CONTENT_FRAGMENT => {
                let message = MessageId(*r.array()?);
                let created = u64::from_be_bytes(*r.array()?);
                let length = u32::from_be_bytes(*r.array()?);
                let index = u16::from_be_bytes(*r.array()?);
                let count = u16::from_be_bytes(*r.array()?);
                let surb = r.array()?;
                let range = fragment_range(length as usize, index, count, form).ok_or(Malformed)?;
                let data = r.slice(range.len())?;
                Ok(Self::Fragment(Fragment { message, created, length, index, count, surb, data }))
            }
            _ => Err(Malformed),
        }
    }
}

/// How many fragments a message of `length` bytes takes.
pub fn fragment_count(length: usize, form: Form) -> u16 {
    // A message has at most MAX_ENVELOPE bytes: 844 fragments of the smaller kind.
    u16::try_from(length.div_ceil(form.fragment_len()).max(1)).unwrap_or(u16::MAX)
}

/// Which bytes of the message fragment `index` carries; `None` if the numbers contradict each other.
pub fn fragment_range(length: usize, index: u16, count: u16, form: Form) -> Option<std::ops::Range<usize>> {
    if length == 0 || length > MAX_ENVELOPE || count != fragment_count(length, form) || index >= count {
        return None;
    }
    let start = usize::from(index) * form.fragment_len();
    Some(start..length.min(start + form.fragment_len()))
}

/// Which fragments have arrived, one bit each, fragment 0 in the lowest bit of the first byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitmap(Vec<u8>);

impl Bitmap {
    /// No fragment of `count`.
    pub fn none(count: u16) -> Self {
        Self(vec![0; usize::from(count).div_ceil(8)])
    }

    /// All fragments of `count`.
    pub fn all(count: u16) -> Self {
        let mut map = Self::none(count);
        (0..count).for_each(|i| map.set(i));
        map
    }

    /// Marks fragment `index`.
    pub fn set(&mut self, index: u16) {
        if let Some(byte) = self.0.get_mut(usize::from(index / 8)) {
            *byte |= 1 << (index % 8);
        }
    }

    /// Whether fragment `index` is marked.
    pub fn has(&self, index: u16) -> bool {
        self.0.get(usize::from(index / 8)).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }
}

/// What comes back by a SURB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// What the recipient has of a message.
    Ack {
        /// The message.
        message: MessageId,
        /// A random number of the recipient's process: another one means that it has forgotten what it had.
        incarnation: [u8; 8],
        /// Whether the recipient's node has the whole message and stored it.
        accepted: bool,
        /// How many fragments the message has.
        count: u16,
        /// Those that arrived.
        fragments: Bitmap,
    },
    /// The answer to a ping.
    Pong,
    /// A mailbox has stored a packet.
    Stored,
    /// What somebody answers to whoever gave it the block: [`ANSWER_LEN`] bytes, zeros at the end if it were fewer.
    Answer(Vec<u8>),
}

impl ReplyBody {
    /// The body of the reply packet, padded with zeros.
    pub fn to_body(&self) -> Result<[u8; BODY_LEN], Malformed> {
        let mut body = [0; BODY_LEN];
        let mut w = Writer(&mut body);
        match self {
            Self::Ack { message, incarnation, accepted, count, fragments } => {
                w.put(&[REPLY_ACK])?;
                w.put(&message.0)?;
                w.put(incarnation)?;
                w.put(&[u8::from(*accepted)])?;
                w.put(&count.to_be_bytes())?;
                w.put(&fragments.0)?;
            }
            Self::Pong => w.put(&[REPLY_PONG])?,
            Self::Stored => w.put(&[REPLY_STORED])?,
            Self::Answer(data) => {
                w.put(&[REPLY_ANSWER])?;
                w.put(data)?;
            }
        }
        Ok(body)
    }

    /// Reads the body of a reply packet.
    pub fn read(body: &[u8; BODY_LEN]) -> Result<Self, Malformed> {
        let mut r = Reader(body);
        match r.byte()? {
            REPLY_ACK => {
                let message = MessageId(*r.array()?);
                let incarnation = *r.array()?;
                let accepted = match r.byte()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed),
                };
                let count = u16::from_be_bytes(*r.array()?);
                let fragments = Bitmap(r.slice(usize::from(count).div_ceil(8))?.to_vec());
                Ok(Self::Ack { message, incarnation, accepted, count, fragments })
            }
            REPLY_PONG => Ok(Self::Pong),
            REPLY_STORED => Ok(Self::Stored),
            REPLY_ANSWER => Ok(Self::Answer(r.0.to_vec())),
            _ => Err(Malformed),
        }
    }
}

/// What in a node asks the same of other nodes, and is answered by reply blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// Its services.
    Services,
    /// Its tasks.
    Tasks,
}

/// A whole message, before it is cut into fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// From nobody in particular.
    Anonymous {
        /// The application's message.
        body: &'a [u8],
    },
    /// From `sender`, if the signature verifies.
    Signed {
        /// Who claims to have sent it.
        sender: NodeId,
        /// Over what the README says.
        signature: &'a [u8; 64],
        /// The application's message.
        body: &'a [u8],
    },
    /// For the chat of the recipient's node, which knows from its content who wrote it.
    Chat {
        /// Chat's own bytes.
        body: &'a [u8],
    },
    /// For an application of the recipient's node, from nobody in particular, with the blocks by which it can be answered.
    Asking {
        /// Which.
        application: Application,
        /// The blocks.
        blocks: Vec<[u8; SURB_LEN]>,
        /// The application's own bytes.
        body: &'a [u8],
    },
}

impl<'a> Envelope<'a> {
    /// The bytes that are cut into fragments.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Anonymous { body } => [&[ENVELOPE_ANONYMOUS], *body].concat(),
            Self::Chat { body } => [&[ENVELOPE_CHAT], *body].concat(),
            Self::Asking { application, blocks, body } => {
                let code = match application {
                    Application::Services => ENVELOPE_SERVICES,
                    Application::Tasks => ENVELOPE_TASKS,
                };
                let count = u16::try_from(blocks.len()).unwrap_or(u16::MAX).to_be_bytes();
                [&[code], count.as_slice(), &blocks.concat(), *body].concat()
            }
            Self::Signed { sender, signature, body } => {
                [&[ENVELOPE_SIGNED], sender.0.as_slice(), signature.as_slice(), *body].concat()
            }
        }
    }

    /// Reads a reassembled message; verifies nothing.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        match r.byte()? {
            ENVELOPE_ANONYMOUS => Ok(Self::Anonymous { body: r.0 }),
            ENVELOPE_CHAT => Ok(Self::Chat { body: r.0 }),
            code @ (ENVELOPE_SERVICES | ENVELOPE_TASKS) => {
                let application = if code == ENVELOPE_TASKS { Application::Tasks } else { Application::Services };
                let count = usize::from(u16::from_be_bytes(*r.array()?));
                if count > MAX_BLOCKS {
                    return Err(Malformed);
                }
                let blocks = (0..count).map(|_| r.array().copied()).collect::<Result<_, _>>()?;
                Ok(Self::Asking { application, blocks, body: r.0 })
            }
            ENVELOPE_SIGNED => {
                let sender = NodeId(*r.array()?);
                let signature = r.array()?;
                Ok(Self::Signed { sender, signature, body: r.0 })
            }
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fragments_cover_a_message_without_gaps_or_overlap(length in 1usize..=MAX_ENVELOPE, slot: bool) {
            let form = if slot { Form::Slot } else { Form::Deliver };
            let count = fragment_count(length, form);
            let mut next = 0;
            for index in 0..count {
                let range = fragment_range(length, index, count, form).unwrap();
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty() && range.len() <= form.fragment_len());
                next = range.end;
            }
            prop_assert_eq!(next, length);
            prop_assert_eq!(fragment_range(length, count, count, form), None);
            prop_assert_eq!(fragment_range(length, 0, count + 1, form), None);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2100), kind in 0u8..5) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = kind }
            let _content = Content::read(&bytes, Form::Deliver);
            let _envelope = Envelope::read(&bytes);
            bytes.resize(DELIVER_CONTENT, 0xff);
            let _content = Content::read(&bytes, Form::Deliver);
            bytes.resize(BODY_LEN, 0xff);
            let _reply = ReplyBody::read(bytes.as_slice().try_into().unwrap());
        }
    }

    #[test]
    fn contents_survive_the_round_trip_in_both_forms() {
        let surb = &[9; SURB_LEN];
        for form in [Form::Deliver, Form::Slot] {
            let data = vec![5; form.fragment_len()];
            let length = (form.fragment_len() * 2 + 1) as u32;
            let fragment =
                |index, data| Fragment { message: MessageId([1; 16]), created: 7, length, index, count: 3, surb, data };
            let contents = [
                Content::Drop,
                Content::Loop { id: [3; 16] },
                Content::Ping { surb },
                Content::Fragment(fragment(1, &data)),
                Content::Fragment(fragment(2, &data[..1])),
            ];
            for content in contents {
                let mut bytes = vec![0; form.content_len()];
                content.write(&mut bytes).unwrap();
                assert_eq!(Content::read(&bytes, form), Ok(content));
            }
        }
    }

    #[test]
    fn replies_survive_the_round_trip() {
        let mut fragments = Bitmap::none(844);
        fragments.set(843);
        let ack =
            ReplyBody::Ack { message: MessageId([1; 16]), incarnation: [2; 8], accepted: true, count: 844, fragments };
        for reply in [ack, ReplyBody::Pong, ReplyBody::Stored, ReplyBody::Answer(vec![7; ANSWER_LEN])] {
            assert_eq!(ReplyBody::read(&reply.to_body().unwrap()), Ok(reply));
        }
    }

    #[test]
    fn a_message_that_asks_brings_its_blocks_and_no_more_than_it_may() {
        let cases = [(Application::Services, 0), (Application::Services, MAX_BLOCKS), (Application::Tasks, 1)];
        for (application, count) in cases {
            let envelope = Envelope::Asking { application, blocks: vec![[5; SURB_LEN]; count], body: b"asked" };
            let bytes = envelope.to_bytes();
            assert_eq!(bytes[0], if application == Application::Tasks { 4 } else { 3 });
            assert_eq!(Envelope::read(&bytes), Ok(envelope));
            if count > 0 {
                assert_eq!(Envelope::read(&bytes[..count * SURB_LEN + 2]), Err(Malformed), "cut off");
            }
        }
        let blocks = vec![[5; SURB_LEN]; MAX_BLOCKS + 1];
        let many = Envelope::Asking { application: Application::Tasks, blocks, body: b"" };
        assert_eq!(Envelope::read(&many.to_bytes()), Err(Malformed));
        assert_eq!(ReplyBody::Answer(vec![0; ANSWER_LEN + 1]).to_body(), Err(Malformed));
    }

    #[test]
    fn the_largest_message_fits_an_acknowledgement() {
        let count = fragment_count(MAX_ENVELOPE, Form::Slot);
        assert_eq!(count, 844);
        assert!(Bitmap::all(count).has(843) && !Bitmap::none(count).has(843));
    }
}
