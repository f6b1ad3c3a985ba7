//! Class probabilities: from logits, and of a whole volume, to labels.

/// Class probabilities `[classes, z, y, x]`, C order; at each voxel they are in 0..=1 and sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Probabilities {
    classes: usize,
    shape: [usize; 3], // z, y, x
    values: Vec<f32>,
}

impl Probabilities {
    /// `values`: `[classes, z, y, x]`, C order.
    pub(crate) fn new(values: Vec<f32>, classes: usize, shape: [usize; 3]) -> Self {
        Self { classes, shape, values }
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

/// Takes the softmax over the classes, in place. `logits`: `[classes, …]`, C order; minus infinity is a probability of 0
/// as long as one class of the voxel is finite. The error is the place of the first value that has none: among the logits of
/// its voxel is NaN or infinity.
pub fn softmax(logits: &mut [f32], classes: usize) -> Result<(), usize> {
    let voxels = (logits.len() / classes.max(1)).max(1);
    let mut highest = vec![f32::NEG_INFINITY; voxels];
    for plane in logits.chunks_exact(voxels) {
        for (highest, logit) in highest.iter_mut().zip(plane) {
            *highest = highest.max(*logit);
        }
    }
    let mut sum = vec![0.0_f32; voxels];
    for plane in logits.chunks_exact_mut(voxels) {
        for ((logit, highest), sum) in plane.iter_mut().zip(&highest).zip(&mut sum) {
            *logit = (*logit - highest).exp();
            *sum += *logit;
        }
    }
    for plane in logits.chunks_exact_mut(voxels) {
        for (value, sum) in plane.iter_mut().zip(&sum) {
            *value /= sum;
        }
    }
    logits.iter().position(|value| value.is_nan()).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_gives_the_worked_values_and_survives_large_and_infinite_logits() {
        // Voxels: ln 1, ln 3 → 1/4, 3/4; 1000, 1000 → 1/2 each; -inf, 5 → 0, 1.
        let mut values = vec![0.0, 1000.0, f32::NEG_INFINITY, 3.0_f32.ln(), 1000.0, 5.0];
        softmax(&mut values, 2).expect("finite where it matters");
        let probabilities = Probabilities::new(values, 2, [1, 1, 3]);
        let expected = [0.25, 0.5, 0.0, 0.75, 0.5, 1.0];
        for (found, expected) in probabilities.values().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        assert_eq!(probabilities.labels(), [1, 0, 1]);
    }

    #[test]
    fn logits_without_a_softmax_are_named() {
        assert_eq!(softmax(&mut [0.0, 1.0, 2.0, f32::NAN], 2), Err(1));
        assert_eq!(softmax(&mut [0.0, f32::INFINITY], 2), Err(0));
    }
}
