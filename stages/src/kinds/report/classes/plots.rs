//! Square plots of shares against shares, and the confusion matrix.

use super::super::figures::{fixed, percent, short};
use super::super::markup::{Element, element};
use super::super::scale::{Range, Scale, px};
use super::super::strip::line;
use crate::artifacts::class_metrics::{ClassMetrics, ClassSummary, CurveRow};

const WIDTH: f64 = 320.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 8.0;
const SIDE: f64 = 250.0;
const BOTTOM: f64 = 40.0;
/// With more classes, curves are neither named nor coloured.
const NAMED: usize = 4;
const COLOURS: [&str; NAMED] = ["curve c1", "curve c2", "curve c3", "curve c4"];

/// Both axes from 0 to 1.
struct Square {
    x: Scale,
    y: Scale,
}

impl Square {
    fn new() -> Self {
        let range = Range::of_shares([0.0].into_iter(), 5).expect("a number was given");
        Self {
            x: Scale { range, start: LEFT, end: LEFT + SIDE },
            y: Scale { range, start: TOP + SIDE, end: TOP },
        }
    }

    fn frame(&self, title: &str, [x_title, y_title]: [&str; 2], parts: Vec<Element>) -> Element {
        let mut all = Vec::new();
        let (left, right) = (px(LEFT), px(LEFT + SIDE));
        let (top, bottom) = (px(TOP), px(TOP + SIDE));
        for (value, text) in self.x.range.ticks() {
            let (x, y) = (px(self.x.place(value)), px(self.y.place(value)));
            all.push(line("grid", (&x, &top), (&x, &bottom)));
            all.push(line("grid", (&left, &y), (&right, &y)));
            let tick = |x: &str, y: f64, anchor: &'static str| {
                element("text").class("tick").with("x", x).with("y", px(y)).with("text-anchor", anchor)
            };
            all.push(tick(&x, TOP + SIDE + 16.0, "middle").text(text.clone()));
            all.push(tick(&px(LEFT - 7.0), self.y.place(value) + 4.0, "end").text(text));
        }
        let middle = TOP + SIDE / 2.0;
        all.push(
            element("text")
                .with("x", px(LEFT + SIDE / 2.0))
                .with("y", px(TOP + SIDE + 34.0))
                .with("text-anchor", "middle")
                .text(x_title),
        );
        all.push(
            element("text")
                .with("transform", format!("translate(14 {}) rotate(-90)", px(middle)))
                .with("text-anchor", "middle")
                .text(y_title),
        );
        element("svg")
            .with("viewBox", format!("0 0 {WIDTH} {}", px(TOP + SIDE + BOTTOM)))
            .with("role", "img")
            .with("aria-label", title)
            .children(all)
            .children(parts)
    }

    fn place(&self, x: f64, y: f64) -> (String, String) {
        (px(self.x.place(x)), px(self.y.place(y)))
    }

    fn dotted(&self, from: (f64, f64), to: (f64, f64)) -> Element {
        let (from, to) = (self.place(from.0, from.1), self.place(to.0, to.1));
        line("best", (&from.0, &from.1), (&to.0, &to.1))
    }

    fn curve(&self, class: &'static str, points: &[(f64, f64)]) -> Element {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| {
                let (x, y) = self.place(*x, *y);
                format!("{x},{y}")
            })
            .collect();
        element("polyline").class(class).with("points", points.join(" "))
    }
}

/// The classes whose curves are drawn: of two only the second, for the first is its mirror image.
fn drawn(summary: &ClassSummary) -> &[String] {
    if summary.classes.len() == 2 { &summary.classes[1..] } else { &summary.classes }
}

fn colour(summary: &ClassSummary, index: usize) -> &'static str {
    if drawn(summary).len() > NAMED { "curve other" } else { COLOURS[index] }
}

fn points(rows: &[CurveRow], class: &str) -> Vec<(f64, f64)> {
    rows.iter().filter(|row| row.class == class).map(|row| (row.x, row.y)).collect()
}

/// The names of several classes in their colours, in a free corner.
fn legend(summary: &ClassSummary, bottom: f64) -> Vec<Element> {
    let classes = drawn(summary);
    if classes.len() < 2 || classes.len() > NAMED {
        return Vec::new();
    }
    let text = |(index, class): (usize, &String)| {
        let y = bottom - 16.0 * (classes.len() - 1 - index) as f64;
        let text = element("text").class(COLOURS[index]).with("x", px(LEFT + SIDE - 8.0)).with("y", px(y));
        text.with("text-anchor", "end").text(short(class, 24))
    };
    classes.iter().enumerate().map(text).collect()
}

pub(super) fn roc(metrics: &ClassMetrics) -> Element {
    let (square, summary) = (Square::new(), &metrics.summary);
    let mut parts = vec![square.dotted((0.0, 0.0), (1.0, 1.0))];
    for (index, class) in drawn(summary).iter().enumerate() {
        parts.push(square.curve(colour(summary, index), &points(&metrics.roc, class)));
    }
    parts.extend(legend(summary, TOP + SIDE - 10.0));
    square.frame("ROC curve", ["false positive rate", "true positive rate"], parts)
}

pub(super) fn precision_recall(metrics: &ClassMetrics) -> Element {
    let (square, summary) = (Square::new(), &metrics.summary);
    let mut parts = Vec::new();
    for (index, class) in drawn(summary).iter().enumerate() {
        let curve = points(&metrics.pr, class);
        // The loosest threshold takes every case: its precision is the share of the class.
        if let Some(&(_, share)) = curve.last() {
            parts.push(square.dotted((0.0, share), (1.0, share)));
        }
        // Average precision is the area below these steps.
        let mut steps = Vec::with_capacity(2 * curve.len());
        let mut before = 0.0;
        for (recall, precision) in curve {
            steps.extend([(before, precision), (recall, precision)]);
            before = recall;
        }
        parts.push(square.curve(colour(summary, index), &steps));
    }
    parts.extend(legend(summary, TOP + SIDE - 10.0));
    square.frame("Precision and recall", ["recall", "precision"], parts)
}

pub(super) fn reliability(metrics: &ClassMetrics, confidence: &str) -> Element {
    let square = Square::new();
    let mut parts = vec![square.dotted((0.0, 0.0), (1.0, 1.0))];
    let curve: Vec<(f64, f64)> =
        metrics.reliability.iter().map(|row| (row.confidence, row.observed)).collect();
    parts.push(square.curve("curve c1", &curve));
    let most = metrics.reliability.iter().map(|row| row.cases).max().unwrap_or(1) as f64;
    for row in &metrics.reliability {
        let (x, y) = square.place(row.confidence, row.observed);
        let radius = 2.5 + 4.5 * (row.cases as f64 / most).sqrt();
        let title = format!(
            "{} cases: predicted {}, observed {}",
            row.cases,
            percent(row.confidence),
            percent(row.observed)
        );
        let dot = element("circle").class("curve c1").with("cx", x).with("cy", y).with("r", px(radius));
        parts.push(dot.child(element("title").text(title)));
    }
    square.frame("Reliability of the probabilities", [confidence, "observed share"], parts)
}

/// A square a pair of classes: its number of cases, and the share of the true class as the depth of its colour.
pub(super) fn confusion(summary: &ClassSummary) -> Element {
    const NAMES: f64 = 120.0;
    const HEAD: f64 = 44.0;
    let count = summary.classes.len();
    let cell = (360.0 / count as f64).min(92.0);
    let (width, height) = (NAMES + cell * count as f64 + 8.0, HEAD + cell * count as f64 + 8.0);
    let text = |x: f64, y: f64, anchor: &'static str| {
        element("text").with("x", px(x)).with("y", px(y)).with("text-anchor", anchor)
    };
    let mut parts = vec![
        text(0.0, HEAD - 8.0, "start").class("tick").text("true class"),
        text(NAMES + cell * count as f64 / 2.0, 13.0, "middle").class("tick").text("predicted class"),
    ];
    let letters = |room: f64| ((room - 6.0) / 7.0).max(2.0) as usize;
    for (index, class) in summary.classes.iter().enumerate() {
        let middle = cell * (index as f64 + 0.5);
        let full = || element("title").text(class);
        parts
            .push(text(NAMES + middle, HEAD - 8.0, "middle").text(short(class, letters(cell))).child(full()));
        parts.push(
            text(NAMES - 8.0, HEAD + middle + 4.0, "end").text(short(class, letters(NAMES))).child(full()),
        );
    }
    for (truth, row) in summary.confusion.iter().enumerate() {
        let all = row.iter().sum::<u64>().max(1) as f64;
        for (predicted, &cases) in row.iter().enumerate() {
            let share = cases as f64 / all;
            let (x, y) = (NAMES + cell * predicted as f64, HEAD + cell * truth as f64);
            let rect = element("rect").class("cell").with("x", px(x + 1.0)).with("y", px(y + 1.0));
            let rect = rect.with("width", px(cell - 2.0)).with("height", px(cell - 2.0));
            parts.push(rect.with("fill-opacity", format!("{:.3}", 0.04 + 0.5 * share)));
            let (x, y) = (x + cell / 2.0, y + cell / 2.0);
            if cell < 44.0 {
                parts.push(text(x, y + 4.0, "middle").text(cases.to_string()));
            } else {
                parts.push(text(x, y, "middle").class("strong").text(cases.to_string()));
                parts.push(
                    text(x, y + 17.0, "middle").class("tick").text(format!("{} %", fixed(100.0 * share, 1))),
                );
            }
        }
    }
    element("svg")
        .with("viewBox", format!("0 0 {} {}", px(width), px(height)))
        .with("style", format!("max-width:{}px", px(width)))
        .with("role", "img")
        .with("aria-label", "Confusion matrix")
        .children(parts)
}
