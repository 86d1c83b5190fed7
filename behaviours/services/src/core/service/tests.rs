use super::*;
use crate::core::{blinding::Subcredential, descriptor::IntroductionPoint, random::Random};

impl Service {
    /// What an attacker with the name knows: one of the points.
    pub(crate) fn target(&self, random: &mut Random) -> Option<(IntroductionPoint, Subcredential)> {
        let points: Vec<_> = self.points.listed().cloned().collect();
        let publication = self.publications.values().next()?;
        Some((random.pick(&points)?.clone(), publication.subcredential))
    }
}
