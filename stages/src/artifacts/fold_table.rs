//! Which case is used for what: the test set, or one of the cross-validation folds.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The part of every case, sorted by `id`; ids are unique.
///
/// On disk: `folds.csv` with the columns `id`, `patient`, `part` (`train` or `test`) and `fold` (from 0, empty for
/// test).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldTable {
    pub rows: Vec<FoldRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldRow {
    pub id: String,
    pub patient: String,
    pub part: Part,
}

/// What a case is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Never trained on, never tuned on.
    Test,
    /// Validation in the fold of this number, training in all other folds.
    Fold(usize),
}

impl FoldTable {
    /// Number of folds.
    pub fn folds(&self) -> usize {
        let fold = |row: &FoldRow| match row.part {
            Part::Fold(fold) => Some(fold + 1),
            Part::Test => None,
        };
        self.rows.iter().filter_map(fold).max().unwrap_or(0)
    }

    /// Ids that a model of this fold trains on, sorted. An error when there is no such fold.
    pub fn training(&self, fold: usize) -> Result<Vec<&str>, StageError> {
        self.check_fold(fold)?;
        Ok(self.ids(|part| matches!(part, Part::Fold(other) if other != fold)))
    }

    /// Ids that a model of this fold is validated on, sorted. An error when there is no such fold.
    pub fn validation(&self, fold: usize) -> Result<Vec<&str>, StageError> {
        self.check_fold(fold)?;
        Ok(self.ids(|part| part == Part::Fold(fold)))
    }

    /// Ids of the test set, sorted; empty when there is none.
    pub fn test(&self) -> Vec<&str> {
        self.ids(|part| part == Part::Test)
    }

    /// Ids of all folds together, sorted: everything but the test set.
    pub fn development(&self) -> Vec<&str> {
        self.ids(|part| part != Part::Test)
    }

    fn ids(&self, accept: impl Fn(Part) -> bool) -> Vec<&str> {
        self.rows.iter().filter(|row| accept(row.part)).map(|row| row.id.as_str()).collect()
    }

    fn check_fold(&self, fold: usize) -> Result<(), StageError> {
        match self.folds() {
            folds if fold < folds => Ok(()),
            0 => Err(StageError::Data(format!("there is no fold {fold}: the split has no folds"))),
            folds => Err(StageError::Data(format!(
                "there is no fold {fold}: the split has folds 0 to {}",
                folds - 1
            ))),
        }
    }
}

const FILE: &str = "folds.csv";

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    patient: String,
    part: String,
    fold: Option<usize>,
}

impl Artifact for FoldTable {
    const TYPE: &'static str = "fold-table";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(FILE);
        let mut rows = Vec::new();
        for Row { id, patient, part, fold } in read_rows(&path)? {
            let part = match (part.as_str(), fold) {
                ("test", None) => Part::Test,
                ("train", Some(fold)) => Part::Fold(fold),
                _ => {
                    let text = format!(
                        "case `{id}` has part `{part}` and fold {fold:?}: expected `test` without fold or `train` with one"
                    );
                    return Err(StageError::malformed(&path)(text));
                }
            };
            rows.push(FoldRow { id, patient, part });
        }
        Ok(Self { rows })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        let row = |row: &FoldRow| {
            let (part, fold) = match row.part {
                Part::Test => ("test", None),
                Part::Fold(fold) => ("train", Some(fold)),
            };
            Row { id: row.id.clone(), patient: row.patient.clone(), part: part.to_owned(), fold }
        };
        let rows: Vec<Row> = self.rows.iter().map(row).collect();
        write_rows(&dir.join(FILE), &["id", "patient", "part", "fold"], &rows)
    }
}
