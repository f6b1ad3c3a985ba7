//! Which files make a case. Looks at names and at `dataset.json`, never into an image.

use super::manifest::{self, Entry, Manifest};
use crate::artifacts::{CheckAction, Dataset, DatasetInfo, FileRef, Finding, Severity};
use crate::context::ExternalFile;
use std::collections::{BTreeMap, BTreeSet};

/// What a folder promises to hold.
pub(super) struct Layout {
    pub(super) dataset: DatasetInfo,
    /// Whether `dataset.labels` tells which label values are allowed.
    pub(super) labels_known: bool,
    /// Whether nothing here could have a label map, so that no case lacks one.
    pub(super) images_only: bool,
    /// Sorted by id.
    pub(super) candidates: Vec<Candidate>,
    pub(super) findings: Vec<Finding>,
}

/// Files that belong together by their listing or by their names; each half may be missing.
#[derive(Debug, Default, Clone)]
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) image: Option<FileRef>,
    pub(super) label: Option<FileRef>,
    /// The files of a DICOM series, in place of one image.
    pub(super) slices: Vec<FileRef>,
    /// Label maps by annotator, sorted.
    pub(super) annotations: Vec<(String, FileRef)>,
    /// What a table says besides.
    pub(super) info: BTreeMap<String, String>,
    /// Whose it is, where a table says.
    pub(super) patient: Option<String>,
    /// What the whole image shows, where a table says.
    pub(super) class: Option<String>,
    /// A file that `dataset.json` lists for it is not there.
    pub(super) incomplete: bool,
}

/// Pairs the files. `manifest` is the text of `dataset.json`, if there is one; paths are relative to the data set.
pub(super) fn read(manifest: Option<&[u8]>, files: &[ExternalFile]) -> Layout {
    let mut findings = Vec::new();
    let manifest = manifest.map_or_else(missing_manifest, manifest::parse);
    for (severity, problem) in &manifest.problems {
        findings.push(Finding {
            case: String::new(),
            file: Dataset::MANIFEST.into(),
            severity: *severity,
            problem: problem.clone(),
            action: CheckAction::Kept,
        });
    }
    let mut files = usable_files(files, &mut findings);
    let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
    for entry in manifest.training.iter().flatten() {
        add_listed(entry, &mut files, &mut candidates, &mut findings);
    }
    let listed: Option<BTreeSet<String>> =
        manifest.training.is_some().then(|| candidates.keys().cloned().collect());
    for file in files.into_values() {
        add_unlisted(file, &mut candidates, &mut findings);
    }
    for candidate in candidates.values() {
        let unlisted = listed.as_ref().is_some_and(|listed| !listed.contains(&candidate.id));
        if let (true, Some(image), Some(_)) = (unlisted, &candidate.image, &candidate.label) {
            let problem = format!("is not listed in {}", Dataset::MANIFEST);
            findings.push(finding(&candidate.id, &image.path, Severity::Warning, problem, CheckAction::Kept));
        }
    }
    Layout {
        dataset: manifest.dataset,
        labels_known: manifest.labels_known,
        images_only: false,
        candidates: candidates.into_values().collect(),
        findings,
    }
}

/// The name of a case: its file name without folder and extension.
pub(super) fn case_id(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii")).unwrap_or(name)
}

fn missing_manifest() -> Manifest {
    let text = "is not there: label names and the training list are not known";
    Manifest { problems: vec![(Severity::Error, text.into())], ..Manifest::default() }
}

/// Files that may be images or label maps, by path; tells of all others.
fn usable_files(files: &[ExternalFile], findings: &mut Vec<Finding>) -> BTreeMap<String, FileRef> {
    let mut usable = BTreeMap::new();
    for file in files.iter().filter(|file| file.path != Dataset::MANIFEST) {
        let Some((folder, name)) = file.path.split_once('/') else { continue };
        if folder != Dataset::IMAGES && folder != Dataset::LABELS {
            continue;
        }
        let told = if let Some(real) = name.strip_prefix("._") {
            Some((Severity::Note, format!("AppleDouble file that macOS adds to `{real}`")))
        } else if name.starts_with('.') {
            Some((Severity::Note, "hidden file".to_owned()))
        } else if name.contains('/') {
            Some((
                Severity::Warning,
                "lies in a folder of its own, which the layout does not have".to_owned(),
            ))
        } else if case_id(name) == name {
            Some((Severity::Warning, "is neither `.nii` nor `.nii.gz`".to_owned()))
        } else {
            None
        };
        if let Some((severity, problem)) = told {
            findings.push(finding("", &file.path, severity, problem, CheckAction::Skipped));
        } else {
            usable.insert(file.path.clone(), FileRef { path: file.path.clone(), digest: file.digest });
        }
    }
    usable
}

/// Takes the files of a training entry out of `files` and makes them a candidate.
fn add_listed(
    entry: &Entry,
    files: &mut BTreeMap<String, FileRef>,
    candidates: &mut BTreeMap<String, Candidate>,
    findings: &mut Vec<Finding>,
) {
    let id = case_id(&entry.image).to_owned();
    if candidates.contains_key(&id) {
        let problem = format!("is listed twice in {}", Dataset::MANIFEST);
        findings.push(finding(&id, &entry.image, Severity::Warning, problem, CheckAction::Kept));
        return;
    }
    let mut take = |path: &str| {
        let file = files.remove(path);
        if file.is_none() {
            let problem = format!("is listed in {}, but there is no such file", Dataset::MANIFEST);
            findings.push(finding(&id, path, Severity::Error, problem, CheckAction::Excluded));
        }
        file
    };
    let image = take(&entry.image);
    let label = entry.label.as_deref().and_then(take);
    if let Some(label) = entry.label.as_deref().filter(|label| case_id(label) != id) {
        let problem = format!("is listed with the label `{label}`, which has another name");
        findings.push(finding(&id, &entry.image, Severity::Warning, problem, CheckAction::Kept));
    }
    let incomplete = image.is_none() || (label.is_none() && entry.label.is_some());
    candidates.insert(id.clone(), Candidate { id, image, label, incomplete, ..Candidate::default() });
}

/// Joins a file to the candidate of its name, which may not exist yet.
fn add_unlisted(file: FileRef, candidates: &mut BTreeMap<String, Candidate>, findings: &mut Vec<Finding>) {
    let id = case_id(&file.path).to_owned();
    let is_image = file.path.starts_with(Dataset::IMAGES);
    let candidate = candidates.entry(id.clone()).or_insert_with(|| Candidate { id, ..Candidate::default() });
    let half = if is_image { &mut candidate.image } else { &mut candidate.label };
    match half {
        Some(first) => {
            let problem = format!("is a second file for the case, besides `{}`", first.path);
            findings.push(finding(
                &candidate.id,
                &file.path,
                Severity::Warning,
                problem,
                CheckAction::Skipped,
            ));
        }
        None => *half = Some(file),
    }
}

pub(super) fn finding(
    case: &str,
    file: &str,
    severity: Severity,
    problem: String,
    action: CheckAction,
) -> Finding {
    Finding { case: case.into(), file: file.into(), severity, problem, action }
}
