//! SVG files of several plots side by side.

use std::fmt::Write as _;

/// Plots of one size (width and height in pixels, their text included), row by row in `columns`, on white.
pub(crate) fn sheet(plots: &[String], columns: usize, [plot_width, plot_height]: [f64; 2]) -> String {
    let rows = plots.len().div_ceil(columns).max(1);
    let (width, height) = (columns as f64 * plot_width, rows as f64 * plot_height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, plot) in plots.iter().enumerate() {
        let (x, y) = ((index % columns) as f64 * plot_width, (index / columns) as f64 * plot_height);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{plot}</g>");
    }
    svg + "</svg>\n"
}

/// One line of text; `anchor` is `start`, `middle` or `end`.
pub(crate) fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(words))
}

/// Words as they may stand between two tags.
pub(crate) fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}
