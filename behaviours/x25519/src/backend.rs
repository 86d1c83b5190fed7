//! Which code does the work: the fastest that this processor has instructions for.

use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use curve25519_dalek::scalar::clamp_integer;

use crate::dalek;
#[cfg(target_arch = "x86_64")]
use crate::lanes;

/// One way to compute X25519. All give the same results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Lanes(lanes::Lanes),
    Dalek,
}

/// The backend that was asked for does not exist here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={asked}: no such backend on this processor, which has: {}", names(.has), variable = Backend::VARIABLE)]
pub struct NoBackend {
    asked: String,
    has: Vec<Backend>,
}

fn names(backends: &[Backend]) -> String {
    backends.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", ")
}

impl Backend {
    /// The environment variable that forces a backend, for tests: one of the names that [`name`](Self::name) returns.
    pub const VARIABLE: &str = "FOG_X25519";

    /// Those that this processor can run, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let lanes = lanes::Lanes::available().map(Kind::Lanes);
        #[cfg(not(target_arch = "x86_64"))]
        let lanes = std::iter::empty();
        lanes.chain([Kind::Dalek]).map(Self)
    }

    /// The fastest, or the one that the environment variable [`VARIABLE`](Self::VARIABLE) names. A program asks before it needs it.
    ///
    /// # Errors
    /// If the variable names none that this processor can run.
    pub fn from_env() -> Result<Self, NoBackend> {
        match std::env::var_os(Self::VARIABLE) {
            Some(asked) if !asked.is_empty() => Self::named(&asked.to_string_lossy()),
            _ => Ok(Self::available().next().unwrap_or(Self(Kind::Dalek))),
        }
    }

    fn named(asked: &str) -> Result<Self, NoBackend> {
        let none = || NoBackend { asked: asked.to_owned(), has: Self::available().collect() };
        Self::available().find(|backend| backend.name() == asked).ok_or_else(none)
    }

    /// The one that the functions of this crate use: what [`from_env`](Self::from_env) returned when it was first needed.
    ///
    /// # Panics
    /// If that was an error: what was asked for is never replaced by something else.
    #[must_use]
    pub fn current() -> Self {
        #[expect(clippy::panic, reason = "there is nothing that could be done instead: see above")]
        static CURRENT: LazyLock<Backend> =
            LazyLock::new(|| Backend::from_env().unwrap_or_else(|error| panic!("{error}")));
        *CURRENT
    }

    /// Its name: `ifma`, `avx2` or `dalek`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Lanes(lanes) => lanes.name(),
            Kind::Dalek => "dalek",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }

    /// As [`x25519`](crate::x25519).
    ///
    /// # Panics
    /// If there are not as many scalars as points.
    pub fn x25519(self, scalars: &[[u8; 32]], points: &mut [[u8; 32]]) {
        assert_eq!(scalars.len(), points.len(), "as many scalars as points");
        self.x25519_each(|i| &scalars[i], points);
    }

    /// As [`x25519_one_scalar`](crate::x25519_one_scalar).
    pub fn x25519_one_scalar(self, scalar: &[u8; 32], points: &mut [[u8; 32]]) {
        self.x25519_each(|_| scalar, points);
    }

    fn x25519_each<'a>(self, scalar: impl Fn(usize) -> &'a [u8; 32], points: &mut [[u8; 32]]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Lanes(lanes) => {
                let (group, rest) = points.split_at_mut(lanes.worth(points.len()));
                lanes.multiply(|i| clamp_integer(*scalar(i)), group);
                dalek::x25519(|i| scalar(group.len() + i), rest);
            }
            Kind::Dalek => dalek::x25519(scalar, points),
        }
    }
}
