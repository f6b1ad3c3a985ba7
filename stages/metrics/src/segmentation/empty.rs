//! What a value is where a mask is empty.
//!
//! | | one map has the label | neither has it |
//! |---|---|---|
//! | Dice, IoU, volume similarity, NSD, lesion F1 | 0, by their formulas | [`Absent`] |
//! | distances | [`OneEmpty`] | [`Absent`] |
//! | precision, recall, relative volume | undefined where their formula divides by 0 | [`Absent`] |
//! | volumes in ml, counts of lesions, specificity | their formulas | their formulas |
//!
//! [`OneEmpty::Library`] replaces the table by what the named library does, oddities included.

use serde::{Deserialize, Serialize};

use super::{Metric, Settings};
use crate::confusion::Counts;
use crate::grid::Grid;
use crate::surface::Definition;

/// Which maps have a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    Both,
    /// Only the reference.
    Missed,
    /// Only the prediction.
    Spurious,
    /// Neither.
    Absent,
}

impl Presence {
    pub fn of(counts: &Counts) -> Self {
        match (counts.reference(), counts.prediction()) {
            (0, 0) => Self::Absent,
            (0, _) => Self::Spurious,
            (_, 0) => Self::Missed,
            _ => Self::Both,
        }
    }

    /// Only one map has the label.
    pub fn is_one_sided(self) -> bool {
        matches!(self, Self::Missed | Self::Spurious)
    }
}

/// The distance to a mask that is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OneEmpty {
    /// The diagonal of the volume: the mean stays finite and no case is dropped.
    Worst,
    /// Infinity: medians and quartiles stand, the mean does not.
    Infinite,
    /// Left out and counted.
    Undefined,
    /// Whatever the library that the definition is named after does, also where the label is in neither map.
    Library,
}

/// The value where neither map has the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Absent {
    /// Left out and counted.
    Undefined,
    /// A true negative is as good as can be: shares are 1, distances and differences 0.
    Perfect,
}

/// The value that a rule gives where the formula gives none.
pub(super) fn rule(metric: Metric, presence: Presence, settings: &Settings, grid: &Grid) -> f64 {
    // No rule makes up a metric that the definition does not know.
    if metric == Metric::Nsd && settings.definition == Definition::Medpy {
        return f64::NAN;
    }
    match presence {
        Presence::Absent if settings.absent == Absent::Perfect => metric.best(),
        Presence::Missed | Presence::Spurious if metric.is_distance() => match settings.one_empty {
            OneEmpty::Worst => grid.diagonal_mm(),
            OneEmpty::Infinite => f64::INFINITY,
            OneEmpty::Undefined | OneEmpty::Library => f64::NAN,
        },
        _ => f64::NAN,
    }
}

/// What the named library gives for an empty mask where its formula does not say; only with [`OneEmpty::Library`].
pub(super) fn library(metric: Metric, presence: Presence, settings: &Settings) -> Option<f64> {
    use Metric::{AsdFromPrediction, AsdFromReference, Assd, Dice, Hd, Hd95, Iou};
    if settings.one_empty != OneEmpty::Library || presence == Presence::Both {
        return None;
    }
    match (settings.definition, metric) {
        // A surface that does not exist has the percentile infinity, also where the other does not exist either.
        (Definition::Deepmind, Hd | Hd95) => Some(f64::INFINITY),
        // The mean over a surface that does not exist is 0 / 0, to one that does not exist infinity.
        (Definition::Deepmind, AsdFromReference) if presence == Presence::Missed => Some(f64::INFINITY),
        (Definition::Deepmind, AsdFromPrediction) if presence == Presence::Spurious => Some(f64::INFINITY),
        // `ignore_empty`: an organ that is not in the reference costs nothing.
        (Definition::Monai, Dice | Iou) if presence == Presence::Spurious => Some(f64::NAN),
        // Its quantile interpolates between infinity and infinity, which is NaN; its maximum and mean are infinity.
        (Definition::Monai, Hd | Assd) if presence != Presence::Absent => Some(f64::INFINITY),
        // surface-distance has no ASSD; MedPy raises an error. Both are undefined.
        (_, metric) if metric.is_distance() => Some(f64::NAN),
        _ => None,
    }
}
