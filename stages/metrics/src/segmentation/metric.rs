//! The metrics of a segmented case by name.

use serde::{Deserialize, Serialize};

use crate::surface::Definition;

/// Which values of a metric are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Higher,
    Lower,
    /// Signed: nearer to 0 is better.
    Zero,
}

/// A metric of one label of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Dice,
    Iou,
    Precision,
    Recall,
    Specificity,
    VolumeSimilarity,
    VolumeDifference,
    VolumeErrorMl,
    #[serde(rename = "hd_mm")]
    Hd,
    #[serde(rename = "hd95_mm")]
    Hd95,
    #[serde(rename = "assd_mm")]
    Assd,
    #[serde(rename = "asd_from_reference_mm")]
    AsdFromReference,
    #[serde(rename = "asd_from_prediction_mm")]
    AsdFromPrediction,
    Nsd,
    LesionF1,
    LesionRecall,
    LesionPrecision,
    LesionsFound,
    LesionsMissed,
    LesionsFalse,
}

impl Metric {
    pub const ALL: [Self; 20] = [
        Self::Dice,
        Self::Iou,
        Self::Precision,
        Self::Recall,
        Self::Specificity,
        Self::VolumeSimilarity,
        Self::VolumeDifference,
        Self::VolumeErrorMl,
        Self::Hd,
        Self::Hd95,
        Self::Assd,
        Self::AsdFromReference,
        Self::AsdFromPrediction,
        Self::Nsd,
        Self::LesionF1,
        Self::LesionRecall,
        Self::LesionPrecision,
        Self::LesionsFound,
        Self::LesionsMissed,
        Self::LesionsFalse,
    ];

    /// As in tables and parameters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dice => "dice",
            Self::Iou => "iou",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Specificity => "specificity",
            Self::VolumeSimilarity => "volume_similarity",
            Self::VolumeDifference => "volume_difference",
            Self::VolumeErrorMl => "volume_error_ml",
            Self::Hd => "hd_mm",
            Self::Hd95 => "hd95_mm",
            Self::Assd => "assd_mm",
            Self::AsdFromReference => "asd_from_reference_mm",
            Self::AsdFromPrediction => "asd_from_prediction_mm",
            Self::Nsd => "nsd",
            Self::LesionF1 => "lesion_f1",
            Self::LesionRecall => "lesion_recall",
            Self::LesionPrecision => "lesion_precision",
            Self::LesionsFound => "lesions_found",
            Self::LesionsMissed => "lesions_missed",
            Self::LesionsFalse => "lesions_false",
        }
    }

    /// The metric of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    pub fn direction(self) -> Direction {
        match self {
            Self::VolumeDifference | Self::VolumeErrorMl => Direction::Zero,
            Self::LesionsMissed | Self::LesionsFalse => Direction::Lower,
            metric if metric.is_distance() => Direction::Lower,
            _ => Direction::Higher,
        }
    }

    /// In mm, between surfaces.
    pub fn is_distance(self) -> bool {
        matches!(self, Self::Hd | Self::Hd95 | Self::Assd | Self::AsdFromReference | Self::AsdFromPrediction)
    }

    /// Depends on [`Definition`].
    pub fn needs_surfaces(self) -> bool {
        self == Self::Nsd || self.is_distance()
    }

    pub fn needs_lesions(self) -> bool {
        matches!(
            self,
            Self::LesionF1
                | Self::LesionRecall
                | Self::LesionPrecision
                | Self::LesionsFound
                | Self::LesionsMissed
                | Self::LesionsFalse
        )
    }

    /// Whether the named library knows the metric.
    pub fn is_defined_by(self, definition: Definition) -> bool {
        !(self == Self::Nsd && definition == Definition::Medpy)
    }

    /// The value where there was nothing to find and nothing was found.
    pub(super) fn best(self) -> f64 {
        if self.direction() == Direction::Higher && self != Self::LesionsFound { 1.0 } else { 0.0 }
    }

    /// What it measures, in one sentence or two.
    pub fn meaning(self, definition: Definition) -> &'static str {
        use Definition::{Deepmind, Medpy, Monai};
        match (self, definition) {
            (Self::Dice, _) => "2·TP / (2·TP + FP + FN) over voxels.",
            (Self::Iou, _) => "Intersection over union, TP / (TP + FP + FN) over voxels.",
            (Self::Precision, _) => "TP / (TP + FP) over voxels.",
            (Self::Recall, _) => "TP / (TP + FN) over voxels.",
            (Self::Specificity, _) => "TN / (TN + FP) over voxels.",
            (Self::VolumeSimilarity, _) => {
                "1 − |prediction − reference| / (prediction + reference) in voxels."
            }
            (Self::VolumeDifference, _) => {
                "(prediction − reference) / reference in voxels: positive where too much was predicted."
            }
            (Self::VolumeErrorMl, _) => "Volume of the prediction minus that of the reference, in ml.",
            (Self::Hd, Deepmind) => {
                "Hausdorff distance in mm between surfaces of triangles (surface-distance 0.1)."
            }
            (Self::Hd, Monai | Medpy) => {
                "Hausdorff distance in mm between the voxels with a face outside of the mask (MONAI, MedPy)."
            }
            (Self::Hd95, Deepmind) => {
                "Greater of the two directed 95 % percentiles by surface area, in mm (surface-distance 0.1)."
            }
            (Self::Hd95, Monai) => {
                "Greater of the two directed 95 % quantiles over surface voxels, interpolated, in mm (MONAI 1.6)."
            }
            (Self::Hd95, Medpy) => {
                "95 % quantile over the surface voxels of both masks together, interpolated, in mm (MedPy 0.5)."
            }
            (Self::Assd, Deepmind) => {
                "Mean distance in mm over both surfaces together by area, from the two averages of surface-distance 0.1."
            }
            (Self::Assd, Monai | Medpy) => {
                "Mean distance in mm over the surface voxels of both masks together (MONAI 1.6, MedPy 0.5)."
            }
            (Self::AsdFromReference, _) => {
                "Mean distance in mm from the surface of the reference to that of the prediction."
            }
            (Self::AsdFromPrediction, _) => {
                "Mean distance in mm from the surface of the prediction to that of the reference."
            }
            (Self::Nsd, Deepmind) => {
                "Share of both surfaces by area within the tolerance of the other (surface-distance 0.1; ranks the Medical Segmentation Decathlon)."
            }
            (Self::Nsd, Monai) => {
                "Share of the surface voxels of both masks within the tolerance of the other surface (MONAI 1.6)."
            }
            (Self::Nsd, Medpy) => "Not defined by MedPy.",
            (Self::LesionF1, _) => "Harmonic mean of lesion_recall and lesion_precision.",
            (Self::LesionRecall, _) => {
                "Share of the connected components of the reference that the prediction covers enough of."
            }
            (Self::LesionPrecision, _) => {
                "Share of the connected components of the prediction that the reference covers enough of."
            }
            (Self::LesionsFound, _) => {
                "Connected components of the reference that the prediction covers enough of."
            }
            (Self::LesionsMissed, _) => {
                "Connected components of the reference that the prediction does not cover enough of."
            }
            (Self::LesionsFalse, _) => {
                "Connected components of the prediction that the reference does not cover enough of."
            }
        }
    }
}
