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

const CASES: &str = "cases.csv";
const RELIABILITY: &str = "reliability.csv";
const ROC: &str = "roc.csv";
const PR: &str = "pr.csv";
const SUMMARY: &str = "summary.json";
const CURVE: [&str; 4] = ["class", "threshold", "x", "y"];

impl Artifact for ClassMetrics {
    const TYPE: &'static str = "class-metrics";
    const FORMAT: u32 = 1;

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
