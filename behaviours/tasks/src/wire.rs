//! Messages and signed records as bytes; every layout is in the README. Nothing here is believed: the cores verify.

mod bytes;
pub mod message;
pub mod mixed;
mod offers;
pub mod outcome;
pub mod record;

pub use self::{
    bytes::WireError,
    message::{Failure, MAX_MESSAGE, Message, Phase, Refusal, Source, StageError, StreamKind, ToCoordinator, ToWorker},
    offers::{MAX_RECORDS, OfferMessage},
};
