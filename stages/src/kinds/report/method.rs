//! The section on how the figures came about: definitions, networks and the library that ran them.

use super::Content;
use super::figures::{count, metric_name, percent};
use super::markup::{Element, element, name, number, table};
use crate::artifacts::metrics::PredictionFacts;
use pipe_onnx::{Blend, Tiling};
use std::collections::BTreeMap;

pub(super) fn section(content: &Content) -> Element {
    let mut section = element("section").with("id", "method").child(element("h2").text("Method"));
    section = section.child(element("h3").text("Definitions"));
    if let Some((classes, _)) = &content.classes {
        let summary = &classes.summary;
        let is_figure = |key: &str| summary.metrics.iter().any(|figure| figure.metric == key);
        section = section.child(definitions(&summary.definitions, is_figure));
    }
    let Some(metrics) = &content.metrics else { return section };
    let summary = &metrics.summary;
    let is_metric = |key: &str| summary.metrics.iter().any(|metric| metric.metric == key);
    section = section.child(definitions(&summary.definitions, is_metric));
    section.children(summary.prediction.iter().flat_map(prediction))
}

/// The metrics first, then what holds for all of them.
fn definitions(texts: &BTreeMap<String, String>, is_metric: impl Fn(&str) -> bool) -> Element {
    let (metrics, general): (Vec<_>, Vec<_>) = texts.iter().partition(|(key, _)| is_metric(key));
    let entries = metrics.into_iter().chain(general);
    element("dl").children(entries.flat_map(|(key, text)| {
        let title = match key.as_str() {
            "mean_foreground_dice" => "Mean foreground Dice".into(),
            key => capitalised(&metric_name(key)),
        };
        [element("dt").text(title), element("dd").text(text)]
    }))
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn prediction(facts: &PredictionFacts) -> Vec<Element> {
    let total: f64 = facts.members.iter().map(|member| member.weight).sum();
    let rows = facts.members.iter().map(|member| {
        let digest = member.digest.to_string();
        let short: String = digest.chars().take(16).collect();
        element("tr")
            .child(element("td").child(name(&member.name)))
            .child(number("td", percent(member.weight / total)))
            .child(element("td").child(element("code").with("title", digest).text(short)))
    });
    let columns = ["Network", "#Weight", "blake3 of the ONNX file"].map(String::from);
    let mirrored = if facts.mirror {
        "every image was also predicted mirrored, and the results averaged"
    } else {
        "images were not mirrored"
    };
    let tiling = match facts.tiling {
        Tiling::Nnunet => "as in nnU-Net",
        Tiling::Monai => "as in MONAI",
    };
    let blend = match facts.blend {
        Blend::Gaussian => "most in its middle",
        Blend::Constant => "the same everywhere",
    };
    let text = format!(
        "{} predicted in patches that overlap by {}, laid {tiling}, each counted {blend}; {mirrored}. The networks ran in {} {}.",
        count(facts.members.len(), "network", "networks"),
        percent(facts.overlap),
        facts.runtime.name,
        facts.runtime.version,
    );
    vec![
        element("h3").text("Prediction"),
        element("p").text(text),
        table(&columns, [element("tbody").children(rows)]),
        element("p").class("note").text("Build of the library: ").child(name(&facts.runtime.build)),
    ]
}
