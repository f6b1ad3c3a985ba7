//! Losses over channels-last logits in one pass, and their gradient.

use rayon::prelude::*;

use crate::geometry::Geometry;
use crate::loss::{IGNORE, LossTerms, VoxelTerm};

/// Rows per part of a sum; sizes alone decide, never the thread count.
const PART_ROWS: usize = 4096;

/// What the loss is computed over.
pub(crate) struct LossShape<'a> {
    pub(crate) terms: &'a LossTerms,
    pub(crate) geometry: Geometry,
    pub(crate) classes: usize,
    /// One label a voxel; [`IGNORE`] counts nowhere.
    pub(crate) labels: &'a [u8],
}

/// Sums that the backward pass needs; `[group, class]`, a group being a sample or the whole batch.
#[derive(Debug, Default)]
pub(crate) struct LossSums {
    pub(crate) overlap: Vec<f64>,
    pub(crate) predicted: Vec<f64>,
    pub(crate) truth: Vec<f64>,
    /// What the voxel term adds up to, each voxel by the weight of its class.
    pub(crate) loss: f64,
    /// Voxels that count, each by the weight of its class.
    pub(crate) weight: f64,
}

/// What the backward pass makes of the sums.
pub(crate) struct LossSlopes {
    /// Share of the mean of one voxel, and of one class of it.
    pub(crate) each: f32,
    pub(crate) per_class: f32,
    /// `[group, class]`: the slope of the region term by a probability is `everywhere` at each voxel, less `at_label` where the
    /// label is the class.
    pub(crate) everywhere: Vec<f32>,
    pub(crate) at_label: Vec<f32>,
}

/// The overlap index of one class: numerator and denominator.
fn index(shape: &LossShape<'_>, sums: &LossSums, cell: usize) -> Option<(f64, f64)> {
    let region = shape.terms.region.as_ref()?;
    if cell % shape.classes < usize::from(!region.background) {
        return None;
    }
    let (alpha, beta, smooth) = (f64::from(region.alpha), f64::from(region.beta), f64::from(region.smooth));
    let (overlap, predicted, truth) = (sums.overlap[cell], sums.predicted[cell], sums.truth[cell]);
    let wrong = 2.0 * alpha * (predicted - overlap) + 2.0 * beta * (truth - overlap);
    Some((2.0 * overlap + smooth, 2.0 * overlap + wrong + smooth))
}

impl LossShape<'_> {
    fn batch(&self) -> bool {
        self.terms.region.is_none_or(|region| region.batch)
    }

    pub(crate) fn groups(&self) -> usize {
        if self.batch() { 1 } else { self.geometry.samples }
    }

    fn group_of(&self, sample: usize) -> usize {
        if self.batch() { 0 } else { sample }
    }

    /// Number of overlap values that are averaged.
    fn count(&self) -> f64 {
        let background = self.terms.region.is_some_and(|region| region.background);
        (self.groups() * (self.classes - usize::from(!background))) as f64
    }

    /// Writes the scores of one row: the sigmoid of each logit where the loss is made of those, else their softmax.
    /// Returns the logarithm of the sum of exponentials.
    fn score(&self, logits: &[f32], scores: &mut [f32]) -> f32 {
        if self.terms.voxel == Some(VoxelTerm::Sigmoid) {
            for (score, z) in scores.iter_mut().zip(logits) {
                *score = 1.0 / (1.0 + (-z).exp());
            }
            return 0.0;
        }
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0_f32;
        for (p, z) in scores.iter_mut().zip(logits) {
            *p = (z - largest).exp();
            total += *p;
        }
        let inverse = total.recip();
        for p in scores.iter_mut() {
            *p *= inverse;
        }
        largest + total.ln()
    }

    /// What one voxel adds to the sum of the voxel term, before the weight of its class.
    fn voxel_loss(&self, logits: &[f32], scores: &[f32], label: usize, log_total: f32) -> f64 {
        match self.terms.voxel {
            None => 0.0,
            Some(VoxelTerm::Softmax { gamma }) => {
                let entropy = f64::from(log_total - logits[label]);
                if gamma == 0.0 { entropy } else { entropy * f64::from((1.0 - scores[label]).powf(gamma)) }
            }
            Some(VoxelTerm::Sigmoid) => {
                let cell = |(class, z): (usize, &f32)| {
                    let target = if class == label { *z } else { 0.0 };
                    f64::from(z.max(0.0) - target + (-z.abs()).exp().ln_1p())
                };
                logits.iter().enumerate().map(cell).sum::<f64>() / self.classes as f64
            }
            Some(VoxelTerm::Square) => {
                let cell = |(class, p): (usize, &f32)| f64::from(p - f32::from(class == label)).powi(2);
                scores.iter().enumerate().map(cell).sum::<f64>() / self.classes as f64
            }
        }
    }

    /// The weight of a voxel of class `label` in the mean.
    fn weight(&self, label: usize) -> f32 {
        match self.terms.voxel {
            Some(VoxelTerm::Softmax { .. }) => self.terms.class_weight(label),
            _ => 1.0,
        }
    }
}

/// Writes the softmax or the sigmoid of `logits`, `[rows, classes]`, to `scores` and returns the loss.
pub(crate) fn loss_forward(shape: &LossShape<'_>, logits: &[f32], scores: &mut [f32]) -> (f32, LossSums) {
    struct Rows<'a> {
        sample: usize,
        logits: &'a [f32],
        labels: &'a [u8],
        scores: &'a mut [f32],
    }
    struct Part {
        sample: usize,
        loss: f64,
        weight: f64,
        overlap: Vec<f64>,
        predicted: Vec<f64>,
        truth: Vec<f64>,
    }
    let classes = shape.classes;
    let voxels = shape.geometry.voxels();
    assert_eq!(logits.len(), shape.geometry.rows() * classes, "internal error: logits length");
    assert_eq!(shape.labels.len(), shape.geometry.rows(), "internal error: labels length");
    // Parts never span two samples.
    let mut parts = Vec::new();
    let samples = logits.chunks_exact(voxels * classes).zip(shape.labels.chunks_exact(voxels));
    for (sample, ((logits, labels), scores)) in
        samples.zip(scores.chunks_exact_mut(voxels * classes)).enumerate()
    {
        let rows = logits.chunks(PART_ROWS * classes).zip(labels.chunks(PART_ROWS));
        for ((logits, labels), scores) in rows.zip(scores.chunks_mut(PART_ROWS * classes)) {
            parts.push(Rows { sample, logits, labels, scores });
        }
    }
    let sums: Vec<Part> = parts
        .into_par_iter()
        .map(|Rows { sample, logits, labels, scores }| {
            let zeros = || vec![0.0; classes];
            let (overlap, predicted, truth) = (zeros(), zeros(), zeros());
            let mut part = Part { sample, loss: 0.0, weight: 0.0, overlap, predicted, truth };
            let rows = logits.chunks_exact(classes).zip(scores.chunks_exact_mut(classes));
            for ((logits, scores), label) in rows.zip(labels) {
                let log_total = shape.score(logits, scores);
                if *label == IGNORE {
                    continue;
                }
                let label = usize::from(*label);
                let weight = f64::from(shape.weight(label));
                part.weight += weight;
                part.loss += weight * shape.voxel_loss(logits, scores, label, log_total);
                part.overlap[label] += f64::from(scores[label]);
                part.truth[label] += 1.0;
                for (sum, p) in part.predicted.iter_mut().zip(scores.iter()) {
                    *sum += f64::from(*p);
                }
            }
            part
        })
        .collect();
    let zeros = || vec![0.0; shape.groups() * classes];
    let mut totals = LossSums { overlap: zeros(), predicted: zeros(), truth: zeros(), ..LossSums::default() };
    for part in sums {
        totals.loss += part.loss;
        totals.weight += part.weight;
        let first = shape.group_of(part.sample) * classes;
        for class in 0..classes {
            totals.overlap[first + class] += part.overlap[class];
            totals.predicted[first + class] += part.predicted[class];
            totals.truth[first + class] += part.truth[class];
        }
    }
    (loss_value(shape, &totals), totals)
}

/// The loss that the sums make.
pub(crate) fn loss_value(shape: &LossShape<'_>, sums: &LossSums) -> f32 {
    let mut value = sums.loss / mean_divisor(sums.weight);
    if shape.terms.region.is_some() {
        let cells = (0..sums.overlap.len()).filter_map(|cell| index(shape, sums, cell));
        value += 1.0 - cells.map(|(above, below)| above / below).sum::<f64>() / shape.count();
    }
    value as f32
}

/// A batch without a voxel that counts has loss 0, not 0/0.
fn mean_divisor(weight: f64) -> f64 {
    if weight > 0.0 { weight } else { 1.0 }
}

/// `-dl/dp · p` of the focal loss at probability `p`: the slope of the logits is this times `p - one-hot`.
fn focal_slope(p: f32, gamma: f32) -> f32 {
    if gamma == 0.0 {
        return 1.0;
    }
    let rest = (1.0 - p).max(0.0);
    let certain = p.max(f32::MIN_POSITIVE);
    // -ln p / (1 - p), which tends to 1 as p does.
    let ratio = if rest > 0.0 { -certain.ln() / rest } else { 1.0 };
    rest.powf(gamma) * (1.0 + gamma * p * ratio)
}

/// What each voxel's slope is made of, `upstream` arriving at the loss.
pub(crate) fn loss_slopes(shape: &LossShape<'_>, sums: &LossSums, upstream: f32) -> LossSlopes {
    let mean = f64::from(upstream) / mean_divisor(sums.weight);
    let (each, per_class) = (mean as f32, (mean / shape.classes as f64) as f32);
    let cells = sums.overlap.len();
    let (mut everywhere, mut at_label) = (vec![0.0_f32; cells], vec![0.0_f32; cells]);
    if let Some(region) = shape.terms.region {
        let share = f64::from(upstream) / shape.count();
        let (alpha, beta) = (f64::from(region.alpha), f64::from(region.beta));
        for cell in 0..cells {
            if let Some((above, below)) = index(shape, sums, cell) {
                let part = above / (below * below);
                everywhere[cell] = (share * part * 2.0 * alpha) as f32;
                at_label[cell] = (share * (2.0 / below - part * 2.0 * (1.0 - alpha - beta))) as f32;
            }
        }
    }
    LossSlopes { each, per_class, everywhere, at_label }
}

/// Writes the slope of the loss, times `upstream`, over `scores`.
pub(crate) fn loss_backward(shape: &LossShape<'_>, sums: &LossSums, upstream: f32, scores: &mut [f32]) {
    let classes = shape.classes;
    let voxels = shape.geometry.voxels();
    let LossSlopes { each, per_class, everywhere, at_label } = loss_slopes(shape, sums, upstream);
    let rows = scores.par_chunks_mut(voxels * classes).zip(shape.labels.par_chunks(voxels));
    rows.enumerate().for_each(|(sample, (scores, labels))| {
        let first = shape.group_of(sample) * classes;
        let (everywhere, at_label) = (&everywhere[first..][..classes], &at_label[first..][..classes]);
        let rows = scores.par_chunks_mut(PART_ROWS * classes).zip(labels.par_chunks(PART_ROWS));
        rows.for_each(|(scores, labels)| {
            for (row, label) in scores.chunks_exact_mut(classes).zip(labels) {
                if *label == IGNORE {
                    row.fill(0.0);
                    continue;
                }
                let label = usize::from(*label);
                let hit = |class: usize| f32::from(class == label);
                // The share of `p - one-hot`, and the slope with respect to each probability.
                let (direct, square) = match shape.terms.voxel {
                    Some(VoxelTerm::Sigmoid) => {
                        row.iter_mut().enumerate().for_each(|(class, p)| *p = per_class * (*p - hit(class)));
                        continue;
                    }
                    Some(VoxelTerm::Softmax { gamma }) => {
                        (each * shape.weight(label) * focal_slope(row[label], gamma), 0.0)
                    }
                    Some(VoxelTerm::Square) => (0.0, 2.0 * per_class),
                    None => (0.0, 0.0),
                };
                let slope = |class: usize, p: f32| {
                    everywhere[class] - hit(class) * at_label[class] + square * (p - hit(class))
                };
                let mean: f32 = row.iter().enumerate().map(|(class, p)| p * slope(class, *p)).sum();
                for (class, p) in row.iter_mut().enumerate() {
                    *p = direct * (*p - hit(class)) + *p * (slope(class, *p) - mean);
                }
            }
        });
    });
}
