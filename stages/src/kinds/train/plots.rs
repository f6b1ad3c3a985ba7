//! The curves of a training as one SVG file: losses, score, rate and gradient, and how the values of each layer spread.

use crate::artifacts::TrainingLog;
use crate::kinds::svg::{escaped, sheet, text};
use pipe_nn::Quantity;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const COLUMNS: usize = 2;
/// One plot in pixels, its text included.
const SIZE: [f64; 2] = [440.0, 220.0];
/// Where the lines are: left, top, width, height.
const AREA: [f64; 4] = [64.0, 30.0, 300.0, 150.0];
const COLOURS: [&str; 2] = ["#0072b2", "#c4500a"];
/// Values that spread over more than this factor get a logarithmic axis.
const WIDE: f64 = 30.0;
/// Of lines that are many and go from the first layer to the last: blue to orange.
const ENDS: [[f64; 3]; 2] = [[0.0, 114.0, 178.0], [214.0, 94.0, 0.0]];

/// A line: its name, and values at epochs; one that is no number is left out.
struct Line<'a> {
    name: &'a str,
    points: Vec<(usize, f64)>,
}

struct Plot<'a> {
    title: &'a str,
    lines: Vec<Line<'a>>,
    /// Lines are layers in order, too many to be named.
    layers: bool,
}

/// Draws everything that has a value.
pub(super) fn draw(log: &TrainingLog) -> String {
    let column = |name, value: &dyn Fn(&crate::artifacts::EpochRow) -> Option<f64>| Line {
        name,
        points: log.rows.iter().filter_map(|row| Some((row.epoch, value(row)?))).collect(),
    };
    let plain = |title, lines| Plot { title, lines, layers: false };
    let plots = [
        plain(
            "loss",
            vec![column("training", &|row| Some(row.loss)), column("validation", &|row| row.validation_loss)],
        ),
        plain("validation Dice", vec![column("", &|row| row.validation_dice)]),
        plain("validation AUC", vec![column("", &|row| row.validation_auc)]),
        plain("learning rate", vec![column("", &|row| Some(row.learning_rate))]),
        plain("norm of the gradient", vec![column("", &|row| Some(row.gradient_norm))]),
        Plot {
            title: "variance of activations",
            lines: layers(log, Quantity::Activation, |row| row.variance),
            layers: true,
        },
        Plot {
            title: "mean of activations",
            lines: layers(log, Quantity::Activation, |row| row.mean),
            layers: true,
        },
        Plot {
            title: "variance of gradients",
            lines: layers(log, Quantity::Gradient, |row| row.variance),
            layers: true,
        },
    ];
    let epochs = log.rows.last().map_or(1, |row| row.epoch).max(2);
    let drawn: Vec<String> = plots.into_iter().filter_map(|plot| plot.draw(epochs)).collect();
    sheet(&drawn, COLUMNS, SIZE)
}

/// A line for each layer, in the order of the network.
fn layers(
    log: &TrainingLog,
    quantity: Quantity,
    value: impl Fn(&crate::artifacts::training_log::LayerRow) -> f64,
) -> Vec<Line<'_>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in log.layers.iter().filter(|row| row.quantity == quantity) {
        let place = *places.entry(&row.layer).or_insert_with(|| {
            lines.push(Line { name: &row.layer, points: Vec::new() });
            lines.len() - 1
        });
        lines[place].points.push((row.epoch, value(row)));
    }
    lines
}

impl Plot<'_> {
    /// `None` where no line has a value.
    fn draw(mut self, epochs: usize) -> Option<String> {
        for line in &mut self.lines {
            line.points.retain(|(_, value)| value.is_finite());
        }
        self.lines.retain(|line| !line.points.is_empty());
        let values = || self.lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
        let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        let logarithmic = low > 0.0 && high / low > WIDE;
        let scaled = |value: f64| if logarithmic { value.log10() } else { value };
        let (bottom, top) = (scaled(low), scaled(high));
        let (bottom, top) = if top > bottom { (bottom, top) } else { (bottom - 0.5, top + 0.5) };
        let [left, upper, width, height] = AREA;
        let x = |epoch: usize| left + (epoch - 1) as f64 / (epochs - 1) as f64 * width;
        let y = |value: f64| upper + height - (scaled(value) - bottom) / (top - bottom) * height;
        let (right, lower) = (left + width, upper + height);
        let scale = if logarithmic { " (logarithmic)" } else { "" };
        let mut svg = text(left, 18.0, "start", &format!("{}{scale}", self.title));
        let _ = writeln!(svg, "<path d=\"M{left} {upper}V{lower}H{right}\" fill=\"none\" stroke=\"#888\"/>");
        for (value, place) in [(top, upper + 8.0), (bottom, lower)] {
            let value = if logarithmic { 10.0_f64.powf(value) } else { value };
            svg += &text(left - 6.0, place, "end", &brief(value));
        }
        svg += &text(left, lower + 16.0, "middle", "1");
        svg += &text(right, lower + 16.0, "middle", &format!("{epochs} epochs"));
        let count = self.lines.len();
        for (index, line) in self.lines.iter().enumerate() {
            let colour = if self.layers { between(index, count) } else { COLOURS[index % 2].to_owned() };
            let points =
                line.points.iter().map(|(epoch, value)| format!("{:.1},{:.1}", x(*epoch), y(*value)));
            let points = points.collect::<Vec<_>>().join(" ");
            let name = escaped(line.name);
            let _ = writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"><title>{name}</title></polyline>"
            );
            // A single point is no line.
            if let [(epoch, value)] = line.points[..] {
                let (x, y) = (x(epoch), y(value));
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\"/>");
            }
            if !self.layers && count > 1 {
                svg += &text(right + 6.0, upper + 10.0 + 14.0 * index as f64, "start", line.name)
                    .replace("<text ", &format!("<text fill=\"{colour}\" "));
            }
        }
        if self.layers {
            let ends = [(0, "first layer"), (count - 1, "last layer")];
            for (row, (index, words)) in ends.into_iter().enumerate() {
                let colour = between(index, count);
                svg += &text(right + 6.0, upper + 10.0 + 14.0 * row as f64, "start", words)
                    .replace("<text ", &format!("<text fill=\"{colour}\" "));
            }
        }
        Some(svg)
    }
}

/// The colour of one of many.
fn between(index: usize, count: usize) -> String {
    let share = index as f64 / (count - 1).max(1) as f64;
    let part = |channel: usize| (ENDS[0][channel] * (1.0 - share) + ENDS[1][channel] * share).round();
    format!("rgb({},{},{})", part(0), part(1), part(2))
}

/// Three significant digits.
fn brief(value: f64) -> String {
    if value == 0.0 || (1e-2..1e4).contains(&value.abs()) {
        let digits = (2 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 4);
        return format!("{value:.*}", digits as usize);
    }
    format!("{value:.1e}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::EpochRow;
    use crate::artifacts::training_log::LayerRow;

    fn log(losses: &[f64]) -> TrainingLog {
        let rows = losses.iter().enumerate().map(|(index, loss)| EpochRow {
            epoch: index + 1,
            loss: *loss,
            learning_rate: 0.01,
            gradient_norm: 1.0,
            validation_loss: (index == 1).then_some(0.5),
            validation_dice: None,
            validation_accuracy: None,
            validation_auc: None,
        });
        let layer = |epoch, layer: &str, variance| LayerRow {
            epoch,
            layer: layer.into(),
            quantity: Quantity::Activation,
            mean: 0.0,
            variance,
            zeros: 0.0,
        };
        let layers =
            vec![layer(1, "a<b", 1.0), layer(1, "c", 1e-3), layer(2, "a<b", 2.0), layer(2, "c", 1e-4)];
        TrainingLog { rows: rows.collect(), layers, ..TrainingLog::default() }
    }

    #[test]
    fn what_was_measured_is_drawn_and_nothing_else() {
        let svg = draw(&log(&[1.0, f64::NAN, 0.25]));
        roxmltree::Document::parse(&svg).expect("an SVG file");
        for title in
            ["loss", "learning rate", "norm of the gradient", "variance of activations (logarithmic)"]
        {
            assert!(svg.contains(&format!(">{title}</text>")), "{title} in {svg}");
        }
        assert!(!svg.contains("Dice") && !svg.contains("variance of gradients") && !svg.contains("NaN"));
        // Training and validation loss, rate, norm, two layers of variance and of mean.
        assert_eq!(svg.matches("<polyline").count(), 8);
        assert!(svg.contains("<title>a&lt;b</title>"));
        // The first and the last epoch at the ends of the axis, the larger loss on top.
        assert!(svg.contains("<polyline points=\"64.0,30.0 364.0,180.0\""), "{svg}");
    }

    #[test]
    fn a_training_without_epochs_is_an_empty_picture() {
        assert!(!draw(&TrainingLog::default()).contains("polyline"));
    }
}
