//! Estimates with their confidence, and how they are printed.

use serde_json::{Value, json};

/// The two-sided 99 % quantile of the normal distribution.
pub(super) const Z99: f64 = 2.576;

/// Rounded to four significant digits: more would pretend to a precision that is not there.
pub(super) fn digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = libm::pow(10.0, 3.0 - libm::floor(libm::log10(value.abs())));
    (value * scale).round() / scale
}

/// The quantile of the normal distribution beyond which lies `tail` (Newton on the error function).
pub(super) fn normal_quantile(tail: f64) -> f64 {
    let mut z = 2.0;
    for _ in 0..60 {
        let excess = 0.5 * libm::erfc(z / std::f64::consts::SQRT_2) - tail;
        let density = libm::exp(-z * z / 2.0) / libm::sqrt(2.0 * std::f64::consts::PI);
        z = (z + excess / density).clamp(0.0, 8.0);
    }
    z
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub(super) hits: u64,
    pub(super) of: u64,
}

impl Part {
    pub(super) fn new(hits: u64, of: u64) -> Self {
        Self { hits, of }
    }

    pub(super) fn rate(&self) -> f64 {
        self.hits as f64 / self.of.max(1) as f64
    }

    /// The exact interval of Clopper and Pearson (1934) that misses with the probability `miss`, half on each side.
    pub(super) fn interval(&self, miss: f64) -> [f64; 2] {
        let (hits, misses) = (self.hits as f64, (self.of - self.hits) as f64);
        let low = if self.hits == 0 { 0.0 } else { beta_quantile(hits, misses + 1.0, miss / 2.0) };
        let high = if self.hits == self.of { 1.0 } else { beta_quantile(hits + 1.0, misses, 1.0 - miss / 2.0) };
        [low, high]
    }

    /// Above which the rate is not, with 99 % confidence.
    pub(super) fn at_most(&self) -> f64 {
        self.interval(0.02)[1]
    }

    pub(super) fn json(&self) -> Value {
        let [low, high] = self.interval(0.01).map(digits);
        json!({ "hits": self.hits, "of": self.of, "rate": digits(self.rate()), "interval_99": [low, high] })
    }
}

/// The mean of independent values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mean {
    pub(super) mean: f64,
    /// The standard deviation of the mean.
    pub(super) error: f64,
}

impl Mean {
    pub(super) fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        Self { mean, error: libm::sqrt(squares / (count - 1.0).max(1.0) / count) }
    }

    pub(super) fn json(&self) -> Value {
        let (low, high) = (self.mean - Z99 * self.error, self.mean + Z99 * self.error);
        json!({ "mean": digits(self.mean), "interval_99": [digits(low.max(0.0)), digits(high)] })
    }
}

/// Below which a variable of the Beta distribution lies with the probability `p`; by bisection, for counts of millions.
fn beta_quantile(a: f64, b: f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if beta_cdf(a, b, middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The regularized incomplete beta function I_x(a, b): DLMF 8.17.22, by Lentz's method. It takes in the order of √(a + b)
/// steps.
fn beta_cdf(a: f64, b: f64, x: f64) -> f64 {
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cdf(b, a, 1.0 - x);
    }
    let front =
        libm::exp(libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log(1.0 - x))
            / a;
    let tiny = 1e-300;
    let (mut c, mut d) = (1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) + tiny));
    let mut fraction = d;
    for m in 1..100_000u32 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for n in [even, odd] {
            d = 1.0 / (1.0 + n * d + tiny);
            c = 1.0 + n / c + tiny;
            fraction *= c * d;
        }
        if (fraction - before).abs() < 1e-14 * fraction {
            break;
        }
    }
    front * fraction
}

/// How values are spread.
pub(super) fn spread(values: impl IntoIterator<Item = f64>) -> Value {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |part: f64| values.get((last as f64 * part).round() as usize).copied().map(digits);
    json!({ "count": values.len(), "least": at(0.0), "median": at(0.5), "p99": at(0.99), "most": at(1.0) })
}

/// The chance that χ² with so many degrees of freedom is above `value`: the regularized upper incomplete gamma function
/// Q(k / 2, value / 2), by the series or Lentz's continued fraction (Numerical Recipes §6.2).
pub(super) fn chi_square_tail(value: f64, freedom: usize) -> f64 {
    let (a, x) = (freedom as f64 / 2.0, value / 2.0);
    if x <= 0.0 {
        return 1.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..1_000 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return 1.0 - front * sum;
    }
    let tiny = 1e-300;
    let (mut b, mut c) = (x + 1.0 - a, 1.0 / tiny);
    let mut d = 1.0 / b;
    let mut fraction = d;
    for i in 1..1_000 {
        let n = -f64::from(i) * (f64::from(i) - a);
        b += 2.0;
        d = 1.0 / (n * d + b + tiny);
        c = b + n / c + tiny;
        fraction *= d * c;
    }
    front * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_textbooks() {
        // χ² tables: 1 % and 5 % points.
        for (value, freedom, tail) in [(6.635, 1, 0.01), (18.307, 10, 0.05), (23.209, 10, 0.01), (16.919, 9, 0.05)] {
            assert!((chi_square_tail(value, freedom) - tail).abs() < 1e-4, "{value} {freedom}");
        }
        for (tail, z) in [(0.005, 2.5758), (0.01, 2.3263), (0.025, 1.96), (0.00125, 3.0233)] {
            assert!((normal_quantile(tail) - z).abs() < 1e-3, "{tail}");
        }
        // The rule of three, for 99 %: nothing in n trials is below 4.605 / n.
        assert!((Part::new(0, 10_000).at_most() - 4.604e-4).abs() < 1e-6);
        // A million trials: as the normal distribution has it.
        let [low, high] = Part::new(100_000, 1_000_000).interval(0.01);
        assert!((low - 0.09923).abs() < 1e-5 && (high - 0.10078).abs() < 1e-5, "{low} {high}");
        let [low, high] = Part::new(10, 100).interval(0.05);
        assert!((low - 0.0490).abs() < 1e-3 && (high - 0.1762).abs() < 1e-3, "{low} {high}");
    }

    #[test]
    fn four_digits_are_left() {
        assert_eq!(
            (digits(0.001_234_56), digits(123_456.0), digits(0.0), digits(-2.0)),
            (0.001_235, 123_500.0, 0.0, -2.0)
        );
        assert_eq!(spread([3.0, 1.0, 2.0])["median"], 2.0);
    }
}
