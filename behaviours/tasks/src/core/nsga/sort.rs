//! Non-dominated sorting by efficient search with bisection (ENS-BS; Zhang, Tian, Cheng, Jin 2015), and Deb's rule for constraints:
//! who violates none comes before all who do, and those are ordered by how much they violate.

use std::cmp::Ordering;

use super::Objectives;

/// The order of sums, of columns and of everything that must not depend on the order of the input.
pub(super) fn lexicographic(one: &Objectives, other: &Objectives) -> Ordering {
    one.iter().zip(other).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Whether `one` is nowhere worse than `other` and somewhere better. Less is better.
pub fn dominates(one: &Objectives, other: &Objectives) -> bool {
    one.iter().zip(other).all(|(a, b)| a <= b) && one != other
}

/// Individuals by front, the best front first, until the fronts hold `enough` of them. `violations` are 0 where nothing is violated; those
/// that violate equally much share a front. Takes O(M·N·log N) at best and O(M·N²) at worst for N individuals of M objectives.
pub fn fronts(objectives: &[Objectives], violations: &[f64], enough: usize) -> Vec<Vec<usize>> {
    let all = || objectives.iter().zip(violations).enumerate();
    let mut order: Vec<(usize, &Objectives)> =
        all().filter(|(_, (_, violation))| **violation <= 0.0).map(|(at, (scores, _))| (at, scores)).collect();
    order.sort_by(|(i, a), (j, b)| lexicographic(a, b).then(i.cmp(j)));
    let (mut sorted, mut held): (Vec<Vec<(usize, &Objectives)>>, usize) = (Vec::new(), 0);
    for (at, scores) in order {
        // Whoever dominates `scores` came before it. Who is dominated by one of a front is dominated by one of each front before it.
        let beaten = |front: &Vec<(usize, &Objectives)>| front.iter().rev().any(|(_, other)| dominates(other, scores));
        let place = sorted.partition_point(beaten);
        if let Some(front) = sorted.get_mut(place) {
            front.push((at, scores));
        } else if held < enough {
            sorted.push(vec![(at, scores)]);
        } else {
            continue;
        }
        held += 1;
        while let Some(last) = sorted.last().map(Vec::len).filter(|last| held - last >= enough) {
            sorted.pop();
            held -= last;
        }
    }
    let mut found: Vec<Vec<usize>> =
        sorted.into_iter().map(|front| front.into_iter().map(|(at, _)| at).collect()).collect();
    let mut rest: Vec<(usize, f64)> =
        all().map(|(at, (_, violation))| (at, *violation)).filter(|(_, violation)| *violation > 0.0).collect();
    rest.sort_by(|(i, a), (j, b)| a.total_cmp(b).then(i.cmp(j)));
    for front in rest.chunk_by(|(_, a), (_, b)| a == b) {
        if held >= enough {
            break;
        }
        held += front.len();
        found.push(front.iter().map(|(at, _)| *at).collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fronts by their definition: peeled one after the other.
    fn peeled(objectives: &[Objectives], violations: &[f64]) -> Vec<Vec<usize>> {
        let beats = |i: usize, j: usize| match (violations[i], violations[j]) {
            (a, b) if a <= 0.0 && b <= 0.0 => dominates(&objectives[i], &objectives[j]),
            (a, b) => a < b,
        };
        let mut left: Vec<usize> = (0..objectives.len()).collect();
        let mut found = Vec::new();
        while !left.is_empty() {
            let front: Vec<_> = left.iter().copied().filter(|j| !left.iter().any(|i| beats(*i, *j))).collect();
            left.retain(|i| !front.contains(i));
            found.push(front);
        }
        found
    }

    fn in_order(mut fronts: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
        fronts.iter_mut().for_each(|front| front.sort_unstable());
        fronts
    }

    proptest! {
        #[test]
        fn fronts_are_those_of_the_definition_and_stop_when_there_are_enough(
            cloud in prop::collection::vec((prop::array::uniform5(0..6u8), 0..6u8), 0..60),
            enough in 1usize..70,
        ) {
            let objectives: Vec<Objectives> = cloud.iter().map(|(scores, _)| scores.map(f64::from)).collect();
            let violations: Vec<f64> = cloud.iter().map(|(_, much)| f64::from(much.saturating_sub(3))).collect();
            let expected = in_order(peeled(&objectives, &violations));
            prop_assert_eq!(&in_order(fronts(&objectives, &violations, usize::MAX)), &expected);
            let mut held = 0;
            let needed = expected.into_iter().take_while(|front| {
                let goes_on = held < enough;
                held += front.len();
                goes_on
            });
            prop_assert_eq!(in_order(fronts(&objectives, &violations, enough)), needed.collect::<Vec<_>>());
        }
    }
}
