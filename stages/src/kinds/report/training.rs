//! The section on how the networks were trained: one picture each, all on the same axes.

use super::curves::{self, Axes, NAMED_LABELS};
use super::figures::{count, fixed};
use super::markup::{Element, element, name};
use crate::artifacts::TrainingLog;
use std::collections::BTreeSet;

/// `None` without any training log.
pub(super) fn section(trainings: &[(String, TrainingLog)]) -> Option<Element> {
    if trainings.is_empty() {
        return None;
    }
    let axes = Axes::of(trainings.iter().map(|(_, log)| log));
    let figures = trainings.iter().map(|(training, log)| {
        element("figure").child(caption(training, log)).child(curves::draw(training, log, &axes))
    });
    let section = element("section").with("id", "training").child(element("h2").text("Training"));
    let section = section.child(element("p").text(introduction(trainings, &axes)));
    Some(section.child(element("div").class("panels").children(figures)))
}

fn introduction(trainings: &[(String, TrainingLog)], axes: &Axes) -> String {
    let mut text = format!("{} networks were trained; their curves share the same axes.", trainings.len());
    if trainings.len() == 1 {
        text = "One network was trained.".into();
    }
    if axes.have_dice() {
        text += " Validation Dice is the mean over the validation cases, of each label and of all labels; the dotted \
                 line marks the epoch where that of all is highest.";
    }
    if axes.have_auc() {
        text += " Validation AUC is the area under the ROC curve over the validation cases; the dotted line marks the epoch \
                 where it is highest.";
    }
    let labels = |log: &TrainingLog| log.dice.iter().map(|row| row.label).collect::<BTreeSet<_>>().len();
    if trainings.iter().any(|(_, log)| labels(log) > NAMED_LABELS) {
        text += " Thin lines are single labels.";
    }
    text
}

fn caption(training: &str, log: &TrainingLog) -> Element {
    let epochs = count(log.rows.len(), "epoch", "epochs");
    let outcome = match log.best() {
        Some((row, score)) => {
            let what = if row.validation_dice.is_some() { "mean Dice" } else { "AUC" };
            format!("{epochs}; highest {what} {} after epoch {}", fixed(score, 3), row.epoch)
        }
        None => format!("{epochs}, not validated"),
    };
    let broken = log.rows.iter().filter(|row| !row.loss.is_finite()).count();
    let broken = match broken {
        0 => String::new(),
        broken => format!("; the loss is no number in {}", count(broken, "epoch", "epochs")),
    };
    element("figcaption")
        .child(element("strong").child(name(training)))
        .child(element("br"))
        .text(outcome + &broken)
}
