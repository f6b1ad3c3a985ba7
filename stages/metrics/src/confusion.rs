//! How often prediction and reference agree, label by label. Every overlap metric follows from these counts.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Reference and prediction that are not the same size.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("reference has {reference} voxels but prediction {prediction}")]
pub struct LengthMismatch {
    pub reference: usize,
    pub prediction: usize,
}

/// Voxel counts of one label against the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// In both.
    pub true_positive: u64,
    /// In the prediction only.
    pub false_positive: u64,
    /// In the reference only.
    pub false_negative: u64,
    /// In neither.
    pub true_negative: u64,
}

impl Counts {
    /// Voxels of the label in the reference.
    pub fn reference(&self) -> u64 {
        self.true_positive + self.false_negative
    }

    /// Voxels of the label in the prediction.
    pub fn prediction(&self) -> u64 {
        self.true_positive + self.false_positive
    }
}

/// The counts of all 256 labels, from one pass over both maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    reference: [u64; 256],
    prediction: [u64; 256],
    both: [u64; 256],
    voxels: u64,
}

impl Default for Confusion {
    fn default() -> Self {
        Self { reference: [0; 256], prediction: [0; 256], both: [0; 256], voxels: 0 }
    }
}

impl Confusion {
    /// Compares two label maps voxel by voxel.
    pub fn of(reference: &[u8], prediction: &[u8]) -> Result<Self, LengthMismatch> {
        let mut confusion = Self::default();
        confusion.add(reference, prediction)?;
        Ok(confusion)
    }

    /// Adds the voxels of two more label maps: counts over several cases, as for a Dice over a whole set.
    pub fn add(&mut self, reference: &[u8], prediction: &[u8]) -> Result<(), LengthMismatch> {
        if reference.len() != prediction.len() {
            return Err(LengthMismatch { reference: reference.len(), prediction: prediction.len() });
        }
        self.voxels += reference.len() as u64;
        let chunks = (reference.chunks_exact(8), prediction.chunks_exact(8));
        let rest = chunks.0.remainder().iter().zip(chunks.1.remainder());
        for (r, p) in chunks.0.zip(chunks.1) {
            // Most of a volume is one label on both sides, background above all: eight voxels at once.
            let uniform = r[0];
            if r == [uniform; 8] && p == r {
                self.reference[usize::from(uniform)] += 8;
                self.prediction[usize::from(uniform)] += 8;
                self.both[usize::from(uniform)] += 8;
                continue;
            }
            r.iter().zip(p).for_each(|(&r, &p)| self.count(r, p));
        }
        rest.for_each(|(&r, &p)| self.count(r, p));
        Ok(())
    }

    fn count(&mut self, reference: u8, prediction: u8) {
        self.reference[usize::from(reference)] += 1;
        self.prediction[usize::from(prediction)] += 1;
        self.both[usize::from(reference)] += u64::from(reference == prediction);
    }

    /// The counts of one label against all others.
    pub fn counts(&self, label: u8) -> Counts {
        let label = usize::from(label);
        let true_positive = self.both[label];
        let false_positive = self.prediction[label] - true_positive;
        let false_negative = self.reference[label] - true_positive;
        let true_negative = self.voxels - true_positive - false_positive - false_negative;
        Counts { true_positive, false_positive, false_negative, true_negative }
    }

    /// The labels that occur in the reference or the prediction, ascending, with 0 if it does.
    pub fn labels(&self) -> Vec<u8> {
        (0..=u8::MAX)
            .filter(|&l| self.reference[usize::from(l)] + self.prediction[usize::from(l)] > 0)
            .collect()
    }

    /// The number of voxels compared.
    pub fn voxels(&self) -> u64 {
        self.voxels
    }
}
