//! Which cases show the same, or come from one person, on what evidence, and what was done about it.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use pipe_cache::Digest;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Pairs of cases, sorted by `case`, then `kind`; together the pairs of a kind link all members of each group once.
///
/// On disk: `duplicates.csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct DuplicateTable {
    pub rows: Vec<Duplicate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duplicate {
    pub case: String,
    pub patient: String,
    pub kind: DuplicateKind,
    /// The other case, which would be kept of the two: one of an official test part before others, then by id.
    pub same_as: String,
    pub same_as_patient: String,
    /// How alike the two are, up to 1; what is compared depends on the kind.
    pub score: f64,
    /// The same of the case outside the group that is most like one of the two; empty when none was compared.
    pub runner_up: Option<f64>,
    /// Digest of what both share, where they are equal.
    pub content: Option<Digest>,
    pub action: DuplicateAction,
    /// What a person should know about this pair.
    pub remark: String,
}

/// What two cases have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateKind {
    /// Shape and voxel values of the images are equal.
    ExactImage,
    /// The images are equal but for intensity scale, noise, grid, mirroring or a small shift. The score is the
    /// normalised correlation of their fine structure.
    NearImage,
    /// The images were cut from one scan or scaled together. The score is the smaller of their intensity steps by the
    /// larger.
    Related,
    /// Shape and voxel values of the label maps are equal, although the images differ.
    ExactLabel,
    /// The label maps are nearly equal, although the images differ. The score is their Dice coefficient.
    NearLabel,
}

impl DuplicateKind {
    pub const ALL: [Self; 5] =
        [Self::ExactImage, Self::NearImage, Self::Related, Self::ExactLabel, Self::NearLabel];

    /// In a sentence about two cases: `case … {verb} case …`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::ExactImage => "holds the image of",
            Self::NearImage => "holds nearly the image of",
            Self::Related => "comes from the same scan as",
            Self::ExactLabel => "holds the label map of",
            Self::NearLabel => "holds nearly the label map of",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateAction {
    /// `case` is not in the table that goes on.
    Removed,
    /// Both cases have the same patient from here on.
    Grouped,
    /// Nothing was changed.
    Reported,
}

const FILE: &str = "duplicates.csv";
const COLUMNS: [&str; 10] = [
    "case",
    "patient",
    "kind",
    "same_as",
    "same_as_patient",
    "score",
    "runner_up",
    "content",
    "action",
    "remark",
];

impl Artifact for DuplicateTable {
    const TYPE: &'static str = "duplicate-table";
    const FORMAT: u32 = 2;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { rows: read_rows(&dir.join(FILE))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(FILE), &COLUMNS, &self.rows)
    }
}
