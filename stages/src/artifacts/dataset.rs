//! A data set that a stage made, in the layout of the Medical Segmentation Decathlon.

use crate::{artifact::Artifact, error::StageError};
use std::path::{Path, PathBuf};

/// A folder with `imagesTr/*.nii.gz`, and of a whole data set `labelsTr/*.nii.gz` and `dataset.json`, written file by
/// file.
///
/// Tables that go with it name its files by digest, so nobody needs to know where this folder lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub root: PathBuf,
}

impl Dataset {
    pub const MANIFEST: &str = "dataset.json";
    pub const IMAGES: &str = "imagesTr";
    pub const LABELS: &str = "labelsTr";
}

impl Artifact for Dataset {
    const TYPE: &'static str = "dataset";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self { root: dir.to_owned() })
    }

    /// Nothing is left to write: the files were made in place, see
    /// [`StageContext::output_dir`](crate::context::StageContext::output_dir).
    fn store(&self, dir: &Path) -> Result<(), StageError> {
        if self.root == dir {
            return Ok(());
        }
        Err(StageError::Internal(format!(
            "data set lies in `{}`, not in `{}`",
            self.root.display(),
            dir.display()
        )))
    }
}
