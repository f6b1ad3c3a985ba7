//! What is measured of a segmentation and by which rules: parameters as written, checked, and bound to labels.

use crate::artifacts::metrics::Rules;
use crate::artifacts::predictor::labels_text;
use crate::stage::ParamProblem;
use pipe_metrics::bootstrap::Bootstrap;
use pipe_metrics::lesions::{Connectivity, LesionRule};
use pipe_metrics::segmentation::{Absent, Metric, OneEmpty, Settings};
use pipe_metrics::surface::Definition;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// How predictions are scored, as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scoring {
    pub metrics: Vec<Metric>,
    pub definition: Definition,
    /// Of NSD, for labels that `tolerances_mm` does not name.
    pub tolerance_mm: f64,
    /// Of NSD, by name of a label or group.
    pub tolerances_mm: BTreeMap<String, f64>,
    /// Labels scored as one, by the name of the group.
    pub groups: BTreeMap<String, Vec<String>>,
    pub empty: OneEmpty,
    pub absent: Absent,
    pub lesions: LesionRule,
    pub bootstrap: Bootstrap,
}

impl Default for Scoring {
    fn default() -> Self {
        let Settings { definition, tolerance_mm, one_empty, absent, lesions, .. } = Settings::default();
        Self {
            metrics: vec![
                Metric::Dice,
                Metric::Iou,
                Metric::Precision,
                Metric::Recall,
                Metric::Nsd,
                Metric::Hd95,
                Metric::Assd,
                Metric::VolumeErrorMl,
            ],
            definition,
            tolerance_mm,
            tolerances_mm: BTreeMap::new(),
            groups: BTreeMap::new(),
            empty: one_empty,
            absent,
            lesions,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// A label, or several as one, that gets scores of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// The value of the label; groups are numbered on from the last label.
    pub label: u8,
    pub name: String,
    /// The values that belong to it.
    pub members: Vec<u8>,
    pub tolerance_mm: f64,
}

impl Target {
    pub fn is_group(&self) -> bool {
        self.members != [self.label]
    }
}

impl Scoring {
    /// The place of Dice among the metrics, where it is measured.
    pub(in crate::kinds) fn dice(&self) -> Option<usize> {
        self.metrics.iter().position(|metric| *metric == Metric::Dice)
    }

    /// What is wrong whatever the labels are.
    pub fn check(&self) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        let names = || self.metrics.iter().map(|metric| metric.name());
        if self.metrics.is_empty() {
            problem(
                "metrics",
                "is empty: nothing would be measured".into(),
                "name metrics, such as [dice, nsd]",
            );
        }
        if let Some(twice) = names().find(|name| names().filter(|other| other == name).count() > 1) {
            problem("metrics", format!("`{twice}` is there twice"), "name every metric once");
        }
        let unknown = self.metrics.iter().find(|metric| !metric.is_defined_by(self.definition));
        if let Some(metric) = unknown {
            problem(
                "metrics",
                format!("`{}` does not exist in `definition: {}`", metric.name(), self.definition.name()),
                "leave it out, or use `definition: deepmind` or `monai`",
            );
        }
        let lengths = std::iter::once(("tolerance_mm", self.tolerance_mm))
            .chain(self.tolerances_mm.values().map(|length| ("tolerances_mm", *length)));
        for (parameter, length) in lengths.filter(|(_, length)| !(length.is_finite() && *length >= 0.0)) {
            problem(parameter, format!("{length} is no distance"), "use a number of mm from 0, such as 1");
        }
        if self.empty == OneEmpty::Library && self.absent == Absent::Perfect {
            problem(
                "absent",
                "has no meaning with `empty: library`, which keeps what the library does".into(),
                "remove one of them",
            );
        }
        for (name, members) in &self.groups {
            if members.is_empty() {
                problem("groups", format!("`{name}` has no labels"), "list the names of its labels");
            }
        }
        if !(0.0..=1.0).contains(&self.lesions.overlap) {
            let message = format!("{} is no share of a lesion", self.lesions.overlap);
            problem("lesion_overlap", message, "use a number from 0 (one voxel is enough) to 1");
        }
        if !(self.bootstrap.level > 0.0 && self.bootstrap.level < 1.0) {
            let message = format!("{} is no level of confidence", self.bootstrap.level);
            problem("confidence", message, "use a number between 0 and 1, such as 0.95");
        }
        if !(100..=1_000_000).contains(&self.bootstrap.resamples) {
            let message = format!("{} resamples are too few or too many", self.bootstrap.resamples);
            problem("resamples", message, "use a number from 100 to 1000000, such as 2000");
        }
        problems
    }

    /// Every foreground label and every group. The error says which name is not known.
    pub fn targets(&self, labels: &BTreeMap<u8, String>) -> Result<Vec<Target>, String> {
        let foreground = || labels.iter().filter(|(label, _)| **label != 0);
        let known = || labels_text(&foreground().map(|(label, name)| (*label, name.clone())).collect());
        let mut targets: Vec<Target> = Vec::new();
        let tolerance = |name: &str| self.tolerances_mm.get(name).copied().unwrap_or(self.tolerance_mm);
        for (label, name) in foreground() {
            let tolerance_mm = tolerance(name);
            targets.push(Target { label: *label, name: name.clone(), members: vec![*label], tolerance_mm });
        }
        for (name, wanted) in &self.groups {
            if labels.values().any(|label| label == name) {
                return Err(format!(
                    "`groups` names `{name}`, which is a label already: choose another name"
                ));
            }
            let value = |wanted: &String| {
                let found = foreground().find(|(_, name)| *name == wanted).map(|(label, _)| *label);
                found.ok_or_else(|| {
                    format!("group `{name}` holds `{wanted}`, which is no label: there are {}", known())
                })
            };
            let members: BTreeSet<u8> = wanted.iter().map(value).collect::<Result<_, String>>()?;
            let last = targets.last().map_or(0, |target| target.label);
            let label = last.checked_add(1).ok_or_else(|| {
                format!("there is no number left for group `{name}` after label {last}: at most 255 fit")
            })?;
            let members = members.into_iter().collect();
            targets.push(Target { label, name: name.clone(), members, tolerance_mm: tolerance(name) });
        }
        match self.tolerances_mm.keys().find(|name| targets.iter().all(|target| target.name != **name)) {
            None => Ok(targets),
            Some(name) => Err(format!(
                "`tolerances_mm` names `{name}`, which is neither a label nor a group: there are {}",
                known()
            )),
        }
    }

    pub(in crate::kinds) fn settings(&self) -> Settings {
        Settings {
            metrics: self.metrics.clone(),
            definition: self.definition,
            tolerance_mm: self.tolerance_mm,
            tolerances_mm: BTreeMap::new(),
            one_empty: self.empty,
            absent: self.absent,
            lesions: self.lesions,
        }
    }

    pub(in crate::kinds) fn rules(&self, targets: &[Target]) -> Rules {
        Rules {
            definition: self.definition.name().into(),
            tolerance_mm: targets.iter().map(|target| (target.name.clone(), target.tolerance_mm)).collect(),
            empty: word(&self.empty),
            absent: word(&self.absent),
            connectivity: word(&self.lesions.connectivity),
            lesion_overlap: self.lesions.overlap,
            confidence: self.bootstrap.level,
            resamples: self.bootstrap.resamples,
        }
    }

    /// What each figure means, for people.
    pub(in crate::kinds) fn definitions(&self) -> BTreeMap<String, String> {
        let metrics = self.metrics.iter();
        let metrics = metrics.map(|metric| (metric.name(), metric.meaning(self.definition).to_owned()));
        metrics.chain(self.general()).map(|(name, text)| (name.to_owned(), text)).collect()
    }

    fn general(&self) -> Vec<(&'static str, String)> {
        let one_sided = match self.empty {
            OneEmpty::Worst => "the diagonal of the volume",
            OneEmpty::Infinite => "infinity",
            OneEmpty::Undefined => "undefined",
            OneEmpty::Library => "what the library of the definition gives",
        };
        let absent = match (self.empty, self.absent) {
            (OneEmpty::Library, _) => "what the library of the definition gives",
            (_, Absent::Undefined) => "undefined",
            (_, Absent::Perfect) => "perfect: shares 1, distances 0",
        };
        let Bootstrap { resamples, level, .. } = self.bootstrap;
        let mut texts = vec![
            (
                "space",
                "Reference and prediction are compared voxel by voxel on the grid of the source label file.".into(),
            ),
            (
                "empty_masks",
                format!(
                    "Where one map has a label and the other does not, Dice, IoU and NSD are 0 and distances are {one_sided}. \
                     Where neither has it, values without a formula are {absent}. How often a rule decided is counted."
                ),
            ),
            ("undefined", "Undefined values are empty in metrics.csv; they enter no figure and are counted.".into()),
            (
                "figures",
                "Over the cases with a defined value: arithmetic mean, sample standard deviation (n − 1), quartiles \
                 interpolated linearly."
                    .into(),
            ),
            (
                "intervals",
                format!(
                    "{} % percentile intervals of the mean from {resamples} bootstrap samples of patients: cases of one \
                     patient are drawn together.",
                    level * 100.0
                ),
            ),
            (
                "mean_foreground_dice",
                "Mean over the labels, without background and groups, of the mean dice over cases.".into(),
            ),
        ];
        if self.metrics.contains(&Metric::Nsd) {
            let own = self.tolerances_mm.iter().map(|(name, mm)| format!(", {mm} mm for {name}"));
            texts.push(("tolerance", format!("NSD at {} mm{}.", self.tolerance_mm, own.collect::<String>())));
        }
        if self.metrics.iter().any(|metric| metric.needs_lesions()) {
            let enough = match self.lesions.overlap {
                0.0 => "one voxel of it is".into(),
                share => format!("{} % of it are", share * 100.0),
            };
            let neighbours = match self.lesions.connectivity {
                Connectivity::Faces => 6,
                Connectivity::Corners => 26,
            };
            let text =
                format!("Components of {neighbours}-connected voxels; one counts when {enough} covered.");
            texts.push(("lesions", text));
        }
        texts
    }
}

/// A choice as it is written.
fn word<T: Serialize>(choice: &T) -> String {
    json!(choice).as_str().unwrap_or_default().to_owned()
}
