//! Class probabilities of a volume: from logits, to labels, and their mean over several models.

/// Class probabilities `[classes, z, y, x]`, C order; at each voxel they are in 0..=1 and sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Probabilities {
    classes: usize,
    shape: [usize; 3], // z, y, x
    values: Vec<f32>,
}

impl Probabilities {
    /// Takes the softmax over the classes, in place. `logits`: `[classes, z, y, x]`, C order, no NaN; minus infinity
    /// is a probability of 0 as long as one class of the voxel is finite.
    pub(crate) fn from_logits(mut logits: Vec<f32>, classes: usize, shape: [usize; 3]) -> Self {
        let voxels = logits.len() / classes.max(1);
        let mut highest = vec![f32::NEG_INFINITY; voxels];
        for plane in logits.chunks_exact(voxels.max(1)) {
            for (highest, logit) in highest.iter_mut().zip(plane) {
                *highest = highest.max(*logit);
            }
        }
        let mut sum = vec![0.0_f32; voxels];
        for plane in logits.chunks_exact_mut(voxels.max(1)) {
            for ((logit, highest), sum) in plane.iter_mut().zip(&highest).zip(&mut sum) {
                *logit = (*logit - highest).exp();
                *sum += *logit;
            }
        }
        for plane in logits.chunks_exact_mut(voxels.max(1)) {
            for (value, sum) in plane.iter_mut().zip(&sum) {
                *value /= sum;
            }
        }
        Self { classes, shape, values: logits }
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the spatial shape `[z, y, x]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Returns the values `[classes, z, y, x]`, C order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the values `[classes, z, y, x]`, C order.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Returns the most probable class of each voxel, `[z, y, x]`, C order; of equals, the lowest.
    pub fn labels(&self) -> Vec<u16> {
        let voxels: usize = self.shape.iter().product();
        let mut labels = vec![0; voxels];
        let mut best = vec![f32::NEG_INFINITY; voxels];
        for (class, plane) in self.values.chunks_exact(voxels.max(1)).enumerate() {
            for ((label, best), value) in labels.iter_mut().zip(&mut best).zip(plane) {
                if value > best {
                    (*label, *best) = (class as u16, *value);
                }
            }
        }
        labels
    }
}

/// A prediction that does not have the shape of those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a prediction of {found_classes} classes over {found:?} voxels cannot be averaged with one of {classes} over {expected:?}"
)]
pub struct ShapeMismatch {
    found_classes: usize,
    found: [usize; 3],
    classes: usize,
    expected: [usize; 3],
}

/// The mean of predictions that come one after another: holds one sum, whatever their number.
#[derive(Clone, Debug, Default)]
pub struct ProbabilityMean {
    sum: Option<Probabilities>,
    count: usize,
}

impl ProbabilityMean {
    /// Adds a prediction.
    pub fn add(&mut self, prediction: Probabilities) -> Result<(), ShapeMismatch> {
        match &mut self.sum {
            None => self.sum = Some(prediction),
            Some(sum) => {
                if (sum.classes, sum.shape) != (prediction.classes, prediction.shape) {
                    return Err(ShapeMismatch {
                        found_classes: prediction.classes,
                        found: prediction.shape,
                        classes: sum.classes,
                        expected: sum.shape,
                    });
                }
                for (sum, value) in sum.values.iter_mut().zip(&prediction.values) {
                    *sum += value;
                }
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Returns the mean, or `None` if nothing was added.
    pub fn finish(self) -> Option<Probabilities> {
        let mut mean = self.sum?;
        let count = self.count as f32;
        mean.values.iter_mut().for_each(|value| *value /= count);
        Some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_gives_the_worked_values_and_survives_large_and_infinite_logits() {
        // Voxels: ln 1, ln 3 → 1/4, 3/4; 1000, 1000 → 1/2 each; -inf, 5 → 0, 1.
        let logits = vec![0.0, 1000.0, f32::NEG_INFINITY, 3.0_f32.ln(), 1000.0, 5.0];
        let probabilities = Probabilities::from_logits(logits, 2, [1, 1, 3]);
        let expected = [0.25, 0.5, 0.0, 0.75, 0.5, 1.0];
        for (found, expected) in probabilities.values().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        assert_eq!(probabilities.labels(), [1, 0, 1]);
    }

    #[test]
    fn the_mean_is_over_predictions_of_one_shape() {
        let one = Probabilities { classes: 2, shape: [1, 1, 1], values: vec![0.2, 0.8] };
        let two = Probabilities { classes: 2, shape: [1, 1, 1], values: vec![0.6, 0.4] };
        let mut mean = ProbabilityMean::default();
        assert!(mean.clone().finish().is_none());
        mean.add(one).expect("first");
        mean.add(two).expect("same shape");
        let other = Probabilities { classes: 1, shape: [1, 1, 2], values: vec![1.0, 1.0] };
        assert!(mean.add(other).is_err());
        assert_eq!(mean.finish().expect("two were added").values(), [0.4, 0.6]);
    }
}
