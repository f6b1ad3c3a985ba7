//! Which cases hold the same image or the same label map, and what was done about it.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use pipe_cache::Digest;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One row for each case that repeats an earlier one (by id), sorted by `case`.
///
/// On disk: `duplicates.csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateTable {
    pub rows: Vec<Duplicate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    pub case: String,
    pub patient: String,
    pub kind: DuplicateKind,
    /// The first case, by id, with the same content.
    pub same_as: String,
    pub same_as_patient: String,
    /// Digest of the content that both share.
    pub content: Digest,
    pub action: DuplicateAction,
    /// What a person should know about this pair.
    pub remark: String,
}

/// What is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateKind {
    /// Shape and voxel values of the images are equal.
    ExactImage,
    /// Shape and voxel values of the label maps are equal, although the images differ.
    ExactLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateAction {
    /// `case` is not in the table that goes on.
    Removed,
    Kept,
}

const FILE: &str = "duplicates.csv";
const COLUMNS: [&str; 8] =
    ["case", "patient", "kind", "same_as", "same_as_patient", "content", "action", "remark"];

impl Artifact for DuplicateTable {
    const TYPE: &'static str = "duplicate-table";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { rows: read_rows(&dir.join(FILE))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(FILE), &COLUMNS, &self.rows)
    }
}
