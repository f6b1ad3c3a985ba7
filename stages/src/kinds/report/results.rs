//! The section with the scores: the mean, every case of every label, the figures, and the lowest cases.

use super::figures::{count, decimals, fixed, metric_name, optional, percent};
use super::markup::{Element, caption, element, name, number, prose, table};
use super::scale::Range;
use super::strip::{self, Axis, NARROW, Row, WIDE};
use super::{comparison, ensemble};
use crate::artifacts::metrics::{Interval, LabelPresence};
use crate::artifacts::{Inspection, MetricRow, MetricSummary, Metrics, MetricsSummary};
use std::collections::{BTreeMap, BTreeSet};

const DICE: &str = "dice";
const HOW_TO_READ: &str =
    "A dot is a case. The box spans the quartiles and has a line at the median; whiskers reach the extremes.";
/// Cases in the list of the lowest.
const LOWEST: usize = 5;
/// With more labels, the list of the lowest cases names only the worst label of each.
const LABEL_COLUMNS: usize = 6;
/// Undefined values that are named one by one.
const NAMED: usize = 12;

pub(super) fn section(metrics: &Metrics, inspection: Option<&Inspection>) -> Element {
    let summary = &metrics.summary;
    let mut names = metric_names(summary);
    let mut section = element("section").with("id", "results").child(element("h2").text("Results"));
    let headline = element("div").class("headline").child(score(metrics));
    section = section.child(match names.iter().position(|metric| *metric == DICE) {
        Some(dice) => headline
            .children(strips(metrics, names.remove(dice), WIDE).map(|plot| plot.child(caption(HOW_TO_READ)))),
        None => headline,
    });
    if !summary.metrics.is_empty() {
        section = section.child(element("h3").text("Figures over the cases")).child(figures(summary));
        section = section.child(intervals_note(summary)).children(comparison::section(summary));
        section = section.children(ensemble::section(summary));
    }
    section = section.children(presence(summary));
    section = section.children(undefined(&metrics.rows));
    let others: Vec<Element> =
        names.into_iter().filter_map(|metric| strips(metrics, metric, NARROW)).collect();
    if !others.is_empty() {
        section = section.child(element("div").class("panels").children(others));
    }
    section.children(lowest(metrics, inspection))
}

/// Names of the metrics in the order of the summary; Dice first.
fn metric_names(summary: &MetricsSummary) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for metric in summary.metrics.iter().map(|summary| summary.metric.as_str()) {
        if !names.contains(&metric) {
            names.push(metric);
        }
    }
    names.sort_by_key(|metric| *metric != DICE);
    names
}

/// The mean foreground Dice in large, and what it is the mean of.
fn score(metrics: &Metrics) -> Element {
    let summary = &metrics.summary;
    let big = element("p").class("big").text(optional(summary.mean_foreground_dice, 3));
    let cases: BTreeSet<&str> = metrics.rows.iter().map(|row| row.case.as_str()).collect();
    let patients: BTreeSet<&str> = metrics.rows.iter().map(|row| row.patient.as_str()).collect();
    let scored = match cases.len() {
        0 => "No predicted case has a reference, so nothing could be scored.".into(),
        cases => format!(
            "{} of {}: {}.",
            count(cases, "case", "cases"),
            count(patients.len(), "patient", "patients"),
            part(summary)
        ),
    };
    let block = element("div").class("score").child(big);
    let block = block.child(element("p").class("what").text("mean foreground Dice"));
    let interval = summary.mean_foreground_dice_interval.as_ref().map(|range| {
        let percent = percent(summary.rules.confidence);
        element("p").class("what").text(format!("{percent} interval {}", span(range, 3)))
    });
    let block = block.children(interval).child(element("p").text(scored));
    if summary.without_reference.is_empty() {
        return block;
    }
    let without = &summary.without_reference;
    let text = format!(
        "{} predicted without a reference and not scored: ",
        count(without.len(), "more case was", "more cases were")
    );
    block
        .child(listed(element("p").class("note").text(text), without.iter().map(|case| name(case)).collect()))
}

/// Which cases these are, to complete a sentence.
fn part(summary: &MetricsSummary) -> String {
    let folds: Vec<String> = summary.folds.iter().map(ToString::to_string).collect();
    let validation = format!(
        "validation cases of fold{} {}, each predicted only by networks that were not trained on it",
        if folds.len() == 1 { "" } else { "s" },
        folds.join(", ")
    );
    match summary.part.as_str() {
        "test" => "the test set, held out from training".into(),
        "validation" => validation,
        "all" => format!("the test set, and {validation}"),
        other => other.to_owned(),
    }
}

/// A strip plot of one metric with a row for each label; `None` when no value can be drawn.
fn strips(metrics: &Metrics, metric: &str, width: f64) -> Option<Element> {
    let mut labels: BTreeMap<u8, Row> = BTreeMap::new();
    for row in metrics.rows.iter().filter(|row| row.metric == metric) {
        let strip = labels.entry(row.label).or_insert_with(|| Row { name: &row.name, values: Vec::new() });
        strip.values.push((&row.case, row.value.unwrap_or(f64::NAN)));
    }
    let rows: Vec<Row> = labels.into_values().collect();
    let values = || rows.iter().flat_map(|row| row.values.iter().map(|(_, value)| *value));
    let (title, range, lowest) = (&metric_name(metric), range(metrics, metric)?, !is_distance(metric));
    let axis = Axis { title, range, decimals: decimals(values()), lowest };
    Some(element("figure").child(strip::draw(&rows, &axis, width)))
}

/// Metrics between 0 and 1 share one range, so that their plots can be compared.
fn range(metrics: &Metrics, metric: &str) -> Option<Range> {
    let of = |metric: &str| {
        let own = metrics.rows.iter().filter(|row| row.metric == metric);
        own.filter_map(|row| row.value).filter(|value| value.is_finite()).collect::<Vec<f64>>()
    };
    let is_share =
        |metric: &str| !is_distance(metric) && of(metric).iter().all(|value| (0.0..=1.0).contains(value));
    let own = of(metric);
    if own.is_empty() || !is_share(metric) {
        return Range::around(own.into_iter(), 5);
    }
    let shares = metric_names(&metrics.summary).into_iter().filter(|metric| is_share(metric)).flat_map(of);
    Range::of_shares(shares, 5)
}

/// Distances have no upper end, and low ones are good.
fn is_distance(metric: &str) -> bool {
    metric.ends_with("_mm")
}

/// All figures of the summary, metric by metric.
fn figures(summary: &MetricsSummary) -> Element {
    let interval = format!("#{} interval", percent(summary.rules.confidence));
    let columns =
        ["Label", "#n", "#Undefined", "#Mean", &interval, "#SD", "#Min", "#Q1", "#Median", "#Q3", "#Max"]
            .map(String::from);
    let bodies = metric_names(summary).into_iter().map(|metric| {
        let own = || summary.metrics.iter().filter(|row| row.metric == metric);
        let decimals = decimals(own().filter_map(|row| row.max));
        let heading =
            element("th").with("scope", "rowgroup").with("colspan", columns.len()).text(metric_name(metric));
        let heading = element("tr").class("group").child(heading);
        element("tbody").child(heading).children(own().map(|row| figures_row(row, decimals)))
    });
    table(&columns, bodies)
}

fn figures_row(row: &MetricSummary, decimals: usize) -> Element {
    let cell = |value| number("td", optional(value, decimals));
    element("tr")
        .child(element("th").with("scope", "row").child(name(&row.name)))
        .child(number("td", row.n.to_string()))
        .child(number("td", row.undefined.to_string()))
        .child(cell(row.mean))
        .child(number("td", row.interval.as_ref().map_or_else(|| "–".into(), |range| span(range, decimals))))
        .children([row.sd, row.min, row.q1, row.median, row.q3, row.max].map(cell))
}

/// `0.861 to 0.903`: a dash would read as a minus.
pub(super) fn span(range: &Interval, decimals: usize) -> String {
    format!("{} to {}", fixed(range.low, decimals), fixed(range.high, decimals))
}

fn intervals_note(summary: &MetricsSummary) -> Element {
    let text = format!(
        "Intervals are of the mean, from {} bootstrap samples of {}.",
        summary.rules.resamples,
        count(summary.patients, "patient", "patients")
    );
    element("p").class("note").text(text)
}

/// How often a label was missed or made up, and how often the rule for that decided. Nothing where no mask is empty.
fn presence(summary: &MetricsSummary) -> Vec<Element> {
    let labels: Vec<_> =
        summary.labels.iter().filter(|label| label.missed + label.spurious + label.absent > 0).collect();
    if labels.is_empty() {
        return Vec::new();
    }
    let row = |label: &&LabelPresence| {
        let by_rule = |metric: &&MetricSummary| metric.label == label.label && metric.by_rule > 0;
        let rules = summary.metrics.iter().filter(by_rule);
        let rules: Vec<String> =
            rules.map(|metric| format!("{} {}", metric_name(&metric.metric), metric.by_rule)).collect();
        element("tr")
            .child(element("th").with("scope", "row").child(name(&label.name)))
            .children(
                [label.in_both, label.missed, label.spurious, label.absent]
                    .map(|cases| number("td", cases.to_string())),
            )
            .child(element("td").text(rules.join(", ")))
    };
    let columns =
        ["Label", "#In both", "#Missed", "#Made up", "#In neither", "Values by rule"].map(String::from);
    vec![
        element("h3").text("Empty masks"),
        table(&columns, [element("tbody").children(labels.iter().map(row))]),
        element("p").class("note").text(format!(
            "Where only one map has a label, distances are `{}`; where neither has it, values without a formula are `{}`.",
            summary.rules.empty, summary.rules.absent
        )),
    ]
}

/// Names the undefined values of Dice, which no figure shows. Nothing when there are none.
fn undefined(rows: &[MetricRow]) -> Option<Element> {
    let dice = || rows.iter().filter(|row| row.metric == DICE);
    let missing = |row: &&MetricRow| row.value.is_none_or(f64::is_nan);
    let all: Vec<&MetricRow> = dice().filter(missing).collect();
    if all.is_empty() {
        return None;
    }
    let text = format!(
        "Dice is undefined in {} of {}, which enter no figure: ",
        all.len(),
        count(dice().count(), "value", "values")
    );
    let item = |row: &&MetricRow| element("span").child(name(&row.name)).text(" of ").child(name(&row.case));
    Some(listed(element("p").class("note").text(text), all.iter().map(item).collect()))
}

/// Adds items with commas between them, the first of them only where there are many.
fn listed(mut element: Element, items: Vec<Element>) -> Element {
    let left_out = items.len().saturating_sub(NAMED);
    for (index, item) in items.into_iter().take(NAMED).enumerate() {
        element = if index > 0 { element.text(", ") } else { element };
        element = element.child(item);
    }
    element.text(if left_out > 0 { format!(" and {left_out} more.") } else { ".".into() })
}

/// A case and its Dice of each label.
struct Scored<'a> {
    case: &'a str,
    patient: &'a str,
    /// Mean over the labels that have one.
    mean: f64,
    labels: BTreeMap<u8, Option<f64>>,
}

/// The cases with the lowest mean Dice; nothing where no case has one.
fn lowest(metrics: &Metrics, inspection: Option<&Inspection>) -> Vec<Element> {
    let mut names: BTreeMap<u8, &str> = BTreeMap::new();
    let mut cases: BTreeMap<&str, Scored> = BTreeMap::new();
    for row in metrics.rows.iter().filter(|row| row.metric == DICE) {
        names.insert(row.label, &row.name);
        let fresh =
            || Scored { case: &row.case, patient: &row.patient, mean: f64::NAN, labels: BTreeMap::new() };
        let value = row.value.filter(|value| value.is_finite());
        cases.entry(&row.case).or_insert_with(fresh).labels.insert(row.label, value);
    }
    for scored in cases.values_mut() {
        let values: Vec<f64> = scored.labels.values().copied().flatten().collect();
        scored.mean = values.iter().sum::<f64>() / values.len() as f64;
    }
    let mut cases: Vec<Scored> = cases.into_values().filter(|scored| !scored.mean.is_nan()).collect();
    cases.sort_by(|a, b| a.mean.total_cmp(&b.mean).then(a.case.cmp(b.case)));
    if cases.is_empty() {
        return Vec::new();
    }
    let title = match cases.len() {
        0..=LOWEST => "All cases, the lowest mean Dice first".into(),
        _ => format!("The {LOWEST} cases with the lowest mean Dice"),
    };
    cases.truncate(LOWEST);
    let mut columns = vec!["Case".to_owned(), "Patient".into(), "#Mean".into()];
    match names.len() {
        0..=LABEL_COLUMNS => columns.extend(names.values().map(|name| format!("#{name}"))),
        _ => columns.push("Lowest label".into()),
    }
    columns.extend(inspection.map(|_| "In the inspection".into()));
    let rows = cases.iter().map(|case| lowest_row(case, &names, inspection));
    vec![element("h3").text(title), table(&columns, [element("tbody").children(rows)])]
}

fn lowest_row(scored: &Scored<'_>, names: &BTreeMap<u8, &str>, inspection: Option<&Inspection>) -> Element {
    let row = element("tr")
        .child(element("th").with("scope", "row").child(name(scored.case)))
        .child(element("td").child(name(scored.patient)))
        .child(number("td", fixed(scored.mean, 3)));
    let row = if names.len() <= LABEL_COLUMNS {
        row.children(
            names.keys().map(|label| number("td", optional(scored.labels.get(label).copied().flatten(), 3))),
        )
    } else {
        let defined = scored.labels.iter().filter_map(|(label, value)| Some((label, (*value)?)));
        let worst = defined.min_by(|a, b| a.1.total_cmp(&b.1));
        row.children(worst.map(|(label, value)| {
            element("td").child(name(names[label])).text(format!(" {}", fixed(value, 3)))
        }))
    };
    let remark = |inspection: &Inspection| {
        let found = inspection.cases.iter().find(|row| row.case == scored.case);
        let text = match found {
            Some(row) if row.outlier.is_empty() => "does not stand out",
            Some(row) => &row.outlier,
            None => "was not inspected",
        };
        prose("td", text).class("remark")
    };
    row.children(inspection.map(remark))
}
