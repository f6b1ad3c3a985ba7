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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<FoldTable, String> {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs_err::write(dir.path().join(FILE), text).expect("a table is written");
        FoldTable::load(dir.path()).map_err(|error| error.chain())
    }

    #[test]
    fn parts_are_told_apart_and_written_as_read() {
        let text = "id,patient,part,fold\na,p,train,0\nb,q,test,\nc,r,train,1\n";
        let table = load(text).expect("a table is read");
        assert_eq!(table.folds(), 2);
        assert_eq!(table.training(0).expect("fold 0"), ["c"]);
        assert_eq!(table.validation(0).expect("fold 0"), ["a"]);
        assert_eq!(table.test(), ["b"]);
        assert_eq!(table.development(), ["a", "c"]);
        let dir = tempfile::tempdir().expect("temporary folder");
        table.store(dir.path()).expect("a table is written");
        assert_eq!(fs_err::read_to_string(dir.path().join(FILE)).expect("the table is there"), text);
    }

    #[test]
    fn a_broken_row_is_told() {
        let error = load("id,patient,part,fold\na,p,test,3\n").expect_err("a test case has no fold");
        assert!(error.contains("case `a` has part `test` and fold Some(3)"), "{error}");
        assert!(load("id,patient,part,fold\na,p,train,\n").is_err());
        assert!(load("id,patient,part,fold\na,p,train,-1\n").is_err());
        assert!(load("id,part,fold\na,test,\n").is_err());
    }

    #[test]
    fn a_table_without_rows_has_no_folds() {
        let table = load("id,patient,part,fold\n").expect("a table is read");
        assert_eq!(table.folds(), 0);
        assert_eq!(
            table.training(0).expect_err("no fold").to_string(),
            "there is no fold 0: the split has no folds"
        );
    }
}
