//! The section on class probabilities: the area under the ROC curve, curves, decisions, figures, comparisons and the
//! strongest mistakes.

mod mistakes;
mod plots;
mod tables;

pub(super) use self::mistakes::Mistake;
use super::figures::{count, optional, percent};
use super::markup::{Element, caption, element, figure, name};
use super::results::span;
use crate::artifacts::class_metrics::{ClassFigure, ClassMetrics, ClassSummary};

pub(super) fn section(metrics: &ClassMetrics, mistakes: &[Mistake]) -> Element {
    let summary = &metrics.summary;
    let element = element("section").with("id", "classes").child(element("h2").text("Classification"));
    let headline = super::markup::element("div").class("headline").child(score(summary));
    let headline = headline.child(figure(
        plots::confusion(summary),
        caption("Cases by true and predicted class; darker is a larger share of the true class."),
    ));
    element
        .child(headline)
        .child(curves(metrics))
        .children(tables::figures(summary))
        .children(tables::members(summary))
        .children(tables::comparison(summary))
        .children(mistakes::section(metrics, mistakes))
}

/// The figure of all classes, if it was measured.
fn overall<'a>(summary: &'a ClassSummary, metric: &str) -> Option<&'a ClassFigure> {
    summary.metrics.iter().find(|figure| figure.metric == metric && figure.class.is_none())
}

/// The area under the ROC curve in large, and what it is of.
fn score(summary: &ClassSummary) -> Element {
    let area = overall(summary, "auc_roc");
    let what = match summary.classes.as_slice() {
        [_, positive] => {
            element("p").class("what").text("area under the ROC curve, of ").child(name(positive))
        }
        _ => element("p").class("what").text("area under the ROC curve, mean over the classes"),
    };
    let interval = area.and_then(|figure| figure.interval.as_ref()).map(|range| {
        let text = format!("{} interval {}", percent(summary.confidence), span(range, 3));
        element("p").class("what").text(text)
    });
    let scored = format!(
        "{} of {}.",
        count(summary.cases, "case", "cases"),
        count(summary.patients, "patient", "patients")
    );
    element("div")
        .class("score")
        .child(element("p").class("big").text(optional(area.and_then(|figure| figure.value), 3)))
        .child(what)
        .children(interval)
        .child(element("p").text(scored))
}

fn curves(metrics: &ClassMetrics) -> Element {
    let two = metrics.summary.classes.len() == 2;
    let confidence = if two { "predicted probability" } else { "probability of the predicted class" };
    let plots = [
        (plots::roc(metrics), "ROC curve: how many cases are found at what share of false alarms."),
        (
            plots::precision_recall(metrics),
            "Precision and recall; the dotted line is the share of the class.",
        ),
        (
            plots::reliability(metrics, confidence),
            "Reliability: on the dotted line, probabilities are what they say. \
          Larger dots hold more cases.",
        ),
    ];
    let figures = plots.into_iter().map(|(plot, text)| {
        let text = element("figcaption").text(text);
        element("figure").child(plot).child(text)
    });
    element("div").class("panels").children(figures)
}
