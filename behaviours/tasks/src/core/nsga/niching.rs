//! Reference-point niching (NSGA-III; Deb and Jain 2014): survivors are spread over directions, not over gaps, which still says
//! something with four and five objectives. Unlike there, whoever is best in one objective stays.

use super::{
    MAX_OBJECTIVES, Objectives,
    random::{Random, below},
};

/// The weight of the other objectives where the extreme point of one is sought.
const OFF_AXIS: f64 = 1e-6;

/// Das and Dennis's points: all of `count` shares of `divisions` parts. C(divisions + count − 1, count − 1) points.
pub fn das_dennis(count: usize, divisions: usize) -> Vec<Objectives> {
    let mut points = vec![([0.0; MAX_OBJECTIVES], divisions)];
    for column in 0..count.min(MAX_OBJECTIVES) {
        let is_last = column + 1 == count;
        let split = |(point, left): (Objectives, usize)| {
            let first = if is_last { left } else { 0 };
            (first..=left).map(move |part| {
                let mut next = point;
                let share = part as f64 / divisions.max(1) as f64;
                next.get_mut(column).into_iter().for_each(|value| *value = share);
                (next, left - part)
            })
        };
        points = points.into_iter().flat_map(split).collect();
    }
    points.into_iter().map(|(point, _)| point).collect()
}

/// The most divisions whose points are no more than `population`; at least 1.
pub fn divisions_for(count: usize, population: usize) -> usize {
    let points = |divisions: usize| {
        (1..count).fold(1usize, |product, k| product.saturating_mul(divisions.saturating_add(k)) / k)
    };
    (2..=population).take_while(|divisions| points(*divisions) <= population).last().unwrap_or(1)
}

/// Directions, and what was seen of the front's shape.
#[derive(Debug)]
pub(super) struct Niching {
    count: usize,
    directions: Vec<Objectives>,
    ideal: Objectives,
    extremes: Vec<Objectives>,
}

impl Niching {
    pub(super) fn new(count: usize, divisions: usize) -> Self {
        let unit = |mut point: Objectives| {
            let length = point.iter().map(|value| value * value).sum::<f64>().sqrt();
            point.iter_mut().for_each(|value| *value /= length.max(f64::MIN_POSITIVE));
            point
        };
        let directions = das_dennis(count, divisions).into_iter().map(unit).collect();
        Self { count, directions, ideal: [f64::INFINITY; MAX_OBJECTIVES], extremes: Vec::new() }
    }

    /// Chooses `need` of `last` so that, with `whole`, directions are served evenly.
    pub(super) fn choose(
        &mut self,
        whole: &[usize],
        last: &[usize],
        need: usize,
        objectives: &[Objectives],
        random: &mut Random,
    ) -> Vec<usize> {
        let of = |at: &usize| objectives.get(*at).copied().unwrap_or_default();
        let points: Vec<Objectives> = whole.iter().chain(last).map(of).collect();
        let scale = self.scale(&points);
        let mut served = vec![0usize; self.directions.len()];
        let mut waiting: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.directions.len()];
        for (number, point) in points.iter().enumerate() {
            let (direction, distance) = self.nearest(point, &scale);
            match number.checked_sub(whole.len()).and_then(|at| last.get(at)) {
                None => served.get_mut(direction).into_iter().for_each(|count| *count += 1),
                Some(at) => waiting.get_mut(direction).into_iter().for_each(|queue| queue.push((distance, *at))),
            }
        }
        // The nearest first, taken from the end.
        waiting.iter_mut().for_each(|queue| queue.sort_by(|(a, i), (b, j)| b.total_cmp(a).then(j.cmp(i))));
        let mut chosen = Vec::with_capacity(need);
        // Directions alone would lose what is best in one respect: it stays, as with crowding.
        for column in 0..self.count {
            let value = |at: &usize| of(at).get(column).copied().unwrap_or(f64::INFINITY);
            let best = whole.iter().chain(last).map(value).fold(f64::INFINITY, f64::min);
            let mut queues = waiting.iter_mut().zip(&mut served);
            let holds = |queue: &Vec<(f64, usize)>| queue.iter().rposition(|(_, at)| value(at) <= best);
            if whole.iter().chain(&chosen).any(|at| value(at) <= best) || chosen.len() >= need {
                continue;
            }
            if let Some((place, queue, count)) = queues.find_map(|(queue, count)| Some((holds(queue)?, queue, count))) {
                chosen.push(queue.remove(place).1);
                *count += 1;
            }
        }
        let mut open: Vec<usize> =
            waiting.iter().enumerate().filter(|(_, queue)| !queue.is_empty()).map(|(direction, _)| direction).collect();
        while chosen.len() < need && !open.is_empty() {
            let count = |direction: &usize| served.get(*direction).copied().unwrap_or(0);
            let least = open.iter().map(count).min().unwrap_or(0);
            let mut ties: Vec<usize> = open.iter().copied().filter(|direction| count(direction) == least).collect();
            while chosen.len() < need && !ties.is_empty() {
                let direction = ties.swap_remove(below(random, ties.len()));
                let Some(queue) = waiting.get_mut(direction) else { continue };
                // A direction that nobody serves gets its nearest; others get anyone.
                let pick = if least == 0 { queue.len().saturating_sub(1) } else { below(random, queue.len()) };
                if pick < queue.len() {
                    chosen.push(queue.remove(pick).1);
                }
                served.get_mut(direction).into_iter().for_each(|count| *count += 1);
            }
            open.retain(|direction| waiting.get(*direction).is_some_and(|queue| !queue.is_empty()));
        }
        chosen
    }

    /// The direction that is nearest to `point`, and the square of its distance.
    fn nearest(&self, point: &Objectives, scale: &Objectives) -> (usize, f64) {
        let mut normal = [0.0; MAX_OBJECTIVES];
        for ((normal, value), (ideal, scale)) in normal.iter_mut().zip(point).zip(self.ideal.iter().zip(scale)) {
            *normal = (value - ideal) / scale;
        }
        let square: f64 = normal.iter().map(|value| value * value).sum();
        let along = |direction: &Objectives| direction.iter().zip(&normal).map(|(a, b)| a * b).sum::<f64>();
        let mut best = (0, f64::NEG_INFINITY);
        for (number, direction) in self.directions.iter().enumerate() {
            let along = along(direction);
            if along > best.1 {
                best = (number, along);
            }
        }
        (best.0, square - best.1 * best.1)
    }

    /// The lengths that make the objectives comparable: where the plane through the extreme points meets the axes, or the range of the
    /// points where there is no such plane.
    fn scale(&mut self, points: &[Objectives]) -> Objectives {
        for point in points {
            self.ideal.iter_mut().zip(point).for_each(|(ideal, value)| *ideal = ideal.min(*value));
        }
        let ideal = self.ideal;
        let candidates: Vec<Objectives> = self.extremes.iter().chain(points).copied().collect();
        let reach = |point: &Objectives, axis: usize| {
            let off =
                |(k, (value, ideal)): (usize, (&f64, &f64))| (value - ideal) / if k == axis { 1.0 } else { OFF_AXIS };
            point.iter().zip(&ideal).take(self.count).enumerate().map(off).fold(f64::NEG_INFINITY, f64::max)
        };
        let extreme = |axis: usize| {
            candidates.iter().min_by(|a, b| reach(a, axis).total_cmp(&reach(b, axis))).copied().unwrap_or_default()
        };
        self.extremes = (0..self.count).map(extreme).collect();
        let mut range: Objectives = [0.0; MAX_OBJECTIVES];
        for point in points {
            range.iter_mut().zip(point.iter().zip(&ideal)).for_each(|(range, (v, i))| *range = range.max(v - i));
        }
        let mut scale = intercepts(&self.extremes, &ideal, self.count).unwrap_or(range);
        for (scale, range) in scale.iter_mut().zip(range) {
            if !(*scale > 1e-12 && *scale <= range * 1.000_001) {
                *scale = range.max(1e-12);
            }
        }
        scale
    }
}

/// Where the plane through `extremes` meets the axes, from the ideal point; `None` if there is no such plane.
fn intercepts(extremes: &[Objectives], ideal: &Objectives, count: usize) -> Option<Objectives> {
    // Rows of a linear system whose last column is its right side: each extreme point times the plane is 1.
    let row = |point: &Objectives| {
        let shifted = point.iter().zip(ideal).take(count).map(|(value, ideal)| value - ideal);
        shifted.chain([1.0]).collect::<Vec<f64>>()
    };
    let mut rows: Vec<Vec<f64>> = extremes.iter().map(row).collect();
    for column in 0..count {
        let size = |row: &Vec<f64>| row.get(column).map_or(0.0, |value| value.abs());
        let pivot = (column..count).max_by(|i, j| {
            let size = |at: &usize| rows.get(*at).map_or(0.0, size);
            size(i).total_cmp(&size(j)).then(j.cmp(i))
        })?;
        rows.swap(column, pivot);
        let mut lead = rows.get(column)?.clone();
        let head = *lead.get(column)?;
        if head.abs() < 1e-12 {
            return None;
        }
        lead.iter_mut().for_each(|value| *value /= head);
        for (_, row) in rows.iter_mut().enumerate().filter(|(at, _)| *at != column) {
            let factor = *row.get(column)?;
            row.iter_mut().zip(&lead).for_each(|(value, lead)| *value -= factor * lead);
        }
        *rows.get_mut(column)? = lead;
    }
    let mut found = [0.0; MAX_OBJECTIVES];
    for (found, row) in found.iter_mut().zip(&rows) {
        *found = 1.0 / row.last()?;
    }
    found.iter().all(|value| value.is_finite()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directions_are_all_shares_and_fit_the_population() {
        assert_eq!(das_dennis(3, 12).len(), 91);
        assert_eq!(das_dennis(5, 6).len(), 210);
        assert!(das_dennis(5, 6).iter().all(|point| (point.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        assert_eq!((divisions_for(3, 91), divisions_for(3, 90), divisions_for(5, 210)), (12, 11, 6));
        assert_eq!(divisions_for(5, 0), 1);
    }

    #[test]
    fn the_plane_through_the_extreme_points_is_found() {
        let extremes = [[3.0, 1.0, 1.0, 0.0, 0.0], [1.0, 5.0, 1.0, 0.0, 0.0], [1.0, 1.0, 9.0, 0.0, 0.0]];
        let found = intercepts(&extremes, &[1.0, 1.0, 1.0, 0.0, 0.0], 3).unwrap();
        assert_eq!(found[..3], [2.0, 4.0, 8.0]);
        assert_eq!(intercepts(&[extremes[0]; 3], &[0.0; 5], 3), None);
    }

    #[test]
    fn every_direction_gets_its_nearest_before_any_gets_a_second() {
        let mut niching = Niching::new(2, 2);
        let points = [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.02, 1.0], [0.01, 1.0], [1.0, 0.01]];
        let points = points.map(|[a, b]| [a, b, 0.0, 0.0, 0.0]);
        let mut chosen =
            niching.choose(&[0], &[1, 2, 3, 4, 5], 2, &points, &mut super::super::random::stream([0; 32], 0));
        chosen.sort_unstable();
        assert_eq!(chosen, [1, 2]);
    }
}
