//! `dataset.json` of the Medical Segmentation Decathlon, read with patience: whatever can be used is used, and
//! everything else is told.

use crate::artifacts::{DatasetInfo, Severity};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What `dataset.json` says.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    pub(super) dataset: DatasetInfo,
    /// The training list, or `None` when there is none that can be used.
    pub(super) training: Option<Vec<Entry>>,
    /// Whether `dataset.labels` tells which label values are allowed.
    pub(super) labels_known: bool,
    pub(super) problems: Vec<(Severity, String)>,
}

/// One line of the training list; paths are relative to the data set, without a leading `./`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) image: String,
    pub(super) label: Option<String>,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Never fails: what is missing or of another type is a problem in the result.
pub(super) fn parse(bytes: &[u8]) -> Manifest {
    let mut manifest = Manifest::default();
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let root: Map<String, Value> = match serde_json::from_slice(bytes) {
        Ok(root) => root,
        Err(error) => {
            let text = format!("is not readable: {error}; label names and the training list are not known");
            manifest.problems.push((Severity::Error, text));
            return manifest;
        }
    };
    manifest.dataset.name = manifest.text(&root, "name");
    manifest.dataset.description = manifest.text(&root, "description");
    manifest.dataset.reference = manifest.text(&root, "reference");
    manifest.dataset.licence =
        root.get("licence").or_else(|| root.get("license")).map(plain).unwrap_or_default();
    if manifest.dataset.licence.is_empty() {
        manifest.problem(Severity::Warning, "names no `licence`".into());
    }
    manifest.channels(&root);
    manifest.labels(&root);
    manifest.training(&root);
    manifest
}

impl Manifest {
    fn problem(&mut self, severity: Severity, text: String) {
        self.problems.push((severity, text));
    }

    fn text(&mut self, root: &Map<String, Value>, key: &str) -> String {
        match root.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => {
                self.problem(Severity::Warning, format!("`{key}` is {other}, not a text"));
                String::new()
            }
            None => {
                self.problem(Severity::Warning, format!("has no `{key}`"));
                String::new()
            }
        }
    }

    fn channels(&mut self, root: &Map<String, Value>) {
        let Some(Value::Object(modality)) = root.get("modality") else {
            self.problem(Severity::Warning, "has no `modality` that names the channels".into());
            return;
        };
        let mut channels = BTreeMap::new();
        for (key, name) in modality {
            if let Ok(index) = key.parse::<usize>() {
                channels.insert(index, plain(name));
            } else {
                let text = format!("`modality` has the key `{key}`, not a number");
                self.problem(Severity::Warning, text);
            }
        }
        self.dataset.channels = channels.into_values().collect();
    }

    fn labels(&mut self, root: &Map<String, Value>) {
        let Some(Value::Object(labels)) = root.get("labels") else {
            self.problem(Severity::Error, "has no `labels`: any label value is accepted".into());
            return;
        };
        for (key, name) in labels {
            if let Ok(value) = key.parse::<u8>() {
                self.dataset.labels.insert(value, plain(name));
            } else {
                let text = format!("`labels` has the key `{key}`, not a whole number from 0 to 255");
                self.problem(Severity::Error, text);
            }
        }
        self.labels_known = self.dataset.labels.keys().any(|value| *value != 0);
        if !self.labels_known {
            self.problem(Severity::Error, "`labels` names no structure: any label value is accepted".into());
        }
        self.dataset.labels.entry(0).or_insert_with(|| "background".into());
    }

    fn training(&mut self, root: &Map<String, Value>) {
        let Some(Value::Array(list)) = root.get("training") else {
            self.problem(Severity::Error, "has no `training` list: the files found are used".into());
            return;
        };
        if let Some(said) =
            root.get("numTraining").and_then(Value::as_u64).filter(|said| *said != list.len() as u64)
        {
            let text = format!("says `numTraining` {said} but lists {} cases", list.len());
            self.problem(Severity::Warning, text);
        }
        let mut entries = Vec::new();
        for (index, entry) in list.iter().enumerate() {
            let Some(Value::String(image)) = entry.get("image") else {
                let text = format!("entry {index} of `training` is {entry}: it names no `image`");
                self.problem(Severity::Error, text);
                continue;
            };
            let label = entry.get("label").and_then(Value::as_str).map(inner_path);
            entries.push(Entry { image: inner_path(image), label });
        }
        self.training = Some(entries);
    }
}

/// The text of a JSON value without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn inner_path(path: &str) -> String {
    path.trim_start_matches("./").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn problems(text: &str) -> Vec<String> {
        parse(text.as_bytes()).problems.into_iter().map(|(_, text)| text).collect()
    }

    const WHOLE: &str = r#"{"name": "Liver", "description": "d", "reference": "r", "licence": "CC0",
        "modality": {"1": "T2", "0": "T1"}, "labels": {"0": "background", "1": "liver"}, "numTraining": 1,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]}"#;

    #[test]
    fn a_whole_manifest_has_no_problem() {
        let manifest = parse(WHOLE.as_bytes());
        assert_eq!(manifest.problems, []);
        assert_eq!(manifest.dataset.channels, ["T1", "T2"]);
        assert_eq!(manifest.dataset.foreground().collect::<Vec<_>>(), [(1, "liver")]);
        let entry = Entry { image: "imagesTr/a.nii.gz".into(), label: Some("labelsTr/a.nii.gz".into()) };
        assert_eq!(manifest.training, Some(vec![entry]));
        assert!(manifest.labels_known);
    }

    #[test]
    fn a_byte_order_mark_does_no_harm() {
        assert_eq!(problems(&format!("\u{feff}{WHOLE}")), [""; 0]);
    }

    #[test]
    fn broken_json_is_told_with_its_place() {
        let told = problems("{\"name\": \"Liver\",\n oops}");
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("line 2"), "{told:?}");
        assert_eq!(problems("[1, 2]").len(), 1);
        assert_eq!(problems("").len(), 1);
    }

    #[test]
    fn every_missing_key_is_told() {
        let told = problems("{}").join("\n");
        for key in ["name", "description", "reference", "licence", "modality", "labels", "training"] {
            assert!(told.contains(&format!("`{key}`")), "`{key}` is not told: {told}");
        }
    }

    #[test]
    fn values_of_another_kind_are_told() {
        let told = problems(
            r#"{"name": 4, "description": "", "reference": "", "licence": "x", "modality": {"a": "b"},
                "labels": {"0": "background", "300": "huge", "-1": "low"}, "numTraining": 3,
                "training": ["a.nii.gz", {"label": "x"}]}"#,
        )
        .join("\n");
        for part in [
            "`name` is 4",
            "key `a`",
            "key `300`",
            "key `-1`",
            "names no structure",
            "`numTraining` 3 but lists 2",
            "entry 0",
            "entry 1",
        ] {
            assert!(told.contains(part), "`{part}` is not told: {told}");
        }
    }
}
