//! Crowding distance (Deb, Pratap, Agarwal, Meyarivan 2002): how far an individual's neighbours in its front are apart. For up to three
//! objectives; with more, nearly all are at some edge, and it says little.

use super::Objectives;

/// The crowding distance of each of `front`, in its order; infinite at the edges.
pub(super) fn crowding(front: &[usize], objectives: &[Objectives], count: usize) -> Vec<f64> {
    let mut distance = vec![0.0; front.len()];
    for column in 0..count {
        let value = |at: &usize| objectives.get(*at).and_then(|scores| scores.get(column)).copied().unwrap_or(0.0);
        let mut order: Vec<(usize, f64)> = front.iter().map(value).enumerate().collect();
        order.sort_by(|(i, a), (j, b)| a.total_cmp(b).then(i.cmp(j)));
        let (Some(first), Some(last)) = (order.first().copied(), order.last().copied()) else { return distance };
        for (edge, _) in [first, last] {
            distance.get_mut(edge).into_iter().for_each(|distance| *distance = f64::INFINITY);
        }
        let range = last.1 - first.1;
        if range <= 0.0 {
            continue;
        }
        for three in order.windows(3) {
            if let [(_, before), (at, _), (_, after)] = three {
                distance.get_mut(*at).into_iter().for_each(|distance| *distance += (after - before) / range);
            }
        }
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_the_sum_of_the_gaps_between_neighbours_and_infinite_at_the_edges() {
        let objectives = [[0.0, 4.0], [1.0, 1.0], [2.0, 0.5], [4.0, 0.0]].map(|[a, b]| [a, b, 0.0, 0.0, 0.0]);
        let found = crowding(&[3, 1, 0, 2], &objectives, 2);
        assert_eq!(found, [f64::INFINITY, 2.0 / 4.0 + 3.5 / 4.0, f64::INFINITY, 3.0 / 4.0 + 1.0 / 4.0]);
        assert!(crowding(&[], &objectives, 2).is_empty());
    }
}
