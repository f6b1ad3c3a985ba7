//! How good predicted class probabilities are: figures with intervals, curves, confusion and calibration.

use super::metrics::Interval;
use super::table_file::{read_json, read_rows, write_json, write_rows};
use crate::{artifact::Artifact, error::StageError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Scores of a table of class probabilities.
///
/// On disk: `cases.csv`, `reliability.csv`, `roc.csv`, `pr.csv` and `summary.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMetrics {
    /// In the order of the table.
    pub cases: Vec<ClassifiedCase>,
    pub reliability: Vec<ReliabilityRow>,
    /// x is the false positive rate, y the true positive rate.
    pub roc: Vec<CurveRow>,
    /// x is the recall, y the precision.
    pub pr: Vec<CurveRow>,
    pub summary: ClassSummary,
}

/// One case and the class it was put in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifiedCase {
    pub case: String,
    pub patient: String,
    pub truth: String,
    pub predicted: String,
    /// Probability of `predicted`.
    pub probability: f64,
}

/// One bin of a reliability plot; empty bins are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityRow {
    pub from: f64,
    pub to: f64,
    pub cases: u64,
    /// Mean confidence of its cases.
    pub confidence: f64,
    /// Share of its cases for which what was predicted is true.
    pub observed: f64,
}

/// A point of a curve of one class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
    pub class: String,
    /// Cases with at least this probability are positive; empty where none is.
    pub threshold: Option<f64>,
    pub x: f64,
    pub y: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSummary {
    pub cases: usize,
    /// Intervals are over them.
    pub patients: usize,
    /// In the order of the table's columns.
    pub classes: Vec<String>,
    pub metrics: Vec<ClassFigure>,
    /// Against a baseline, one row a figure of all classes; empty without one.
    pub comparison: Vec<ClassComparison>,
    /// Single networks on the same cases; `null` without any.
    pub members: Option<MemberSpread>,
    /// Row: true class. Column: predicted class.
    pub confusion: Vec<Vec<u64>>,
    /// Of the intervals, e.g. 0.95.
    pub confidence: f64,
    pub resamples: usize,
    pub bins: usize,
    /// What each figure means.
    pub definitions: BTreeMap<String, String>,
}

/// A figure of one class, or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassFigure {
    pub metric: String,
    /// `null` for a figure of all classes.
    pub class: Option<String>,
    /// `null` where undefined.
    pub value: Option<f64>,
    pub interval: Option<Interval>,
}

/// A figure of all classes against that of a baseline, on the same cases. The difference is this one minus the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassComparison {
    pub metric: String,
    pub value: Option<f64>,
    pub baseline: Option<f64>,
    pub difference: Option<f64>,
    /// Of the difference, from a bootstrap over patients.
    pub interval: Option<Interval>,
    /// Two-sided, from the same.
    pub p_bootstrap: Option<f64>,
    /// A test made for this figure; `null` where there is none, and where patients have several cases.
    pub test: Option<PairedTest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedTest {
    /// `DeLong` or `McNemar`.
    pub name: String,
    /// Two-sided; `null` where nothing differs.
    pub p: Option<f64>,
}

/// Figures of single networks: members of an ensemble, or the same training from other seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSpread {
    /// The stages that made their tables.
    pub names: Vec<String>,
    /// One a figure of all classes.
    pub rows: Vec<SpreadRow>,
}

/// One figure over the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpreadRow {
    pub metric: String,
    /// In the order of the names.
    pub values: Vec<Option<f64>>,
    /// `null` where one of them is undefined.
    pub mean: Option<f64>,
    /// Sample standard deviation (divided by n − 1).
    pub sd: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// The figure of the scored table minus the mean.
    pub difference: Option<f64>,
    /// Of the difference, from a bootstrap over patients.
    pub interval: Option<Interval>,
}

const CASES: &str = "cases.csv";
const RELIABILITY: &str = "reliability.csv";
const ROC: &str = "roc.csv";
const PR: &str = "pr.csv";
const SUMMARY: &str = "summary.json";
const CURVE: [&str; 4] = ["class", "threshold", "x", "y"];

impl Artifact for ClassMetrics {
    const TYPE: &'static str = "class-metrics";
    const FORMAT: u32 = 2;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self {
            cases: read_rows(&dir.join(CASES))?,
            reliability: read_rows(&dir.join(RELIABILITY))?,
            roc: read_rows(&dir.join(ROC))?,
            pr: read_rows(&dir.join(PR))?,
            summary: read_json(&dir.join(SUMMARY))?,
        })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(CASES), &["case", "patient", "truth", "predicted", "probability"], &self.cases)?;
        let bins = ["from", "to", "cases", "confidence", "observed"];
        write_rows(&dir.join(RELIABILITY), &bins, &self.reliability)?;
        write_rows(&dir.join(ROC), &CURVE, &self.roc)?;
        write_rows(&dir.join(PR), &CURVE, &self.pr)?;
        write_json(&dir.join(SUMMARY), &self.summary)
    }
}
