//! Weighted draws in constant time: Walker's alias method as Vose builds it ("A Linear Algorithm for Generating Random
//! Numbers with a Given Distribution", 1991), in integers, so that every node draws from exactly the same distribution.
//!
//! n columns each hold the total weight W. Item i brings n times its weight, and fills its own column or a part of it;
//! a heavier item fills what is left of that. A draw picks a column and a height in it, both without bias. Nothing is
//! rounded.

use rand::{Rng, RngExt};

/// One column: below `keep` lies its own item, above it `alias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column {
    keep: u64,
    alias: u32,
}

/// A table of weighted items, which are named by their place in the list of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasTable {
    total: u64,
    columns: Vec<Column>,
}

impl AliasTable {
    /// From weights; `None` if there is nothing to draw. Item i is drawn with probability `weights[i]` / sum. If the
    /// sum does not fit in 64 bits, all weights are first halved, rounding down, until it does.
    pub fn new(weights: &[u64]) -> Option<Self> {
        let count = u32::try_from(weights.len()).ok()?;
        let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let halvings = (u128::BITS - sum.leading_zeros()).saturating_sub(u64::BITS);
        let weights = weights.iter().map(|weight| weight.checked_shr(halvings).unwrap_or(0));
        let total: u64 = weights.clone().sum();
        if total == 0 {
            return None;
        }
        // Of each item, what is not yet in a column: less than a column, or at least one.
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for (item, weight) in (0..count).zip(weights) {
            let mass = u128::from(weight) * u128::from(count);
            if mass < u128::from(total) { small.push((item, mass as u64)) } else { large.push((item, mass)) }
        }
        let mut columns: Vec<_> = (0..count).map(|alias| Column { keep: total, alias }).collect();
        while let (Some((item, keep)), Some((alias, mass))) = (small.pop(), large.pop()) {
            if let Some(column) = columns.get_mut(item as usize) {
                *column = Column { keep, alias };
            }
            let left = mass - u128::from(total - keep);
            if left < u128::from(total) { small.push((alias, left as u64)) } else { large.push((alias, left)) }
        }
        // The masses add up to n columns exactly, so whoever is left over holds exactly one whole column.
        Some(Self { total, columns })
    }

    /// Draws an item.
    pub fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> usize {
        let column = below(self.columns.len() as u64, rng) as usize;
        let height = below(self.total, rng);
        match self.columns.get(column) {
            Some(Column { keep, alias }) if height >= *keep => *alias as usize,
            _ => column,
        }
    }
}

/// Uniform below `bound`, which is not 0: Lemire's multiplication ("Fast Random Integer Generation in an Interval",
/// 2019). rand's own `random_range` accepts a bias of 2^-64.
fn below(bound: u64, rng: &mut (impl Rng + ?Sized)) -> u64 {
    loop {
        let product = u128::from(rng.random::<u64>()) * u128::from(bound);
        let low = product as u64;
        // The remainder is below the bound: only then is the division needed.
        if low >= bound || low >= bound.wrapping_neg() % bound {
            return (product >> u64::BITS) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    /// How much of the n columns each item holds.
    fn masses(table: &AliasTable) -> Vec<u128> {
        let mut masses = vec![0; table.columns.len()];
        for (item, column) in table.columns.iter().enumerate() {
            masses[item] += u128::from(column.keep);
            masses[column.alias as usize] += u128::from(table.total - column.keep);
        }
        masses
    }

    proptest! {
        #[test]
        fn each_item_holds_exactly_its_share(weights in proptest::collection::vec(0u64..1 << 58, 1..60)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let table = AliasTable::new(&weights).unwrap();
            prop_assert_eq!(table.total, weights.iter().sum::<u64>());
            let expected: Vec<_> = weights.iter().map(|w| u128::from(*w) * weights.len() as u128).collect();
            prop_assert_eq!(masses(&table), expected);
        }

        #[test]
        fn weights_whose_sum_overflows_are_halved_alike(weights in proptest::collection::vec(1u64 << 63.., 2..60)) {
            let table = AliasTable::new(&weights).unwrap();
            let halvings = (1..7).find(|h| weights.iter().map(|w| u128::from(w >> h)).sum::<u128>() < 1 << 64).unwrap();
            let expected: Vec<_> = weights.iter().map(|w| u128::from(w >> halvings) * weights.len() as u128).collect();
            prop_assert_eq!(masses(&table), expected);
        }
    }

    #[test]
    fn nothing_to_draw_is_no_table() {
        assert_eq!(AliasTable::new(&[]), None);
        assert_eq!(AliasTable::new(&[0, 0]), None);
    }

    #[test]
    fn draws_follow_the_weights() {
        // χ² with 4 degrees of freedom exceeds 18.5 once in a thousand; the item of weight 0 never comes.
        let weights = [1u64, 10, 0, 100, 1000, 3];
        let table = AliasTable::new(&weights).unwrap();
        let (mut counts, mut rng, draws) = ([0u32; 6], ChaCha20Rng::from_seed([2; 32]), 1_000_000);
        for _ in 0..draws {
            counts[table.draw(&mut rng)] += 1;
        }
        assert_eq!(counts[2], 0);
        let chi2: f64 = weights
            .iter()
            .zip(counts)
            .filter(|(weight, _)| **weight > 0)
            .map(|(weight, count)| {
                let expected = f64::from(draws) * *weight as f64 / 1114.0;
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        assert!(chi2 < 18.5, "χ² = {chi2}");
    }

    #[test]
    fn numbers_below_a_bound_are_unbiased() {
        // Without the second draw a bound of 3·2^62 would give every third number twice as often.
        let (mut counts, mut rng) = ([0u32; 3], ChaCha20Rng::from_seed([3; 32]));
        for _ in 0..300_000 {
            counts[(below(3 << 62, &mut rng) % 3) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|n| (f64::from(*n) - 100_000.0).powi(2) / 100_000.0).sum();
        assert!(chi2 < 13.8, "χ² = {chi2}: 2 degrees of freedom, once in a thousand");
    }
}
