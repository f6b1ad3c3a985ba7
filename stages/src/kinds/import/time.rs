//! A file with a fourth axis that is time becomes one case a time point: of one patient, with the label map of the file.

use super::PatientRule;
use super::layout::{Candidate, Layout, finding};
use super::read::{Half, Problem, Reading, Which};
use crate::artifacts::{CheckAction, Dataset, FileRef, Severity};
use crate::error::StageError;
use fs_err as fs;
use pipe_cache::{Digest, hash_file};
use pipe_imaging::open::{Format, Opened};
use pipe_imaging::{Image, check, digest, nifti};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// The column that says which time point a case is, from 0.
const TIME_POINT: &str = "time_point";

/// One time point as a file of its own. Part of what is memoised of a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Point {
    /// Relative to the data set that the stage writes.
    made: FileRef,
    half: Half,
    problems: Vec<Problem>,
}

/// Whether the channels of a volume may be time points: those of a picture are colours.
pub(super) fn has_points(opened: &Opened<Image>) -> bool {
    opened.volume.channels() > 1 && opened.format != Format::Raster
}

fn point_id(id: &str, index: usize) -> String {
    format!("{id}_t{index:03}")
}

/// Writes every time point of an image below `dir`.
pub(super) fn cut(opened: &Opened<Image>, id: &str, dir: &Path) -> Result<Vec<Point>, StageError> {
    let doing = || format!("cutting `{id}` into time points");
    let folder = dir.join(Dataset::IMAGES);
    fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
    let geometry = *opened.volume.geometry();
    let one = |index: usize| {
        let voxels = opened.volume.channel(index).to_vec();
        let image = Image::from_vec(voxels, 1, geometry).map_err(StageError::inner(doing()))?;
        let name = format!("{}/{}.nii.gz", Dataset::IMAGES, point_id(id, index));
        let path = dir.join(&name);
        nifti::write_image(&path, &image).map_err(StageError::inner(doing()))?;
        let problems =
            check::check_image(&image).into_iter().map(|found| Problem::of_image(&found)).collect();
        let voxels = Digest(digest::image_digest(&image).0);
        Ok(Point {
            made: FileRef { path: name, digest: hash_file(&path).map_err(StageError::inner(doing()))? },
            half: Half::new(&geometry, 1, opened.datatype.name(), voxels, BTreeMap::new()),
            problems,
        })
    };
    (0..opened.volume.channels()).map(one).collect()
}

/// Puts the time points in the place of the case that they are cut from. A case whose name should tell the patient but
/// does not stays whole, for that to be told.
pub(super) fn spread(layout: &mut Layout, readings: Vec<Reading>, rule: PatientRule) -> Vec<Reading> {
    if readings.iter().all(|reading| reading.points.is_empty()) {
        return readings;
    }
    let mut cases: BTreeMap<String, (Candidate, Reading)> = BTreeMap::new();
    let mut cut = Vec::new();
    for (candidate, reading) in std::mem::take(&mut layout.candidates).into_iter().zip(readings) {
        let patient = candidate.patient.clone().or_else(|| rule.patient(&candidate.id).ok());
        match patient.filter(|_| !reading.points.is_empty()) {
            Some(patient) => cut.push((candidate, reading, patient)),
            None => drop(cases.insert(candidate.id.clone(), (candidate, reading))),
        }
    }
    for (candidate, reading, patient) in cut {
        for (index, point) in reading.points.iter().enumerate() {
            let id = point_id(&candidate.id, index);
            match cases.entry(id) {
                Entry::Vacant(place) => {
                    let one = of_point(place.key(), &candidate, &reading, &patient, index, point);
                    place.insert(one);
                }
                Entry::Occupied(taken) => {
                    let file = candidate.image.as_ref().map_or("", |image| &image.path);
                    let problem =
                        format!("time point {index} would be case `{}`, which is another", taken.key());
                    let action = CheckAction::Excluded;
                    layout.findings.push(finding(taken.key(), file, Severity::Error, problem, action));
                }
            }
        }
    }
    let (candidates, readings) = cases.into_values().unzip();
    layout.candidates = candidates;
    readings
}

fn of_point(
    id: &str,
    candidate: &Candidate,
    reading: &Reading,
    patient: &str,
    index: usize,
    point: &Point,
) -> (Candidate, Reading) {
    let mut info = candidate.info.clone();
    info.insert(TIME_POINT.into(), index.to_string());
    // What is only odd about the file is told once.
    let shared =
        reading.problems.iter().filter(|problem| index == 0 || problem.fatal || problem.of != Which::Image);
    let problems = shared.chain(&point.problems).cloned().collect();
    let candidate = Candidate {
        id: id.to_owned(),
        image: Some(point.made.clone()),
        patient: Some(patient.to_owned()),
        info,
        ..candidate.clone()
    };
    let reading =
        Reading { image: Some(point.half.clone()), problems, points: Vec::new(), ..reading.clone() };
    (candidate, reading)
}
