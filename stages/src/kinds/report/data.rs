//! The section on what the data are: sizes, labels, intensities, advice, cases that stand out, and how they look.

use super::figures::{brief, count, fixed, percent};
use super::markup::{Element, caption, element, figure, name, number, prose, table};
use super::scale::Range;
use super::strip::{self, Axis, Row, WIDE};
use crate::artifacts::{Advice, CaseRow, Distribution, Inspection, Outlier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipe_metrics::summary::Summary;
use std::collections::{BTreeMap, BTreeSet};

/// Cases that stand out and are shown; the file has all.
const OUTLIERS: usize = 20;

pub(super) fn section(inspection: &Inspection) -> Element {
    let section = element("section").with("id", "data").child(element("h2").text("Data"));
    let section = section.child(facts(inspection));
    let section = section.children(labels(inspection)).children(advice(&inspection.summary.advice));
    let section = section.children(outliers(&inspection.summary.outliers)).children(lightbox(inspection));
    section.children(distributions(inspection))
}

fn facts(inspection: &Inspection) -> Element {
    let summary = &inspection.summary;
    let labelled = inspection.cases.iter().filter(|row| row.foreground_voxels.is_some()).count();
    let fact = |title: &str, text: Element| [element("dt").text(title), text];
    let plain = |text: String| element("dd").text(text);
    let mut list = element("dl").class("facts");
    if !summary.dataset.is_empty() {
        list = list.children(fact("Data set", element("dd").child(name(&summary.dataset))));
    }
    let mut cases = format!(
        "{} of {}",
        count(summary.cases, "case", "cases"),
        count(summary.patients, "patient", "patients")
    );
    // Images with classes need no label maps.
    if labelled > 0 || summary.classes.is_empty() {
        let labelled = if labelled == summary.cases { "all".into() } else { labelled.to_string() };
        cases += &format!(", {labelled} with a label map");
    }
    list = list.children(fact("Cases", plain(cases)));
    if !summary.classes.is_empty() {
        let class = |(class, cases): (&String, &usize)| format!("{class} {cases}");
        let classes: Vec<String> = summary.classes.iter().map(class).collect();
        list = list.children(fact("Classes", element("dd").child(name(&classes.join(", ")))));
    }
    if inspection.cases.is_empty() {
        return list;
    }
    let rows = &inspection.cases;
    let sizes = axes(rows, |row| [row.shape_z, row.shape_y, row.shape_x].map(|size| size as f64));
    let spacings = axes(rows, |row| [row.spacing_z_mm, row.spacing_y_mm, row.spacing_x_mm]);
    list = list.children(fact("Size (z × y × x)", plain(format!("{sizes} voxels"))));
    list = list.children(fact("Voxel (z × y × x)", plain(format!("{spacings} mm"))));
    list = list.children(fact("Orientation", element("dd").text(tally(rows, |row| row.orientation.clone()))));
    list = list.children(fact("Stored as", element("dd").text(tally(rows, |row| row.dtype.clone()))));
    let channels: BTreeSet<&str> = inspection.intensities.iter().map(|row| row.channel.as_str()).collect();
    for channel in channels {
        let own = inspection.intensities.iter().filter(|row| row.channel == channel);
        let (low, high) = own.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), row| {
            (low.min(row.min), high.max(row.max))
        });
        let maxima = Summary::of(&own.map(|row| row.max).collect::<Vec<_>>());
        let text = format!(
            ": {} to {} overall; the largest of a case is {} to {}, median {}",
            brief(low),
            brief(high),
            brief(maxima.min),
            brief(maxima.max),
            brief(maxima.median)
        );
        list = list.children(fact("Intensities", element("dd").child(name(channel)).text(text)));
    }
    list
}

/// The extent of each axis over the cases, `31–43 × 40–59 × 24–47`.
fn axes(rows: &[CaseRow], of: impl Fn(&CaseRow) -> [f64; 3]) -> String {
    let axis = |axis: usize| {
        let summary = Summary::of(&rows.iter().map(|row| of(row)[axis]).collect::<Vec<_>>());
        if summary.min == summary.max {
            brief(summary.min)
        } else {
            format!("{}–{}", brief(summary.min), brief(summary.max))
        }
    };
    [0, 1, 2].map(axis).join(" × ")
}

/// Every value and how many cases have it, the most frequent first.
fn tally(rows: &[CaseRow], of: impl Fn(&CaseRow) -> String) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(of(row)).or_default() += 1;
    }
    if counts.len() == 1 {
        return format!("{} in every case", counts.into_keys().collect::<String>());
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().map(|(value, count)| format!("{value} in {count}")).collect::<Vec<_>>().join(", ")
}

/// A table of the labels, and a plot of their volumes.
fn labels(inspection: &Inspection) -> Vec<Element> {
    if inspection.summary.labels.is_empty() {
        return Vec::new();
    }
    let columns = ["Label", "#Value", "#Cases", "#Share of voxels", "#In pieces"].map(String::from);
    let rows = inspection.summary.labels.iter().map(|label| {
        element("tr")
            .child(element("th").with("scope", "row").child(name(&label.name)))
            .child(number("td", label.label.to_string()))
            .child(number("td", label.cases.to_string()))
            .child(number("td", percent(label.voxel_share)))
            .child(number("td", label.in_pieces.to_string()))
    });
    let heading = element("h3").text("Labels");
    let content = element("div").class("headline").child(table(&columns, [element("tbody").children(rows)]));
    vec![heading, content.children(volumes(inspection))]
}

fn volumes(inspection: &Inspection) -> Option<Element> {
    let mut strips: BTreeMap<u8, Row> = BTreeMap::new();
    for row in inspection.labels.iter().filter(|row| row.voxels > 0) {
        let strip = strips.entry(row.label).or_insert_with(|| Row { name: &row.name, values: Vec::new() });
        strip.values.push((&row.case, row.ml));
    }
    let rows: Vec<Row> = strips.into_values().collect();
    let values = rows.iter().flat_map(|row| row.values.iter().map(|(_, value)| *value));
    let axis = Axis { title: "volume (ml)", range: Range::around(values, 5)?, decimals: 3, lowest: false };
    Some(figure(strip::draw(&rows, &axis, WIDE), caption("Volume of each label in the cases that have it.")))
}

fn advice(advice: &[Advice]) -> Vec<Element> {
    if advice.is_empty() {
        return Vec::new();
    }
    let row = |advice: &Advice| {
        element("tr")
            .child(element("th").with("scope", "row").text(&advice.about))
            .child(prose("td", &advice.advice))
            .child(prose("td", &advice.reason))
    };
    let columns = ["About", "Advice", "Because"].map(String::from);
    vec![
        element("h3").text("What follows for the pipeline"),
        table(&columns, [element("tbody").children(advice.iter().map(row))]),
    ]
}

/// Differences in kind first, then the largest distances.
fn outliers(outliers: &[Outlier]) -> Vec<Element> {
    let heading = element("h3").text("Cases that stand out");
    if outliers.is_empty() {
        return vec![heading, element("p").text("None.")];
    }
    let mut sorted: Vec<&Outlier> = outliers.iter().collect();
    let distance = |outlier: &Outlier| outlier.robust_z.map_or(f64::INFINITY, f64::abs);
    sorted.sort_by(|a, b| {
        distance(b).total_cmp(&distance(a)).then_with(|| (&a.case, &a.quantity).cmp(&(&b.case, &b.quantity)))
    });
    let row = |outlier: &&Outlier| {
        element("tr")
            .child(element("th").with("scope", "row").child(name(&outlier.case)))
            .child(prose("td", &outlier.reason))
            .child(number("td", outlier.robust_z.map_or_else(|| "–".into(), |z| fixed(z, 1))))
    };
    let columns = ["Case", "Why", "#Robust z"].map(String::from);
    let rows = sorted.iter().take(OUTLIERS).map(row);
    let cases: BTreeSet<&str> = outliers.iter().map(|outlier| outlier.case.as_str()).collect();
    let findings = count(outliers.len(), "finding", "findings");
    let shown = match outliers.len() {
        0..=OUTLIERS => String::new(),
        _ => format!(" The {OUTLIERS} strongest are shown; inspect.csv has all."),
    };
    let text = format!(
        "{findings} in {}.{shown} Robust z is the distance from the median in units of the scaled median absolute \
         deviation.",
        count(cases.len(), "case", "cases")
    );
    vec![heading, element("p").class("note").text(text), table(&columns, [element("tbody").children(rows)])]
}

fn lightbox(inspection: &Inspection) -> Vec<Element> {
    // Without a case there is nothing to look at.
    if !inspection.lightbox.contains("<image") {
        return Vec::new();
    }
    // An image cannot run scripts nor load anything, whatever the file holds.
    let picture = element("img")
        .with("src", format!("data:image/svg+xml;base64,{}", STANDARD.encode(&inspection.lightbox)))
        .with("alt", "Slices of some cases with the contours of their labels");
    let text = "The axial slice with the most foreground of some cases, with the contours of its labels; anterior is up, \
                the patient's right on the left. Names in orange stand out.";
    vec![
        element("h3").text("How the images look"),
        figure(element("div").class("scroll lightbox").child(picture), caption(text)),
    ]
}

/// Quartiles of everything that was measured; quantities that are equal in all cases are left to the facts.
fn distributions(inspection: &Inspection) -> Vec<Element> {
    let quantity = |(name, values): (&String, &Distribution)| {
        let Distribution { count, min, q1, median, q3, max } = *values;
        element("tr")
            .child(element("th").with("scope", "row").text(name))
            .child(number("td", count.to_string()))
            .children([min, q1, median, q3, max].map(|value| number("td", brief(value))))
    };
    let varied = inspection.summary.distributions.iter().filter(|(_, values)| values.min < values.max);
    let rows: Vec<Element> = varied.map(quantity).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let columns = ["Quantity", "#n", "#Min", "#Q1", "#Median", "#Q3", "#Max"].map(String::from);
    vec![
        element("h3").text("Distributions over the cases"),
        table(&columns, [element("tbody").children(rows)]),
        element("p").class("note").text("Quantities that are the same in every case are left out."),
    ]
}
