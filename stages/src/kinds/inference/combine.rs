//! One prediction out of several: means and votes plane by plane, STAPLE of whole label maps.

use crate::artifacts::{Combine, Predictor};
use crate::error::StageError;
use pipe_imaging::LabelMap;
use pipe_metrics::agreement::{MAX_RATERS, staple};
use pipe_onnx::softmax;

/// What one member says of one plane, `[classes, y, x]`: logits, and once they are needed, probabilities.
pub(super) struct MemberPlane {
    logits: Vec<f32>,
    probabilities: Option<Vec<f32>>,
}

impl MemberPlane {
    pub(super) fn new(logits: Vec<f32>) -> Self {
        Self { logits, probabilities: None }
    }

    /// The softmax; the error is the place of a value that has none.
    fn probabilities(&mut self, classes: usize) -> Result<&[f32], usize> {
        if self.probabilities.is_none() {
            let mut values = self.logits.clone();
            softmax(&mut values, classes)?;
            self.probabilities = Some(values);
        }
        Ok(self.probabilities.as_deref().unwrap_or_default())
    }
}

/// How some of the members are combined.
pub(super) struct Combiner {
    combine: Combine,
    /// Position among the planes, and share in the whole.
    shares: Vec<(usize, f32)>,
}

impl Combiner {
    /// `members`: positions in the predictor, one for each plane; `group`: those of them that count.
    pub(super) fn new(predictor: &Predictor, members: &[usize], group: &[usize]) -> Self {
        let weight = |member: &usize| predictor.members[*member].card.weight;
        let total: f64 = group.iter().map(weight).sum();
        let place = |member: usize| members.iter().position(|known| *known == member);
        let share = |member: &usize| Some((place(*member)?, (weight(member) / total) as f32));
        let shares: Vec<(usize, f32)> = group.iter().filter_map(share).collect();
        // A vote of one is no vote.
        let combine = if shares.len() == 1 { Combine::MeanProbabilities } else { predictor.combine };
        Self { combine, shares }
    }

    /// Class scores of a plane, `[classes, y, x]`, 0 to 1. The error names a plane and the place of a value in it whose
    /// logits have no softmax.
    pub(super) fn combine(
        &self,
        planes: &mut [MemberPlane],
        classes: usize,
    ) -> Result<Vec<f32>, (usize, usize)> {
        let mut mean = Vec::new();
        for &(member, share) in &self.shares {
            let plane = &mut planes[member];
            // Told even where only the logits are used: NaN would be no vote.
            let probabilities = plane.probabilities(classes).map_err(|at| (member, at))?;
            if mean.is_empty() {
                mean = vec![0.0; probabilities.len()];
            }
            match self.combine {
                Combine::MeanLogits => add(&mut mean, &planes[member].logits, share),
                Combine::Majority => vote(&mut mean, probabilities, share, classes),
                Combine::MeanProbabilities | Combine::Staple => add(&mut mean, probabilities, share),
            }
        }
        if self.combine == Combine::MeanLogits {
            softmax(&mut mean, classes).map_err(|at| (self.shares[0].0, at))?;
        }
        Ok(mean)
    }
}

fn add(mean: &mut [f32], own: &[f32], share: f32) {
    mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += share * own);
}

/// Adds the share to the most probable class of each voxel; of equals, to the lowest.
fn vote(mean: &mut [f32], probabilities: &[f32], share: f32, classes: usize) {
    let voxels = probabilities.len() / classes;
    for voxel in 0..voxels {
        let mut best = voxel;
        for class in 1..classes {
            if probabilities[class * voxels + voxel] > probabilities[best] {
                best = class * voxels + voxel;
            }
        }
        mean[best] += share;
    }
}

/// The label that is most probable by STAPLE at each voxel, background where none is more probable than not; the lowest of
/// equals. Takes 12 bytes a voxel besides the maps.
pub(super) fn staple_of(maps: &[&LabelMap], labels: &[u8]) -> Result<LabelMap, StageError> {
    if maps.len() > MAX_RATERS {
        return Err(StageError::Data(format!(
            "STAPLE takes at most {MAX_RATERS} networks, there are {}: use another `combine`",
            maps.len()
        )));
    }
    let voxels: Vec<&[u8]> = maps.iter().map(|map| map.as_slice()).collect();
    let count = voxels[0].len();
    let (mut winner, mut best) = (vec![0_u8; count], vec![0.5_f32; count]);
    for &label in labels.iter().filter(|label| **label != 0) {
        if !voxels.iter().any(|map| map.contains(&label)) {
            continue;
        }
        for ((winner, best), found) in
            winner.iter_mut().zip(&mut best).zip(staple(&voxels, label).probability)
        {
            if found as f32 > *best {
                (*winner, *best) = (label, found as f32);
            }
        }
    }
    LabelMap::from_vec(winner, *maps[0].geometry()).map_err(StageError::inner("shaping the label map"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two voxels, two classes: `[background of both, label of both]`.
    fn plane(first: f32, second: f32) -> MemberPlane {
        MemberPlane::new(vec![0.0, 0.0, first, second])
    }

    /// The score of the label at both voxels, of three members with these shares.
    #[track_caller]
    fn check(combine: Combine, shares: [f32; 3], expected: [f32; 2]) {
        let mut planes = [plane(3.0, 10.0), plane(-1.0, -1.0), plane(-1.0, -1.0)];
        let shares = shares.into_iter().enumerate().collect();
        let found = Combiner { combine, shares }.combine(&mut planes, 2).expect("finite");
        for (found, expected) in found[2..].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{combine:?}: {found} {expected}");
        }
    }

    #[test]
    fn means_and_votes_have_their_worked_values() {
        let third = [1.0 / 3.0; 3];
        let sigmoid = |logit: f32| 1.0 / (1.0 + (-logit).exp());
        let mean = |logit| (sigmoid(logit) + 2.0 * sigmoid(-1.0)) / 3.0;
        check(Combine::MeanProbabilities, third, [mean(3.0), mean(10.0)]);
        // One network that is sure outweighs two that are not: (10 − 1 − 1) / 3.
        check(Combine::MeanLogits, third, [sigmoid(1.0 / 3.0), sigmoid(8.0 / 3.0)]);
        check(Combine::Majority, third, [1.0 / 3.0, 1.0 / 3.0]);
        check(Combine::Majority, [0.6, 0.2, 0.2], [0.6, 0.6]);
    }

    #[test]
    fn logits_that_are_not_finite_are_told_whatever_the_method() {
        for combine in [Combine::MeanProbabilities, Combine::MeanLogits, Combine::Majority] {
            let mut planes = [plane(1.0, 1.0), plane(1.0, f32::NAN)];
            let found = Combiner { combine, shares: vec![(0, 0.5), (1, 0.5)] }.combine(&mut planes, 2);
            assert_eq!(found, Err((1, 1)), "{combine:?}");
        }
    }
}
