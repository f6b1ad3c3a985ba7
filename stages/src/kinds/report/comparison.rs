//! The part of the results that compares them with a baseline, patient by patient.

use super::figures::{count, decimals, metric_name, optional, percent};
use super::markup::{Element, element, name, number, table};
use super::results::span;
use crate::artifacts::MetricsSummary;
use crate::artifacts::metrics::ComparisonRow;

/// Nothing without a baseline.
pub(super) fn section(summary: &MetricsSummary) -> Vec<Element> {
    let rows = &summary.comparison;
    let Some(patients) = rows.iter().map(|row| row.patients).max() else { return Vec::new() };
    let interval = format!("#{} interval", percent(summary.rules.confidence));
    let columns = [
        "Label",
        "#Better",
        "#Worse",
        "#Equal",
        "#Mean difference",
        &interval,
        "#p (Wilcoxon)",
        "#p (bootstrap)",
        "#Rank-biserial",
        "#d_z",
    ]
    .map(String::from);
    let mut metrics: Vec<&str> = Vec::new();
    for metric in rows.iter().map(|row| row.metric.as_str()) {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    let bodies = metrics.into_iter().map(|metric| {
        let own = || rows.iter().filter(|row| row.metric == metric);
        let heading =
            element("th").with("scope", "rowgroup").with("colspan", columns.len()).text(metric_name(metric));
        let decimals = decimals(own().filter_map(|row| row.mean_difference.map(f64::abs)));
        element("tbody")
            .child(element("tr").class("group").child(heading))
            .children(own().map(|row| line(row, decimals)))
    });
    let text = format!(
        "Against the baseline on the same cases, {} at most. Differences are of the mean over each patient's cases, this \
         evaluation minus the baseline; signed errors are compared by size. p is two-sided and not corrected for the number \
         of rows.",
        count(patients, "patient", "patients")
    );
    vec![
        element("h3").text("Compared with the baseline"),
        table(&columns, bodies),
        element("p").class("note").text(text),
    ]
}

fn line(row: &ComparisonRow, decimals: usize) -> Element {
    let cell = |value, decimals| number("td", optional(value, decimals));
    element("tr")
        .child(element("th").with("scope", "row").child(name(&row.name)))
        .children([row.better, row.worse, row.equal].map(|patients| number("td", patients.to_string())))
        .child(cell(row.mean_difference, decimals))
        .child(number("td", row.interval.as_ref().map_or_else(|| "–".into(), |range| span(range, decimals))))
        .child(cell(row.p_wilcoxon, 4))
        .child(cell(row.p_bootstrap, 4))
        .child(cell(row.rank_biserial, 2))
        .child(cell(row.cohens_dz, 2))
}
