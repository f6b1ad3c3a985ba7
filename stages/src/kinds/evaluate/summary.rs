//! From the values of all cases to their table, their distribution and its intervals.

use super::score::TargetScore;
use super::scoring::{Scoring, Target};
use crate::artifacts::metrics::{
    Interval, LabelPresence, MetricRow, MetricSummary, Metrics, MetricsSummary, PredictionFacts,
};
use pipe_metrics::segmentation::Presence;
use pipe_metrics::summary::Summary;
use std::collections::BTreeMap;

/// A case that was predicted.
pub(in crate::kinds) struct Case {
    pub(in crate::kinds) id: String,
    pub(in crate::kinds) patient: String,
    /// `None` without a reference.
    pub(in crate::kinds) scores: Option<Vec<TargetScore>>,
}

/// Which cases these are, and who predicted them.
pub(in crate::kinds) struct Origin {
    pub(in crate::kinds) part: String,
    pub(in crate::kinds) folds: Vec<usize>,
    pub(in crate::kinds) prediction: Option<PredictionFacts>,
}

/// All values and what follows from them; `cases` in the order of their ids.
pub(in crate::kinds) fn metrics(
    cases: &[Case],
    targets: &[Target],
    scoring: &Scoring,
    origin: Origin,
) -> Metrics {
    let scored: Vec<(&Case, &[TargetScore])> =
        cases.iter().filter_map(|case| Some((case, case.scores.as_deref()?))).collect();
    let mut rows = Vec::new();
    for (case, scores) in &scored {
        for (target, score) in targets.iter().zip(*scores) {
            rows.extend(scoring.metrics.iter().zip(&score.values).map(|(metric, value)| MetricRow {
                case: case.id.clone(),
                patient: case.patient.clone(),
                label: target.label,
                name: target.name.clone(),
                metric: metric.name().into(),
                value: (!value.number.is_nan()).then_some(value.number),
                by_rule: value.ruled,
            }));
        }
    }
    // The cases of every patient, as positions in `scored`.
    let mut patients: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (case, _)) in scored.iter().enumerate() {
        patients.entry(&case.patient).or_default().push(at);
    }
    let patients: Vec<Vec<usize>> = patients.into_values().collect();
    let value = |case: usize, target: usize, metric: usize| scored[case].1[target].values[metric];

    let mut summaries = Vec::new();
    for (t, target) in targets.iter().enumerate() {
        for (m, metric) in scoring.metrics.iter().enumerate() {
            let of = |case: usize| value(case, t, m).number;
            let values: Vec<f64> = (0..scored.len()).map(of).collect();
            let by_patient: Vec<Vec<f64>> =
                patients.iter().map(|cases| cases.iter().map(|&case| of(case)).collect()).collect();
            let Summary { count, undefined, mean, sd, min, q1, median, q3, max } = Summary::of(&values);
            summaries.push(MetricSummary {
                label: target.label,
                name: target.name.clone(),
                metric: metric.name().into(),
                n: count,
                undefined,
                by_rule: (0..scored.len()).filter(|&case| value(case, t, m).ruled).count(),
                mean: finite(mean),
                interval: Interval::finite(scoring.bootstrap.mean_interval(&by_patient)),
                sd: finite(sd),
                min: finite(min),
                q1: finite(q1),
                median: finite(median),
                q3: finite(q3),
                max: finite(max),
            });
        }
    }
    let presence = |(t, target): (usize, &Target)| {
        let count = |wanted| scored.iter().filter(|(_, scores)| scores[t].presence == wanted).count();
        LabelPresence {
            label: target.label,
            name: target.name.clone(),
            in_both: count(Presence::Both),
            missed: count(Presence::Missed),
            spurious: count(Presence::Spurious),
            absent: count(Presence::Absent),
        }
    };
    let labels = targets.iter().enumerate().map(presence).collect();

    let single: Vec<usize> = (0..targets.len()).filter(|&t| !targets[t].is_group()).collect();
    let dice_of = |case: &usize| -> Vec<f64> {
        let dice = scoring.dice();
        single.iter().map(|&t| dice.map_or(f64::NAN, |dice| value(*case, t, dice).number)).collect()
    };
    let dice: Vec<Vec<Vec<f64>>> = patients.iter().map(|cases| cases.iter().map(dice_of).collect()).collect();
    let mean_dice = |times: &[u32]| mean_dice(&dice, times);
    let summary = MetricsSummary {
        part: origin.part,
        folds: origin.folds,
        cases: cases.len(),
        patients: patients.len(),
        without_reference: cases
            .iter()
            .filter(|case| case.scores.is_none())
            .map(|case| case.id.clone())
            .collect(),
        mean_foreground_dice: finite(mean_dice(&vec![1; patients.len()])),
        mean_foreground_dice_interval: Interval::finite(
            scoring.bootstrap.interval(patients.len(), mean_dice),
        ),
        labels,
        metrics: summaries,
        comparison: Vec::new(),
        ensemble: None,
        rules: scoring.rules(targets),
        definitions: scoring.definitions(),
        prediction: origin.prediction,
    };
    Metrics { rows, summary }
}

/// Mean Dice over cases, then over the labels that have a mean. `dice`: of each patient, of each case, of each label;
/// `times`: how often each patient counts.
pub(in crate::kinds) fn mean_dice(dice: &[Vec<Vec<f64>>], times: &[u32]) -> f64 {
    let labels = dice.iter().flatten().map(Vec::len).next().unwrap_or(0);
    let mean = |label: usize| {
        let (mut sum, mut count) = (0.0, 0.0);
        for (cases, &times) in dice.iter().zip(times) {
            for number in cases.iter().map(|case| case[label]).filter(|number| !number.is_nan()) {
                sum += number * f64::from(times);
                count += f64::from(times);
            }
        }
        sum / count
    };
    Summary::of(&(0..labels).map(mean).collect::<Vec<f64>>()).mean
}

pub(in crate::kinds) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
