//! One evaluation against another on the same cases.

use super::scoring::Scoring;
use super::summary::finite;
use crate::artifacts::metrics::{ComparisonRow, Interval, Metrics};
use pipe_metrics::paired::Comparison;
use pipe_metrics::segmentation::{Direction, Metric};
use std::collections::{BTreeMap, BTreeSet};

/// Compares every metric of every label that both evaluations have. The error says why they cannot be compared.
pub(super) fn compare(
    own: &Metrics,
    baseline: &Metrics,
    scoring: &Scoring,
) -> Result<Vec<ComparisonRow>, String> {
    let cases =
        |metrics: &Metrics| -> BTreeSet<String> { metrics.rows.iter().map(|row| row.case.clone()).collect() };
    let (here, there) = (cases(own), cases(baseline));
    if let Some(case) = here.symmetric_difference(&there).next() {
        let (has, lacks) = if here.contains(case) {
            ("this evaluation", "the baseline")
        } else {
            ("the baseline", "this evaluation")
        };
        return Err(format!(
            "case `{case}` is scored in {has} but not in {lacks}: a paired comparison needs the same cases in both"
        ));
    }
    let (rules, others) = (&own.summary.rules, &baseline.summary.rules);
    if rules != others {
        return Err(format!(
            "the baseline was measured by other rules: {} here, {} there",
            serde_json::to_string(rules).unwrap_or_default(),
            serde_json::to_string(others).unwrap_or_default()
        ));
    }
    // The values of each patient, the cases in the same order on both sides: rows are sorted by case.
    let by_patient = |metrics: &Metrics, name: &str, metric: Metric| -> BTreeMap<String, Vec<f64>> {
        let mut patients: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for row in metrics.rows.iter().filter(|row| row.name == name && row.metric == metric.name()) {
            let value = row.value.unwrap_or(f64::NAN);
            // Of a signed error the size is compared.
            let value = if metric.direction() == Direction::Zero { value.abs() } else { value };
            patients.entry(row.patient.clone()).or_default().push(value);
        }
        patients
    };
    let mut rows = Vec::new();
    for label in &own.summary.labels {
        for &metric in &scoring.metrics {
            let (new, old) =
                (by_patient(own, &label.name, metric), by_patient(baseline, &label.name, metric));
            if old.is_empty() {
                continue;
            }
            if !new.keys().eq(old.keys()) || new.values().zip(old.values()).any(|(a, b)| a.len() != b.len()) {
                return Err("the cases belong to other patients in the baseline".into());
            }
            let (new, old): (Vec<_>, Vec<_>) = (new.into_values().collect(), old.into_values().collect());
            let found = Comparison::of(&old, &new, &scoring.bootstrap);
            let (better, worse) = match metric.direction() {
                Direction::Higher => (found.higher, found.lower),
                Direction::Lower | Direction::Zero => (found.lower, found.higher),
            };
            rows.push(ComparisonRow {
                label: label.label,
                name: label.name.clone(),
                metric: metric.name().into(),
                patients: found.patients,
                undefined: found.undefined,
                better,
                worse,
                equal: found.equal,
                mean_difference: finite(found.mean_difference),
                interval: Interval::finite(found.interval),
                median_difference: finite(found.median_difference),
                p_wilcoxon: finite(found.wilcoxon.p),
                exact: found.wilcoxon.exact,
                p_bootstrap: finite(found.p_bootstrap),
                rank_biserial: finite(found.rank_biserial),
                cohens_dz: finite(found.cohens_dz),
            });
        }
    }
    Ok(rows)
}
