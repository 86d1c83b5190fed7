//! The field's test problems (Zitzler, Deb, Thiele 2000; Deb, Thiele, Laumanns, Zitzler 2002) with the field's operators: simulated
//! binary crossover with probability 0.9 and polynomial mutation with probability 1/n, both with distribution index 20.

use super::{
    Evaluation, MAX_OBJECTIVES, Objectives, Problem,
    random::{Random, below, unit},
};

const INDEX: f64 = 20.0;
const CROSSOVER: f64 = 0.9;

/// A function of real numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Real {
    pub(super) variables: usize,
    pub(super) objectives: usize,
    /// The range of all variables but the first, which has [0, 1].
    range: (f64, f64),
    function: fn(&[f64]) -> Objectives,
}

fn wide<const N: usize>(values: [f64; N]) -> Objectives {
    let mut all = [0.0; MAX_OBJECTIVES];
    all[..N].copy_from_slice(&values);
    all
}

fn mean_of_rest(x: &[f64]) -> f64 {
    x[1..].iter().sum::<f64>() / (x.len() - 1) as f64
}

pub(super) fn zdt(number: usize) -> Real {
    let two = |variables, range, function| Real { variables, objectives: 2, range, function };
    match number {
        1 => two(30, (0.0, 1.0), |x| {
            let g = 1.0 + 9.0 * mean_of_rest(x);
            wide([x[0], g * (1.0 - (x[0] / g).sqrt())])
        }),
        2 => two(30, (0.0, 1.0), |x| {
            let g = 1.0 + 9.0 * mean_of_rest(x);
            wide([x[0], g * (1.0 - (x[0] / g).powi(2))])
        }),
        3 => two(30, (0.0, 1.0), |x| {
            let g = 1.0 + 9.0 * mean_of_rest(x);
            let ratio = x[0] / g;
            wide([x[0], g * (1.0 - ratio.sqrt() - ratio * (10.0 * std::f64::consts::PI * x[0]).sin())])
        }),
        4 => two(10, (-5.0, 5.0), |x| {
            let wave = |x: &f64| x * x - 10.0 * (4.0 * std::f64::consts::PI * x).cos();
            let g = 1.0 + 10.0 * (x.len() - 1) as f64 + x[1..].iter().map(wave).sum::<f64>();
            wide([x[0], g * (1.0 - (x[0] / g).sqrt())])
        }),
        6 => two(10, (0.0, 1.0), |x| {
            let first = 1.0 - (-4.0 * x[0]).exp() * (6.0 * std::f64::consts::PI * x[0]).sin().powi(6);
            let g = 1.0 + 9.0 * mean_of_rest(x).powf(0.25);
            wide([first, g * (1.0 - (first / g).powi(2))])
        }),
        _ => panic!("ZDT{number}"),
    }
}

/// DTLZ2 with three objectives and ten more variables.
pub(super) fn dtlz2() -> Real {
    let function = |x: &[f64]| {
        let g: f64 = x[2..].iter().map(|x| (x - 0.5).powi(2)).sum();
        let [a, b] = [x[0], x[1]].map(|x| x * std::f64::consts::FRAC_PI_2);
        wide([(1.0 + g) * a.cos() * b.cos(), (1.0 + g) * a.cos() * b.sin(), (1.0 + g) * a.sin()])
    };
    Real { variables: 12, objectives: 3, range: (0.0, 1.0), function }
}

impl Real {
    fn range(&self, variable: usize) -> (f64, f64) {
        if variable == 0 { (0.0, 1.0) } else { self.range }
    }
}

impl Problem for Real {
    type Genome = Vec<f64>;

    fn objectives(&self) -> usize {
        self.objectives
    }

    fn random(&self, random: &mut Random) -> Vec<f64> {
        let draw = |variable| {
            let (low, high) = self.range(variable);
            low + (high - low) * unit(random)
        };
        (0..self.variables).map(draw).collect()
    }

    fn crossover(&self, one: &Vec<f64>, other: &Vec<f64>, random: &mut Random) -> Vec<f64> {
        let (one, other) = if below(random, 2) == 0 { (one, other) } else { (other, one) };
        let mut child = one.clone();
        if unit(random) > CROSSOVER {
            return child;
        }
        for (variable, (gene, other)) in child.iter_mut().zip(other).enumerate() {
            if unit(random) > 0.5 || (*gene - other).abs() < 1e-14 {
                continue;
            }
            let (low, high) = self.range(variable);
            let (least, most) = (gene.min(*other), gene.max(*other));
            let (u, takes_lower) = (unit(random), unit(random) < 0.5);
            let gap = if takes_lower { least - low } else { high - most };
            let alpha = 2.0 - (1.0 + 2.0 * gap / (most - least)).powf(-(INDEX + 1.0));
            let spread = if u <= 1.0 / alpha { u * alpha } else { 1.0 / (2.0 - u * alpha) }.powf(1.0 / (INDEX + 1.0));
            let half = 0.5 * spread * (most - least);
            let middle = 0.5 * (least + most);
            *gene = if takes_lower { middle - half } else { middle + half }.clamp(low, high);
        }
        child
    }

    fn mutate(&self, genome: &mut Vec<f64>, random: &mut Random) {
        let rate = 1.0 / self.variables as f64;
        for (variable, gene) in genome.iter_mut().enumerate() {
            if unit(random) >= rate {
                continue;
            }
            let (low, high) = self.range(variable);
            let (u, width) = (unit(random), high - low);
            let power = 1.0 / (INDEX + 1.0);
            let delta = if u < 0.5 {
                let edge = 1.0 - (*gene - low) / width;
                (2.0 * u + (1.0 - 2.0 * u) * edge.powf(INDEX + 1.0)).powf(power) - 1.0
            } else {
                let edge = 1.0 - (high - *gene) / width;
                1.0 - (2.0 * (1.0 - u) + 2.0 * (u - 0.5) * edge.powf(INDEX + 1.0)).powf(power)
            };
            *gene = (*gene + delta * width).clamp(low, high);
        }
    }

    fn evaluate(&self, genome: &Vec<f64>) -> Evaluation {
        Evaluation { objectives: (self.function)(genome), violation: 0.0 }
    }
}
