//! Predicted label maps in the space of the source images.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use pipe_imaging::{LabelMap, nifti};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One label map a case, on the grid of its source image, and which networks made it.
///
/// On disk: `ID.nii.gz` (u8) and `predictions.csv` (one row a case, sorted by `id`). The label maps are written in
/// place, see [`StageContext::output_dir`](crate::context::StageContext::output_dir), and read one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predictions {
    pub root: PathBuf,
    pub rows: Vec<PredictionRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictionRow {
    pub id: String,
    pub patient: String,
    /// `test` or `validation`.
    pub part: String,
    /// The fold in which the case is validated; empty for test.
    pub fold: Option<usize>,
    /// Names of the networks that were averaged, with `; ` between them.
    pub members: String,
    /// Whether there was a reference to score against.
    pub scored: bool,
    /// The label map, relative to the table.
    pub file: String,
}

impl Predictions {
    /// Name of the label map of a case.
    pub fn file_name(id: &str) -> String {
        format!("{id}.nii.gz")
    }

    /// Reads the label map of a case.
    pub fn label(&self, id: &str) -> Result<LabelMap, StageError> {
        if !self.rows.iter().any(|row| row.id == id) {
            return Err(StageError::Data(format!("there is no prediction of case `{id}`")));
        }
        let path = self.root.join(Self::file_name(id));
        nifti::read_label(&path).map_err(StageError::malformed(&path))
    }
}

const TABLE: &str = "predictions.csv";
const COLUMNS: [&str; 7] = ["id", "patient", "part", "fold", "members", "scored", "file"];

impl Artifact for Predictions {
    const TYPE: &'static str = "predictions";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(TABLE);
        let rows: Vec<PredictionRow> = read_rows(&path)?;
        if let Some(row) = rows.iter().find(|row| row.file != Self::file_name(&row.id)) {
            let problem =
                format!("case `{}` lies in `{}`, not in `{}`", row.id, row.file, Self::file_name(&row.id));
            return Err(StageError::malformed(&path)(problem));
        }
        Ok(Self { root: dir.to_owned(), rows })
    }

    /// Writes the table; the label maps must lie there already.
    fn store(&self, dir: &Path) -> Result<(), StageError> {
        if self.root != dir {
            let (root, dir) = (self.root.display(), dir.display());
            return Err(StageError::Internal(format!("predictions lie in `{root}`, not in `{dir}`")));
        }
        if let Some(row) = self.rows.iter().find(|row| !dir.join(&row.file).is_file()) {
            return Err(StageError::Internal(format!("the prediction of case `{}` was not written", row.id)));
        }
        write_rows(&dir.join(TABLE), &COLUMNS, &self.rows)
    }
}
