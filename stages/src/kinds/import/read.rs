//! Opens the files of one case and keeps what the case table and the checks need. Judges nothing across cases.

use super::layout::Candidate;
use crate::artifacts::{FileRef, table_file::seven_digits};
use crate::context::{ExternalFiles, StageContext};
use crate::error::StageError;
use pipe_cache::Digest;
use pipe_imaging::nifti::{self, Fault};
use pipe_imaging::{Geometry, LabelMap, check, digest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// What the files of a case hold. Memoised, so it depends on their content only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) image: Option<Half>,
    pub(super) label: Option<Half>,
    pub(super) problems: Vec<Problem>,
}

/// What one readable file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Half {
    pub(super) voxels: Digest,
    /// Axis order z, y, x.
    pub(super) shape: [usize; 3],
    /// Axis order z, y, x; seven significant digits, the precision of a NIfTI header.
    pub(super) spacing_mm: [f64; 3],
    pub(super) orientation: String,
    pub(super) dtype: String,
    pub(super) channels: usize,
    /// Voxels of each value; of label maps only.
    pub(super) labels: BTreeMap<u8, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) of: Which,
    /// The case cannot be used.
    pub(super) fatal: bool,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Which {
    Image,
    Label,
}

/// Reads a case, or recalls what an earlier run read in files of the same content.
pub(super) fn read(
    candidate: &Candidate,
    files: &ExternalFiles,
    context: &StageContext,
) -> Result<Reading, StageError> {
    let digest = |file: &Option<FileRef>| file.as_ref().map(|file| file.digest);
    let key = json!({ "image": digest(&candidate.image), "label": digest(&candidate.label) });
    context.memo(&key, &context.scratch, |_| {
        let mut reading = Reading { image: None, label: None, problems: Vec::new() };
        let image = match &candidate.image {
            Some(file) => reading.image(&files.root.join(&file.path))?,
            None => None,
        };
        let label = match &candidate.label {
            Some(file) => reading.label(&files.root.join(&file.path))?,
            None => None,
        };
        if let (Some(image), Some(label)) = (image, label) {
            reading.add(Which::Label, check::check_grids(&image, label.geometry()));
        }
        Ok(reading)
    })
}

impl Reading {
    fn image(&mut self, path: &Path) -> Result<Option<Geometry>, StageError> {
        let read = nifti::read_header(path).and_then(|header| Ok((header, nifti::read_image(path)?)));
        let Some((header, image)) = self.opened(Which::Image, read)? else { return Ok(None) };
        self.add(Which::Image, check::check_header(&header));
        self.add(Which::Image, check::check_image(&image));
        self.image = Some(half(&header, Digest(digest::image_digest(&image).0), BTreeMap::new()));
        Ok(Some(*image.geometry()))
    }

    fn label(&mut self, path: &Path) -> Result<Option<LabelMap>, StageError> {
        let read = nifti::read_header(path).and_then(|header| Ok((header, nifti::read_label(path)?)));
        let Some((header, label)) = self.opened(Which::Label, read)? else { return Ok(None) };
        self.add(Which::Label, check::check_header(&header));
        self.add(Which::Label, check::check_label(&label, None));
        let counts = label.histogram();
        let present =
            (0..=u8::MAX).map(|value| (value, counts[usize::from(value)])).filter(|(_, count)| *count > 0);
        self.label = Some(half(&header, Digest(digest::label_digest(&label).0), present.collect()));
        Ok(Some(label))
    }

    /// Damage is a problem of the case; a file that cannot be opened at all is a failure of the stage, because it
    /// may be there again the next time.
    fn opened<T>(&mut self, of: Which, read: Result<T, nifti::Error>) -> Result<Option<T>, StageError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.fault(), Fault::Io(_) | Fault::Memory { .. }) => {
                Err(StageError::inner("reading the data set")(error))
            }
            Err(error) => {
                self.problems.push(Problem {
                    of,
                    fatal: true,
                    text: format!("cannot be read: {}", error.fault()),
                });
                Ok(None)
            }
        }
    }

    fn add(&mut self, of: Which, findings: impl IntoIterator<Item = check::Finding>) {
        self.problems.extend(findings.into_iter().map(|finding| Problem {
            of,
            fatal: finding.severity() == check::Severity::Error,
            text: finding.to_string(),
        }));
    }
}

fn half(header: &nifti::Header, voxels: Digest, labels: BTreeMap<u8, u64>) -> Half {
    Half {
        voxels,
        shape: header.geometry.shape.0,
        spacing_mm: header.geometry.spacing_mm().map(seven_digits),
        orientation: header.geometry.orientation().to_string(),
        dtype: header.datatype.to_string(),
        channels: header.channels,
        labels,
    }
}
