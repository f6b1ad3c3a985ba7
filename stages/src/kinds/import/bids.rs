//! Cases in the layout of BIDS: what a file is stands in its name, `sub-01_ses-2_T1w.nii.gz`. Looks at names and at
//! `participants.tsv`, never into an image.

use super::Bids;
use super::layout::{Candidate, Layout, case_id, finding};
use crate::artifacts::{CheckAction, DatasetInfo, FileRef, Finding, Severity};
use crate::context::ExternalFiles;
use crate::error::StageError;
use fs_err as fs;
use std::collections::BTreeMap;

const PARTICIPANTS: &str = "participants.tsv";
const DESCRIPTION: &str = "dataset_description.json";

/// Whether a text can stand at the end of a BIDS name.
pub(super) fn is_suffix(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Pairs images and label maps by their names.
pub(super) fn read(suffixes: &Bids, files: &ExternalFiles) -> Result<Layout, StageError> {
    let text = |name: &str| {
        let path = files.root.join(name);
        let there = files.files.iter().any(|file| file.path == name);
        there.then(|| fs::read(&path).map_err(StageError::io("read", &path))).transpose()
    };
    let participants = text(PARTICIPANTS)?.map_or_else(|| Ok(BTreeMap::new()), |text| participants(&text))?;
    let mut findings = Vec::new();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for file in &files.files {
        let Some(name) = Name::of(&file.path) else { continue };
        let file = FileRef { path: file.path.clone(), digest: file.digest };
        if name.suffix == suffixes.image && !file.path.starts_with("derivatives/") {
            images.push((name, file));
        } else if suffixes.label.as_deref() == Some(name.suffix.as_str()) {
            labels.push((name, file));
        }
    }
    let mut candidates: BTreeMap<String, (Name, Candidate)> = BTreeMap::new();
    for (name, file) in images {
        let id = name.id();
        if let Some((_, first)) = candidates.get(&id) {
            let first = first.image.as_ref().map_or("", |image| &image.path);
            let problem = format!("has the same name as `{first}`, which is used");
            findings.push(finding(&id, &file.path, Severity::Warning, problem, CheckAction::Skipped));
            continue;
        }
        let candidate = Candidate {
            id: id.clone(),
            patient: Some(format!("sub-{}", name.subject())),
            info: participants.get(&format!("sub-{}", name.subject())).cloned().unwrap_or_default(),
            image: Some(file),
            ..Candidate::default()
        };
        candidates.insert(id, (name, candidate));
    }
    let mut maps: BTreeMap<String, Vec<(Name, FileRef)>> = BTreeMap::new();
    for (name, file) in labels {
        // Of several images that fit, the one that says most.
        let fitting = candidates.iter().filter(|(_, (image, _))| name.is_of(image));
        if let Some((id, _)) = fitting.max_by_key(|(_, (image, _))| image.entities.len()) {
            maps.entry(id.clone()).or_default().push((name, file));
            continue;
        }
        let problem = format!("label without image: no `{}` has a name that fits", suffixes.image);
        findings.push(finding(&name.id(), &file.path, Severity::Error, problem, CheckAction::Excluded));
    }
    for (id, maps) in maps {
        let (_, candidate) = candidates.get_mut(&id).expect("a label joined an image that is there");
        add_maps(candidate, maps, &mut findings);
    }
    Ok(Layout {
        dataset: DatasetInfo { name: data_set_name(text(DESCRIPTION)?.as_deref()), ..DatasetInfo::default() },
        labels_known: false,
        images_only: false,
        candidates: candidates.into_values().map(|(_, candidate)| candidate).collect(),
        findings,
    })
}

/// One label map is the label; several are those of annotators.
fn add_maps(candidate: &mut Candidate, mut maps: Vec<(Name, FileRef)>, findings: &mut Vec<Finding>) {
    if maps.len() == 1 {
        candidate.label = maps.pop().map(|(_, file)| file);
        return;
    }
    for (name, file) in maps {
        let annotator = name.entities.get("desc").cloned();
        let is_known = |who: &String| candidate.annotations.iter().any(|(known, _)| known == who);
        if let Some(annotator) = annotator.filter(|who| !is_known(who)) {
            candidate.annotations.push((annotator, file));
            continue;
        }
        let problem = "is one of several label maps, and no `desc-NAME` of its own tells whose".to_owned();
        findings.push(finding(&candidate.id, &file.path, Severity::Error, problem, CheckAction::Excluded));
        candidate.incomplete = true;
    }
    candidate.annotations.sort_by(|one, other| one.0.cmp(&other.0));
}

/// `Name` of `dataset_description.json`, where it can be read: nothing depends on it.
fn data_set_name(description: Option<&[u8]>) -> String {
    let value = description.and_then(|text| serde_json::from_slice::<serde_json::Value>(text).ok());
    let name = value.as_ref().and_then(|value| value.get("Name")).and_then(serde_json::Value::as_str);
    name.unwrap_or_default().to_owned()
}

/// What is known of each participant, by column. `n/a` is BIDS for nothing.
fn participants(text: &[u8]) -> Result<BTreeMap<String, BTreeMap<String, String>>, StageError> {
    let broken = |error: csv::Error| StageError::Data(format!("`{PARTICIPANTS}` is no table: {error}"));
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').trim(csv::Trim::All).from_reader(text);
    let headers = reader.headers().map_err(broken)?.clone();
    let columns: Vec<&str> = headers.iter().map(|column| column.trim_start_matches('\u{feff}')).collect();
    if columns.first() != Some(&"participant_id") {
        return Err(StageError::Data(format!(
            "the first column of `{PARTICIPANTS}` is `{}`, not `participant_id`",
            columns.first().unwrap_or(&"")
        )));
    }
    let mut participants = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let fields =
            columns.iter().zip(&record).skip(1).filter(|(_, text)| !text.is_empty() && *text != "n/a");
        let fields = fields.map(|(column, text)| (column.to_ascii_lowercase(), text.to_owned())).collect();
        participants.insert(record.get(0).unwrap_or_default().to_owned(), fields);
    }
    Ok(participants)
}

/// A BIDS name in its parts: `sub-01_ses-2_T1w` has the entities `sub` and `ses` and the suffix `T1w`.
#[derive(Debug, Clone)]
struct Name {
    stem: String,
    entities: BTreeMap<String, String>,
    suffix: String,
}

impl Name {
    /// Nothing for a file that is no image of a subject, or hidden.
    fn of(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next()?;
        let stem = case_id(path);
        if stem == file || stem.starts_with('.') || path.split('/').any(|folder| folder.starts_with('.')) {
            return None;
        }
        let (entities, suffix) = stem.rsplit_once('_')?;
        let pairs = entities.split('_').map(|entity| entity.split_once('-'));
        let entities: BTreeMap<String, String> = pairs
            .map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect::<Option<_>>()?;
        entities.get("sub").is_some_and(|subject| !subject.is_empty()).then(|| Self {
            stem: stem.to_owned(),
            entities,
            suffix: suffix.to_owned(),
        })
    }

    fn subject(&self) -> &str {
        &self.entities["sub"]
    }

    /// The name without its suffix.
    fn id(&self) -> String {
        self.stem[..self.stem.len() - self.suffix.len() - 1].to_owned()
    }

    /// Whether this has all entities of an image; derivatives add `space`, `desc`, `label`, …
    fn is_of(&self, image: &Self) -> bool {
        image.entities.iter().all(|(key, value)| self.entities.get(key) == Some(value))
    }
}
