//! Overlap metrics of one label, from voxel counts.
//!
//! # Empty masks
//!
//! | reference | prediction | Dice, IoU | precision | recall |
//! |---|---|---|---|---|
//! | empty | empty | NaN | NaN | NaN |
//! | empty | not | 0 | 0 | NaN |
//! | not | empty | 0 | NaN | 0 |
//!
//! This is nnU-Net's rule. MONAI's `DiceMetric` differs in one row by default: with an empty reference it gives NaN
//! (`ignore_empty=True`), so that a false organ costs nothing. Averages must leave NaN out and say how many there
//! were: see [`crate::summary::Summary`].

use crate::confusion::Counts;

/// Dice coefficient `2·TP / (2·TP + FP + FN)`, 0 to 1; NaN when the label is in neither map.
pub fn dice(counts: &Counts) -> f64 {
    let twice = 2 * counts.true_positive;
    ratio(twice, twice + counts.false_positive + counts.false_negative)
}

/// Intersection over union (Jaccard index) `TP / (TP + FP + FN)`, 0 to 1; NaN when the label is in neither map.
pub fn iou(counts: &Counts) -> f64 {
    ratio(counts.true_positive, counts.true_positive + counts.false_positive + counts.false_negative)
}

/// Precision (positive predictive value) `TP / (TP + FP)`, 0 to 1; NaN when nothing was predicted.
pub fn precision(counts: &Counts) -> f64 {
    ratio(counts.true_positive, counts.prediction())
}

/// Recall (sensitivity) `TP / (TP + FN)`, 0 to 1; NaN when there was nothing to find.
pub fn recall(counts: &Counts) -> f64 {
    ratio(counts.true_positive, counts.reference())
}

/// Specificity `TN / (TN + FP)`, 0 to 1; NaN when the label fills the reference.
pub fn specificity(counts: &Counts) -> f64 {
    ratio(counts.true_negative, counts.true_negative + counts.false_positive)
}

/// Relative volume difference `(prediction − reference) / reference`: positive when too much was predicted; NaN when
/// there was nothing to find.
pub fn volume_difference(counts: &Counts) -> f64 {
    match counts.reference() {
        0 => f64::NAN,
        reference => (counts.prediction() as f64 - reference as f64) / reference as f64,
    }
}

/// Volume similarity `1 − |prediction − reference| / (prediction + reference)`, 0 to 1, whatever the overlap; NaN when the
/// label is in neither map. Source: Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical
/// Imaging 15 (2015).
pub fn volume_similarity(counts: &Counts) -> f64 {
    let (reference, prediction) = (counts.reference(), counts.prediction());
    let both = reference + prediction;
    if both == 0 { f64::NAN } else { 1.0 - reference.abs_diff(prediction) as f64 / both as f64 }
}

/// Signed volume error `prediction − reference` in millilitres: positive when too much was predicted. Always defined.
pub fn volume_error_ml(counts: &Counts, voxel_ml: f64) -> f64 {
    (counts.prediction() as f64 - counts.reference() as f64) * voxel_ml
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { f64::NAN } else { part as f64 / whole as f64 }
}
