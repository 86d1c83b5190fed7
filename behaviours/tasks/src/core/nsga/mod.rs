//! NSGA-II (Deb, Pratap, Agarwal, Meyarivan 2002) over any genome, with the niching of NSGA-III for more than three objectives. One
//! [`Nsga::step`] is one generation, and after each the population is a usable answer: who has a clock decides how many there are.
//! Individuals are made and evaluated in parallel, each with a generator of its own, so that a seed gives the same bytes with any
//! number of threads.

mod crowding;
mod hypervolume;
mod niching;
pub mod random;
mod sort;

#[cfg(test)]
mod benchmarks;
#[cfg(test)]
mod tests;

use rayon::iter::{IntoParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _};

pub use self::{
    hypervolume::hypervolume,
    niching::{das_dennis, divisions_for},
    sort::{dominates, fronts},
};
use self::{niching::Niching, random::Random};

/// The most objectives of a problem.
pub const MAX_OBJECTIVES: usize = 5;
/// What stands for an objective that is not a number, or larger: finite, so that differences and squares are numbers.
const WORST: f64 = 1e100;

/// What is minimised. A problem with fewer objectives leaves the others 0.
pub type Objectives = [f64; MAX_OBJECTIVES];

/// How good a genome is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// What is minimised.
    pub objectives: Objectives,
    /// By how much constraints are violated; 0 if none is. Whoever violates less is better, whatever the objectives are.
    pub violation: f64,
}

impl Evaluation {
    /// Not a number is worse than any.
    fn tamed(self) -> Self {
        let broken = self.violation.is_nan() || self.objectives.iter().any(|value| value.is_nan());
        let tame = |value: f64| if value.is_nan() { WORST } else { value.clamp(-WORST, WORST) };
        let violation = if broken { f64::INFINITY } else { self.violation.max(0.0) };
        Self { objectives: self.objectives.map(tame), violation }
    }
}

/// What is searched. A genome may carry sums of itself, which `crossover` and `mutate` change by what they change: then `evaluate` only
/// reads them.
pub trait Problem: Sync {
    /// One candidate answer.
    type Genome: Clone + Send + Sync;

    /// How many objectives there are: 1 to [`MAX_OBJECTIVES`].
    fn objectives(&self) -> usize;

    /// Any genome.
    fn random(&self, random: &mut Random) -> Self::Genome;

    /// A child of two.
    fn crossover(&self, one: &Self::Genome, other: &Self::Genome, random: &mut Random) -> Self::Genome;

    /// A change to a child.
    fn mutate(&self, genome: &mut Self::Genome, random: &mut Random);

    /// How good a genome is. A pure function.
    fn evaluate(&self, genome: &Self::Genome) -> Evaluation;
}

/// What keeps survivors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diversity {
    /// Crowding distance: for up to three objectives.
    Crowding,
    /// Das and Dennis's directions with so many divisions of each axis.
    Niching {
        /// Parts of an axis.
        divisions: usize,
    },
}

/// How to search.
#[derive(Debug, Clone)]
pub struct Config {
    /// Individuals that survive a generation; as many are born. At least 2.
    pub population: usize,
    /// Everything random follows from it.
    pub seed: [u8; 32],
    /// `None`: crowding for up to three objectives, else niching with as many directions as the population has places.
    pub diversity: Option<Diversity>,
}

/// Individuals, as arrays of one length.
#[derive(Debug, Clone)]
pub struct Population<G> {
    /// The answers.
    pub genomes: Vec<G>,
    /// How good each is.
    pub objectives: Vec<Objectives>,
    /// By how much each violates constraints.
    pub violations: Vec<f64>,
    /// The front of each, 0 the best.
    pub ranks: Vec<u32>,
    /// How far each is from its neighbours; 0 where niching keeps them apart.
    pub distances: Vec<f64>,
}

/// A search.
#[derive(Debug)]
pub struct Nsga<P: Problem> {
    problem: P,
    size: usize,
    seed: [u8; 32],
    niching: Option<Niching>,
    generation: u32,
    population: Population<P::Genome>,
}

impl<P: Problem> Nsga<P> {
    /// Evaluates generation 0: the first of `initial` (a population that was, or what heuristics say), and random genomes after them.
    pub fn new(problem: P, config: &Config, mut initial: Vec<P::Genome>) -> Self {
        let size = config.population.max(2);
        let count = problem.objectives();
        let diversity = config.diversity.unwrap_or(if count <= 3 {
            Diversity::Crowding
        } else {
            Diversity::Niching { divisions: divisions_for(count, size) }
        });
        let niching = match diversity {
            Diversity::Crowding => None,
            Diversity::Niching { divisions } => Some(Niching::new(count, divisions)),
        };
        let seed = config.seed;
        let more = (initial.len()..size).into_par_iter().map(|number| problem.random(&mut stream(seed, 0, number)));
        let more: Vec<_> = more.collect();
        initial.extend(more);
        let scores: Vec<_> = initial.par_iter().map(|genome| problem.evaluate(genome).tamed()).collect();
        let (ranks, distances) = (Vec::new(), Vec::new());
        let (objectives, violations) = scores.iter().map(|score| (score.objectives, score.violation)).unzip();
        let all = Population { genomes: initial, objectives, violations, ranks, distances };
        let mut nsga = Self { problem, size, seed, niching, generation: 0, population: Population::empty() };
        nsga.survive(all);
        nsga
    }

    /// One generation: as many children as there are places are born and evaluated, and the best of all stay.
    pub fn step(&mut self) {
        self.generation = self.generation.saturating_add(1);
        let born: Vec<_> = (0..self.size)
            .into_par_iter()
            .map(|number| {
                let random = &mut stream(self.seed, self.generation, number);
                let child = self.child(random)?;
                let score = self.problem.evaluate(&child).tamed();
                Some((child, score))
            })
            .collect();
        let mut all = std::mem::replace(&mut self.population, Population::empty());
        for (child, score) in born.into_iter().flatten() {
            all.genomes.push(child);
            all.objectives.push(score.objectives);
            all.violations.push(score.violation);
        }
        self.survive(all);
    }

    /// How many generations there were.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What is searched.
    pub fn problem(&self) -> &P {
        &self.problem
    }

    /// Everyone who survived.
    pub fn population(&self) -> &Population<P::Genome> {
        &self.population
    }

    /// The best front: nobody in it dominates another. Its individuals violate equally much, which is 0 if anybody violates nothing.
    pub fn front(&self) -> impl Iterator<Item = (&P::Genome, &Objectives)> {
        let all = self.population.genomes.iter().zip(&self.population.objectives).zip(&self.population.ranks);
        all.filter(|(_, rank)| **rank == 0).map(|(individual, _)| individual)
    }

    fn child(&self, random: &mut Random) -> Option<P::Genome> {
        let [one, other] = [self.parent(random), self.parent(random)];
        let mut child = self.problem.crossover(one?, other?, random);
        self.problem.mutate(&mut child, random);
        Some(child)
    }

    /// The better of two.
    fn parent(&self, random: &mut Random) -> Option<&P::Genome> {
        let all = &self.population;
        let draw = |random: &mut Random| {
            let at = random::below(random, all.genomes.len());
            Some((at, *all.ranks.get(at)?, *all.distances.get(at)?))
        };
        let (one, other) = (draw(random)?, draw(random)?);
        let is_better = other.1 < one.1 || (other.1 == one.1 && other.2 > one.2);
        all.genomes.get(if is_better { other.0 } else { one.0 })
    }

    /// Keeps the best of `all`. Whoever has the same scores as another stays only where places are left.
    fn survive(&mut self, all: Population<P::Genome>) {
        let (distinct, twins) = distinct(&all);
        let of = |values: &[Objectives]| distinct.iter().filter_map(|at| values.get(*at).copied()).collect::<Vec<_>>();
        let objectives = of(&all.objectives);
        let violations: Vec<f64> = distinct.iter().filter_map(|at| all.violations.get(*at).copied()).collect();
        let mut chosen: Vec<(usize, u32, f64)> = Vec::with_capacity(self.size);
        for (rank, front) in fronts(&objectives, &violations, self.size).into_iter().enumerate() {
            let need = self.size - chosen.len();
            chosen.extend(self.places(&chosen_of(&chosen), front, need, &objectives, &violations, rank as u32));
        }
        let named = chosen.into_iter().filter_map(|(at, rank, far)| Some((*distinct.get(at)?, rank, far)));
        let mut chosen: Vec<_> = named.collect();
        chosen.extend(twins.into_iter().take(self.size - chosen.len()).map(|at| (at, u32::MAX, 0.0)));
        self.population = all.select(&chosen);
    }

    /// Who of `front` stays, at most `need` of them, with rank and distance.
    fn places(
        &mut self,
        whole: &[usize],
        front: Vec<usize>,
        need: usize,
        objectives: &[Objectives],
        violations: &[f64],
        rank: u32,
    ) -> Vec<(usize, u32, f64)> {
        let fits = front.len() <= need;
        let violates = front.first().and_then(|at| violations.get(*at)).is_some_and(|violation| *violation > 0.0);
        match &mut self.niching {
            Some(niching) if !fits && !violates => {
                let random = &mut stream(self.seed, self.generation, self.size);
                let chosen = niching.choose(whole, &front, need, objectives, random);
                chosen.into_iter().map(|at| (at, rank, 0.0)).collect()
            }
            Some(_) => front.into_iter().take(need).map(|at| (at, rank, 0.0)).collect(),
            None => {
                let distances = crowding::crowding(&front, objectives, self.problem.objectives());
                let mut all: Vec<_> =
                    front.into_iter().zip(distances).map(|(at, distance)| (at, rank, distance)).collect();
                if !fits {
                    all.sort_by(|(i, _, a), (j, _, b)| b.total_cmp(a).then(i.cmp(j)));
                    all.truncate(need);
                }
                all
            }
        }
    }
}

/// The generator of one individual, or of the choice among all with the number behind the last.
fn stream(seed: [u8; 32], generation: u32, number: usize) -> Random {
    random::stream(seed, (u64::from(generation) << 32) | number as u64)
}

fn chosen_of(chosen: &[(usize, u32, f64)]) -> Vec<usize> {
    chosen.iter().map(|(at, ..)| *at).collect()
}

/// One individual of each score, in the order of `all`, and all others.
fn distinct<G>(all: &Population<G>) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<(usize, (&Objectives, &f64))> = all.objectives.iter().zip(&all.violations).enumerate().collect();
    order.sort_by(|(i, (a, x)), (j, (b, y))| sort::lexicographic(a, b).then(x.total_cmp(y)).then(i.cmp(j)));
    let (mut firsts, mut twins) = (Vec::with_capacity(order.len()), Vec::new());
    for same in order.chunk_by(|(_, one), (_, other)| one == other) {
        let mut numbers = same.iter().map(|(at, _)| *at);
        firsts.extend(numbers.next());
        twins.extend(numbers);
    }
    firsts.sort_unstable();
    twins.sort_unstable();
    (firsts, twins)
}

impl<G> Population<G> {
    fn empty() -> Self {
        Self {
            genomes: Vec::new(),
            objectives: Vec::new(),
            violations: Vec::new(),
            ranks: Vec::new(),
            distances: Vec::new(),
        }
    }

    fn select(self, chosen: &[(usize, u32, f64)]) -> Self {
        let mut genomes: Vec<Option<G>> = self.genomes.into_iter().map(Some).collect();
        let take = |(at, ..): &(usize, u32, f64)| genomes.get_mut(*at).and_then(Option::take);
        Self {
            genomes: chosen.iter().filter_map(take).collect(),
            objectives: chosen.iter().filter_map(|(at, ..)| self.objectives.get(*at).copied()).collect(),
            violations: chosen.iter().filter_map(|(at, ..)| self.violations.get(*at).copied()).collect(),
            ranks: chosen.iter().map(|(_, rank, _)| *rank).collect(),
            distances: chosen.iter().map(|(.., distance)| *distance).collect(),
        }
    }
}
