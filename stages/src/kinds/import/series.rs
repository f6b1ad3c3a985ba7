//! A folder of DICOM series without a table: every series becomes a case. What it can be instead is told. Looks at the
//! headers of the files, never at pixels.

use super::Params;
use super::layout::{Candidate, Layout, finding};
use crate::artifacts::{CheckAction, Dataset, DatasetInfo, FileRef, Finding, Severity};
use crate::context::{ExternalFile, ExternalFiles};
use crate::error::StageError;
use pipe_imaging::dicom::{self, Fault, Scan, Series};
use pipe_imaging::open::{self, Format};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SEGMENTATION: &str = "a DICOM segmentation (SEG), which is not read: convert it to a label map";

/// Finds the series below a folder, by what the headers of the files say.
pub(super) fn read(params: &Params, files: &ExternalFiles) -> Result<Layout, StageError> {
    let shown: Vec<&ExternalFile> = files.files.iter().filter(|file| !is_hidden(&file.path)).collect();
    let is_dicom = |file: &&&ExternalFile| {
        open::format(&files.root.join(&file.path)).is_ok_and(|format| format == Format::Dicom)
    };
    let dicom: BTreeMap<_, &ExternalFile> =
        shown.iter().filter(is_dicom).map(|file| (files.root.join(&file.path), *file)).collect();
    if !files.root.exists() {
        return Err(StageError::Data(format!(
            "`{}` holds no data set: there is no such folder",
            params.from
        )));
    }
    if dicom.is_empty() {
        return Err(StageError::Data(no_data_set(params, &shown)));
    }
    let Scan { series, skipped } = dicom::scan(dicom.keys().cloned());
    let mut findings = Vec::new();
    let (drawn, series): (Vec<Series>, Vec<Series>) =
        series.into_iter().partition(|series| series.facts.modality == "SEG");
    for slice in drawn.iter().flat_map(|series| &series.slices) {
        let path = dicom.get(&slice.path).map_or("", |file| file.path.as_str());
        findings.push(finding("", path, Severity::Note, SEGMENTATION.into(), CheckAction::Skipped));
    }
    let mut candidates = Found::of(&series, &dicom).candidates(&mut findings);
    for error in skipped {
        let Some(file) = dicom.get(error.path()) else { continue };
        let cause = error.fault();
        if let Some(what) = no_image(error.path(), cause) {
            let action = CheckAction::Skipped;
            findings.push(finding("", &file.path, Severity::Note, what, action));
            continue;
        }
        // A slice that cannot be read must not leave its series without notice: nothing else would tell.
        let folder = folder_of(&file.path);
        let mut of_series = candidates
            .iter_mut()
            .filter(|candidate| candidate.slices.iter().any(|slice| folder_of(&slice.path) == folder));
        if let (Some(only), None) = (of_series.next(), of_series.next()) {
            only.slices.push(reference(file));
            continue;
        }
        let problem = format!("cannot be read: {cause}");
        findings.push(finding("", &file.path, Severity::Error, problem, CheckAction::Skipped));
    }
    let problem = "a folder of DICOM series has no label maps; to give the cases some, list both in a CSV and name it with `table:`";
    findings.push(finding("", "", Severity::Note, problem.into(), CheckAction::Kept));
    let name = files.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Layout {
        dataset: DatasetInfo { name, ..DatasetInfo::default() },
        labels_known: false,
        images_only: true,
        candidates,
        findings,
    })
}

/// Series with the folders that their slices lie in.
struct Found<'a> {
    series: Vec<(&'a Series, Vec<FileRef>, String)>,
    /// How many series lie in, or across, each folder.
    sharing: BTreeMap<String, usize>,
}

impl<'a> Found<'a> {
    fn of(series: &'a [Series], files: &BTreeMap<std::path::PathBuf, &ExternalFile>) -> Self {
        let mut found = Self { series: Vec::new(), sharing: BTreeMap::new() };
        for one in series {
            let mut slices: Vec<FileRef> = one
                .slices
                .iter()
                .filter_map(|slice| files.get(&slice.path))
                .map(|file| reference(file))
                .collect();
            slices.sort_by(|a, b| a.path.cmp(&b.path));
            let folder = common_folder(&slices);
            *found.sharing.entry(folder.clone()).or_default() += 1;
            found.series.push((one, slices, folder));
        }
        found
    }

    /// A case is called as its folder, `Study1_T1`; where several series share one, by the UID of the series besides.
    fn candidates(self, findings: &mut Vec<Finding>) -> Vec<Candidate> {
        let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
        for (series, slices, folder) in self.series {
            let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            if self.sharing[&folder] > 1 || parts.is_empty() {
                parts.push(&series.facts.series_uid);
            }
            let whole = parts.join("_");
            let id = if candidates.contains_key(&whole) {
                // Volumes of one series, or folders `a_b` and `a/b`.
                let numbered = (2..).map(|number| format!("{whole}_{number}"));
                numbered.into_iter().find(|id| !candidates.contains_key(id)).unwrap_or(whole)
            } else {
                whole
            };
            if series.siblings > 1 {
                let problem = format!(
                    "one SeriesInstanceUID holds {} volumes of different size, spacing or orientation; this is {series}",
                    series.siblings
                );
                let first = slices.first().map_or("", |slice| slice.path.as_str());
                findings.push(finding(&id, first, Severity::Warning, problem, CheckAction::Kept));
            }
            let facts = &series.facts;
            let info = [
                ("modality", &facts.modality),
                ("series_description", &facts.description),
                ("study_date", &facts.study_date),
            ];
            let info = info.into_iter().filter(|(_, text)| !text.is_empty());
            let info = info.map(|(name, text)| (name.to_owned(), text.clone())).collect();
            candidates.insert(id.clone(), Candidate { id, slices, info, ..Candidate::default() });
        }
        candidates.into_values().collect()
    }
}

fn reference(file: &ExternalFile) -> FileRef {
    FileRef { path: file.path.clone(), digest: file.digest }
}

fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The innermost folder that holds all of the files.
fn common_folder(slices: &[FileRef]) -> String {
    let mut folders = slices.iter().map(|slice| folder_of(&slice.path).split('/').collect::<Vec<_>>());
    let first = folders.next().unwrap_or_default();
    let shared = folders.fold(first, |shared, folder| {
        shared.into_iter().zip(folder).take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
    });
    shared.join("/")
}

/// What a DICOM file is that holds no image, or an image on top of others; `None` for an image that is damaged or of a
/// kind that is not read.
fn no_image(path: &Path, cause: &Fault) -> Option<String> {
    let modality = dicom::modality(path).unwrap_or_default();
    match (modality.as_str(), cause) {
        ("RTSTRUCT", _) => {
            Some("DICOM contours (RTSTRUCT), which are not read: convert them to label maps".into())
        }
        ("SEG", _) => Some(SEGMENTATION.into()),
        ("", Fault::NoPixels) => Some("a DICOM file that holds no image".into()),
        (modality, Fault::NoPixels) => Some(format!("a DICOM file that holds no image ({modality})")),
        _ => None,
    }
}

/// What the folder holds instead, and how to say so.
fn no_data_set(params: &Params, files: &[&ExternalFile]) -> String {
    let below =
        params.task.as_ref().map(|task| format!(" or `{task}/{}`", Dataset::MANIFEST)).unwrap_or_default();
    let said = format!(
        "`{}` holds no data set: there is no `{}`, `{}` or `{}` in it{below}, and no DICOM series",
        params.from,
        Dataset::MANIFEST,
        Dataset::IMAGES,
        Dataset::LABELS
    );
    let names = || files.iter().map(|file| file.path.as_str());
    let archive = names().find(|path| path.to_ascii_lowercase().ends_with(".npz"));
    let bids = names().any(|path| path == "dataset_description.json" || path.starts_with("sub-"));
    let endings: BTreeSet<&str> = names().filter_map(image_ending).collect();
    let images = names().filter_map(image_ending).count();
    match (archive, bids) {
        (Some(archive), _) => format!("{said}; to read the archive in it, use `archive: {archive}`"),
        (None, true) => format!(
            "{said}; it looks like BIDS: use `bids: {{ image: T1w, label: dseg }}`, with your suffixes"
        ),
        (None, false) if images > 0 => format!(
            "{said}; list its {images} images ({}) in a CSV with the columns `id`, `image` and `label`, and name that with \
             `table:`",
            endings.into_iter().collect::<Vec<_>>().join(", ")
        ),
        (None, false) => format!(
            "{said}; to read other files, list them in a CSV with the columns `id`, `image` and `label`, and name that with `table:`"
        ),
    }
}

fn image_ending(path: &str) -> Option<&'static str> {
    const ENDINGS: [&str; 11] =
        [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".png", ".jpg", ".jpeg", ".tif", ".tiff"];
    let lower = path.to_ascii_lowercase();
    ENDINGS.into_iter().find(|ending| lower.ends_with(ending))
}
