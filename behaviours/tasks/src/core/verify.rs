//! When a result is believed: a poll among replicas.
//!
//! The vote is Sarmenta's: with the workers' credibilities c as independent probabilities that their results are right, and at most one
//! right result, the credibility of a group G of equal results is
//!
//! ```text
//! P(G) = Π_{i∈G} o_i / (1 + Σ_H Π_{i∈H} o_i),   o = c / (1 − c)
//! ```
//!
//! over all groups H: the equation for CR_G of L. F. G. Sarmenta, "Sabotage-Tolerance Mechanisms for Volunteer Computing Systems" (Future
//! Generation Computer Systems 18(4), 2002), divided by Π(1 − c_i). The 1 stands for no result being right. Workers of one family count
//! once in a group. A result of this node's own worker (c = 1) is right.

use std::collections::BTreeMap;

use fog_base::NodeId;

use super::{
    outcome::ResultHash,
    pay::Verdict,
    standing::{PROOF, USED_FROM},
    terms::{MAX_REPLICAS, Terms},
};

/// A result with its credibility.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Believed {
    /// The result.
    pub result: ResultHash,
    /// The probability that it is right.
    pub credibility: f64,
}

/// Who runs a replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Voter {
    /// Its key.
    pub worker: NodeId,
    /// Its credibility when it was asked.
    pub credibility: f64,
    /// Its family, as its offer says.
    pub family: Option<String>,
    /// Whether nothing that it did was verified yet.
    pub newcomer: bool,
}

/// A replica of a poll.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    /// Who runs it.
    pub voter: Voter,
    /// What it gave, once that is revealed.
    pub result: Option<ResultHash>,
}

/// What a poll needs next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// One more replica, on a worker that has none in this poll.
    More,
    /// The pending ones.
    Wait,
    /// Nothing: this is the result.
    Accept(Believed),
    /// Nothing more will help: [`MAX_REPLICAS`] results and no agreement. The best is this.
    NoAgreement(Believed),
}

/// What a poll says of one of those who voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Who.
    pub worker: NodeId,
    /// How it did.
    pub verdict: Verdict,
    /// Whether the word of others is behind the verdict: only then it is evidence, and counts for its standing.
    pub proven: bool,
}

/// All results of a poll, the most credible first; equal ones by hash. The order of the replicas does not matter.
pub fn credibilities(replicas: &[Replica]) -> Vec<Believed> {
    let mut groups: BTreeMap<ResultHash, Vec<&Voter>> = BTreeMap::new();
    for Replica { voter, result } in replicas {
        if let Some(result) = result {
            groups.entry(*result).or_default().push(voter);
        }
    }
    let weights: Vec<(ResultHash, f64)> = groups.into_iter().map(|(result, group)| (result, odds_of(group))).collect();
    // Results that no odds separate, such as those of one's own worker: all are believed as much as the strongest allows.
    let mut ordered: Vec<f64> = weights.iter().map(|(_, weight)| *weight).collect();
    ordered.sort_by(f64::total_cmp);
    let total = ordered.iter().fold(1.0, |sum, weight| sum + weight);
    let believed = weights.into_iter().map(|(result, weight)| {
        let credibility = if weight.is_infinite() { 1.0 } else { weight / total };
        Believed { result, credibility }
    });
    let mut believed: Vec<Believed> = believed.collect();
    believed.sort_by(|one, other| other.credibility.total_cmp(&one.credibility).then(one.result.cmp(&other.result)));
    believed
}

/// The product of the odds of those who agree, one of each family: its most credible.
fn odds_of(mut group: Vec<&Voter>) -> f64 {
    group.sort_by(|one, other| other.credibility.total_cmp(&one.credibility).then(one.worker.cmp(&other.worker)));
    let mut families: Vec<&str> = Vec::new();
    let mut product = 1.0;
    for voter in group {
        if let Some(family) = voter.family.as_deref() {
            if families.contains(&family) {
                continue;
            }
            families.push(family);
        }
        product *= odds(voter.credibility);
    }
    product
}

/// c / (1 − c); who is believed less than a coin adds nothing.
fn odds(credibility: f64) -> f64 {
    let credibility = credibility.max(USED_FROM);
    if credibility >= 1.0 { f64::INFINITY } else { credibility / (1.0 - credibility) }
}

/// The replicas of one task: who runs one, what they said, and what is needed next.
///
/// The coordinator asks [`Poll::step`] and, for each [`Step::More`], lets a worker join. A round so has as many replicas as it takes if
/// all of them agree, and a disagreement adds to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    trust: f64,
    at_least: usize,
    doubled: bool,
    replicas: Vec<Replica>,
}

impl Poll {
    /// An empty one.
    pub fn new(terms: &Terms) -> Self {
        let at_least = usize::from(terms.replicas.clamp(1, MAX_REPLICAS));
        Self { trust: terms.trust(), at_least, doubled: false, replicas: Vec::new() }
    }

    /// Asks for two results, though one worker alone would be believed.
    pub fn double(&mut self) {
        self.doubled = true;
    }

    /// Whether two results are asked for, though one would do.
    pub fn is_doubled(&self) -> bool {
        self.doubled
    }

    /// Does with one: there is nobody for the second.
    pub fn undouble(&mut self) {
        self.doubled = false;
    }

    /// Its replicas, in the order in which they joined.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Whether `voter` may have a replica: neither it nor its family has one, and it is not the second newcomer while somebody who proved
    /// something is to be had (`others`): two liars that are both new are then not alone with each other. One that is only busy counts as
    /// to be had, and is waited for: at the start, when it matters most, the own worker is the only one and always busy.
    pub fn may_join(&self, voter: &Voter, others: bool) -> bool {
        let related = |it: &Voter| it.worker == voter.worker || (it.family.is_some() && it.family == voter.family);
        let mut voters = self.replicas.iter().map(|replica| &replica.voter);
        let mut newcomers = self.replicas.iter().filter(|replica| replica.voter.newcomer);
        let second_newcomer = voter.newcomer && others && newcomers.next().is_some();
        !(second_newcomer || voters.any(related))
    }

    /// Gives `voter` a replica; false if it has one, or there are [`MAX_REPLICAS`].
    pub fn join(&mut self, voter: Voter) -> bool {
        let has_one = self.replicas.iter().any(|replica| replica.voter.worker == voter.worker);
        if has_one || self.replicas.len() >= usize::from(MAX_REPLICAS) {
            return false;
        }
        self.replicas.push(Replica { voter, result: None });
        true
    }

    /// Takes a replica back that gave no result: its worker was given up, or its host ended it. Results stay.
    pub fn leave(&mut self, worker: NodeId) {
        self.replicas.retain(|replica| replica.voter.worker != worker || replica.result.is_some());
    }

    /// What `worker` revealed; false if it has no replica, or said something before.
    pub fn vote(&mut self, worker: NodeId, result: ResultHash) -> bool {
        let pending = |replica: &&mut Replica| replica.voter.worker == worker && replica.result.is_none();
        let replica = self.replicas.iter_mut().find(pending);
        replica.is_some_and(|replica| replica.result.replace(result).is_none())
    }

    /// What is needed next.
    pub fn step(&self) -> Step {
        let pending = self.replicas.iter().any(|replica| replica.result.is_none());
        let at_least = self.at_least.max(if self.doubled { 2 } else { 1 });
        let enough = self.replicas.len() >= at_least && self.hoped() >= self.trust;
        let full = self.replicas.len() >= usize::from(MAX_REPLICAS);
        match self.best() {
            _ if !enough && !full => Step::More,
            _ if pending => Step::Wait,
            Some(best) if best.credibility >= self.trust => Step::Accept(best),
            Some(best) => Step::NoAgreement(best),
            None => Step::More,
        }
    }

    /// The most credible result so far.
    pub fn best(&self) -> Option<Believed> {
        credibilities(&self.replicas).first().copied()
    }

    /// The credibility that the best result has if all pending replicas agree with it.
    pub fn hoped(&self) -> f64 {
        let leader = self.best().map_or(ResultHash([0; 32]), |best| best.result);
        let hope = |replica: &Replica| Replica { result: replica.result.or(Some(leader)), ..replica.clone() };
        let hoped: Vec<Replica> = self.replicas.iter().map(hope).collect();
        let best = credibilities(&hoped).into_iter().find(|believed| believed.result == leader);
        best.map_or(0.0, |best| best.credibility)
    }

    /// What `accepted` says of each replica. Who gave it is good, and that is proven if somebody of another family gave it too. Who gave
    /// another is wrong if `accepted` is believed with the trust asked and with [`PROOF`]; otherwise nothing is said against it.
    pub fn verdicts(&self, accepted: Believed) -> Vec<Judged> {
        let convicts = accepted.credibility >= self.trust.max(PROOF);
        let judge = |replica: &Replica| {
            let worker = replica.voter.worker;
            match replica.result {
                Some(result) if result == accepted.result => {
                    Judged { worker, verdict: Verdict::Good, proven: self.is_confirmed(replica) }
                }
                Some(_) if convicts => Judged { worker, verdict: Verdict::Wrong, proven: true },
                _ => Judged { worker, verdict: Verdict::Failed, proven: false },
            }
        };
        self.replicas.iter().map(judge).collect()
    }

    fn is_confirmed(&self, replica: &Replica) -> bool {
        let family = &replica.voter.family;
        let others = self.replicas.iter().filter(|other| other.voter.worker != replica.voter.worker);
        others
            .filter(|other| family.is_none() || other.voter.family != *family)
            .any(|other| other.result == replica.result)
    }
}

/// What a spot check says: `voter` was given a work whose result is `known`, and gave `result`. If they differ it is a vote like any
/// other, and convicts only if the known result then still reaches [`PROOF`]; if it does not, the memory may be what is wrong, and the
/// caller forgets it.
pub fn judge_spot_check(voter: &Voter, known: Believed, result: ResultHash) -> Judged {
    let worker = voter.worker;
    if known.result == result {
        return Judged { worker, verdict: Verdict::Good, proven: true };
    }
    let (for_it, against) = (odds(known.credibility), odds(voter.credibility));
    let convicts = for_it.is_infinite() || for_it / (1.0 + for_it + against) >= PROOF;
    let verdict = if convicts { Verdict::Wrong } else { Verdict::Failed };
    Judged { worker, verdict, proven: convicts }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
