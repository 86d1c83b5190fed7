//! The Beta distribution: its mean, and its quantiles as confidence bounds.
//!
//! The distribution function is the regularised incomplete beta function I_x(a, b): the continued fraction of DLMF
//! 8.17.22, evaluated by Lentz's method, on the side of the mean where it converges fast. Quantiles invert it by
//! Newton's method inside a bracket that bisection shrinks. libm's software `lgamma`, `exp` and `log` make the results
//! equal on every platform.

/// Parameters are kept in this range: far wider than any evidence, and where the fraction converges.
const PARAMETERS: std::ops::RangeInclusive<f64> = 0.5..=10_000.0;
const MAX_TERMS: u32 = 1_000;
const MAX_STEPS: u32 = 200;
const EPSILON: f64 = 1e-15;
/// Instead of a zero denominator (Lentz).
const TINY: f64 = 1e-300;

/// The probability of each side of a 90 % interval.
pub const BOUND: f64 = 0.05;

/// Beta(alpha, beta): what is known of a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beta {
    alpha: f64,
    beta: f64,
}

impl Beta {
    /// Parameters outside 0.5 … 10,000 are moved to its ends; one that is no number becomes 0.5.
    pub fn new(alpha: f64, beta: f64) -> Self {
        let within = |x: f64| x.max(*PARAMETERS.start()).min(*PARAMETERS.end());
        Self { alpha: within(alpha), beta: within(beta) }
    }

    /// The first parameter.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// The second parameter.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// The expected probability.
    pub fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// The 5 % quantile: what ranking uses.
    pub fn lower(&self) -> f64 {
        self.quantile(BOUND)
    }

    /// The 95 % quantile.
    pub fn upper(&self) -> f64 {
        self.quantile(1.0 - BOUND)
    }

    /// The probability that the probability is at most `x`: I_x(alpha, beta).
    pub fn cdf(&self, x: f64) -> f64 {
        let Self { alpha, beta } = *self;
        if x.is_nan() || x <= 0.0 {
            return 0.0;
        }
        if x >= 1.0 {
            return 1.0;
        }
        if x < (alpha + 1.0) / (alpha + beta + 2.0) {
            self.front(x) * fraction(alpha, beta, x) / alpha
        } else {
            1.0 - self.front(x) * fraction(beta, alpha, 1.0 - x) / beta
        }
    }

    /// The `x` with `cdf(x) = p`.
    pub fn quantile(&self, p: f64) -> f64 {
        if p.is_nan() || p <= 0.0 {
            return 0.0;
        }
        if p >= 1.0 {
            return 1.0;
        }
        let (mut low, mut high) = (0.0, 1.0);
        let mut x = self.mean();
        for _ in 0..MAX_STEPS {
            let error = self.cdf(x) - p;
            if error > 0.0 {
                high = x
            } else {
                low = x
            }
            // The density: the derivative of `cdf`.
            let slope = self.front(x) / (x * (1.0 - x));
            let newton = x - error / slope;
            let next = if newton > low && newton < high { newton } else { f64::midpoint(low, high) };
            let step = (next - x).abs();
            x = next;
            if step <= EPSILON * x || high - low <= EPSILON * high {
                break;
            }
        }
        x
    }

    /// x^alpha (1 - x)^beta / B(alpha, beta).
    fn front(&self, x: f64) -> f64 {
        let Self { alpha, beta } = *self;
        let ln_inverse_b = libm::lgamma(alpha + beta) - libm::lgamma(alpha) - libm::lgamma(beta);
        libm::exp(ln_inverse_b + alpha * libm::log(x) + beta * libm::log1p(-x))
    }
}

/// The continued fraction of I_x(a, b), by the modified Lentz method.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..=MAX_TERMS {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            change = c * d;
            value *= change;
        }
        if (change - 1.0).abs() < EPSILON {
            break;
        }
    }
    value
}

#[cfg(test)]
#[path = "beta_tests.rs"]
mod tests;
