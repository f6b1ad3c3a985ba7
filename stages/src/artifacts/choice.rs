//! Which of several models and ensembles was taken, and why.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Every candidate with its score on the validation cases of all folds, the best first.
///
/// On disk: `choice.csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub rows: Vec<ChoiceRow>,
}

/// A model (its networks of all folds), or several of them as an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceRow {
    /// Names of the models, with ` + ` between them.
    pub candidate: String,
    pub models: usize,
    /// Of all folds together.
    pub networks: usize,
    /// Validation cases it was scored on, each predicted only by networks that were not trained on it.
    pub cases: usize,
    pub mean_dice: Option<f64>,
    /// Interval of the mean from a bootstrap over patients.
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub chosen: bool,
    pub reason: String,
}

const TABLE: &str = "choice.csv";
const COLUMNS: [&str; 9] =
    ["candidate", "models", "networks", "cases", "mean_dice", "low", "high", "chosen", "reason"];

impl Artifact for Choice {
    const TYPE: &'static str = "choice";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { rows: read_rows(&dir.join(TABLE))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(TABLE), &COLUMNS, &self.rows)
    }
}
