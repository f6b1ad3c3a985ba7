//! How every quantity is distributed over the cases: a histogram each, in one SVG file.

use super::outliers::{Judged, Quantity, brief};
use crate::kinds::svg::{sheet, text};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const COLUMNS: usize = 3;
/// One plot in pixels, its text included.
const SIZE: [f64; 2] = [300.0, 150.0];
/// The bars inside it: left, top, width, height.
const BARS: [f64; 4] = [14.0, 34.0, 272.0, 84.0];
const BINS: usize = 24;
/// A quantity that is compared by factor and spans more than this is drawn on a logarithmic axis.
const WIDE: f64 = 20.0;

/// Draws classes, if there are any, and all quantities that differ between cases; those that do not are one line each.
pub(super) fn draw(classes: &BTreeMap<String, usize>, quantities: &[Quantity]) -> String {
    let mut plots = Vec::new();
    if !classes.is_empty() {
        plots.push(class_bars(classes));
    }
    plots.extend(quantities.iter().filter_map(histogram));
    sheet(&plots, COLUMNS, SIZE)
}

fn bar(x: f64, width: f64, share: f64) -> String {
    let [_, top, _, height] = BARS;
    let tall = share * height;
    format!(
        "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"#4878a8\"/>\n",
        top + height - tall,
        (width - 1.0).max(0.5)
    )
}

fn baseline() -> String {
    let [left, top, width, height] = BARS;
    let (y, right) = (top + height, left + width);
    format!("<path d=\"M{left} {y}H{right}\" stroke=\"#888\"/>\n")
}

fn class_bars(classes: &BTreeMap<String, usize>) -> String {
    let [left, top, width, height] = BARS;
    let all: usize = classes.values().sum();
    let most = classes.values().copied().max().unwrap_or(1).max(1) as f64;
    let mut plot = text(left, 16.0, "start", &format!("cases by class ({all})"));
    let each = width / classes.len() as f64;
    for (index, (name, count)) in classes.iter().enumerate() {
        let x = left + index as f64 * each;
        plot += &bar(x + 0.1 * each, 0.8 * each, *count as f64 / most);
        let middle = x + each / 2.0;
        plot += &text(middle, top + height + 14.0, "middle", name);
        plot += &text(middle, top - 4.0, "middle", &count.to_string());
    }
    plot + &baseline()
}

/// `None` when no case has the quantity.
fn histogram(quantity: &Quantity) -> Option<String> {
    let all = quantity.distribution()?;
    let [left, top, width, height] = BARS;
    let title = format!("{} ({} cases)", quantity.name, all.count);
    if all.min == all.max {
        let same = format!("all {}", brief(all.min));
        return Some(text(left, 16.0, "start", &title) + &text(left, 50.0, "start", &same));
    }
    let logarithmic = quantity.judged == Judged::ByFactor && all.min > 0.0 && all.max / all.min > WIDE;
    let scaled = |value: f64| if logarithmic { value.log10() } else { value };
    let (low, high) = (scaled(all.min), scaled(all.max));
    let values = || quantity.values.iter().map(|(_, value)| *value);
    // Counts have a bar each, or every few bars would be empty.
    let counted = high - low < BINS as f64 && values().all(|value| value.fract() == 0.0);
    let count = if counted { (high - low) as usize + 1 } else { BINS };
    let place = |value: f64| {
        if counted {
            (value - low + 0.5) / count as f64
        } else {
            ((scaled(value) - low) / (high - low)).clamp(0.0, 1.0)
        }
    };
    let mut bins = vec![0_usize; count];
    for value in values() {
        bins[((place(value) * count as f64) as usize).min(count - 1)] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
    let mut plot = text(left, 16.0, "start", &title);
    let each = width / count as f64;
    for (index, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
        // One case among a thousand must be seen.
        plot += &bar(left + index as f64 * each, each, (*count as f64 / most).max(0.02));
    }
    let median = left + place(all.median) * width;
    let _ = writeln!(
        plot,
        "<path d=\"M{median:.1} {}V{}\" stroke=\"#d04030\" stroke-width=\"1.5\"/>",
        top - 4.0,
        top + height
    );
    plot += &text(left, top + height + 14.0, "start", &brief(all.min));
    let axis = if logarithmic { ", logarithmic" } else { "" };
    let middle = format!("median {}{axis}", brief(all.median));
    plot += &text(left + width / 2.0, top + height + 14.0, "middle", &middle);
    plot += &text(left + width, top + height + 14.0, "end", &brief(all.max));
    Some(plot + &baseline())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(judged: Judged, values: &[f64]) -> Quantity {
        let values = values.iter().enumerate().map(|(index, value)| (index.to_string(), *value)).collect();
        Quantity { name: "size <mm>".into(), judged, values }
    }

    /// Number of bars of a drawing.
    fn bars(svg: &str) -> usize {
        svg.matches("fill=\"#4878a8\"").count()
    }

    #[test]
    fn a_bar_stands_where_cases_are_and_nowhere_else() {
        let svg = draw(&BTreeMap::new(), &[quantity(Judged::ByDifference, &[0.0, 0.0, 12.0, 24.0])]);
        assert_eq!(bars(&svg), 3);
        // Counts from 0 to 24 are too many for a bar each: 25.
        assert!(
            svg.contains("width=\"10.3\"")
                && svg.contains("size &lt;mm> (4 cases)")
                && svg.contains("median 6<"),
            "{svg}"
        );
        roxmltree::Document::parse(&svg).expect("well-formed");
    }

    #[test]
    fn few_counts_have_a_bar_each() {
        let svg = draw(&BTreeMap::new(), &[quantity(Judged::Never, &[3.0, 4.0, 4.0, 6.0])]);
        assert_eq!(bars(&svg), 3);
        // Four bars fill 272 pixels.
        assert_eq!(svg.matches("width=\"67.0\"").count(), 3);
    }

    #[test]
    fn sizes_over_orders_of_magnitude_are_drawn_by_factor() {
        let values = [1.0, 10.0, 100.0, 1000.0];
        assert!(draw(&BTreeMap::new(), &[quantity(Judged::ByFactor, &values)]).contains("logarithmic"));
        assert!(!draw(&BTreeMap::new(), &[quantity(Judged::ByDifference, &values)]).contains("logarithmic"));
    }

    #[test]
    fn what_is_equal_in_all_cases_is_said_and_not_drawn() {
        let svg = draw(&BTreeMap::new(), &[quantity(Judged::ByDifference, &[3.0, 3.0])]);
        assert_eq!(bars(&svg), 0);
        assert!(svg.contains("all 3<"));
    }

    #[test]
    fn classes_have_a_bar_each_with_their_number() {
        let classes = BTreeMap::from([("normal".to_owned(), 30), ("pneumonia".to_owned(), 90)]);
        let svg = draw(&classes, &[]);
        assert_eq!(bars(&svg), 2);
        assert!(svg.contains("cases by class (120)") && svg.contains(">90<") && svg.contains(">pneumonia<"));
    }

    #[test]
    fn nothing_is_an_empty_picture() {
        let svg = draw(&BTreeMap::new(), &[quantity(Judged::Never, &[])]);
        assert_eq!(bars(&svg), 0);
        roxmltree::Document::parse(&svg).expect("well-formed");
    }
}
