//! Curves of one training: validation Dice or AUC above, loss below, on the same axis of epochs.

use super::figures::short;
use super::markup::{Element, element};
use super::scale::{Range, Scale, px};
use super::strip::line;
use crate::artifacts::TrainingLog;
use std::collections::BTreeMap;

/// Axes that all trainings share, so that their pictures can be compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes {
    epochs: Range,
    /// `None` where nothing was validated.
    dice: Option<Range>,
    /// The same of classes of whole images.
    auc: Option<Range>,
    /// `None` where no loss is a number.
    loss: Option<Range>,
}

/// One line of a picture; epochs and values, where NaN interrupts the line.
struct Curve<'a> {
    /// Written at the end of the line, unless empty.
    name: &'a str,
    class: &'static str,
    points: Vec<(usize, f64)>,
}

const WIDTH: f64 = 320.0;
const LEFT: f64 = 38.0;
const RIGHT: f64 = 250.0;
/// Height of the title above a picture, and of the space below it.
const TITLE: f64 = 26.0;
const GAP: f64 = 14.0;
const DICE_HEIGHT: f64 = 120.0;
const LOSS_HEIGHT: f64 = 80.0;
const AXIS: f64 = 34.0;
/// Least distance between the names at the ends of two lines; half of it, between a name and the axis below.
const LINE_HEIGHT: f64 = 13.0;
/// With more labels, only their mean is named and coloured.
pub(super) const NAMED_LABELS: usize = 4;
const COLOURS: [&str; NAMED_LABELS] = ["curve c1", "curve c2", "curve c3", "curve c4"];

impl Axes {
    pub(super) fn of<'a>(logs: impl Iterator<Item = &'a TrainingLog> + Clone) -> Self {
        let rows = logs.clone().flat_map(|log| &log.rows);
        let dice = logs.flat_map(|log| &log.dice).filter_map(|row| row.dice);
        let dice = dice.chain(rows.clone().filter_map(|row| row.validation_dice));
        let loss = rows.clone().flat_map(|row| [Some(row.loss), row.validation_loss]).flatten();
        let shown = dice.clone().any(f64::is_finite);
        let auc = rows.clone().filter_map(|row| row.validation_auc);
        let ranked = auc.clone().any(f64::is_finite);
        Self {
            epochs: Range::of_counts(rows.map(|row| row.epoch).max().unwrap_or(1), 5),
            dice: Range::of_shares(dice, 5).filter(|_| shown),
            auc: Range::of_shares(auc, 5).filter(|_| ranked),
            loss: Range::around(loss, 3),
        }
    }

    pub(super) fn have_auc(&self) -> bool {
        self.auc.is_some()
    }

    pub(super) fn have_dice(&self) -> bool {
        self.dice.is_some()
    }
}

/// Draws the pictures of one training, as far as there is something to see.
pub(super) fn draw(name: &str, log: &TrainingLog, axes: &Axes) -> Element {
    let x = Scale { range: axes.epochs, start: LEFT, end: RIGHT };
    let mut top = 0.0;
    let mut parts = Vec::new();
    let pictures = [
        (axes.dice, DICE_HEIGHT, "validation Dice", dice_curves(log)),
        (axes.auc, DICE_HEIGHT, "validation AUC", auc_curves(log)),
        (axes.loss, LOSS_HEIGHT, "loss", loss_curves(log)),
    ];
    for (range, height, title, curves) in pictures {
        let Some(range) = range else { continue };
        let y = Scale { range, start: top + TITLE + height, end: top + TITLE };
        parts.push(picture(title, &curves, &x, &y, best(log)));
        top += TITLE + height + GAP;
    }
    parts.push(epoch_axis(&x, top - GAP));
    element("svg")
        .with("viewBox", format!("0 0 {WIDTH} {}", px(top - GAP + AXIS)))
        .with("role", "img")
        .with("aria-label", format!("Training curves of {name}"))
        .children(parts)
}

fn best(log: &TrainingLog) -> Option<(usize, f64)> {
    log.best().map(|(row, score)| (row.epoch, score))
}

fn dice_curves<'a>(log: &'a TrainingLog) -> Vec<Curve<'a>> {
    let mut labels: BTreeMap<u8, Curve> = BTreeMap::new();
    for row in &log.dice {
        let fresh = || Curve { name: &row.name, class: "", points: Vec::new() };
        labels.entry(row.label).or_insert_with(fresh).points.push((row.epoch, row.dice.unwrap_or(f64::NAN)));
    }
    let mean = log.rows.iter().filter_map(|row| Some((row.epoch, row.validation_dice?))).collect();
    let (several, named) = (labels.len() > 1, labels.len() <= NAMED_LABELS);
    let coloured = |(index, curve): (usize, Curve<'a>)| {
        if named {
            Curve { class: COLOURS[index], ..curve }
        } else {
            Curve { name: "", class: "curve other", ..curve }
        }
    };
    let mut curves: Vec<Curve> = labels.into_values().enumerate().map(coloured).collect();
    // With one label, the mean is that label.
    if several || curves.is_empty() {
        curves.push(Curve { name: "mean", class: "curve mean", points: mean });
    }
    curves
}

fn auc_curves(log: &TrainingLog) -> Vec<Curve<'_>> {
    let points = log.rows.iter().filter_map(|row| Some((row.epoch, row.validation_auc?))).collect();
    vec![Curve { name: "", class: "curve c1", points }]
}

fn loss_curves(log: &TrainingLog) -> Vec<Curve<'_>> {
    let training = log.rows.iter().map(|row| (row.epoch, row.loss)).collect();
    let validation: Vec<_> =
        log.rows.iter().filter_map(|row| Some((row.epoch, row.validation_loss?))).collect();
    let named = |name: &'static str| if validation.is_empty() { "" } else { name };
    vec![
        Curve { name: named("training"), class: "curve mean", points: training },
        Curve { name: named("validation"), class: "curve dashed", points: validation.clone() },
    ]
}

fn picture(title: &str, curves: &[Curve<'_>], x: &Scale, y: &Scale, best: Option<(usize, f64)>) -> Element {
    let mut parts = vec![element("text").with("x", 0).with("y", px(y.end - 12.0)).text(title)];
    for (value, text) in y.range.ticks() {
        let height = px(y.place(value));
        parts.push(line("grid", (&px(LEFT), &height), (&px(RIGHT), &height)));
        let tick =
            element("text").class("tick").with("x", px(LEFT - 6.0)).with("y", px(y.place(value) + 4.0));
        parts.push(tick.with("text-anchor", "end").text(text));
    }
    if let Some((epoch, _)) = best {
        let place = px(x.place(epoch as f64));
        parts.push(line("best", (&place, &px(y.start)), (&place, &px(y.end))));
    }
    parts.extend(curves.iter().flat_map(|curve| draw_curve(curve, x, y)));
    parts.extend(names(curves, y));
    element("g").children(parts)
}

fn draw_curve(curve: &Curve<'_>, x: &Scale, y: &Scale) -> Vec<Element> {
    let few = curve.points.len() <= 12;
    let mut parts = Vec::new();
    for run in curve.points.split(|(_, value)| !value.is_finite()).filter(|run| !run.is_empty()) {
        let places: Vec<(String, String)> =
            run.iter().map(|(epoch, value)| (px(x.place(*epoch as f64)), px(y.place(*value)))).collect();
        let points: Vec<String> = places.iter().map(|(x, y)| format!("{x},{y}")).collect();
        parts.push(element("polyline").class(curve.class).with("points", points.join(" ")));
        if few || run.len() == 1 {
            parts.extend(places.into_iter().map(|(x, y)| {
                element("circle").class(curve.class).with("cx", x).with("cy", y).with("r", "2.5")
            }));
        }
    }
    parts
}

/// The names of the curves beside their ends, moved apart where they would overlap.
fn names(curves: &[Curve<'_>], y: &Scale) -> Vec<Element> {
    let end = |curve: &Curve<'_>| {
        curve.points.iter().rev().find(|(_, value)| value.is_finite()).map(|(_, value)| *value)
    };
    let named = curves.iter().filter(|curve| !curve.name.is_empty());
    let mut ends: Vec<(f64, &Curve)> =
        named.filter_map(|curve| Some((y.place(end(curve)?), curve))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let places =
        apart(&ends.iter().map(|(place, _)| *place).collect::<Vec<_>>(), y.start - LINE_HEIGHT / 2.0);
    let text = |(place, (_, curve)): (f64, &(f64, &Curve))| {
        let name = element("text").class(curve.class).with("x", px(RIGHT + 7.0)).with("y", px(place + 4.0));
        name.text(short(curve.name, 10)).child(element("title").text(curve.name))
    };
    places.into_iter().zip(&ends).map(text).collect()
}

/// Moves ascending places at least a line apart, as little as it takes, and none below `lowest`.
fn apart(places: &[f64], lowest: f64) -> Vec<f64> {
    let mut moved = places.to_vec();
    for index in 1..moved.len() {
        moved[index] = moved[index].max(moved[index - 1] + LINE_HEIGHT);
    }
    let mut limit = lowest;
    for place in moved.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - LINE_HEIGHT;
    }
    moved
}

fn epoch_axis(x: &Scale, top: f64) -> Element {
    let mut parts = vec![line("axis", (&px(LEFT), &px(top)), (&px(RIGHT), &px(top)))];
    for (value, text) in x.range.ticks() {
        let place = px(x.place(value));
        parts.push(line("axis", (&place, &px(top)), (&place, &px(top + 4.0))));
        let tick = element("text").class("tick").with("x", place).with("y", px(top + 17.0));
        parts.push(tick.with("text-anchor", "middle").text(text));
    }
    let title = element("text").with("x", px(RIGHT + 16.0)).with("y", px(top + 17.0)).text("epoch");
    element("g").children(parts).child(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_a_line_between_them_and_stay_in_the_picture() {
        assert_eq!(apart(&[10.0, 12.0, 60.0], 100.0), [10.0, 23.0, 60.0]);
        assert_eq!(apart(&[98.0, 99.0, 100.0], 100.0), [74.0, 87.0, 100.0]);
        assert_eq!(apart(&[], 100.0), Vec::<f64>::new());
    }

    #[test]
    fn a_value_that_is_no_number_interrupts_the_line() {
        let points = vec![(1, 0.5), (2, 0.4), (3, f64::NAN), (4, 0.3)];
        let curve = Curve { name: "", class: "curve mean", points };
        let range = Range::of_counts(4, 4);
        let scale = Scale { range, start: 0.0, end: 1.0 };
        let mut html = String::new();
        for part in draw_curve(&curve, &scale, &scale) {
            part.write(&mut html);
        }
        assert_eq!((html.matches("<polyline").count(), html.matches("<circle").count()), (2, 3));
        assert!(!html.contains("NaN"), "{html}");
    }
}
