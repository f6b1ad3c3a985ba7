//! The page around the sections: head, heading, order and footer.

use super::figures::count;
use super::markup::{Element, element, name};
use super::{Content, classes, data, method, results, training};
use crate::artifact::Artifact;
use crate::artifacts::{Metrics, Report};

const STYLE: &str = include_str!("style.css");
/// Even if something slipped through, nothing is run and nothing is loaded.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The whole page. The same content gives the same bytes: when it was made is told by the record of the run.
pub(super) fn html(content: &Content) -> String {
    let title = title(content);
    let sections: Vec<(&str, &str, Element)> =
        [
            content.classes.as_ref().map(|(metrics, mistakes)| {
                ("#classes", "Classification", classes::section(metrics, mistakes))
            }),
            content.metrics.as_ref().map(|metrics| {
                ("#results", "Results", results::section(metrics, content.inspection.as_ref()))
            }),
            content.inspection.as_ref().map(|inspection| ("#data", "Data", data::section(inspection))),
            training::section(&content.training).map(|section| ("#training", "Training", section)),
            Some(("#method", "Method", method::section(content))),
        ]
        .into_iter()
        .flatten()
        .collect();
    let links = sections.iter().map(|(target, name, _)| element("a").with("href", target).text(*name));
    let header = element("header")
        .child(element("h1").child(name(title)))
        .child(element("p").class("lead").text(lead(content)))
        .child(element("nav").children(links));
    let main = element("main").child(header).children(sections.into_iter().map(|(_, _, section)| section));
    let page = element("html")
        .with("lang", "en")
        .child(head(title))
        .child(element("body").child(main.child(footer())));
    let mut html = String::from("<!DOCTYPE html>\n");
    page.write(&mut html);
    html.push('\n');
    html
}

fn head(title: &str) -> Element {
    let meta = |name: &'static str, content: &'static str| {
        element("meta").with("name", name).with("content", content)
    };
    element("head")
        .child(element("meta").with("charset", "utf-8"))
        .child(element("meta").with("http-equiv", "Content-Security-Policy").with("content", POLICY))
        .child(meta("viewport", "width=device-width, initial-scale=1"))
        .child(meta("color-scheme", "light dark"))
        .child(element("title").text(title))
        .child(element("style").verbatim(STYLE))
}

fn title(content: &Content) -> &str {
    let dataset = content.inspection.as_ref().map(|inspection| inspection.summary.dataset.as_str());
    content
        .title
        .as_deref()
        .or(dataset.filter(|name| !name.trim().is_empty()))
        .unwrap_or(if content.metrics.is_some() { "Segmentation report" } else { "Classification report" })
}

/// What was done, in a sentence for each kind of scores.
fn lead(content: &Content) -> String {
    let classes = content.classes.as_ref().map(|(metrics, _)| {
        let summary = &metrics.summary;
        let cases = count(summary.cases, "case", "cases");
        format!(
            "Classification of {cases} into {}, scored against the true classes.",
            summary.classes.join(", ")
        )
    });
    let labels = content.metrics.as_ref().map(segmentation);
    classes.into_iter().chain(labels).collect::<Vec<_>>().join(" ")
}

fn segmentation(metrics: &Metrics) -> String {
    let summary = &metrics.summary;
    let networks = match summary.prediction.as_ref().map(|prediction| prediction.members.len()) {
        None => "unnamed networks".into(),
        Some(1) => "one network".into(),
        Some(number) => format!("an ensemble of {number} networks"),
    };
    format!(
        "Segmentation of {} by {networks}, scored against reference labels.",
        count(summary.cases, "case", "cases")
    )
}

fn footer() -> Element {
    let text = format!(
        "Report format {}. This page needs no other file and no network. Every value is in the tables that were \
         reported; when, where and from what it was made is in the record of the run.",
        Report::FORMAT
    );
    element("footer").child(element("p").text(text))
}
