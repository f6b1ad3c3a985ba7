//! What an import found wrong, file by file.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Every finding, sorted by case, file and text.
///
/// On disk: `checks.csv`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckTable {
    pub findings: Vec<Finding>,
}

/// One thing that is wrong or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Empty when the finding is about the data set as a whole.
    pub case: String,
    /// Relative to the root of the data set.
    pub file: String,
    pub severity: Severity,
    /// What is wrong, with both values.
    pub problem: String,
    pub action: CheckAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something cannot be used as it is.
    Error,
    /// Usable, but a person should look.
    Warning,
    /// Harmless.
    Note,
}

/// What the import did about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckAction {
    /// The case is not in the case table.
    Excluded,
    /// The case is in the case table as it is.
    Kept,
    /// The file is no part of any case and was not read.
    Skipped,
}

impl CheckTable {
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

const FILE: &str = "checks.csv";
const COLUMNS: [&str; 5] = ["case", "file", "severity", "problem", "action"];

impl Artifact for CheckTable {
    const TYPE: &'static str = "check-table";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { findings: read_rows(&dir.join(FILE))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(FILE), &COLUMNS, &self.findings)
    }
}
