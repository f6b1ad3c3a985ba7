//! From label maps to voxel counts, from counts to metrics, from metrics to their distribution over cases.

use super::EvaluatedPart;
use super::choice::Job;
use crate::artifacts::metrics::{MetricRow, MetricSummary, Metrics, MetricsSummary, PredictionFacts};
use crate::artifacts::predictor::{Task, labels_text};
use pipe_imaging::{LabelMap, check};
use pipe_metrics::confusion::{Confusion, Counts};
use pipe_metrics::overlap;
use pipe_metrics::summary::Summary;
use std::collections::{BTreeMap, BTreeSet};

/// Voxel counts of each foreground label of one case.
pub(super) type LabelCounts = BTreeMap<u8, Counts>;

/// A metric of one label of one case, from its voxel counts.
struct Metric {
    name: &'static str,
    of: fn(&Counts) -> f64,
    definition: &'static str,
}

const METRICS: [Metric; 4] = [
    Metric {
        name: DICE,
        of: overlap::dice,
        definition: "2·TP / (2·TP + FP + FN) over voxels. Undefined when neither the reference nor the prediction has \
                     the label; 0 when only one of them has it.",
    },
    Metric {
        name: "iou",
        of: overlap::iou,
        definition: "Intersection over union, TP / (TP + FP + FN). Undefined and 0 as dice.",
    },
    Metric {
        name: "precision",
        of: overlap::precision,
        definition: "TP / (TP + FP). Undefined when the prediction does not have the label.",
    },
    Metric {
        name: "recall",
        of: overlap::recall,
        definition: "TP / (TP + FN). Undefined when the reference does not have the label.",
    },
];
const DICE: &str = "dice";

const GENERAL: [(&str, &str); 4] = [
    ("space", "Reference and prediction are compared voxel by voxel on the grid of the source label file."),
    ("undefined", "Undefined values are empty in metrics.csv; they enter no figure and are counted."),
    (
        "figures",
        "Over the cases with a defined value: arithmetic mean, sample standard deviation (n − 1), quartiles \
         interpolated linearly.",
    ),
    ("mean_foreground_dice", "Mean over the labels, without background, of the mean dice over cases."),
];

/// Counts every foreground label. The error completes a sentence that names the reference: another grid than the
/// prediction's, or a value that the networks have no class for.
pub(super) fn count(
    reference: &LabelMap,
    prediction: &LabelMap,
    labels: &BTreeMap<u8, String>,
) -> Result<LabelCounts, String> {
    // Smaller differences than these are warnings at import: voxels belong together although headers do not quite.
    let finding = check::check_grids(prediction.geometry(), reference.geometry());
    if let Some(finding) = finding.filter(|finding| finding.severity() == check::Severity::Error) {
        return Err(format!("cannot be compared with the prediction: {finding}"));
    }
    let confusion =
        Confusion::of(reference.as_slice(), prediction.as_slice()).map_err(|error| error.to_string())?;
    let found: BTreeSet<u8> = confusion.labels().into_iter().collect();
    if let Some(unknown) = found.iter().find(|label| !labels.contains_key(label)) {
        return Err(format!("has the value {unknown} but the model knows {}", labels_text(labels)));
    }
    Ok(foreground(labels).map(|(label, _)| (label, confusion.counts(label))).collect())
}

fn foreground(labels: &BTreeMap<u8, String>) -> impl Iterator<Item = (u8, &String)> {
    labels.iter().filter(|(label, _)| **label != 0).map(|(label, name)| (*label, name))
}

/// All values and their distributions; `counts` belong to `jobs`, `None` for cases without a reference.
pub(super) fn metrics(
    part: EvaluatedPart,
    jobs: &[Job],
    counts: &[Option<LabelCounts>],
    task: &Task,
    prediction: PredictionFacts,
) -> Metrics {
    let scored: Vec<(&Job, &LabelCounts)> =
        jobs.iter().zip(counts).filter_map(|(job, counts)| Some((job, counts.as_ref()?))).collect();
    let mut rows = Vec::new();
    for (job, counts) in &scored {
        for (label, name) in foreground(&task.labels) {
            rows.extend(METRICS.iter().map(|metric| MetricRow {
                case: job.row.id.clone(),
                patient: job.row.patient.clone(),
                label,
                name: name.clone(),
                metric: metric.name.into(),
                value: defined((metric.of)(&counts[&label])),
            }));
        }
    }
    let mut summaries = Vec::new();
    for (label, name) in foreground(&task.labels) {
        for metric in &METRICS {
            let values: Vec<f64> = scored.iter().map(|(_, counts)| (metric.of)(&counts[&label])).collect();
            summaries.push(summarise(label, name, metric.name, &values));
        }
    }
    let dices = summaries.iter().filter(|summary| summary.metric == DICE).filter_map(|summary| summary.mean);
    let dices: Vec<f64> = dices.collect();
    let unscored = jobs.iter().zip(counts).filter(|(_, counts)| counts.is_none());
    let definitions = METRICS.iter().map(|metric| (metric.name, metric.definition)).chain(GENERAL);
    let folds: BTreeSet<usize> = jobs.iter().filter_map(|job| job.fold).collect();
    let summary = MetricsSummary {
        part: part.name().into(),
        folds: folds.into_iter().collect(),
        cases: jobs.len(),
        without_reference: unscored.map(|(job, _)| job.row.id.clone()).collect(),
        mean_foreground_dice: defined(Summary::of(&dices).mean),
        metrics: summaries,
        definitions: definitions.map(|(name, text)| (name.into(), text.into())).collect(),
        prediction,
    };
    Metrics { rows, summary }
}

fn summarise(label: u8, name: &str, metric: &str, values: &[f64]) -> MetricSummary {
    let Summary { count, undefined, mean, sd, min, q1, median, q3, max } = Summary::of(values);
    MetricSummary {
        label,
        name: name.into(),
        metric: metric.into(),
        n: count,
        undefined,
        mean: defined(mean),
        sd: defined(sd),
        min: defined(min),
        q1: defined(q1),
        median: defined(median),
        q3: defined(q3),
        max: defined(max),
    }
}

fn defined(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}
