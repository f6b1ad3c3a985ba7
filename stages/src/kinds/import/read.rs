//! Opens the files of one case and keeps what the case table and the checks need. Judges nothing across cases.

use super::layout::Candidate;
use super::time::{self, Point};
use super::{DATASET, FourD};
use crate::artifacts::{Dataset, FileRef, table_file::seven_digits};
use crate::context::{ExternalFiles, StageContext};
use crate::error::StageError;
use fs_err as fs;
use pipe_cache::{Digest, hash_file};
use pipe_imaging::open::{self, Opened, Options};
use pipe_imaging::{Geometry, check, dicom, digest, nifti};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the files of a case hold. Memoised, so it depends on their content only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) image: Option<Half>,
    pub(super) label: Option<Half>,
    /// One for each of the candidate's; nothing for one that cannot be read.
    pub(super) annotations: Vec<Option<Half>>,
    pub(super) problems: Vec<Problem>,
    /// The NIfTI file that was made of a DICOM series, relative to the data set that the stage writes.
    pub(super) made: Option<FileRef>,
    /// Whose it is, where an image says.
    pub(super) patient: Option<String>,
    /// The time points of an image that is a series in time, in place of `image`.
    pub(super) points: Vec<Point>,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Which {
    Image,
    Label,
    /// The label map of this annotator.
    Annotation(String),
}

/// Reads a case, or recalls what an earlier run read in files of the same content.
pub(super) fn read(
    candidate: &Candidate,
    four_d: FourD,
    files: &ExternalFiles,
    context: &StageContext,
) -> Result<Reading, StageError> {
    let digest = |file: &Option<FileRef>| file.as_ref().map(|file| file.digest);
    let slices: Vec<Digest> = candidate.slices.iter().map(|file| file.digest).collect();
    // What is made bears the name of the case.
    let series = (!slices.is_empty()).then(|| format!("{}.nii.gz", candidate.id));
    let times = (four_d == FourD::Time).then_some(candidate.id.as_str());
    let key = json!({ "image": digest(&candidate.image), "label": digest(&candidate.label), "slices": slices, "series": series, "times": times,
        "annotations": candidate.annotations.iter().map(|(who, file)| (who, file.digest)).collect::<Vec<_>>() });
    let into = if series.is_some() || times.is_some() {
        context.output_dir(&DATASET)?
    } else {
        context.scratch.as_path()
    };
    context.memo(&key, into, |dir| {
        let mut reading = Reading {
            image: None,
            label: None,
            annotations: Vec::new(),
            problems: Vec::new(),
            made: None,
            patient: None,
            points: Vec::new(),
        };
        let image = match (&candidate.image, &series) {
            (Some(file), _) => reading.image(&files.root.join(&file.path), times.map(|id| (id, dir)))?,
            (None, Some(name)) => {
                let paths = candidate.slices.iter().map(|file| files.root.join(&file.path));
                reading.series(paths.collect(), dir, &format!("{}/{name}", Dataset::IMAGES))?
            }
            (None, None) => None,
        };
        if let Some(file) = &candidate.label {
            reading.label = reading.label(&files.root.join(&file.path), &Which::Label, image.as_ref())?;
        }
        for (annotator, file) in &candidate.annotations {
            let of = Which::Annotation(annotator.clone());
            let half = reading.label(&files.root.join(&file.path), &of, image.as_ref())?;
            reading.annotations.push(half);
        }
        Ok(reading)
    })
}

impl Reading {
    /// Reads an image; cuts it into time points below a folder where `times` gives one, with the name of the case.
    fn image(&mut self, path: &Path, times: Option<(&str, &Path)>) -> Result<Option<Geometry>, StageError> {
        let Some(opened) = self.opened(&Which::Image, open::image(path, Options::default()))? else {
            return Ok(None);
        };
        if let Some((id, dir)) = times.filter(|_| time::has_points(&opened)) {
            self.points = time::cut(&opened, id, dir)?;
            return Ok(Some(*opened.volume.geometry()));
        }
        self.add(&Which::Image, check::check_image(&opened.volume));
        self.patient =
            opened.facts.as_ref().map(|facts| facts.patient_id.clone()).filter(|id| !id.is_empty());
        let voxels = Digest(digest::image_digest(&opened.volume).0);
        let geometry = *opened.volume.geometry();
        self.image = Some(Half::new(
            &geometry,
            opened.volume.channels(),
            opened.datatype.name(),
            voxels,
            BTreeMap::new(),
        ));
        Ok(Some(geometry))
    }

    /// Reads a DICOM series and writes it as `name` below `dir`.
    fn series(
        &mut self,
        paths: Vec<PathBuf>,
        dir: &Path,
        name: &str,
    ) -> Result<Option<Geometry>, StageError> {
        let read = || {
            let series = dicom::series_among(paths)?;
            let stack = series.stack(dicom::MAX_VOXELS)?;
            Ok((series.facts, stack.notes.clone(), stack.datatype(), stack.read()?))
        };
        let (facts, notes, datatype, image) = match read() {
            Ok(read) => read,
            Err(error) => {
                let error: dicom::Error = error;
                if error.is_of_the_machine() {
                    return Err(StageError::inner("reading the data set")(error));
                }
                self.unreadable(&Which::Image, &error.told());
                return Ok(None);
            }
        };
        self.add(&Which::Image, notes.into_iter().map(check::Finding::Dicom));
        self.add(&Which::Image, check::check_image(&image));
        self.patient = Some(facts.patient_id).filter(|id| !id.is_empty());
        let path = dir.join(name);
        let folder = dir.join(Dataset::IMAGES);
        fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
        nifti::write_image(&path, &image).map_err(StageError::inner("writing a DICOM series as NIfTI"))?;
        let digest = hash_file(&path).map_err(StageError::inner("hashing the image that was made"))?;
        self.made = Some(FileRef { path: name.to_owned(), digest });
        let voxels = Digest(digest::image_digest(&image).0);
        self.image =
            Some(Half::new(image.geometry(), image.channels(), datatype.name(), voxels, BTreeMap::new()));
        Ok(Some(*image.geometry()))
    }

    /// Reads a label map, which should lie on the grid of its image.
    fn label(
        &mut self,
        path: &Path,
        of: &Which,
        image: Option<&Geometry>,
    ) -> Result<Option<Half>, StageError> {
        let Some(opened) = self.opened(of, open::label(path, Options::default()))? else {
            return Ok(None);
        };
        let label = opened.volume;
        self.add(of, check::check_label(&label, None));
        self.add(of, image.and_then(|image| check::check_grids(image, label.geometry())));
        let counts = label.histogram();
        let present =
            (0..=u8::MAX).map(|value| (value, counts[usize::from(value)])).filter(|(_, count)| *count > 0);
        let voxels = Digest(digest::label_digest(&label).0);
        Ok(Some(Half::new(label.geometry(), 1, opened.datatype.name(), voxels, present.collect())))
    }

    /// Damage is a problem of the case; a file that cannot be opened at all is a failure of the stage, because it
    /// may be there again the next time.
    fn opened<V>(
        &mut self,
        of: &Which,
        read: Result<Opened<V>, open::Error>,
    ) -> Result<Option<Opened<V>>, StageError> {
        let opened = match read {
            Ok(opened) => opened,
            Err(error) if error.is_of_the_machine() => {
                return Err(StageError::inner("reading the data set")(error));
            }
            Err(error) => {
                self.unreadable(of, &error.fault().to_string());
                return Ok(None);
            }
        };
        if let Some(file) = &opened.data_file {
            // Its digest would not change with the voxels.
            self.unreadable(
                of,
                &format!("its voxels lie in a second file, `{file}`; convert it to one file"),
            );
            return Ok(None);
        }
        self.add(of, opened.findings.iter().cloned());
        Ok(Some(opened))
    }

    fn unreadable(&mut self, of: &Which, why: &str) {
        self.problems.push(Problem { of: of.clone(), fatal: true, text: format!("cannot be read: {why}") });
    }

    fn add(&mut self, of: &Which, findings: impl IntoIterator<Item = check::Finding>) {
        self.problems.extend(findings.into_iter().map(|finding| Problem::new(of.clone(), &finding)));
    }
}

impl Problem {
    fn new(of: Which, finding: &check::Finding) -> Self {
        Self { of, fatal: finding.severity() == check::Severity::Error, text: finding.to_string() }
    }

    pub(super) fn of_image(finding: &check::Finding) -> Self {
        Self::new(Which::Image, finding)
    }
}

impl Half {
    pub(super) fn new(
        geometry: &Geometry,
        channels: usize,
        dtype: &str,
        voxels: Digest,
        labels: BTreeMap<u8, u64>,
    ) -> Self {
        Self {
            voxels,
            shape: geometry.shape.0,
            spacing_mm: geometry.spacing_mm().map(seven_digits),
            orientation: geometry.orientation().to_string(),
            dtype: dtype.to_owned(),
            channels,
            labels,
        }
    }
}
