//! How good predictions are: every value of every case, and what follows from all of them.

use super::table_file::{read_json, read_rows, write_json, write_rows};
use crate::{artifact::Artifact, error::StageError};
use pipe_cache::Digest;
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
}

/// What was scored, how, with what, and the distribution of every metric over the cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSummary {
    /// `test`, `validation` or `all`.
    pub part: String,
    /// Folds whose validation cases are included; empty for `test`.
    pub folds: Vec<usize>,
    /// Cases that were predicted.
    pub cases: usize,
    /// Predicted cases without a reference: they enter no figure.
    pub without_reference: Vec<String>,
    /// Mean over the foreground labels of the mean Dice over cases; `null` where no label has a defined Dice.
    pub mean_foreground_dice: Option<f64>,
    pub metrics: Vec<MetricSummary>,
    /// What each figure means, and how undefined values are treated.
    pub definitions: BTreeMap<String, String>,
    pub prediction: PredictionFacts,
}

/// The distribution over cases of one metric of one label. Figures are `null` where too few values are defined.
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
    pub mean: Option<f64>,
    /// Sample standard deviation (divided by n − 1).
    pub sd: Option<f64>,
    pub min: Option<f64>,
    pub q1: Option<f64>,
    pub median: Option<f64>,
    pub q3: Option<f64>,
    pub max: Option<f64>,
}

/// How the predictions were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionFacts {
    pub members: Vec<MemberFact>,
    pub mirror: bool,
    pub overlap: f64,
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
const COLUMNS: [&str; 6] = ["case", "patient", "label", "name", "metric", "value"];

impl Artifact for Metrics {
    const TYPE: &'static str = "metrics";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { rows: read_rows(&dir.join(ROWS))?, summary: read_json(&dir.join(SUMMARY))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(ROWS), &COLUMNS, &self.rows)?;
        write_json(&dir.join(SUMMARY), &self.summary)
    }
}
