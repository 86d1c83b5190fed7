//! Several X25519 at once, one in each lane of a vector.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(any(test, target_arch = "x86_64"))]
mod field26;
#[cfg(any(test, target_arch = "x86_64"))]
mod field51;
#[cfg(test)]
mod identity;
#[cfg(target_arch = "x86_64")]
mod ifma;
#[cfg(test)]
mod interval;
#[cfg(any(test, target_arch = "x86_64"))]
mod ladder;
#[cfg(test)]
mod model;

#[cfg(target_arch = "x86_64")]
use zeroize::Zeroizing;

/// What a limb of [`field51`] may hold between operations: `interval` proves that it does not exceed this.
#[cfg(test)]
const LIMB51_MAX: u64 = (1 << 51) + (1 << 10);

/// What the even and the odd limbs of a reduced element of [`field26`] may hold: `interval` proves that they do not exceed
/// this.
#[cfg(test)]
const LIMB26_MAX: [u64; 2] = [(1 << 26) + (1 << 11), (1 << 25) + (1 << 11)];

/// What those of a loose element may hold: three times 2^26 and 2^25, for a difference to which 2p was added.
#[cfg(test)]
const LOOSE26_MAX: [u64; 2] = [LIMB26_MAX[0] + (2 << 26), LIMB26_MAX[1] + (2 << 25)];

/// The vectors that this processor has, by the proof that it has them.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    Ifma(Ifma),
    Avx2(Avx2),
}

#[cfg(target_arch = "x86_64")]
impl Lanes {
    /// The fastest first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        [Ifma::detect().map(Self::Ifma), Avx2::detect().map(Self::Avx2)].into_iter().flatten()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ifma(_) => "ifma",
            Self::Avx2(_) => "avx2",
        }
    }

    /// Of `n` points, how many to multiply here. What is left is faster one by one: with AVX2 a group of one point is.
    pub(crate) const fn worth(self, n: usize) -> usize {
        match self {
            Self::Avx2(_) if n % avx2::LANES == 1 => n - 1,
            Self::Ifma(_) | Self::Avx2(_) => n,
        }
    }

    /// Replaces each point by its product with the scalar of the same number, taken as it is; bit 255 is ignored.
    pub(crate) fn multiply(self, scalar: impl Fn(usize) -> [u8; 32], points: &mut [[u8; 32]]) {
        match self {
            Self::Ifma(ifma) => in_groups(|scalars, points| ifma.multiply(scalars, points), scalar, points),
            Self::Avx2(avx2) => in_groups(|scalars, points| avx2.multiply(scalars, points), scalar, points),
        }
    }
}

/// The proof that this processor has AVX-512 with IFMA.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ifma(());

#[cfg(target_arch = "x86_64")]
impl Ifma {
    fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512ifma");
        has.then_some(Self(()))
    }

    #[expect(unsafe_code)]
    fn multiply(self, scalars: &[[u8; 32]; ifma::LANES], points: &mut [[u8; 32]; ifma::LANES]) {
        // SAFETY: `detect` alone makes a `Self`, when the processor has the instructions that `multiply` is compiled for.
        unsafe { ifma::multiply(scalars, points) }
    }
}

/// The proof that this processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    #[expect(unsafe_code)]
    fn multiply(self, scalars: &[[u8; 32]; avx2::LANES], points: &mut [[u8; 32]; avx2::LANES]) {
        // SAFETY: `detect` alone makes a `Self`, when the processor has the instructions that `multiply` is compiled for.
        unsafe { avx2::multiply(scalars, points) }
    }
}

#[cfg(target_arch = "x86_64")]
fn in_groups<const LANES: usize>(
    multiply: impl Fn(&[[u8; 32]; LANES], &mut [[u8; 32]; LANES]),
    scalar: impl Fn(usize) -> [u8; 32],
    points: &mut [[u8; 32]],
) {
    let mut scalars = Zeroizing::new([[0; 32]; LANES]);
    for (n, group) in points.chunks_mut(LANES).enumerate() {
        // Lanes without a point compute what nobody reads.
        let mut lanes = Zeroizing::new([[0; 32]; LANES]);
        for (i, (point, lane)) in group.iter().zip(lanes.iter_mut()).enumerate() {
            scalars[i] = scalar(n * LANES + i);
            *lane = *point;
        }
        multiply(&scalars, &mut lanes);
        group.iter_mut().zip(lanes.iter()).for_each(|(point, product)| *point = *product);
    }
}
