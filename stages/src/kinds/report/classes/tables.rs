//! Tables of figures: of all classes and of each, over the members, and against a baseline.

use super::super::figures::{count, fixed, metric_name, optional, percent};
use super::super::markup::{Element, element, name, number, table};
use super::super::results::span;
use crate::artifacts::class_metrics::{ClassFigure, ClassSummary};
use crate::artifacts::metrics::Interval;

fn range(interval: Option<&Interval>) -> String {
    interval.map_or_else(|| "–".into(), |range| span(range, 3))
}

/// Signed, so that it is seen which way it points.
fn difference(value: Option<f64>) -> String {
    match value {
        Some(value) if value > 0.0 => format!("+{}", fixed(value, 3)),
        other => optional(other, 3),
    }
}

fn p(value: Option<f64>) -> String {
    match value {
        Some(value) if value < 1e-4 => "< 0.0001".into(),
        Some(value) => fixed(value, 4),
        None => "–".into(),
    }
}

fn heading(text: &str) -> Element {
    element("h3").text(text)
}

fn note(text: String) -> Element {
    element("p").class("note").text(text)
}

pub(super) fn figures(summary: &ClassSummary) -> Vec<Element> {
    let interval = format!("#{} interval", percent(summary.confidence));
    let columns = ["Figure".to_owned(), "#Value".into(), interval.clone()];
    let row = |figure: &ClassFigure| {
        element("tr")
            .child(element("th").with("scope", "row").text(metric_name(&figure.metric)))
            .child(number("td", optional(figure.value, 3)))
            .child(number("td", range(figure.interval.as_ref())))
    };
    let of = |class: Option<&str>| -> Vec<Element> {
        summary.metrics.iter().filter(|figure| figure.class.as_deref() == class).map(row).collect()
    };
    let groups = summary.classes.iter().map(|class| {
        let title = element("th").with("scope", "rowgroup").with("colspan", 3).child(name(class));
        element("tbody").child(element("tr").class("group").child(title)).children(of(Some(class)))
    });
    let text = format!(
        "Intervals are from {} bootstrap samples of {}; the probability of a case decides for its most probable class.",
        summary.resamples,
        count(summary.patients, "patient", "patients")
    );
    let all = table(&columns, [element("tbody").children(of(None))]);
    let each = table(&["Class".into(), "#Value".into(), interval], groups);
    vec![heading("Figures"), element("div").class("headline").child(all).child(each), note(text)]
}

/// Nothing without members.
pub(super) fn members(summary: &ClassSummary) -> Vec<Element> {
    let Some(members) = &summary.members else { return Vec::new() };
    let interval = format!("#{} interval", percent(summary.confidence));
    let mut columns = vec!["Figure".to_owned()];
    columns.extend(members.names.iter().map(|name| format!("#{name}")));
    columns.extend(["#Mean", "#SD", "#This minus the mean", &interval].map(String::from));
    let rows = members.rows.iter().map(|row| {
        element("tr")
            .child(element("th").with("scope", "row").text(metric_name(&row.metric)))
            .children(row.values.iter().map(|value| number("td", optional(*value, 3))))
            .child(element("td").class("number strong").text(optional(row.mean, 3)))
            .child(number("td", optional(row.sd, 4)))
            .child(number("td", difference(row.difference)))
            .child(number("td", range(row.interval.as_ref())))
    });
    let text = format!(
        "The same cases by {}, each alone: what the training gives on average, and how much it depends on chance.",
        count(members.names.len(), "network", "networks")
    );
    vec![heading("Single networks"), table(&columns, [element("tbody").children(rows)]), note(text)]
}

/// Nothing without a baseline.
pub(super) fn comparison(summary: &ClassSummary) -> Vec<Element> {
    if summary.comparison.is_empty() {
        return Vec::new();
    }
    let interval = format!("#{} interval", percent(summary.confidence));
    let columns =
        ["Figure", "#This", "#Baseline", "#Difference", &interval, "#p (bootstrap)", "#p (test)", "Test"]
            .map(String::from);
    let rows = summary.comparison.iter().map(|row| {
        element("tr")
            .child(element("th").with("scope", "row").text(metric_name(&row.metric)))
            .child(number("td", optional(row.value, 3)))
            .child(number("td", optional(row.baseline, 3)))
            .child(number("td", difference(row.difference)))
            .child(number("td", range(row.interval.as_ref())))
            .child(number("td", p(row.p_bootstrap)))
            .child(number("td", row.test.as_ref().map_or_else(|| "–".into(), |test| p(test.p))))
            .child(element("td").text(row.test.as_ref().map_or("", |test| test.name.as_str())))
    });
    vec![
        heading("Compared with the baseline"),
        table(&columns, [element("tbody").children(rows)]),
        element("p").class("note").text(&summary.definitions["comparison"]),
    ]
}
