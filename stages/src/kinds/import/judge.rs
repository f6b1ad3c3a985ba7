//! From what was read to the case table and the findings. Opens no file.

use super::layout::{Candidate, Layout, finding};
use super::read::{Half, Reading, Which};
use super::{FourD, Params, Unlabelled};
use crate::artifacts::{
    Annotation, Case, CaseTable, CheckAction, CheckTable, DatasetInfo, FileRef, Finding, Severity,
};
use crate::kinds::listing::counted;
use pipe_imaging::check;
use std::collections::{BTreeMap, BTreeSet};

/// Turns what was read into the case table and the findings; `readings` belong to the layout's candidates.
pub(super) fn judge(params: &Params, layout: Layout, readings: &[Reading]) -> (CaseTable, CheckTable) {
    let Layout { mut dataset, labels_known, images_only, candidates, mut findings } = layout;
    let allowed = labels_known.then(|| dataset.labels.keys().copied().collect::<BTreeSet<u8>>());
    let judge = Judge { params, allowed, images_only, channels: dataset.channels.len() };
    let mut cases = Vec::new();
    let mut values: BTreeSet<u8> = BTreeSet::new();
    for (candidate, reading) in candidates.iter().zip(readings) {
        let (case, found) = judge.case(candidate, reading);
        findings.extend(found);
        if let Some(case) = case {
            let maps = reading.label.iter().chain(reading.annotations.iter().flatten());
            values.extend(maps.flat_map(|map| map.labels.keys()));
            cases.push(case);
        }
    }
    name_unknown(&mut dataset, &values, &cases);
    // Also of cases that are left out for another reason.
    let whole =
        candidates.iter().zip(readings).filter(|(case, _)| case.image.is_some() || !case.slices.is_empty());
    let labels: BTreeMap<_, &str> = whole
        .filter_map(|(case, reading)| Some((reading.label.as_ref()?.voxels, case.id.as_str())))
        .collect();
    for (candidate, reading) in candidates.iter().zip(readings) {
        if candidate.incomplete {
            continue;
        }
        if let (None, Some(file), Some(label)) = (&candidate.image, &candidate.label, &reading.label) {
            let same =
                labels.get(&label.voxels).map(|id| format!(", voxel for voxel the label of case `{id}`"));
            let problem = format!("label without image{}: {}", same.unwrap_or_default(), describe(label));
            findings.push(finding(
                &candidate.id,
                &file.path,
                Severity::Error,
                problem,
                CheckAction::Excluded,
            ));
        }
    }
    findings.sort();
    (CaseTable { dataset, cases }, CheckTable { findings })
}

struct Judge<'a> {
    params: &'a Params,
    /// Label values that the data set declares, if it does.
    allowed: Option<BTreeSet<u8>>,
    images_only: bool,
    /// Number of channels that the data set declares; 0 when it does not.
    channels: usize,
}

impl Judge<'_> {
    /// The case, if it can be used, and all that is wrong with it except a label without image.
    fn case(&self, candidate: &Candidate, reading: &Reading) -> (Option<Case>, Vec<Finding>) {
        let mut problems: Vec<(Which, bool, String)> = reading
            .problems
            .iter()
            .map(|problem| (problem.of.clone(), problem.fatal, problem.text.clone()))
            .collect();
        let maps = std::iter::once((Which::Label, reading.label.as_ref()));
        let maps = maps.chain(
            candidate
                .annotations
                .iter()
                .zip(&reading.annotations)
                .map(|((who, _), map)| (Which::Annotation(who.clone()), map.as_ref())),
        );
        for (of, map) in maps {
            problems.extend(self.unexpected_labels(map).map(|text| (of, true, text)));
        }
        problems.extend(self.unexpected_channels(reading).map(|text| (Which::Image, true, text)));
        let told = candidate.patient.clone().or_else(|| reading.patient.clone());
        let patient = told.map_or_else(|| self.params.patient_rule().patient(&candidate.id), Ok);
        if let Err(text) = &patient {
            problems.push((Which::Image, true, format!("case name {text}")));
        }
        let unlabelled = candidate.label.is_none()
            && candidate.annotations.is_empty()
            && candidate.class.is_none()
            && !candidate.incomplete
            && !self.images_only;
        if let (true, Some(image)) = (unlabelled, &reading.image) {
            let fatal = self.params.unlabelled == Unlabelled::Exclude;
            problems.push((Which::Image, fatal, format!("image without label: {}", describe(image))));
        }
        let usable = !candidate.incomplete && problems.iter().all(|(_, fatal, _)| !fatal);
        let found = problems.into_iter().map(|(of, fatal, text)| {
            let file = match &of {
                Which::Image => candidate.image.as_ref().or(candidate.slices.first()),
                Which::Label => candidate.label.as_ref(),
                Which::Annotation(annotator) => {
                    candidate.annotations.iter().find(|(who, _)| who == annotator).map(|(_, file)| file)
                }
            };
            let path =
                file.or(candidate.image.as_ref()).or(candidate.label.as_ref()).map_or("", |file| &file.path);
            let (severity, action) = match (fatal, usable) {
                (true, _) => (Severity::Error, CheckAction::Excluded),
                (false, true) => (Severity::Warning, CheckAction::Kept),
                (false, false) => (Severity::Warning, CheckAction::Excluded),
            };
            finding(&candidate.id, path, severity, text, action)
        });
        let case = match (usable, patient) {
            (true, Ok(patient)) => whole_case(candidate, reading, patient),
            _ => None,
        };
        (case, found.collect())
    }

    fn unexpected_labels(&self, map: Option<&Half>) -> Option<String> {
        let (allowed, label) = (self.allowed.as_ref()?, map?);
        let unexpected = label.labels.iter().filter(|(value, _)| !allowed.contains(value));
        let found: Vec<(u8, u64)> = unexpected.map(|(value, count)| (*value, *count)).collect();
        let allowed = allowed.iter().copied().collect();
        (!found.is_empty()).then(|| check::Finding::UnexpectedLabels { found, allowed }.to_string())
    }

    fn unexpected_channels(&self, reading: &Reading) -> Option<String> {
        let channels = reading.image.as_ref()?.channels;
        let expected = self.channels;
        let help = match (channels > 1 && expected == 1, self.params.four_d) {
            (true, FourD::Channels) => "; if they are time points, use `four_d: time`",
            _ => "",
        };
        (expected > 0 && channels != expected).then(|| {
            format!("image has {} but the data set declares {expected}{help}", counted(channels, "channel"))
        })
    }
}

/// The row of a case of which every file was read; `None` when one is missing that was listed.
fn whole_case(candidate: &Candidate, reading: &Reading, patient: String) -> Option<Case> {
    let (file, image) = (candidate.image.clone().or(reading.made.clone())?, reading.image.clone()?);
    let label: Option<(FileRef, &Half)> = match (&candidate.label, &reading.label) {
        (Some(file), Some(label)) => Some((file.clone(), label)),
        _ => None,
    };
    let foreground =
        |label: &Half| label.labels.iter().filter(|(value, _)| **value != 0).map(|(_, count)| count).sum();
    Some(Case {
        id: candidate.id.clone(),
        patient,
        class: candidate.class.clone(),
        images: vec![file],
        voxels: image.voxels,
        label_voxels: label.as_ref().map(|(_, label)| label.voxels),
        label_foreground: label.as_ref().map(|(_, label)| foreground(label)),
        label: label.map(|(file, _)| file),
        annotations: annotations(candidate, reading),
        info: candidate.info.clone(),
        shape: image.shape,
        spacing_mm: image.spacing_mm,
        orientation: image.orientation,
        dtype: image.dtype,
        channels: image.channels,
    })
}

fn annotations(candidate: &Candidate, reading: &Reading) -> Vec<Annotation> {
    let read = candidate.annotations.iter().zip(&reading.annotations);
    let known = read.filter_map(|((annotator, file), map)| {
        Some(Annotation { annotator: annotator.clone(), file: file.clone(), voxels: map.as_ref()?.voxels })
    });
    known.collect()
}

/// Gives channels and labels a name where `dataset.json` names none.
fn name_unknown(dataset: &mut DatasetInfo, values: &BTreeSet<u8>, cases: &[Case]) {
    if dataset.channels.is_empty() {
        let channels = cases.iter().map(|case| case.channels).max().unwrap_or(1);
        dataset.channels = (0..channels).map(|channel| format!("channel {channel}")).collect();
    }
    dataset.labels.entry(0).or_insert_with(|| "background".into());
    for value in values {
        dataset.labels.entry(*value).or_insert_with(|| format!("label {value}"));
    }
}

fn describe(half: &Half) -> String {
    let [z, y, x] = half.shape;
    let [dz, dy, dx] = half.spacing_mm;
    format!("{z}×{y}×{x} voxels of {dz}×{dy}×{dx} mm (z×y×x)")
}
