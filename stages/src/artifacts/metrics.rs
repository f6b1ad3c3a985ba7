//! How good predictions are: every value of every case, and what follows from all of them.

use super::predictor::Combine;
use super::table_file::{read_json, read_rows, write_json, write_rows};
use crate::{artifact::Artifact, error::StageError};
use pipe_cache::Digest;
use pipe_onnx::{Blend, Provider, Tiling};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Scores of predictions against references in the space of the source images.
///
/// On disk: `metrics.csv` (one row a case, label and metric; `value` is empty where undefined) and `summary.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// In the order of case, label, metric.
    pub rows: Vec<MetricRow>,
    pub summary: MetricsSummary,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    pub case: String,
    pub patient: String,
    pub label: u8,
    /// Name of the label.
    pub name: String,
    /// A key of [`MetricsSummary::definitions`].
    pub metric: String,
    /// `None` where the metric is undefined, as Dice is when neither map has the label.
    pub value: Option<f64>,
    /// The rule for empty masks decided the value, or that there is none.
    pub by_rule: bool,
}

/// What was scored, how, with what, and the distribution of every metric over the cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSummary {
    /// `test`, `validation`, `all` or, for folders, `folder`.
    pub part: String,
    /// Folds whose validation cases are included; empty for `test`.
    pub folds: Vec<usize>,
    /// Cases that were predicted.
    pub cases: usize,
    /// Patients of the scored cases: intervals are over them.
    pub patients: usize,
    /// Predicted cases without a reference: they enter no figure.
    pub without_reference: Vec<String>,
    /// Mean over the foreground labels of the mean Dice over cases; `null` where no label has a defined Dice.
    pub mean_foreground_dice: Option<f64>,
    pub mean_foreground_dice_interval: Option<Interval>,
    pub labels: Vec<LabelPresence>,
    pub metrics: Vec<MetricSummary>,
    /// This evaluation against the baseline's, one row a label and metric; empty without a baseline.
    pub comparison: Vec<ComparisonRow>,
    /// The ensemble beside each of its members; `null` unless that was asked for.
    pub ensemble: Option<Ensemble>,
    /// What decides the figures besides the masks; a baseline must share it.
    pub rules: Rules,
    /// What each figure means, and how undefined values are treated.
    pub definitions: BTreeMap<String, String>,
    /// `null` for folders: who made them is not known.
    pub prediction: Option<PredictionFacts>,
}

/// Names and numbers of the rules by which everything was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Whose surfaces and distances.
    pub definition: String,
    /// Of NSD, by label.
    pub tolerance_mm: BTreeMap<String, f64>,
    /// The distance where one map has the label and the other does not.
    pub empty: String,
    /// The value where neither has it.
    pub absent: String,
    /// Neighbours of a voxel within a lesion: 6 or 26.
    pub connectivity: String,
    /// The share of a lesion that must be covered.
    pub lesion_overlap: f64,
    /// Of the intervals, e.g. 0.95.
    pub confidence: f64,
    pub resamples: usize,
}

/// In how many cases a label is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelPresence {
    pub label: u8,
    pub name: String,
    pub in_both: usize,
    /// In the reference only.
    pub missed: usize,
    /// In the prediction only.
    pub spurious: usize,
    pub absent: usize,
}

/// A range that holds the true mean with about the probability of [`Rules::confidence`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// `None` where an end is infinite: there is no number for it.
    pub(crate) fn finite(interval: Option<pipe_metrics::bootstrap::Interval>) -> Option<Self> {
        let interval = interval.filter(|interval| interval.low.is_finite() && interval.high.is_finite())?;
        Some(Self { low: interval.low, high: interval.high })
    }
}

/// The distribution over cases of one metric of one label. Figures are `null` where too few values are defined, and where
/// they are infinite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricSummary {
    pub label: u8,
    pub name: String,
    pub metric: String,
    /// Cases in which it is defined.
    pub n: usize,
    /// Cases in which it is not; they enter no figure.
    pub undefined: usize,
    /// Cases in which the rule for empty masks decided, undefined ones included.
    pub by_rule: usize,
    pub mean: Option<f64>,
    /// Of the mean, from a bootstrap over patients.
    pub interval: Option<Interval>,
    /// Sample standard deviation (divided by n − 1).
    pub sd: Option<f64>,
    pub min: Option<f64>,
    pub q1: Option<f64>,
    pub median: Option<f64>,
    pub q3: Option<f64>,
    pub max: Option<f64>,
}

/// One metric of one label compared patient by patient. Differences are this evaluation minus the baseline; figures are
/// `null` where undefined or infinite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonRow {
    pub label: u8,
    pub name: String,
    pub metric: String,
    pub patients: usize,
    /// Patients for whom the metric is undefined on one side at least.
    pub undefined: usize,
    pub better: usize,
    pub worse: usize,
    pub equal: usize,
    pub mean_difference: Option<f64>,
    pub interval: Option<Interval>,
    pub median_difference: Option<f64>,
    /// Two-sided, Wilcoxon's signed-rank test; not corrected for the number of rows.
    pub p_wilcoxon: Option<f64>,
    /// Whether `p_wilcoxon` counts all signs; otherwise it is the normal approximation.
    pub exact: bool,
    /// Two-sided, from the bootstrap of the mean difference.
    pub p_bootstrap: Option<f64>,
    /// Effect size, −1 to 1; above 0 where differences are above 0.
    pub rank_biserial: Option<f64>,
    /// Effect size, the mean difference in units of its standard deviation.
    pub cohens_dz: Option<f64>,
}

/// What joining networks is worth: mean foreground Dice of the ensemble against the mean of its members, on the same
/// cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    pub members: Vec<MemberScore>,
    /// Case by case over the members that predicted it.
    pub mean_of_members: Option<f64>,
    pub ensemble: Option<f64>,
    /// `ensemble` minus `mean_of_members`.
    pub difference: Option<f64>,
    /// Of the difference, from a bootstrap over patients.
    pub interval: Option<Interval>,
    /// Two-sided, from the same bootstrap; `null` of fewer than two patients.
    pub p_bootstrap: Option<f64>,
}

/// One network by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberScore {
    pub name: String,
    /// Scored cases that it predicted.
    pub cases: usize,
    pub mean_foreground_dice: Option<f64>,
}

/// How the predictions were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionFacts {
    pub members: Vec<MemberFact>,
    pub mirror: bool,
    pub overlap: f64,
    pub blend: Blend,
    pub tiling: Tiling,
    pub combine: Combine,
    /// What the networks ran on.
    pub device: Provider,
    pub runtime: RuntimeFact,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberFact {
    pub name: String,
    pub weight: f64,
    /// blake3 of the ONNX file.
    pub digest: Digest,
}

/// The library that ran the networks: it decides the last bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeFact {
    pub name: String,
    pub version: String,
    /// The library's own description of its build.
    pub build: String,
}

const ROWS: &str = "metrics.csv";
const SUMMARY: &str = "summary.json";
const COLUMNS: [&str; 7] = ["case", "patient", "label", "name", "metric", "value", "by_rule"];

impl Artifact for Metrics {
    const TYPE: &'static str = "metrics";
    const FORMAT: u32 = 4;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { rows: read_rows(&dir.join(ROWS))?, summary: read_json(&dir.join(SUMMARY))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(ROWS), &COLUMNS, &self.rows)?;
        write_json(&dir.join(SUMMARY), &self.summary)
    }
}
