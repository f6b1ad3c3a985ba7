//! A page for people.

use crate::{artifact::Artifact, error::StageError};
use fs_err as fs;
use std::path::Path;

/// One HTML page that needs no other file: `report.html`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub html: String,
}

impl Report {
    pub const FILE: &str = "report.html";
}

impl Artifact for Report {
    const TYPE: &'static str = "report";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(Self::FILE);
        Ok(Self { html: fs::read_to_string(&path).map_err(StageError::io("read", &path))? })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        let path = dir.join(Self::FILE);
        fs::write(&path, &self.html).map_err(StageError::io("write", &path))
    }
}
