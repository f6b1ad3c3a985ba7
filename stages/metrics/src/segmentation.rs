//! Every metric of a segmented case by name, with a stated rule for empty masks.

mod empty;
mod metric;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::empty::{Absent, OneEmpty, Presence};
pub use self::metric::{Direction, Metric};
use crate::confusion::{Confusion, Counts};
use crate::grid::{Grid, GridError, Region, joint_regions};
use crate::lesions::{LesionRule, Lesions};
use crate::overlap;
use crate::surface::{Definition, Surfaces};

/// What is measured, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// In the order of the values of [`Score`].
    pub metrics: Vec<Metric>,
    pub definition: Definition,
    /// For NSD, of labels that [`Settings::tolerances_mm`] does not name.
    pub tolerance_mm: f64,
    /// For NSD, by label.
    pub tolerances_mm: BTreeMap<u8, f64>,
    pub one_empty: OneEmpty,
    pub absent: Absent,
    pub lesions: LesionRule,
}

impl Default for Settings {
    /// Dice, HD95, ASSD and NSD at 1 mm by the definition that the Medical Segmentation Decathlon ranks by.
    fn default() -> Self {
        Self {
            metrics: vec![Metric::Dice, Metric::Hd95, Metric::Assd, Metric::Nsd],
            definition: Definition::Deepmind,
            tolerance_mm: 1.0,
            tolerances_mm: BTreeMap::new(),
            one_empty: OneEmpty::Worst,
            absent: Absent::Undefined,
            lesions: LesionRule::default(),
        }
    }
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// NaN where undefined.
    #[serde(with = "spelled")]
    pub number: f64,
    /// The rule for empty masks decided it, not the formula.
    pub ruled: bool,
}

/// The values of one label of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    pub label: u8,
    pub presence: Presence,
    pub counts: Counts,
    /// In the order of [`Settings::metrics`].
    pub values: Vec<Value>,
}

/// The values of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseScores {
    /// In the order asked for.
    pub scores: Vec<Score>,
    /// All labels of the reference, background included.
    pub in_reference: BTreeSet<u8>,
    /// All labels of the prediction, background included.
    pub in_prediction: BTreeSet<u8>,
}

/// Measures labels of one case. `reference`, `prediction`: `[z, y, x]`.
pub fn score(
    reference: &[u8],
    prediction: &[u8],
    grid: &Grid,
    labels: &[u8],
    settings: &Settings,
) -> Result<CaseScores, GridError> {
    grid.check("reference", reference)?;
    grid.check("prediction", prediction)?;
    let confusion = Confusion::of(reference, prediction).expect("both fit the grid");
    let with_boxes = settings.metrics.iter().any(|metric| metric.needs_surfaces() || metric.needs_lesions());
    let regions = if with_boxes { joint_regions(reference, prediction, grid) } else { BTreeMap::new() };
    let case = Case { reference, prediction, grid, settings };
    let scores = labels.iter().map(|&label| case.score(label, confusion.counts(label), regions.get(&label)));
    let having = |count: fn(&Counts) -> u64| {
        confusion.labels().into_iter().filter(|&label| count(&confusion.counts(label)) > 0).collect()
    };
    Ok(CaseScores {
        scores: scores.collect(),
        in_reference: having(Counts::reference),
        in_prediction: having(Counts::prediction),
    })
}

struct Case<'a> {
    reference: &'a [u8],
    prediction: &'a [u8],
    grid: &'a Grid,
    settings: &'a Settings,
}

impl Case<'_> {
    /// `region` is `None` where no metric needs it or no map has the label.
    fn score(&self, label: u8, counts: Counts, region: Option<&Region>) -> Score {
        let Self { reference, prediction, grid, settings } = *self;
        let asked = |needs: fn(Metric) -> bool| {
            region.filter(|_| settings.metrics.iter().any(|metric| needs(*metric)))
        };
        let surfaces = asked(Metric::needs_surfaces).and_then(|region| {
            Surfaces::within(reference, prediction, label, grid, region, settings.definition)
        });
        let lesions = asked(Metric::needs_lesions).map_or_else(Lesions::default, |region| {
            Lesions::within(reference, prediction, label, grid, region, &settings.lesions)
        });
        let presence = Presence::of(&counts);
        let found = Found { label, counts, surfaces, lesions };
        let value = |metric: &Metric| {
            if let Some(number) = empty::library(*metric, presence, settings) {
                return Value { number, ruled: true };
            }
            match self.formula(*metric, &found) {
                number if number.is_nan() => {
                    Value { number: empty::rule(*metric, presence, settings, grid), ruled: true }
                }
                number => Value { number, ruled: false },
            }
        };
        let values = settings.metrics.iter().map(value).collect();
        Score { label, presence, counts, values }
    }

    /// NaN where the formula gives nothing.
    fn formula(&self, metric: Metric, found: &Found) -> f64 {
        let Found { label, counts, surfaces, lesions } = found;
        let surface = |of: &dyn Fn(&Surfaces) -> f64| surfaces.as_ref().map_or(f64::NAN, of);
        match metric {
            Metric::Dice => overlap::dice(counts),
            Metric::Iou => overlap::iou(counts),
            Metric::Precision => overlap::precision(counts),
            Metric::Recall => overlap::recall(counts),
            Metric::Specificity => overlap::specificity(counts),
            Metric::VolumeSimilarity => overlap::volume_similarity(counts),
            Metric::VolumeDifference => overlap::volume_difference(counts),
            Metric::VolumeErrorMl => overlap::volume_error_ml(counts, self.grid.voxel_ml()),
            Metric::Hd => surface(&Surfaces::hd),
            Metric::Hd95 => surface(&|surfaces| surfaces.robust_hd(0.95)),
            Metric::Assd => surface(&Surfaces::assd),
            Metric::AsdFromReference => surface(&Surfaces::asd_from_reference),
            Metric::AsdFromPrediction => surface(&Surfaces::asd_from_prediction),
            // One surface without the other: nothing of it is near.
            Metric::Nsd if Presence::of(counts).is_one_sided() => self.nsd_of_one(),
            Metric::Nsd => {
                let tolerance =
                    self.settings.tolerances_mm.get(label).copied().unwrap_or(self.settings.tolerance_mm);
                surface(&|surfaces| surfaces.nsd(tolerance).unwrap_or(f64::NAN))
            }
            Metric::LesionF1 => lesions.f1(),
            Metric::LesionRecall => lesions.recall(),
            Metric::LesionPrecision => lesions.precision(),
            Metric::LesionsFound => lesions.found as f64,
            Metric::LesionsMissed => lesions.missed as f64,
            Metric::LesionsFalse => lesions.false_predicted as f64,
        }
    }

    fn nsd_of_one(&self) -> f64 {
        if self.settings.definition == Definition::Medpy { f64::NAN } else { 0.0 }
    }
}

/// What the formulas of one label need.
struct Found {
    label: u8,
    counts: Counts,
    surfaces: Option<Surfaces>,
    lesions: Lesions,
}

/// Numbers that JSON has no word for, as text.
mod spelled {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Spelled {
        Number(f64),
        Text(String),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if number.is_finite() {
            serializer.serialize_f64(*number)
        } else {
            serializer.serialize_str(&number.to_string())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Spelled::deserialize(deserializer)? {
            Spelled::Number(number) => Ok(number),
            Spelled::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}
