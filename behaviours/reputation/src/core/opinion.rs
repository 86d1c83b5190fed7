//! Opinions of subjective logic (Jøsang, "Subjective Logic", 2016): belief, disbelief and uncertainty, which sum to 1.
//!
//! Each opinion stands for an amount of evidence (section 3.4.2 there), so uncertainty is never zero.

use super::evidence::{BASE_RATE, Evidence, PRIOR_WEIGHT};

/// What one party thinks of another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opinion {
    belief: f64,
    disbelief: f64,
    uncertainty: f64,
}

impl Opinion {
    /// Nothing is known.
    pub const VACUOUS: Self = Self { belief: 0.0, disbelief: 0.0, uncertainty: 1.0 };

    /// b = r / (r + s + W), d = s / (r + s + W), u = W / (r + s + W).
    pub fn from_evidence(evidence: &Evidence) -> Self {
        let sum = evidence.mass() + PRIOR_WEIGHT;
        Self { belief: evidence.good() / sum, disbelief: evidence.bad() / sum, uncertainty: PRIOR_WEIGHT / sum }
    }

    /// The good and bad evidence that it stands for.
    pub fn counts(&self) -> (f64, f64) {
        (PRIOR_WEIGHT * self.belief / self.uncertainty, PRIOR_WEIGHT * self.disbelief / self.uncertainty)
    }

    /// Belief.
    pub fn belief(&self) -> f64 {
        self.belief
    }

    /// Disbelief.
    pub fn disbelief(&self) -> f64 {
        self.disbelief
    }

    /// Uncertainty.
    pub fn uncertainty(&self) -> f64 {
        self.uncertainty
    }

    /// The probability that it comes to: the mean of the posterior.
    pub fn projected(&self) -> f64 {
        self.belief + BASE_RATE * self.uncertainty
    }

    /// `other`, as heard from one of whom this is the opinion: what is not believed of the teller becomes uncertainty.
    pub fn discount(&self, other: &Self) -> Self {
        let trust = self.belief;
        Self {
            belief: trust * other.belief,
            disbelief: trust * other.disbelief,
            uncertainty: 1.0 - trust * (other.belief + other.disbelief),
        }
    }

    /// Both together, as independent evidence (cumulative fusion): equal to adding what they stand for.
    pub fn fuse(&self, other: &Self) -> Self {
        let sum = self.uncertainty + other.uncertainty - self.uncertainty * other.uncertainty;
        Self {
            belief: (self.belief * other.uncertainty + other.belief * self.uncertainty) / sum,
            disbelief: (self.disbelief * other.uncertainty + other.disbelief * self.uncertainty) / sum,
            uncertainty: self.uncertainty * other.uncertainty / sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use fog_base::UnixMillis;
    use proptest::prelude::*;

    use super::*;

    fn evidence(good: f64, bad: f64) -> Evidence {
        Evidence::new(good, bad, UnixMillis(0))
    }

    fn opinion(good: f64, bad: f64) -> Opinion {
        Opinion::from_evidence(&evidence(good, bad))
    }

    #[test]
    fn who_is_not_believed_says_nothing() {
        assert_eq!(Opinion::VACUOUS.discount(&opinion(50.0, 1.0)), Opinion::VACUOUS);
        assert_eq!(opinion(0.0, 40.0).discount(&opinion(50.0, 1.0)), Opinion::VACUOUS);
    }

    proptest! {
        #[test]
        fn fusion_adds_evidence_and_the_parts_sum_to_one(
            (a, b, c, d) in (0.0f64..300.0, 0.0f64..300.0, 0.0f64..300.0, 0.0f64..300.0),
        ) {
            let fused = opinion(a, b).fuse(&opinion(c, d));
            let (good, bad) = fused.counts();
            prop_assert!((good - a - c).abs() < 1e-6 && (bad - b - d).abs() < 1e-6, "{good} {bad}");
            prop_assert!((fused.belief() + fused.disbelief() + fused.uncertainty() - 1.0).abs() < 1e-9);
        }

        #[test]
        fn an_opinion_projects_to_the_posterior_mean(good in 0.0f64..300.0, bad in 0.0f64..300.0) {
            let mean = evidence(good, bad).posterior().mean();
            prop_assert!((opinion(good, bad).projected() - mean).abs() < 1e-12);
        }

        #[test]
        fn a_discounted_opinion_is_worth_no_more_than_the_trust_allows(
            trust in 0.0f64..100.0, good in 0.0f64..1e6, bad in 0.0f64..1e6,
        ) {
            let trust = opinion(trust, 0.0);
            let heard = trust.discount(&opinion(good, bad));
            let (heard_good, heard_bad) = heard.counts();
            // However much is claimed: at most W·b/(1 - b).
            let most = PRIOR_WEIGHT * trust.belief() / (1.0 - trust.belief());
            prop_assert!(heard_good + heard_bad <= most * (1.0 + 1e-9) && heard_good <= good + 1e-6);
            prop_assert!((heard.belief() + heard.disbelief() + heard.uncertainty() - 1.0).abs() < 1e-9);
        }
    }
}
