//! Time and randomness without a host: the clock goes on by one step for each look at it, and over every sleep at once; random bytes
//! are ChaCha20 of the seed. Also what is left of processes: yielding and ending.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{Answer, Errno, Guest, Stop, Wasi};

/// How far one look moves the clock: 1 ms, in nanoseconds.
pub(super) const STEP: u64 = 1_000_000;
/// 2025-01-01 00:00:00 UTC in nanoseconds.
const BEGIN: u64 = 1_735_689_600 * SECOND;
const SECOND: u64 = 1_000_000_000;
const YEAR: u32 = 31_536_000;

const REALTIME: u32 = 0;
const THREAD_CPUTIME: u32 = 3;

const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
const ON_CLOCK: u8 = 0;
const ON_READ: u8 = 1;
const ON_WRITE: u8 = 2;
const ABSOLUTE: u16 = 1;

pub(super) struct Clock {
    /// Nanoseconds since the run began.
    elapsed: u64,
    /// When it began.
    begin: u64,
    seed: [u8; 32],
    random: Option<ChaCha20Rng>,
}

impl Clock {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let [a, b, c, d, ..] = seed;
        let begin = BEGIN + u64::from(u32::from_le_bytes([a, b, c, d]) % YEAR) * SECOND;
        Self { elapsed: 0, begin, seed, random: None }
    }

    pub(super) fn real(&self) -> u64 {
        self.begin.saturating_add(self.elapsed)
    }

    fn at(&self, id: u32) -> u64 {
        if id == REALTIME { self.real() } else { self.elapsed }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        self.random.get_or_insert_with(|| ChaCha20Rng::from_seed(self.seed)).fill_bytes(bytes);
    }
}

/// Something that is waited for.
struct Subscription {
    user: [u8; 8],
    kind: u8,
    what: What,
}

enum What {
    /// Nanoseconds from now.
    Sleep(u64),
    /// Already there: how many bytes, or an error.
    Ready(Result<u64, Errno>),
}

impl Wasi {
    pub(super) fn clock_res_get(&mut self, guest: &mut Guest<'_>, id: u32, resolution: u32) -> Answer {
        if id > THREAD_CPUTIME {
            return Err(Errno::INVAL.into());
        }
        guest.write_u64(resolution, STEP)
    }

    pub(super) fn clock_time_get(&mut self, guest: &mut Guest<'_>, id: u32, _precision: u64, time: u32) -> Answer {
        if id > THREAD_CPUTIME {
            return Err(Errno::INVAL.into());
        }
        guest.check(time, 8)?;
        self.clock.elapsed = self.clock.elapsed.saturating_add(STEP);
        guest.write_u64(time, self.clock.at(id))
    }

    pub(super) fn random_get(&mut self, guest: &mut Guest<'_>, at: u32, len: u32) -> Answer {
        self.clock.fill(guest.room(at, len)?);
        Ok(())
    }

    pub(super) fn sched_yield(&mut self, _guest: &mut Guest<'_>) -> Answer {
        Ok(())
    }

    pub(super) fn proc_exit(&mut self, _guest: &mut Guest<'_>, code: u32) -> Answer {
        Err(Stop::Exit(code).into())
    }

    pub(super) fn proc_raise(&mut self, _guest: &mut Guest<'_>, _signal: u32) -> Answer {
        Err(Errno::NOTSUP.into())
    }

    /// Files and streams are always ready. Where only time is waited for, it passes at once.
    pub(super) fn poll_oneoff(&mut self, guest: &mut Guest<'_>, from: u32, to: u32, count: u32, events: u32) -> Answer {
        let records = guest.records::<SUBSCRIPTION>(from, count)?;
        guest.check(to, count * EVENT as u32)?;
        guest.check(events, 4)?;
        let subscriptions = records.iter().map(|record| self.subscription(record)).collect::<Result<Vec<_>, _>>()?;
        let waits = subscriptions.iter().map(|subscription| match subscription.what {
            What::Sleep(wait) => wait,
            What::Ready(_) => 0,
        });
        let passed = waits.min().unwrap_or(0);
        self.clock.elapsed = self.clock.elapsed.saturating_add(passed);
        let mut written = 0;
        for Subscription { user, kind, what } in subscriptions {
            let ready = match what {
                What::Sleep(wait) if wait > passed => continue,
                What::Sleep(_) => Ok(0),
                What::Ready(ready) => ready,
            };
            let error = ready.err().map_or(0, |errno| errno.0).to_le_bytes();
            let [low, high] = error;
            let mut event = user.to_vec();
            event.extend([low, high, kind, 0, 0, 0, 0, 0]);
            event.extend(ready.unwrap_or(0).to_le_bytes());
            event.extend([0; 8]);
            guest.write(to + written * EVENT as u32, &event)?;
            written += 1;
        }
        guest.write_u32(events, written)
    }

    fn subscription(&self, record: &[u8; SUBSCRIPTION]) -> Result<Subscription, Errno> {
        let user = field::<8>(record, 0)?;
        let [kind] = field::<1>(record, 8)?;
        let id = u32::from_le_bytes(field(record, 16)?);
        let what = match kind {
            ON_CLOCK if id > THREAD_CPUTIME => What::Ready(Err(Errno::INVAL)),
            ON_CLOCK => {
                let timeout = u64::from_le_bytes(field(record, 24)?);
                let flags = u16::from_le_bytes(field(record, 40)?);
                let now = if flags & ABSOLUTE == 0 { 0 } else { self.clock.at(id) };
                What::Sleep(timeout.saturating_sub(now))
            }
            ON_READ => What::Ready(self.readable(id)),
            ON_WRITE => What::Ready(self.descriptors.get(id).map(|_| u64::from(u16::MAX))),
            _ => return Err(Errno::INVAL),
        };
        Ok(Subscription { user, kind, what })
    }
}

fn field<const N: usize>(record: &[u8], at: usize) -> Result<[u8; N], Errno> {
    record.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)
}
