//! Softmax, cross-entropy and soft Dice in one pass over the logits, and the gradient of their sum.

use rayon::prelude::*;

use crate::geometry::Geometry;
use crate::loss::{IGNORE, LossConfig};

/// Rows per part of a sum; sizes alone decide, never the thread count.
const PART_ROWS: usize = 4096;

/// What the loss is computed over.
pub(crate) struct DiceCe<'a> {
    pub(crate) config: &'a LossConfig,
    pub(crate) geometry: Geometry,
    pub(crate) classes: usize,
    /// One label a voxel; [`IGNORE`] counts nowhere.
    pub(crate) labels: &'a [u8],
}

/// Sums that the backward pass needs; `[group, class]`, a group being a sample or the whole batch.
pub(crate) struct DiceCeSums {
    overlap: Vec<f64>,
    sizes: Vec<f64>,
    voxels: f64,
}

impl DiceCe<'_> {
    fn groups(&self) -> usize {
        if self.config.batch_dice { 1 } else { self.geometry.samples }
    }

    fn group_of(&self, sample: usize) -> usize {
        if self.config.batch_dice { 0 } else { sample }
    }

    fn first_class(&self) -> usize {
        usize::from(!self.config.dice_includes_background)
    }

    /// Number of Dice values that are averaged.
    fn dice_count(&self) -> f64 {
        (self.groups() * (self.classes - self.first_class())) as f64
    }
}

/// Writes the softmax of `logits`, `[rows, classes]`, to `probabilities` and returns the loss.
pub(crate) fn dice_ce_forward(
    loss: &DiceCe<'_>,
    logits: &[f32],
    probabilities: &mut [f32],
) -> (f32, DiceCeSums) {
    struct Rows<'a> {
        sample: usize,
        logits: &'a [f32],
        labels: &'a [u8],
        probabilities: &'a mut [f32],
    }
    struct Part {
        sample: usize,
        entropy: f64,
        voxels: usize,
        overlap: Vec<f64>,
        sizes: Vec<f64>,
    }
    let classes = loss.classes;
    let voxels = loss.geometry.voxels();
    assert_eq!(logits.len(), loss.geometry.rows() * classes, "internal error: logits length");
    assert_eq!(loss.labels.len(), loss.geometry.rows(), "internal error: labels length");
    // Parts never span two samples.
    let mut parts = Vec::new();
    let samples = logits.chunks_exact(voxels * classes).zip(loss.labels.chunks_exact(voxels));
    for (sample, ((logits, labels), probabilities)) in
        samples.zip(probabilities.chunks_exact_mut(voxels * classes)).enumerate()
    {
        let rows = logits.chunks(PART_ROWS * classes).zip(labels.chunks(PART_ROWS));
        for ((logits, labels), probabilities) in rows.zip(probabilities.chunks_mut(PART_ROWS * classes)) {
            parts.push(Rows { sample, logits, labels, probabilities });
        }
    }
    let sums: Vec<Part> = parts
        .into_par_iter()
        .map(|Rows { sample, logits, labels, probabilities }| {
            let (overlap, sizes) = (vec![0.0; classes], vec![0.0; classes]);
            let mut part = Part { sample, entropy: 0.0, voxels: 0, overlap, sizes };
            let rows = logits.chunks_exact(classes).zip(probabilities.chunks_exact_mut(classes));
            for ((logits, probabilities), label) in rows.zip(labels) {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut total = 0.0_f32;
                for (p, z) in probabilities.iter_mut().zip(logits) {
                    *p = (z - largest).exp();
                    total += *p;
                }
                let inverse = total.recip();
                for p in probabilities.iter_mut() {
                    *p *= inverse;
                }
                if *label == IGNORE {
                    continue;
                }
                let label = usize::from(*label);
                part.voxels += 1;
                part.entropy += f64::from(largest + total.ln() - logits[label]);
                part.overlap[label] += f64::from(probabilities[label]);
                part.sizes[label] += 1.0;
                for (size, p) in part.sizes.iter_mut().zip(probabilities.iter()) {
                    *size += f64::from(*p);
                }
            }
            part
        })
        .collect();
    let cells = loss.groups() * classes;
    let mut totals = DiceCeSums { overlap: vec![0.0; cells], sizes: vec![0.0; cells], voxels: 0.0 };
    let mut entropy = 0.0;
    for part in sums {
        entropy += part.entropy;
        totals.voxels += part.voxels as f64;
        let first = loss.group_of(part.sample) * classes;
        for class in 0..classes {
            totals.overlap[first + class] += part.overlap[class];
            totals.sizes[first + class] += part.sizes[class];
        }
    }
    let smooth = f64::from(loss.config.smooth);
    let mut dice = 0.0;
    for (cell, (overlap, size)) in totals.overlap.iter().zip(&totals.sizes).enumerate() {
        if cell % classes >= loss.first_class() {
            dice += (2.0 * overlap + smooth) / (size + smooth);
        }
    }
    let value = entropy / totals.voxels.max(1.0) + 1.0 - dice / loss.dice_count();
    (value as f32, totals)
}

/// Writes the slope of the loss, times `upstream`, over `probabilities`.
pub(crate) fn dice_ce_backward(
    loss: &DiceCe<'_>,
    sums: &DiceCeSums,
    upstream: f32,
    probabilities: &mut [f32],
) {
    let classes = loss.classes;
    let voxels = loss.geometry.voxels();
    let smooth = f64::from(loss.config.smooth);
    let entropy = upstream / sums.voxels.max(1.0) as f32;
    // d(-dice)/dp = `everywhere` at each voxel, less `at_label` where the label is the class.
    let upstream = f64::from(upstream);
    let (mut everywhere, mut at_label) = (vec![0.0_f32; sums.sizes.len()], vec![0.0_f32; sums.sizes.len()]);
    for (cell, (overlap, size)) in sums.overlap.iter().zip(&sums.sizes).enumerate() {
        if cell % classes >= loss.first_class() {
            let size = size + smooth;
            everywhere[cell] =
                (upstream * (2.0 * overlap + smooth) / (size * size) / loss.dice_count()) as f32;
            at_label[cell] = (upstream * 2.0 / size / loss.dice_count()) as f32;
        }
    }
    let rows = probabilities.par_chunks_mut(voxels * classes).zip(loss.labels.par_chunks(voxels));
    rows.enumerate().for_each(|(sample, (probabilities, labels))| {
        let first = loss.group_of(sample) * classes;
        let (everywhere, at_label) = (&everywhere[first..][..classes], &at_label[first..][..classes]);
        let rows = probabilities.par_chunks_mut(PART_ROWS * classes).zip(labels.par_chunks(PART_ROWS));
        rows.for_each(|(probabilities, labels)| {
            for (row, label) in probabilities.chunks_exact_mut(classes).zip(labels) {
                if *label == IGNORE {
                    row.fill(0.0);
                    continue;
                }
                let label = usize::from(*label);
                let mut mean = -(row[label] * at_label[label]);
                for (p, slope) in row.iter().zip(everywhere) {
                    mean += p * slope;
                }
                for (class, p) in row.iter_mut().enumerate() {
                    let hit = if class == label { 1.0 } else { 0.0 };
                    let slope = everywhere[class] - hit * at_label[class];
                    *p = entropy * (*p - hit) + *p * (slope - mean);
                }
            }
        });
    });
}
