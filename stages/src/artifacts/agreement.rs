//! How far annotators agree, case by case.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Agreement of annotators, and the cases in the order in which a person should look at them.
///
/// On disk: `pairs.csv` (one row a case, pair of annotators and label), `annotators.csv` (one row a case, annotator and
/// label), `ranking.csv` (one row a case, most disputed first) and `disagreement/ID.nii.gz` (the share of annotators
/// who do not hold the value of the majority, voxel by voxel; written by the stage).
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    pub pairs: Vec<PairRow>,
    pub annotators: Vec<AnnotatorRow>,
    pub ranking: Vec<RankRow>,
}

/// Two annotators on one label of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairRow {
    pub case: String,
    pub one: String,
    pub other: String,
    pub label: u8,
    pub name: String,
    /// Empty when neither marked the label.
    pub dice: Option<f64>,
    /// Cohen's kappa of the label against the rest; empty when neither marked it.
    pub kappa: Option<f64>,
}

/// One annotator on one label of one case, against all of them together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnotatorRow {
    pub case: String,
    pub annotator: String,
    pub label: u8,
    pub name: String,
    pub voxels: u64,
    /// With the consensus; empty when neither has the label.
    pub dice: Option<f64>,
    /// As STAPLE estimates it, whatever the consensus is; empty when nobody marked the label.
    pub sensitivity: Option<f64>,
    pub specificity: Option<f64>,
}

/// How disputed a case is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankRow {
    /// From 1, the case with the lowest mean Dice.
    pub rank: usize,
    pub case: String,
    pub annotators: usize,
    /// Over pairs and labels that somebody marked; empty when nobody marked anything.
    pub mean_dice: Option<f64>,
    /// Over pairs, all labels at once; empty when all left the image empty.
    pub mean_kappa: Option<f64>,
    /// Voxels on which not all agree, by voxels that anybody marked; empty when nobody marked any.
    pub disputed_share: Option<f64>,
}

impl Agreement {
    /// Folder of the disagreement maps.
    pub const MAPS: &str = "disagreement";
    const PAIRS: &str = "pairs.csv";
    const ANNOTATORS: &str = "annotators.csv";
    const RANKING: &str = "ranking.csv";
}

const PAIR_COLUMNS: [&str; 7] = ["case", "one", "other", "label", "name", "dice", "kappa"];
const ANNOTATOR_COLUMNS: [&str; 8] =
    ["case", "annotator", "label", "name", "voxels", "dice", "sensitivity", "specificity"];
const RANK_COLUMNS: [&str; 6] = ["rank", "case", "annotators", "mean_dice", "mean_kappa", "disputed_share"];

impl Artifact for Agreement {
    const TYPE: &'static str = "agreement";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self {
            pairs: read_rows(&dir.join(Self::PAIRS))?,
            annotators: read_rows(&dir.join(Self::ANNOTATORS))?,
            ranking: read_rows(&dir.join(Self::RANKING))?,
        })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(Self::PAIRS), &PAIR_COLUMNS, &self.pairs)?;
        write_rows(&dir.join(Self::ANNOTATORS), &ANNOTATOR_COLUMNS, &self.annotators)?;
        write_rows(&dir.join(Self::RANKING), &RANK_COLUMNS, &self.ranking)
    }
}
