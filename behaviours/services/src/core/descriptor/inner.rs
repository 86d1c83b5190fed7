//! The inner layer: what a client needs to be introduced.

use fog_base::{Epoch, NodeId};

use super::DescriptorError;
use crate::core::{bytes::Reader, handshake::KEM_KEY};

/// Introduction points in one descriptor.
pub const MAX_POINTS: usize = 20;

const SINGLE_HOP: u8 = 1;
const MAX_EXTENSIONS: usize = 16;
const PUZZLE: u8 = 1;
const MIXED: u8 = 2;

/// Where a service can be introduced to.
#[derive(Clone, PartialEq, Eq)]
pub struct IntroductionPoint {
    /// The relay.
    pub relay: NodeId,
    /// Which of the service's hosts stands behind it.
    pub backend: u8,
    /// Names the service at the relay.
    pub auth_key: [u8; 32],
    /// For the handshake.
    pub x25519: [u8; 32],
    /// ML-KEM-768, for the handshake.
    pub kem: Box<[u8; KEM_KEY]>,
}

impl std::fmt::Debug for IntroductionPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntroductionPoint").field("relay", &self.relay).field("backend", &self.backend).finish()
    }
}

/// What a proof of work is made over, and how much the service suggests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PuzzleOffer {
    /// Random, changes every few epochs.
    pub seed: [u8; 32],
    /// Zero: none is needed now.
    pub effort: u32,
    /// The last epoch in which the seed counts.
    pub last_epoch: Epoch,
}

/// That a service takes requests through the mixnet, and how large they and their answers may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedOffer {
    /// KiB of a request.
    pub request: u16,
    /// KiB of an answer.
    pub answer: u16,
}

/// What a descriptor tells a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The service does not hide where it is.
    pub single_hop: bool,
    /// Its introduction points.
    pub points: Vec<IntroductionPoint>,
    /// The puzzle, if the service has one.
    pub puzzle: Option<PuzzleOffer>,
    /// Whether it takes requests through the mixnet.
    pub mixed: Option<MixedOffer>,
}

impl Contents {
    /// README, "Inner layer", without the zeros at the end.
    pub(super) fn write(&self) -> Vec<u8> {
        let points = self.points.get(..self.points.len().min(MAX_POINTS)).unwrap_or_default();
        let mut out = vec![u8::from(self.single_hop) * SINGLE_HOP, u8::try_from(points.len()).unwrap_or(0)];
        for point in points {
            out.extend_from_slice(&point.relay.0);
            out.push(point.backend);
            out.extend_from_slice(&point.auth_key);
            out.extend_from_slice(&point.x25519);
            out.extend_from_slice(point.kem.as_slice());
        }
        out.push(u8::from(self.puzzle.is_some()) + u8::from(self.mixed.is_some()));
        if let Some(PuzzleOffer { seed, effort, last_epoch }) = &self.puzzle {
            out.extend_from_slice(&[PUZZLE, 0, 40]);
            out.extend_from_slice(seed);
            out.extend_from_slice(&effort.to_be_bytes());
            out.extend_from_slice(&last_epoch.0.to_be_bytes());
        }
        if let Some(MixedOffer { request, answer }) = &self.mixed {
            out.extend_from_slice(&[MIXED, 0, 4]);
            out.extend_from_slice(&request.to_be_bytes());
            out.extend_from_slice(&answer.to_be_bytes());
        }
        out
    }

    pub(super) fn read(plaintext: &[u8]) -> Result<Self, DescriptorError> {
        let mut reader = Reader(plaintext);
        let cut = DescriptorError::Malformed("cut off");
        let flags = reader.u8().ok_or(cut)?;
        let count = usize::from(reader.u8().ok_or(cut)?);
        if count == 0 || count > MAX_POINTS {
            return Err(DescriptorError::Malformed("number of introduction points"));
        }
        let points = (0..count).map(|_| point(&mut reader)).collect::<Option<Vec<_>>>().ok_or(cut)?;
        for (n, point) in points.iter().enumerate() {
            if points.iter().take(n).any(|other| other.auth_key == point.auth_key) {
                return Err(DescriptorError::Malformed("an introduction point twice"));
            }
        }
        let (puzzle, mixed) = extensions(&mut reader)?;
        if !reader.only_zeros() {
            return Err(DescriptorError::Malformed("padding"));
        }
        Ok(Self { single_hop: flags & SINGLE_HOP != 0, points, puzzle, mixed })
    }
}

fn point(reader: &mut Reader<'_>) -> Option<IntroductionPoint> {
    Some(IntroductionPoint {
        relay: NodeId(reader.array()?),
        backend: reader.u8()?,
        auth_key: reader.array()?,
        x25519: reader.array()?,
        kem: Box::new(reader.array()?),
    })
}

fn extensions(reader: &mut Reader<'_>) -> Result<(Option<PuzzleOffer>, Option<MixedOffer>), DescriptorError> {
    let wrong = DescriptorError::Malformed("extensions");
    let count = usize::from(reader.u8().ok_or(wrong)?);
    if count > MAX_EXTENSIONS {
        return Err(wrong);
    }
    let (mut puzzle, mut mixed) = (None, None);
    for _ in 0..count {
        let kind = reader.u8().ok_or(wrong)?;
        let length = reader.u16().ok_or(wrong)?;
        let body = reader.slice(length.into()).ok_or(wrong)?;
        if kind == PUZZLE {
            let offer = offer(Reader(body)).filter(|_| puzzle.is_none()).ok_or(wrong)?;
            puzzle = Some(offer);
        }
        if kind == MIXED {
            let mut body = Reader(body);
            let offer = body.u16().zip(body.u16()).map(|(request, answer)| MixedOffer { request, answer });
            let offer = offer.and_then(|offer| body.end(offer)).filter(|_| mixed.is_none()).ok_or(wrong)?;
            mixed = Some(offer);
        }
    }
    Ok((puzzle, mixed))
}

fn offer(mut reader: Reader<'_>) -> Option<PuzzleOffer> {
    let offer = PuzzleOffer { seed: reader.array()?, effort: reader.u32()?, last_epoch: Epoch(reader.u32()?) };
    reader.end(offer)
}
