//! Strip plots: every value is a dot, with the quartiles below. One row a group, all on one axis.

use super::figures::{fixed, short};
use super::markup::{Element, element};
use super::scale::{Range, Scale, px};
use pipe_metrics::summary::Summary;
use std::collections::VecDeque;

pub(super) struct Row<'a> {
    pub(super) name: &'a str,
    /// Cases and values; those that are not finite are counted instead of drawn.
    pub(super) values: Vec<(&'a str, f64)>,
}

/// What is shown by the axis.
pub(super) struct Axis<'a> {
    /// With its unit.
    pub(super) title: &'a str,
    pub(super) range: Range,
    pub(super) decimals: usize,
    /// Whether the case with the lowest value of a row is named, where there is room.
    pub(super) lowest: bool,
}

/// Widths of a plot, in pixels: half of the page, or a third.
pub(super) const WIDE: f64 = 480.0;
pub(super) const NARROW: f64 = 320.0;
/// Width of the names of rows, and of the space at the other side.
const NAMES: f64 = 116.0;
const MARGIN: f64 = 14.0;
const TOP: f64 = 4.0;
const ROW: f64 = 54.0;
const BOTTOM: f64 = 36.0;
/// Middle and half height of the band of dots, from the top of a row.
const DOTS: (f64, f64) = (19.0, 13.0);
/// Middle and half height of the box, from the top of a row.
const BOX: (f64, f64) = (42.0, 5.0);
/// About the width of a character of the smaller text.
const CHARACTER: f64 = 6.0;

pub(super) fn draw(rows: &[Row<'_>], axis: &Axis<'_>, width: f64) -> Element {
    let scale = Scale { range: axis.range, start: NAMES + 6.0, end: width - MARGIN };
    let end = TOP + ROW * rows.len() as f64;
    let label = format!("{} of every case, by label", axis.title);
    let svg = element("svg")
        .with("viewBox", format!("0 0 {width} {}", px(end + BOTTOM)))
        .with("role", "img")
        .with("aria-label", label)
        .children(grid(&scale, axis, end));
    let place = |index: usize| TOP + ROW * index as f64;
    svg.children(rows.iter().enumerate().map(|(index, row)| draw_row(row, &scale, axis, place(index))))
}

/// Vertical lines at the ticks, their numbers and the title of the axis.
fn grid(scale: &Scale, axis: &Axis<'_>, end: f64) -> Vec<Element> {
    let mut parts = Vec::new();
    for (value, text) in scale.range.ticks() {
        let x = px(scale.place(value));
        parts.push(line("grid", (&x, &px(TOP)), (&x, &px(end))));
        parts.push(
            element("text")
                .class("tick")
                .with("x", x)
                .with("y", px(end + 15.0))
                .with("text-anchor", "middle")
                .text(text),
        );
    }
    let middle = px(f64::midpoint(scale.start, scale.end));
    parts.push(
        element("text")
            .with("x", middle)
            .with("y", px(end + 32.0))
            .with("text-anchor", "middle")
            .text(axis.title),
    );
    parts
}

fn draw_row(row: &Row<'_>, scale: &Scale, axis: &Axis<'_>, top: f64) -> Element {
    let [n, not_drawn] = notes(row);
    let text = |x: f64, y: f64| element("text").with("x", px(x)).with("y", px(top + y));
    let mut parts = element("g").children([
        text(0.0, 17.0).class("strong").text(short(row.name, 15)).child(element("title").text(row.name)),
        text(0.0, 32.0).class("tick").text(n),
        text(0.0, 46.0).class("tick").text(not_drawn),
    ]);
    let mut values: Vec<(&str, f64)> =
        row.values.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    values.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(b.0)));
    let Some((lowest, value)) = values.first() else { return parts };
    let radius = if values.len() > 150 { 2.0 } else { 3.0 };
    let places: Vec<f64> = values.iter().map(|(_, value)| scale.place(*value)).collect();
    for ((case, value), (x, shift)) in values.iter().zip(places.iter().zip(swarm(&places, radius))) {
        let dot = element("circle")
            .class("dot")
            .with("cx", px(*x))
            .with("cy", px(top + DOTS.0 + shift))
            .with("r", radius);
        let title = element("title").text(format!("{case}: {}", fixed(*value, axis.decimals)));
        // Shown while the pointer is above the dot.
        parts = parts.child(dot.child(title));
    }
    let x = places[0] - radius - 4.0;
    let room = ((x - scale.start) / CHARACTER) as usize;
    if axis.lowest && room >= lowest.chars().count() && *value < values[values.len() - 1].1 {
        parts = parts.child(text(x, DOTS.0 + 4.0).class("tick").with("text-anchor", "end").text(*lowest));
    }
    parts.child(quartiles(&values, scale, top + BOX.0))
}

/// The number of defined values, and of those that cannot be drawn.
fn notes(row: &Row<'_>) -> [String; 2] {
    let infinite = row.values.iter().filter(|(_, value)| value.is_infinite()).count();
    let undefined = row.values.iter().filter(|(_, value)| value.is_nan()).count();
    let not_drawn = match (undefined, infinite) {
        (0, 0) => String::new(),
        (_, 0) => format!("{undefined} undefined"),
        (0, _) => format!("{infinite} infinite"),
        _ => format!("{} not drawn", undefined + infinite),
    };
    [format!("n = {}", row.values.len() - undefined), not_drawn]
}

/// A box from the first to the third quartile with a line at the median, and whiskers to the extremes.
fn quartiles(values: &[(&str, f64)], scale: &Scale, middle: f64) -> Element {
    let summary = Summary::of(&values.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    let [min, q1, median, q3, max] =
        [summary.min, summary.q1, summary.median, summary.q3, summary.max].map(|value| scale.place(value));
    let y = px(middle);
    let whisker = |from: f64, to: f64| line("whisker", (&px(from), &y), (&px(to), &y));
    let (top, bottom) = (px(middle - BOX.1), px(middle + BOX.1));
    let quarters = element("rect")
        .class("box")
        .with("x", px(q1))
        .with("y", &top)
        .with("width", px((q3 - q1).max(0.5)))
        .with("height", px(BOX.1 * 2.0));
    element("g").children([
        whisker(min, q1),
        whisker(q3, max),
        quarters,
        line("median", (&px(median), &top), (&px(median), &bottom)),
    ])
}

/// How far each dot moves from the middle so that dots do not overlap, as long as there is room. `places` ascend.
fn swarm(places: &[f64], radius: f64) -> Vec<f64> {
    let steps = (DOTS.1 / radius) as i32;
    let free = |near: &VecDeque<(f64, f64)>, x: f64, shift: f64| {
        near.iter().all(|(other, moved)| {
            (x - other).powi(2) + (shift - moved).powi(2) >= 4.0 * radius * radius - 1e-9
        })
    };
    let mut near: VecDeque<(f64, f64)> = VecDeque::new();
    let mut shifts = Vec::with_capacity(places.len());
    for (index, x) in places.iter().enumerate() {
        while near.front().is_some_and(|(other, _)| x - other >= 2.0 * radius) {
            near.pop_front();
        }
        let outwards = (0..=steps).flat_map(|step| [step, -step]).map(|step| f64::from(step) * radius);
        // No room: in turn on all heights.
        let anywhere = || f64::from(index as i32 % (2 * steps + 1) - steps) * radius;
        let shift = outwards.into_iter().find(|shift| free(&near, *x, *shift)).unwrap_or_else(anywhere);
        near.push_back((*x, shift));
        shifts.push(shift);
    }
    shifts
}

pub(super) fn line(class: &'static str, from: (&str, &str), to: (&str, &str)) -> Element {
    element("line").class(class).with("x1", from.0).with("y1", from.1).with("x2", to.0).with("y2", to.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_do_not_overlap_while_there_is_room() {
        let mut places: Vec<f64> = (0..60).map(|index| f64::from(index * index % 97)).collect();
        places.sort_by(f64::total_cmp);
        let shifts = swarm(&places, 2.0);
        for (a, (x, shift)) in places.iter().zip(&shifts).enumerate() {
            assert!(shift.abs() <= DOTS.1, "{shift} leaves the band");
            for (other, moved) in places.iter().zip(&shifts).skip(a + 1) {
                let distance = (x - other).hypot(shift - moved);
                assert!(distance >= 4.0 - 1e-6, "dots at {x} and {other} are {distance} apart");
            }
        }
    }

    #[test]
    fn more_dots_than_fit_stay_in_the_band() {
        let shifts = swarm(&[100.0; 500], 2.0);
        assert!(shifts.iter().all(|shift| shift.abs() <= DOTS.1));
        // They take all heights, not one.
        assert!(shifts.iter().filter(|shift| **shift > 0.0).count() > 200);
    }

    #[test]
    fn values_that_cannot_be_drawn_are_counted() {
        let check = |values: &[f64], expected: [&str; 2]| {
            let values = values.iter().map(|value| ("case", *value)).collect();
            assert_eq!(notes(&Row { name: "liver", values }), expected);
        };
        check(&[0.5, 0.6], ["n = 2", ""]);
        check(&[0.5, f64::NAN, f64::NAN], ["n = 1", "2 undefined"]);
        check(&[0.5, f64::INFINITY], ["n = 2", "1 infinite"]);
        check(&[f64::NAN, f64::INFINITY], ["n = 1", "2 not drawn"]);
    }
}
