//! The volume that a front dominates up to a reference point, exact: the algorithm of the Walking Fish Group (While, Bradstreet, Barone
//! 2012), which adds what each point dominates alone, one dimension less each time, down to a sweep in two.

use super::{MAX_OBJECTIVES, Objectives};

/// The hypervolume of `points` over their first `count` objectives, at most [`MAX_OBJECTIVES`]. Points that are not better than
/// `reference` in each of them, or not numbers, add nothing. Exponential in `count` at worst: some tenths of a second for 200 points
/// of five objectives.
pub fn hypervolume(points: &[Objectives], count: usize, reference: &Objectives) -> f64 {
    let count = count.min(MAX_OBJECTIVES);
    let inside = |point: &&Objectives| point.iter().zip(reference).take(count).all(|(value, end)| value < end);
    volume(&mut points.iter().filter(inside).copied().collect(), count, reference)
}

fn volume(points: &mut Vec<Objectives>, count: usize, reference: &Objectives) -> f64 {
    let last = count.saturating_sub(1);
    let (Some(end), false) = (reference.get(last), points.is_empty()) else { return 0.0 };
    let at = |point: &Objectives| point.get(last).copied().unwrap_or(*end);
    if count <= 2 {
        return area(points, count, reference);
    }
    points.sort_by(|a, b| at(b).total_cmp(&at(a)));
    let mut total = 0.0;
    let mut left = points.as_slice();
    let mut limited = Vec::with_capacity(points.len());
    while let [point, rest @ ..] = left {
        // The rest reaches further down in the last objective, so that there it covers all of what `point` has.
        limited.clear();
        for other in rest {
            let mut worse = *point;
            worse.iter_mut().zip(other).for_each(|(value, other)| *value = value.max(*other));
            if last > 2 {
                add_undominated(&mut limited, worse, last);
            } else {
                limited.push(worse);
            }
        }
        let alone: f64 = point.iter().zip(reference).take(last).map(|(value, end)| end - value).product();
        total += (end - at(point)) * (alone - volume(&mut limited, last, reference));
        left = rest;
    }
    total
}

fn add_undominated(points: &mut Vec<Objectives>, new: Objectives, count: usize) {
    let covers = |a: &Objectives, b: &Objectives| a.iter().zip(b).take(count).all(|(a, b)| a <= b);
    if !points.iter().any(|point| covers(point, &new)) {
        points.retain(|point| !covers(&new, point));
        points.push(new);
    }
}

/// The volume in one or two dimensions.
fn area(points: &mut [Objectives], count: usize, reference: &Objectives) -> f64 {
    let [end, mut low, ..] = *reference;
    if count < 2 {
        return points.iter().map(|[value, ..]| end - value).fold(0.0, f64::max);
    }
    points.sort_by(|[a, ..], [b, ..]| a.total_cmp(b));
    let mut total = 0.0;
    for [x, y, ..] in points {
        if *y < low {
            total += (end - *x) * (low - *y);
            low = *y;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_volumes_are_found() {
        let wide = |values: &[f64]| {
            let mut point = [0.0; MAX_OBJECTIVES];
            point[..values.len()].copy_from_slice(values);
            point
        };
        let corner = [wide(&[1.0, 3.0]), wide(&[2.0, 1.0]), wide(&[3.0, 3.0]), wide(&[5.0, 0.0])];
        assert_eq!(hypervolume(&corner, 2, &wide(&[4.0, 4.0])), 3.0 + 4.0);
        assert_eq!(hypervolume(&[], 3, &[1.0; 5]), 0.0);
        assert_eq!(hypervolume(&[[f64::NAN; 5]], 5, &[1.0; 5]), 0.0);
        assert_eq!(hypervolume(&[[0.5; 5]], 5, &[1.0; 5]), 1.0 / 32.0);
        // Two unit-like boxes that overlap in a cube.
        let two = [wide(&[0.0, 0.5, 0.5]), wide(&[0.5, 0.0, 0.5])];
        assert_eq!(hypervolume(&two, 3, &[1.0; 5]), 0.25 + 0.25 - 0.125);
    }

    proptest! {
        /// Points on a grid of 4 cells a side: counting the dominated cells is the volume.
        #[test]
        fn volumes_are_the_count_of_dominated_cells(
            cloud in prop::collection::vec(prop::array::uniform5(0..4u8), 0..14),
            count in 1usize..=5,
        ) {
            let points: Vec<Objectives> = cloud.iter().map(|point| point.map(f64::from)).collect();
            let cells = (0..4usize.pow(count as u32)).filter(|cell| {
                let cell: Vec<u8> = (0..count).map(|k| (cell / 4usize.pow(k as u32) % 4) as u8).collect();
                cloud.iter().any(|point| point.iter().zip(&cell).all(|(p, c)| p <= c))
            });
            let expected = cells.count() as f64;
            prop_assert!((hypervolume(&points, count, &[4.0; 5]) - expected).abs() < 1e-9);
        }
    }
}
