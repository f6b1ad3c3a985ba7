//! Scores a folder of label maps against another, outside of any pipeline.

use super::compare::compare;
use super::score::{apart_mm, score_case};
use super::scoring::Scoring;
use super::summary::{Case, Origin, metrics};
use crate::artifact::Artifact;
use crate::artifacts::Metrics;
use crate::error::StageError;
use crate::kinds::import::PatientRule;
use fs_err as fs;
use pipe_imaging::LabelMap;
use pipe_imaging::open::{self, Options};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What to score.
#[derive(Debug)]
pub struct Folders<'a> {
    pub predictions: &'a Path,
    pub references: &'a Path,
    /// Other predictions of the same cases, to compare with.
    pub baseline: Option<&'a Path>,
    /// Value → name of each label that is scored; others are ignored. Empty for all that occur in any map.
    pub labels: BTreeMap<u8, String>,
    /// How the name of a file tells the patient.
    pub patient: PatientRule,
}

/// Scores every file of `predictions` against the file of the same name in `references`, some cases at a time.
///
/// Fails where a reference has no prediction or the other way round: a case that is left out makes figures better.
/// `notice` gets what the user should look at.
pub fn evaluate(
    folders: &Folders,
    scoring: &Scoring,
    notice: &(dyn Fn(&str) + Sync),
) -> Result<Metrics, StageError> {
    let references = label_files(folders.references)?;
    let predictions = matched(folders.references, &references, folders.predictions)?;
    let baseline = folders.baseline.map(|baseline| matched(folders.references, &references, baseline));
    let baseline = baseline.transpose()?;
    let labels = if folders.labels.is_empty() {
        let others = baseline.iter().flat_map(BTreeMap::values);
        found_labels(references.values().chain(predictions.values()).chain(others))?
    } else {
        folders.labels.clone()
    };
    let one = |predictions: &BTreeMap<String, PathBuf>| {
        one_side(&references, predictions, &labels, folders.patient, scoring, notice)
    };
    let mut own = one(&predictions)?;
    if let Some(baseline) = &baseline {
        let other = one(baseline)?;
        own.summary.comparison = compare(&own, &other, scoring).map_err(StageError::Data)?;
    }
    Ok(own)
}

/// Writes `metrics.csv` and `summary.json` into a folder, which is made.
pub fn write(metrics: &Metrics, folder: &Path) -> Result<(), StageError> {
    fs::create_dir_all(folder).map_err(StageError::io("create", folder))?;
    metrics.store(folder)
}

fn one_side(
    references: &BTreeMap<String, PathBuf>,
    predictions: &BTreeMap<String, PathBuf>,
    labels: &BTreeMap<u8, String>,
    patient: PatientRule,
    scoring: &Scoring,
    notice: &(dyn Fn(&str) + Sync),
) -> Result<Metrics, StageError> {
    let targets = scoring.targets(labels).map_err(StageError::Data)?;
    let pairs: Vec<_> = references.iter().zip(predictions.values()).collect();
    let case = |((id, reference), prediction): &((&String, &PathBuf), &PathBuf)| {
        let maps = (read(reference)?, read(prediction)?);
        if let Some(distance) = apart_mm(&maps.0, &maps.1) {
            notice(&format!(
                "`{}` and `{}` lie {distance:.3} mm apart by their headers, and were compared voxel by voxel all the same",
                prediction.display(),
                reference.display()
            ));
        }
        let scores = score_case(&maps.0, &maps.1, None, &targets, scoring)
            .map_err(|problem| StageError::Data(format!("`{}` {problem}", reference.display())))?;
        let patient = patient
            .patient(id)
            .map_err(|problem| StageError::Data(format!("the name of case `{id}` {problem}")))?;
        Ok(Case { id: (*id).clone(), patient, scores: Some(scores) })
    };
    let cases: Vec<Case> = pairs.par_iter().with_max_len(1).map(case).collect::<Result<_, StageError>>()?;
    let origin = Origin { part: "folder".into(), folds: Vec::new(), prediction: None };
    Ok(metrics(&cases, &targets, scoring, origin))
}

fn read(path: &Path) -> Result<LabelMap, StageError> {
    let opened = open::label(path, Options::default());
    opened.map(|opened| opened.volume).map_err(StageError::inner(format!("reading `{}`", path.display())))
}

/// The prediction of every reference, by case.
fn matched(
    references_dir: &Path,
    references: &BTreeMap<String, PathBuf>,
    predictions_dir: &Path,
) -> Result<BTreeMap<String, PathBuf>, StageError> {
    let predictions = label_files(predictions_dir)?;
    let without = |these: &BTreeMap<String, PathBuf>, others: &BTreeMap<String, PathBuf>| {
        let lone: Vec<String> = these.keys().filter(|case| !others.contains_key(*case)).cloned().collect();
        lone
    };
    for (lone, has, lacks) in [
        (without(references, &predictions), references_dir, predictions_dir),
        (without(&predictions, references), predictions_dir, references_dir),
    ] {
        if let [first, rest @ ..] = lone.as_slice() {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            return Err(StageError::Data(format!(
                "case `{first}`{more} of `{}` has no file of that name in `{}`: every case needs both",
                has.display(),
                lacks.display()
            )));
        }
    }
    Ok(predictions)
}

/// Files with other endings are no label maps: a folder of predictions also holds tables and logs.
const ENDINGS: [&str; 8] = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".tiff"];

/// The label maps of a folder by name without ending; hidden files are left out.
fn label_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, StageError> {
    if !folder.is_dir() {
        return Err(StageError::Data(format!("`{}` is no folder", folder.display())));
    }
    let entries = fs::read_dir(folder).map_err(StageError::io("list", folder))?;
    let paths: Result<BTreeSet<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files = BTreeMap::new();
    for path in paths.map_err(StageError::io("list", folder))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(id) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) else { continue };
        // Archives from macOS hold `._case.nii.gz` beside `case.nii.gz`.
        if id.starts_with('.') {
            continue;
        }
        if let Some(twice) = files.insert(id.to_owned(), path.clone()) {
            let (one, other) = (twice.display(), path.display());
            return Err(StageError::Data(format!("`{one}` and `{other}` are the same case: remove one")));
        }
    }
    if files.is_empty() {
        return Err(StageError::Data(format!(
            "`{}` holds no label map: their names end in {}",
            folder.display(),
            ENDINGS.join(", ")
        )));
    }
    Ok(files)
}

/// Every value of every map but background, named by itself.
fn found_labels<'a>(maps: impl Iterator<Item = &'a PathBuf>) -> Result<BTreeMap<u8, String>, StageError> {
    let paths: Vec<&PathBuf> = maps.collect();
    let values = |path: &&PathBuf| -> Result<BTreeSet<u8>, StageError> {
        let counts = read(path)?.histogram();
        Ok((0..=u8::MAX).filter(|value| counts[usize::from(*value)] > 0).collect())
    };
    let found: Vec<BTreeSet<u8>> = paths.par_iter().map(values).collect::<Result<_, _>>()?;
    let found: BTreeSet<u8> = found.into_iter().flatten().filter(|label| *label != 0).collect();
    if found.is_empty() {
        return Err(StageError::Data("no map has a label: there is nothing to score".into()));
    }
    Ok(found.into_iter().map(|label| (label, label.to_string())).collect())
}

#[cfg(test)]
mod tests;
