use proptest::prelude::*;

use super::*;

/// Equal to `digits` decimal places, as a table prints them.
#[track_caller]
fn assert_table(got: f64, table: f64, digits: i32) {
    assert!((got - table).abs() <= 0.5001 * 10f64.powi(-digits), "{got} where the table has {table}");
}

/// Tables of Student's t: P(|T| > t) = I_{n/(n+t²)}(n/2, 1/2). These are the two-sided 5 % points of every textbook.
#[test]
fn quantiles_agree_with_the_published_points_of_students_t() {
    for (n, t) in [(1.0, 12.706_204_736), (2.0, 4.302_652_730), (5.0, 2.570_581_836), (10.0, 2.228_138_852)] {
        let x = Beta::new(n / 2.0, 0.5).quantile(0.05);
        assert_table((n * (1.0 - x) / x).sqrt(), t, 6);
    }
    let (n, t) = (120.0, 1.979_930_405);
    assert_table(Beta::new(n / 2.0, 0.5).cdf(n / (n + t * t)), 0.05, 9);
}

/// Tables of F: P(F < f) = I_x(m/2, n/2) with x = m f / (m f + n).
#[test]
fn quantiles_agree_with_the_published_points_of_f() {
    for (m, n, f) in
        [(2.0, 3.0, 9.552), (5.0, 10.0, 3.326), (10.0, 10.0, 2.978), (4.0, 20.0, 2.866), (30.0, 60.0, 1.649)]
    {
        let x = Beta::new(m / 2.0, n / 2.0).upper();
        assert_table(n * x / (m * (1.0 - x)), f, 3);
    }
}

#[test]
fn closed_forms_hold() {
    for p in [0.001f64, 0.05, 0.5, 0.95, 0.999] {
        // Beta(1, 2): F = 1 - (1 - x)²; Beta(n, 1): F = x^n; Beta(1/2, 1/2): the arcsine law.
        let forms = [
            (Beta::new(1.0, 2.0), 1.0 - (1.0 - p).sqrt()),
            (Beta::new(1.0, 1.0), p),
            (Beta::new(300.0, 1.0), p.powf(1.0 / 300.0)),
            (Beta::new(0.5, 0.5), (p * std::f64::consts::FRAC_PI_2).sin().powi(2)),
        ];
        for (beta, expected) in forms {
            assert!((beta.quantile(p) - expected).abs() < 1e-12, "{beta:?} at {p}: {} {expected}", beta.quantile(p));
        }
    }
    // Beta(2, 2): F = 3x² - 2x³.
    let x = Beta::new(2.0, 2.0).quantile(0.05);
    assert!((3.0 * x * x - 2.0 * x * x * x - 0.05).abs() < 1e-14, "{x}");
}

/// For integers, I_x(a, b) is the chance of at least `a` successes in a + b - 1 trials (DLMF 8.17.5).
fn binomial_tail(a: u32, b: u32, x: f64) -> f64 {
    let n = a + b - 1;
    let mut choose = 1.0;
    let mut sum = 0.0;
    for j in 0..=n {
        if j >= a {
            sum += choose * x.powi(j as i32) * (1.0 - x).powi((n - j) as i32);
        }
        choose *= f64::from(n - j) / f64::from(j + 1);
    }
    sum
}

proptest! {
    #[test]
    fn the_distribution_function_is_the_binomial_tail(a in 1u32..60, b in 1u32..60, x in 0.001f64..0.999) {
        let got = Beta::new(a.into(), b.into()).cdf(x);
        prop_assert!((got - binomial_tail(a, b, x)).abs() < 1e-11, "{got} {}", binomial_tail(a, b, x));
    }

    #[test]
    fn a_quantile_inverts_the_distribution_function(a in 0.5f64..600.0, b in 0.5f64..600.0, p in 0.001f64..0.999) {
        let beta = Beta::new(a, b);
        let x = beta.quantile(p);
        prop_assert!((0.0..=1.0).contains(&x));
        prop_assert!((beta.cdf(x) - p).abs() < 1e-9, "cdf({x}) = {}", beta.cdf(x));
    }

    #[test]
    fn quantiles_mirror(a in 1.0f64..600.0, b in 1.0f64..600.0, p in 0.001f64..0.999) {
        let (one, other) = (Beta::new(a, b).quantile(p), Beta::new(b, a).quantile(1.0 - p));
        prop_assert!((one + other - 1.0).abs() < 1e-9, "{one} {other}");
    }

    #[test]
    fn good_raises_and_bad_lowers_every_bound(a in 1.0f64..500.0, b in 1.0f64..500.0, more in 0.01f64..50.0) {
        let (now, better, worse) = (Beta::new(a, b), Beta::new(a + more, b), Beta::new(a, b + more));
        for p in [BOUND, 0.5, 1.0 - BOUND] {
            prop_assert!(better.quantile(p) > now.quantile(p) && now.quantile(p) > worse.quantile(p));
        }
        prop_assert!(now.lower() < now.mean() && now.mean() < now.upper());
    }

    #[test]
    fn any_numbers_give_a_probability(a in any::<f64>(), b in any::<f64>(), p in any::<f64>()) {
        let beta = Beta::new(a, b);
        prop_assert!((0.0..=1.0).contains(&beta.quantile(p)) && (-1e-9..=1.0 + 1e-9).contains(&beta.cdf(p)));
    }
}
