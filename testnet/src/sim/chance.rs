//! Draws from distributions that the scenarios need, by inverse transform.

use rand::{Rng, RngExt};

/// Uniform in (0, 1].
fn unit(rng: &mut impl Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

/// Exponential with this mean.
pub(super) fn exponential(mean: f64, rng: &mut impl Rng) -> f64 {
    -mean * libm::log(unit(rng))
}

/// Normal with mean 0 and deviation 1 (Box and Muller, 1958).
pub(super) fn normal(rng: &mut impl Rng) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(unit(rng)));
    radius * libm::cos(2.0 * std::f64::consts::PI * rng.random::<f64>())
}

/// Log-normal with this median, whose logarithm has the deviation `spread`.
pub(super) fn log_normal(median: f64, spread: f64, rng: &mut impl Rng) -> f64 {
    median * libm::exp(spread * normal(rng))
}

/// Pareto from `least` on: above x with the probability (least / x)^`shape`.
pub(super) fn pareto(least: f64, shape: f64, rng: &mut impl Rng) -> f64 {
    least / libm::pow(unit(rng), 1.0 / shape)
}
